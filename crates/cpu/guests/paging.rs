//! Paging: walks, access rights, accessed and dirty flags, what a page fault tells (SDM 3A,
//! chapter 5), and accesses that cross pages.

use iced_x86::code_asm::*;
use riad_cpu::Exit;
use riad_cpu::x86::{Segment, cr0, cr4, efer, rflags};

use super::machine::{CODE, DATA, Guest, Trap, USER_DATA, sel, stop};
use super::tables::{A, D, NX, P, PS, RW, US};

/// Bits of a page fault's error code.
const PRESENT: u32 = 1;
const WRITE: u32 = 2;
const USER: u32 = 4;
const RSVD: u32 = 8;
const FETCH: u32 = 16;

/// A linear address with tables of its own, at every level.
const FAR: u64 = 0x7012_3456_7000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Execute,
}
use Access::{Execute, Read, Write};

/// Touches an address from the code at RIP.
fn touch(guest: &mut Guest, access: Access, address: u64) -> Option<Trap> {
    guest.state.gpr[3] = address;
    guest.program(|a| match access {
        Read => a.mov(rax, qword_ptr(rbx)),
        Write => a.mov(qword_ptr(rbx), rcx),
        Execute => a.jmp(rbx),
    });
    guest.go()
}

/// As [`touch`]: only the page fault's error code, having checked CR2.
fn fault(guest: &mut Guest, access: Access, address: u64) -> Option<u32> {
    let trap = touch(guest, access, address)?;
    assert_eq!(trap.vector, 14, "{trap:?}");
    assert_eq!(guest.state.control.cr2, address);
    trap.code
}

/// A page of data at [`DATA`], with code that stops, mapped at [`FAR`].
fn far(flags: u64) -> Guest {
    let mut guest = Guest::long();
    guest.tables.map(FAR, DATA | flags);
    guest.code(DATA, 64, stop);
    guest
}

// --- walks (SDM 3A, 5.5) ---

#[test]
fn four_level_paging_has_pages_of_4k_2m_and_1g() {
    let mut guest = Guest::long();
    guest.poke(DATA + 0x128, 0x1122_3344_5566_7788);
    guest.tables.map(FAR, DATA | P);
    guest.tables.map_large(0x50_0000_0000, 2, P);
    guest.tables.map_large(0x60_4000_0000, 3, P);
    for at in [FAR + 0x128, 0x50_0000_0000 + DATA + 0x128, 0x60_4000_0000 + DATA + 0x128] {
        assert_eq!(touch(&mut guest, Read, at), None, "{at:#x}");
        assert_eq!(guest.rax(), 0x1122_3344_5566_7788, "{at:#x}");
        guest.state.rip = CODE;
    }
}

#[test]
fn addresses_in_the_upper_half_are_walked_too() {
    let mut guest = Guest::long();
    guest.poke(DATA, 42);
    guest.tables.map(0xffff_ffff_ffff_f000, DATA | P);
    assert_eq!(touch(&mut guest, Read, 0xffff_ffff_ffff_f000), None);
    assert_eq!(guest.rax(), 42);
}

#[test]
fn an_absent_entry_at_any_level_faults_without_the_present_bit() {
    for level in 1..=4 {
        let mut guest = far(P | RW);
        let entry = guest.tables.entry(FAR, level);
        guest.poke(entry, guest.peek(entry) & !P);
        assert_eq!(fault(&mut guest, Read, FAR), Some(0), "level {level}");
    }
}

