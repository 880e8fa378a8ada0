//! What may be remembered of translations and what may not: INVLPG, CR3, PCID, INVPCID, global
//! pages (SDM 3A, 5.10).

use iced_x86::code_asm::*;
use riad_cpu::x86::cr4;

use super::machine::{DATA, Guest};
use super::tables::{G, P, RW, Tables};

const FAR: u64 = 0x12_3456_7000;
const OLD: u64 = 111;
const NEW: u64 = 222;

/// [`FAR`] leads to a page that holds [`OLD`]; RSI is its entry, RDI what leads to [`NEW`] instead.
fn guest(flags: u64) -> Guest {
    let mut guest = Guest::long();
    guest.poke(DATA, OLD);
    guest.poke(DATA + 0x1000, NEW);
    guest.tables.map(FAR, DATA | P | RW | flags);
    guest.state.gpr[3] = FAR;
    guest.state.gpr[6] = guest.tables.entry(FAR, 1);
    guest.state.gpr[7] = (DATA + 0x1000) | P | RW | flags;
    guest
}

/// Reads, changes the entry, invalidates in this way, reads again.
fn seen_after(
    mut guest: Guest,
    invalidate: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
) -> u64 {
    guest.program_finishes(|a| {
        a.mov(r8, qword_ptr(rbx))?;
        a.mov(qword_ptr(rsi), rdi)?;
        invalidate(a)?;
        a.mov(r9, qword_ptr(rbx))
    });
    assert_eq!(guest.state.gpr[8], OLD);
    guest.state.gpr[9]
}

#[test]
fn without_invalidation_either_translation_may_be_used() {
    // SDM 3A, 5.10.2.3: nothing else, such as half of each.
    let seen = seen_after(guest(0), |a| a.nop());
    assert!(seen == OLD || seen == NEW);
}

#[test]
fn invlpg_forgets_a_page_global_or_not() {
    assert_eq!(seen_after(guest(0), |a| a.invlpg(byte_ptr(rbx))), NEW);
    assert_eq!(seen_after(guest(G), |a| a.invlpg(byte_ptr(rbx + 0xfff))), NEW);
}

#[test]
fn loading_cr3_forgets_pages_that_are_not_global() {
    let reload = |a: &mut CodeAssembler| {
        a.mov(rax, cr3)?;
        a.mov(cr3, rax)
    };
    assert_eq!(seen_after(guest(0), reload), NEW);
}

#[test]
fn changing_cr4_pge_forgets_global_pages_too() {
    let mut with = guest(G);
    with.state.control.cr4 |= cr4::PGE;
    let seen = seen_after(with, |a| {
        a.mov(rax, cr4)?;
        a.btc(rax, 7)?;
        a.mov(cr4, rax)
    });
    assert_eq!(seen, NEW);
}

#[test]
fn invlpg_anywhere_in_a_large_page_forgets_all_of_it() {
    // SDM 3A, 5.10.4.1: however the processor cut it up.
    let base = 0x50_0000_0000;
    let mut guest = Guest::long();
    guest.tables.map_large(base, 2, P | RW);
    guest.poke(DATA, OLD);
    guest.poke(0x60_0000 + DATA, NEW);
    guest.state.gpr[3] = base + DATA;
    guest.state.gpr[6] = guest.tables.entry(base, 2);
    guest.state.gpr[7] = 0x60_0000 | P | RW | super::tables::PS;
    assert_eq!(seen_after(guest, |a| a.invlpg(byte_ptr(rbx + 0x10_0000))), NEW);
}

#[test]
fn a_page_that_becomes_present_needs_no_invalidation() {
    // SDM 3A, 5.10.2.3: absence is not remembered.
    let mut guest = guest(0);
    guest.poke(guest.state.gpr[6], 0);
    let handler = 0x1_8000;
    guest.gate64(14, handler, 0x8e, 0);
    guest.code(handler, 64, |a| {
        a.inc(r10)?;
        a.mov(qword_ptr(rsi), rdi)?;
        a.add(rsp, 8)?;
        a.iretq()
    });
    guest.program_finishes(|a| a.mov(r9, qword_ptr(rbx)));
    assert_eq!((guest.state.gpr[9], guest.state.gpr[10]), (NEW, 1));
}