#[test]
fn reserved_bits_fault_with_rsvd_whatever_the_access() {
    // SDM 3A, table 5-15 to 5-20: bits beyond the physical width; PS in a PML4E; the low address
    // bits of a large page; XD without EFER.NXE.
    let cases: &[(u32, u64)] =
        &[(1, 1 << 40), (1, 1 << 51), (2, 1 << 45), (3, 1 << 40), (4, 1 << 50), (4, PS)];
    for &(level, bit) in cases {
        for (access, extra) in [(Read, 0), (Write, WRITE), (Execute, FETCH)] {
            let mut guest = far(P | RW);
            let entry = guest.tables.entry(FAR, level);
            guest.poke(entry, guest.peek(entry) | bit);
            let code = fault(&mut guest, access, FAR);
            assert_eq!(
                code,
                Some(PRESENT | RSVD | extra),
                "level {level}, bit {bit:#x}, {access:?}"
            );
        }
    }
    for (level, bit) in [(2, 1 << 13), (2, 1 << 20), (3, 1 << 13), (3, 1 << 29)] {
        let mut guest = Guest::long();
        guest.tables.map_large(0x50_0000_0000, level, P | bit);
        let code = fault(&mut guest, Read, 0x50_0000_0000);
        assert_eq!(code, Some(PRESENT | RSVD), "large page at level {level}, bit {bit:#x}");
    }
}

#[test]
fn execute_disable_is_reserved_without_nxe() {
    let mut guest = far(P | RW | NX);
    guest.state.control.efer &= !efer::NXE;
    assert_eq!(fault(&mut guest, Read, FAR), Some(PRESENT | RSVD));
}

#[test]
fn ignored_bits_of_four_level_entries_are_ignored() {
    // SDM 3A, table 5-20: bits 9 to 11 and 52 to 62.
    let mut guest = far(P | RW | 0x7ff << 52 | 7 << 9);
    assert_eq!(touch(&mut guest, Write, FAR), None);
}

// --- access rights (SDM 3A, 5.6) ---

#[test]
fn level_3_needs_the_user_bit_at_every_level() {
    for level in 1..=4 {
        let mut guest = far(P | RW | US);
        guest.enter_user();
        let entry = guest.tables.entry(FAR, level);
        guest.poke(entry, guest.peek(entry) & !US);
        for (access, extra) in [(Read, 0), (Write, WRITE), (Execute, FETCH)] {
            let code = fault(&mut guest, access, FAR);
            assert_eq!(code, Some(PRESENT | USER | extra), "level {level}, {access:?}");
            guest.enter_user();
        }
    }
}

#[test]
fn level_3_writes_need_the_writable_bit_at_every_level() {
    for level in 1..=4 {
        let mut guest = far(P | RW | US);
        guest.enter_user();
        guest.state.rflags |= rflags::IOPL;
        let entry = guest.tables.entry(FAR, level);
        guest.poke(entry, guest.peek(entry) & !RW);
        assert_eq!(touch(&mut guest, Read, FAR), None);
        guest.enter_user();
        assert_eq!(fault(&mut guest, Write, FAR), Some(PRESENT | USER | WRITE), "level {level}");
    }
}

#[test]
fn wp_decides_whether_level_0_may_write_read_only_pages() {
    let mut guest = far(P);
    assert_eq!(fault(&mut guest, Write, FAR), Some(PRESENT | WRITE));
    // Turning WP off takes effect at once, and back on too.
    let mut guest = far(P);
    guest.state.gpr[3] = FAR;
    guest.state.gpr[1] = 7;
    let trap = guest.program_traps(|a| {
        a.mov(rax, cr0)?;
        a.btr(rax, 16)?;
        a.mov(cr0, rax)?;
        a.mov(qword_ptr(rbx), rcx)?;
        a.bts(rax, 16)?;
        a.mov(cr0, rax)?;
        a.inc(rcx)?;
        a.mov(qword_ptr(rbx), rcx)
    });
    assert_eq!(trap.what(), (14, Some(PRESENT | WRITE)));
    assert_eq!(guest.peek(DATA), 7);
}

#[test]
fn execute_disable_at_any_level_stops_fetches_only() {
    for level in 1..=4 {
        let mut guest = far(P | RW);
        let entry = guest.tables.entry(FAR, level);
        guest.poke(entry, guest.peek(entry) | NX);
        assert_eq!(touch(&mut guest, Write, FAR), None, "level {level}");
        guest.code(DATA, 64, stop);
        guest.state.rip = CODE;
        assert_eq!(fault(&mut guest, Execute, FAR), Some(PRESENT | FETCH), "level {level}");
    }
}

#[test]
fn the_fetch_bit_is_told_only_with_nxe_or_smep() {
    // SDM 3A, 5.7.
    for (nxe, smep, told) in [(true, false, true), (false, true, true), (false, false, false)] {
        let mut guest = Guest::long();
        if !nxe {
            guest.state.control.efer &= !efer::NXE;
        }
        if smep {
            guest.state.control.cr4 |= cr4::SMEP;
        }
        let code = fault(&mut guest, Execute, FAR);
        assert_eq!(code, Some(if told { FETCH } else { 0 }), "NXE {nxe}, SMEP {smep}");
    }
}

#[test]
fn smep_stops_level_0_from_running_user_pages() {
    let mut guest = far(P | RW | US);
    assert_eq!(touch(&mut guest, Execute, FAR), None);
    guest.state.rip = CODE;
    guest.state.control.cr4 |= cr4::SMEP;
    assert_eq!(fault(&mut guest, Execute, FAR), Some(PRESENT | FETCH));
    guest.state.rip = CODE;
    assert_eq!(touch(&mut guest, Write, FAR), None, "data is not SMEP's matter");
}

#[test]
fn smap_stops_level_0_from_touching_user_pages_unless_ac_is_set() {
    for (access, extra) in [(Read, 0), (Write, WRITE)] {
        let mut guest = far(P | RW | US);
        guest.state.control.cr4 |= cr4::SMAP;
        assert_eq!(fault(&mut guest, access, FAR), Some(PRESENT | extra), "{access:?}");
        guest.state.rip = CODE;
        guest.state.rflags |= rflags::AC;
        assert_eq!(touch(&mut guest, access, FAR), None, "{access:?} with AC");
    }
    // STAC and CLAC are seen by the very next instruction.
    let mut guest = far(P | RW | US);
    guest.state.control.cr4 |= cr4::SMAP;
    guest.state.gpr[3] = FAR;
    let trap = guest.program_traps(|a| {
        a.stac()?;
        a.mov(byte_ptr(rbx), 1)?;
        a.clac()?;
        a.mov(byte_ptr(rbx), 2)
    });
    assert_eq!(trap.what(), (14, Some(PRESENT | WRITE)));
    assert_eq!(guest.peek(DATA) as u8, 1);
}

#[test]
fn smap_stops_implicit_accesses_even_with_ac() {
    // SDM 3A, 5.6.1: the descriptor table is read as supervisor whatever AC says.
    let mut guest = Guest::long();
    guest.state.control.cr4 |= cr4::SMAP;
    guest.state.rflags |= rflags::AC;
    guest.poke(USER_DATA + 8, guest.peek(super::machine::GDT + 0x10));
    guest.state.gdtr.base = USER_DATA;
    guest.program(|a| {
        a.mov(eax, 8)?;
        a.mov(ds, eax)
    });
    // No handler's code segment can be read either.
    assert_eq!(guest.run(), Exit::Shutdown);
    assert_eq!(guest.state.control.cr2, USER_DATA + 8);
}

#[test]
fn level_3_loads_segments_from_supervisor_tables() {
    // SDM 3A, 5.6: accesses to descriptor tables are supervisor accesses.
    let mut guest = Guest::user();
    guest.program_finishes_at_3(|a| {
        a.mov(eax, u32::from(sel::USER_DATA))?;
        a.mov(ds, eax)
    });
}

impl Guest {
    /// As `program_finishes`, for level 3, which may not write to ports: it ends with a system
    /// call's worth of #UD.
    fn program_finishes_at_3(
        &mut self,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
    ) {
        let trap = self.program_traps(|a| {
            body(a)?;
            a.ud2()
        });
        assert_eq!(trap.what(), (6, None), "{trap:?}");
    }
}