#[test]
fn a_fault_forgets_what_led_to_it() {
    // SDM 3A, 5.10.4.1: after more rights were given in memory, a fault may come once, not twice.
    let mut guest = guest(0);
    let entry = guest.state.gpr[6];
    guest.poke(entry, DATA | P);
    guest.state.gpr[7] = DATA | P | RW;
    let handler = 0x1_8000;
    guest.gate64(14, handler, 0x8e, 0);
    guest.code(handler, 64, |a| {
        a.inc(r10)?;
        a.add(rsp, 8)?;
        a.iretq()
    });
    guest.program_finishes(|a| {
        a.mov(r8, qword_ptr(rbx))?;
        a.mov(qword_ptr(rsi), rdi)?;
        a.mov(qword_ptr(rbx), r8)
    });
    assert!(guest.state.gpr[10] <= 1);
}

#[test]
fn four_thousand_flushes_leave_no_old_translation_alive() {
    // The TLB numbers its flushes in twelve bits.
    let mut guest = guest(0);
    guest.program_finishes(|a| {
        let mut again = a.create_label();
        a.mov(r8, qword_ptr(rbx))?;
        a.mov(qword_ptr(rsi), rdi)?;
        a.mov(ecx, 4093)?;
        a.mov(rax, cr3)?;
        a.set_label(&mut again)?;
        a.mov(cr3, rax)?;
        a.mov(r9, qword_ptr(rbx))?;
        a.cmp(r9, NEW as i32)?;
        let mut good = a.create_label();
        a.je(good)?;
        a.inc(r10)?;
        a.set_label(&mut good)?;
        a.dec(ecx)?;
        a.jne(again)?;
        // Back to where the numbers began, with the old page in place.
        a.lea(rdi, qword_ptr(rdi - 0x1000))?;
        a.mov(qword_ptr(rsi), rdi)?;
        a.mov(cr3, rax)?;
        a.mov(r11, qword_ptr(rbx))?;
        a.mov(cr3, rax)?;
        a.mov(cr3, rax)?;
        a.mov(cr3, rax)?;
        a.mov(cr3, rax)?;
        a.mov(r12, qword_ptr(rbx))
    });
    assert_eq!(guest.state.gpr[10], 0);
    assert_eq!((guest.state.gpr[11], guest.state.gpr[12]), (OLD, OLD));
}

// --- process-context identifiers (SDM 3A, 5.10.1) ---

/// Two address spaces with PCID 1 and 2, that differ in [`FAR`]: [`OLD`] in 1, [`NEW`] in 2. The
/// processor is in 1; R14 and R15 are their CR3s; RSI is the entry in 1, RBP the one in 2.
fn spaces() -> Guest {
    let mut guest = Guest::long();
    guest.poke(DATA, OLD);
    guest.poke(DATA + 0x1000, NEW);
    let first = guest.tables.root;
    let second = guest.tables.table();
    // They share everything but FAR's part.
    // FAR lies in the same 512 GiB as RAM: the second space has a copy of the third level.
    guest.tables.map(FAR, DATA | P | RW);
    let pointers = guest.tables.table();
    for n in 0..512 {
        let entry = guest.peek((guest.peek(first) & 0xf_ffff_f000) + n * 8);
        guest.poke(pointers + n * 8, if n == FAR >> 30 & 0x1ff { 0 } else { entry });
    }
    guest.poke(second, pointers | 7);
    let entry = guest.tables.entry_in(second, FAR, 1);
    guest.poke(entry, (DATA + 0x1000) | P | RW);
    guest.state.control.cr4 |= cr4::PCIDE;
    guest.state.control.cr3 = first | 1;
    guest.state.gpr[3] = FAR;
    guest.state.gpr[5] = entry;
    guest.state.gpr[6] = guest.tables.entry(FAR, 1);
    guest.state.gpr[14] = first | 1;
    guest.state.gpr[15] = second | 2;
    guest
}

#[test]
fn address_spaces_do_not_see_each_others_pages() {
    let mut guest = spaces();
    guest.program_finishes(|a| {
        a.mov(r8, qword_ptr(rbx))?;
        a.bts(r15, 63)?;
        a.mov(cr3, r15)?;
        a.mov(r9, qword_ptr(rbx))?;
        a.bts(r14, 63)?;
        a.mov(cr3, r14)?;
        a.mov(r10, qword_ptr(rbx))?;
        a.mov(r11, cr3)
    });
    assert_eq!(guest.state.gpr[8..11], [OLD, NEW, OLD]);
    assert_eq!(guest.state.gpr[11], Tables::FIRST | 1, "bit 63 is not kept");
}