// --- accessed and dirty (SDM 3A, 5.8) ---

#[test]
fn accessed_is_set_on_the_way_and_dirty_only_by_writes() {
    for (access, leaf) in [(Read, A), (Execute, A), (Write, A | D)] {
        let mut guest = far(P | RW);
        assert_eq!(touch(&mut guest, access, FAR), None);
        for level in 2..=4 {
            let at = guest.tables.entry(FAR, level);
            assert_eq!(guest.peek(at) & (A | D), A, "{access:?}, level {level}");
        }
        assert_eq!(guest.tables.leaf(FAR) & (A | D), leaf, "{access:?}");
    }
}

#[test]
fn dirty_is_set_by_the_first_write_after_reads() {
    let mut guest = far(P | RW);
    guest.state.gpr[3] = FAR;
    let leaf = guest.tables.entry(FAR, 1);
    guest.state.gpr[6] = leaf;
    guest.program_finishes(|a| {
        a.mov(rax, qword_ptr(rbx))?;
        a.mov(r8, qword_ptr(rsi))?;
        a.mov(qword_ptr(rbx), rax)?;
        a.mov(r9, qword_ptr(rsi))
    });
    assert_eq!(guest.state.gpr[8] & (A | D), A);
    assert_eq!(guest.state.gpr[9] & (A | D), A | D);
}

#[test]
fn a_large_page_has_its_dirty_bit_in_its_own_entry() {
    for level in [2, 3] {
        let mut guest = Guest::long();
        let base = 0x50_0000_0000;
        guest.tables.map_large(base, level, P | RW);
        assert_eq!(touch(&mut guest, Write, base + DATA), None);
        let at = guest.tables.entry(base, level);
        assert_eq!(guest.peek(at) & (A | D), A | D, "level {level}");
    }
}

#[test]
fn a_refused_access_sets_no_dirty_bit() {
    let mut guest = far(P);
    assert!(touch(&mut guest, Write, FAR).is_some());
    assert_eq!(guest.tables.leaf(FAR) & D, 0);
}

// --- 32-bit and PAE paging (SDM 3A, 5.3 and 5.4) ---

/// Protected mode with a page directory at 0x20_0000 that maps everything to itself with 4 MiB
/// pages, except for what the caller puts in.
fn narrow(entries: &[(u64, u32)]) -> Guest {
    let mut guest = Guest::protected();
    let write = |at, value| guest.memory.write_u32(riad_memory::Gpa(at), value).expect("RAM");
    for n in 0..2 {
        write(0x20_0000 + n * 4, (n << 22) as u32 | 0x83);
    }
    for &(at, value) in entries {
        write(at, value);
    }
    guest.state.control.cr3 = 0x20_0000;
    guest.state.control.cr4 |= cr4::PSE;
    guest.state.control.cr0 |= cr0::PG;
    guest
}

#[test]
fn narrow_paging_has_pages_of_4k_and_4m_with_accessed_and_dirty_bits() {
    let mut guest =
        narrow(&[(0x20_0000 + 0x100 * 4, 0x20_1003), (0x20_1000 + 5 * 4, DATA as u32 | 3)]);
    guest.poke(DATA, 77);
    guest.program_finishes(|a| {
        a.mov(eax, dword_ptr(0x4000_5000u64))?;
        a.mov(dword_ptr(0x0048_0000u64), eax)
    });
    assert_eq!((guest.rax(), guest.peek32(0x48_0000)), (77, 77));
    assert_eq!(guest.peek32(0x20_0000 + 0x100 * 4) & 0x60, 0x20);
    assert_eq!(guest.peek32(0x20_1000 + 5 * 4) & 0x60, 0x20);
    assert_eq!(guest.peek32(0x20_0004) & 0x60, 0x60, "the 4 MiB page was written");
}

#[test]
fn narrow_large_pages_need_pse_and_have_one_reserved_bit() {
    // SDM 3A, table 5-4: with PSE-36 and 40 physical bits only bit 21 is reserved.
    let mut guest = narrow(&[(0x20_0000 + 0x100 * 4, 1 << 21 | 0x83)]);
    let trap = guest.program_traps(|a| a.mov(eax, dword_ptr(0x4000_0000u64)));
    assert_eq!(trap.what(), (14, Some(PRESENT | RSVD)));
    // Without PSE the same bit 7 means nothing and the entry leads to a table.
    let mut guest = narrow(&[
        (0x20_0000, 0x20_1003),
        (0x20_0000 + 0x100 * 4, 0x20_1083),
        (0x20_1000 + (CODE >> 12) * 4, CODE as u32 | 3),
    ]);
    guest.state.control.cr4 &= !cr4::PSE;
    guest.program_finishes(|a| a.mov(eax, dword_ptr(0x4000_0000u64 + CODE)));
    assert_eq!(guest.rax(), u64::from(guest.peek32(CODE)));
}

#[test]
fn pse_36_reaches_above_4g() {
    // Bits 13 to 20 of the entry are bits 32 to 39 of the address, where there is no RAM.
    let mut guest = narrow(&[(0x20_0000 + 0x100 * 4, 0x83 | 1 << 13)]);
    guest.program_finishes(|a| a.mov(eax, dword_ptr(0x4000_0010u64)));
    assert_eq!(*guest.world.mmio.lock().expect("mmio"), [(0x1_0000_0010, 4, None)]);
}

/// Protected mode with PAE paging: pointers at 0x20_0000, everything mapped to itself.
fn pae() -> Guest {
    let mut guest = Guest::protected();
    guest.poke(0x20_0000, 0x20_1000 | P);
    for n in 0..4 {
        guest.poke(0x20_1000 + n * 8, n << 21 | P | RW | PS);
    }
    guest.state.control.cr3 = 0x20_0000;
    guest.state.control.cr4 |= cr4::PAE;
    guest.state.control.cr0 |= cr0::PG;
    guest.state.control.efer |= efer::NXE;
    guest
}

#[test]
fn pae_paging_has_pages_of_4k_and_2m_and_execute_disable() {
    let mut guest = pae();
    guest.poke(0x20_0008, 0x20_2000 | P);
    guest.poke(0x20_2000, 0x20_3000 | P | RW);
    guest.poke(0x20_3000, DATA | P | RW | NX);
    guest.poke(DATA, 99);
    guest.program_finishes(|a| {
        a.mov(eax, dword_ptr(0x4000_0000u64))?;
        a.mov(dword_ptr(0x4000_0004u64), eax)
    });
    assert_eq!((guest.rax(), guest.peek(0x20_3000) & (A | D)), (99, A | D));
    assert_eq!(guest.peek(0x20_0008), 0x20_2000 | P, "pointers have no accessed bit");
    guest.state.rip = CODE;
    let trap = guest.program_traps(|a| {
        a.mov(eax, 0x4000_0000u32)?;
        a.jmp(eax)
    });
    assert_eq!(trap.what(), (14, Some(PRESENT | FETCH)));
}

#[test]
fn pae_entries_have_more_reserved_bits() {
    // SDM 3A, tables 5-10 and 5-11: bits 52 to 62 too.
    for bit in [1 << 40, 1 << 52, 1 << 62] {
        let mut guest = pae();
        guest.poke(0x20_1000 + 3 * 8, 3 << 21 | P | RW | PS | bit);
        let trap = guest.program_traps(|a| a.mov(eax, dword_ptr(0x60_0000u64)));
        assert_eq!(trap.what(), (14, Some(PRESENT | RSVD)), "bit {bit:#x}");
    }
}