#[test]
fn loading_cr3_without_bit_63_forgets_that_space() {
    let mut guest = spaces();
    guest.state.gpr[7] = (DATA + 0x1000) | P | RW;
    guest.program_finishes(|a| {
        a.mov(r8, qword_ptr(rbx))?;
        a.bts(r15, 63)?;
        a.mov(cr3, r15)?;
        // Change space 1 from within 2, then go there and forget it.
        a.mov(qword_ptr(rsi), rdi)?;
        a.mov(cr3, r14)?;
        a.mov(r9, qword_ptr(rbx))
    });
    assert_eq!(guest.state.gpr[8..10], [OLD, NEW]);
}

/// Changes space 2 from within 1, with INVPCID of this type and descriptor, then goes there keeping
/// what is remembered.
fn after_invpcid(kind: u64, pcid: u64, address: u64) -> u64 {
    let mut guest = spaces();
    guest.poke(DATA + 0x2000, pcid);
    guest.poke(DATA + 0x2008, address);
    guest.state.gpr[7] = DATA | P | RW;
    guest.state.gpr[12] = DATA + 0x2000;
    guest.state.gpr[13] = kind;
    guest.program_finishes(|a| {
        a.bts(r15, 63)?;
        a.bts(r14, 63)?;
        a.mov(cr3, r15)?;
        a.mov(r8, qword_ptr(rbx))?;
        a.mov(cr3, r14)?;
        a.mov(qword_ptr(rbp), rdi)?;
        a.invpcid(r13, xmmword_ptr(r12))?;
        a.mov(cr3, r15)?;
        a.mov(r9, qword_ptr(rbx))
    });
    assert_eq!(guest.state.gpr[8], NEW);
    guest.state.gpr[9]
}

#[test]
fn invpcid_forgets_an_address_a_space_or_everything() {
    // SDM 2A, INVPCID.
    assert_eq!(after_invpcid(0, 2, FAR), OLD, "one address of one space");
    assert_eq!(after_invpcid(1, 2, 0), OLD, "one space");
    assert_eq!(after_invpcid(2, 0, 0), OLD, "all, global pages too");
    assert_eq!(after_invpcid(3, 0, 0), OLD, "all but global pages");
}

#[test]
fn invpcid_refuses_what_it_does_not_know() {
    for (kind, pcid, address) in [(4, 0, 0), (1, 0x1000, 0), (0, 1, 1 << 63)] {
        let mut guest = spaces();
        guest.poke(DATA + 0x2000, pcid);
        guest.poke(DATA + 0x2008, address);
        guest.state.gpr[12] = DATA + 0x2000;
        guest.state.gpr[13] = kind;
        let trap = guest.program_traps(|a| a.invpcid(r13, xmmword_ptr(r12)));
        assert_eq!(trap.what(), (13, Some(0)), "type {kind}, {pcid:#x}, {address:#x}");
    }
    // Without CR4.PCIDE there is only PCID 0.
    let mut guest = Guest::long();
    guest.poke(DATA, 1);
    guest.state.gpr[3] = DATA;
    guest.state.gpr[1] = 1;
    let trap = guest.program_traps(|a| a.invpcid(rcx, xmmword_ptr(rbx)));
    assert_eq!(trap.what(), (13, Some(0)));
}

#[test]
fn many_address_spaces_stay_apart() {
    // More of them than are remembered.
    let mut guest = spaces();
    guest.program_finishes(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 3)?;
        a.set_label(&mut again)?;
        for pcid in 3..40 {
            a.mov(rax, r15)?;
            a.and(rax, !0xfff)?;
            a.or(rax, pcid)?;
            a.bts(rax, 63)?;
            a.mov(cr3, rax)?;
            a.add(r8, qword_ptr(rbx))?;
            a.mov(rax, r14)?;
            a.bts(rax, 63)?;
            a.mov(cr3, rax)?;
            a.add(r9, qword_ptr(rbx))?;
        }
        a.dec(ecx)?;
        a.jne(again)
    });
    assert_eq!(guest.state.gpr[8..10], [NEW * 37 * 3, OLD * 37 * 3]);
}