#[test]
fn loading_page_directory_pointers_with_reserved_bits_is_a_general_protection_fault() {
    // SDM 3A, 5.4.1.
    for bit in [RW, US, 1 << 5, 1 << 8, 1 << 40, 1 << 52, NX] {
        let mut guest = pae();
        guest.poke(0x20_4000, 0x20_1000 | P);
        guest.poke(0x20_4018, 0x20_1000 | P | bit);
        guest.poke(0x20_4010, bit & !P); // Not present: not looked at.
        let trap = guest.program_traps(|a| {
            a.mov(eax, 0x20_4000)?;
            a.mov(cr3, eax)
        });
        assert_eq!(trap.what(), (13, Some(0)), "bit {bit:#x}");
        assert_eq!(guest.state.control.cr3, 0x20_0000);
    }
}

// --- accesses that cross a page ---

#[test]
fn a_write_whose_second_page_faults_writes_nothing() {
    // SDM 3A, 7.5: a faulting instruction can be restarted.
    let mut guest = far(P | RW);
    guest.poke(DATA + 0xff8, 0x1111_1111_1111_1111);
    guest.state.gpr[1] = u64::MAX;
    let trap = touch(&mut guest, Write, FAR + 0xffc).expect("a page fault");
    assert_eq!(trap.what(), (14, Some(WRITE)));
    assert_eq!(guest.state.control.cr2, FAR + 0x1000, "the first byte that cannot be written");
    assert_eq!(guest.peek(DATA + 0xff8), 0x1111_1111_1111_1111);
}

#[test]
fn a_crossing_access_reaches_both_pages_wherever_they_are() {
    let mut guest = far(P | RW);
    guest.tables.map(FAR + 0x1000, (DATA + 0x4000) | P | RW);
    guest.state.gpr[1] = 0x8877_6655_4433_2211;
    assert_eq!(touch(&mut guest, Write, FAR + 0xffd), None);
    assert_eq!(guest.peek(DATA + 0xff8) >> 40, 0x33_2211);
    assert_eq!(guest.peek(DATA + 0x4000) & 0xff_ffff_ffff, 0x88_7766_5544);
    guest.state.rip = CODE;
    assert_eq!(touch(&mut guest, Read, FAR + 0xffd), None);
    assert_eq!(guest.rax(), 0x8877_6655_4433_2211);
}

#[test]
fn a_read_modify_write_across_pages_is_whole_or_not_at_all() {
    for present in [true, false] {
        let mut guest = far(P | RW);
        guest.poke(DATA + 0xff8, u64::MAX);
        if present {
            guest.tables.map(FAR + 0x1000, (DATA + 0x4000) | P | RW);
        }
        guest.state.gpr[3] = FAR + 0xffe;
        guest.program(|a| a.lock().inc(dword_ptr(rbx)));
        assert_eq!(guest.go().is_none(), present);
        let expected = if present { (0x0000_ffff_ffff_ffff, 1) } else { (u64::MAX, 0) };
        assert_eq!((guest.peek(DATA + 0xff8), guest.peek(DATA + 0x4000)), expected);
    }
}

#[test]
fn an_instruction_whose_second_page_faults_has_not_begun() {
    // The address in CR2 is the first byte of the second page; RIP is the instruction's.
    let mut guest = far(P | RW);
    // mov eax, imm32, split after two bytes.
    guest.memory.write(riad_memory::Gpa(DATA + 0xffe), &[0xb8, 0x01]).expect("RAM");
    guest.state.gpr[0] = 5;
    guest.state.gpr[3] = FAR + 0xffe;
    let trap = guest.program_traps(|a| a.jmp(rbx));
    assert_eq!((trap.what(), trap.ip), ((14, Some(FETCH)), FAR + 0xffe));
    assert_eq!((guest.state.control.cr2, guest.rax()), (FAR + 0x1000, 5));
    // With the page there, it runs.
    guest.tables.map(FAR + 0x1000, (DATA + 0x4000) | P);
    guest.memory.write(riad_memory::Gpa(DATA + 0x4000), &[2, 3, 4, 0xe6, 0xf4]).expect("RAM");
    guest.state.rip = FAR + 0xffe;
    guest.finishes();
    assert_eq!(guest.rax(), 0x0403_0201);
}

#[test]
fn an_instruction_that_ends_with_its_page_does_not_touch_the_next() {
    let mut guest = far(P | RW);
    guest.memory.write(riad_memory::Gpa(DATA + 0xffd), &[0x90, 0xff, 0xe1]).expect("RAM");
    guest.state.gpr[3] = FAR + 0xffd;
    guest.state.gpr[1] = FAR;
    guest.program_finishes(|a| a.jmp(rbx));
}

// --- canonical addresses (SDM 1, 3.3.7.1) ---

#[test]
fn non_canonical_data_is_a_general_protection_fault_and_on_the_stack_a_stack_fault() {
    let bad = 0x0000_8000_0000_0000;
    let mut guest = Guest::long();
    assert_eq!(touch(&mut guest, Read, bad).map(|t| t.what()), Some((13, Some(0))));
    for body in [
        (|a: &mut CodeAssembler| a.mov(rax, qword_ptr(rbp))) as fn(&mut _) -> _,
        |a| a.mov(rax, qword_ptr(rsp)),
        |a| a.push(rax),
        |a| a.pop(rax),
    ] {
        let mut guest = Guest::long();
        // The handler needs a stack of its own.
        guest.gate64(12, super::machine::STUBS + 12 * 16, 0x8e, 1);
        guest.state.gpr[5] = bad;
        guest.state.gpr[4] = bad + 0x100;
        assert_eq!(guest.program_traps(body).what(), (12, Some(0)));
    }
}

#[test]
fn an_operand_that_ends_beyond_the_canonical_half_faults() {
    let mut guest = Guest::long();
    guest.tables.map(0x7fff_ffff_f000, DATA | P | RW);
    let trap = touch(&mut guest, Read, 0x7fff_ffff_fffc).expect("a fault");
    assert_eq!(trap.what(), (13, Some(0)));
}

#[test]
fn a_jump_to_a_non_canonical_address_faults_at_the_jump() {
    let mut guest = Guest::long();
    let trap = touch(&mut guest, Execute, 0x8000_0000_0000_0000).expect("a fault");
    assert_eq!((trap.what(), trap.ip), ((13, Some(0)), CODE));
}

#[test]
fn running_off_the_canonical_half_faults_there() {
    let mut guest = Guest::long();
    guest.tables.map(0x7fff_ffff_f000, DATA | P | RW);
    guest.memory.write(riad_memory::Gpa(DATA + 0xfff), &[0x90]).expect("RAM");
    let trap = touch(&mut guest, Execute, 0x7fff_ffff_ffff).expect("a fault");
    assert_eq!((trap.what(), trap.ip), ((13, Some(0)), 0x8000_0000_0000));
}

// --- without paging ---

#[test]
fn without_paging_linear_addresses_are_physical_and_wrap_at_4g() {
    let mut guest = Guest::protected();
    guest.state.segments.fs = Segment { base: 0x8000_0000, ..guest.state.segments.ds };
    guest.poke(DATA, 3);
    guest.state.gpr[3] = 0x8000_0000 + DATA;
    guest.program_finishes(|a| a.mov(eax, dword_ptr(ebx).fs()));
    assert_eq!(guest.rax(), 3);
}

#[test]
fn what_is_not_ram_goes_to_the_bus_in_one_access() {
    let mut guest = Guest::long();
    guest.tables.map(FAR, 0xd000_0000 | P | RW);
    guest.state.gpr[3] = FAR + 8;
    guest.program_finishes(|a| {
        a.mov(eax, dword_ptr(rbx))?;
        a.mov(word_ptr(rbx + 2), cx)
    });
    assert_eq!(guest.rax(), 0xa5a5_a5a5);
    let seen = guest.world.mmio.lock().expect("mmio").clone();
    assert_eq!(seen, [(0xd000_0008, 4, None), (0xd000_000a, 2, Some(0))]);
}
