//! From mode to mode (SDM 3A, chapter 10), and starting a processor (SDM 3A, 9.4 and 10.1).

use iced_x86::code_asm::*;
use riad_cpu::x86::{Activity, cr4, efer};
use riad_cpu::{Exit, Limit};
use riad_memory::Gpa;

use super::Lender;
use super::machine::{DATA, GDT, Guest, assemble, sel, stop};
use super::tables::{P, PS, RW};

/// Code of the 32-bit and the 64-bit part.
const PART32: u64 = 0x1_2000;
const PART64: u64 = 0x1_4000;
const POINTER: u64 = 0x500;

/// `jmp selector:offset`, with an operand-size prefix where the code is 16-bit.
fn jump(
    a: &mut CodeAssembler,
    prefix: bool,
    selector: u16,
    to: u64,
) -> Result<(), iced_x86::IcedError> {
    let mut bytes = vec![];
    if prefix {
        bytes.push(0x66);
    }
    bytes.push(0xea);
    bytes.extend((to as u32).to_le_bytes());
    bytes.extend(selector.to_le_bytes());
    a.db(&bytes)
}

fn real() -> Guest {
    let guest = Guest::real();
    guest.memory.write_u16(Gpa(POINTER), 0xff).expect("RAM");
    guest.memory.write_u32(Gpa(POINTER + 2), GDT as u32).expect("RAM");
    guest
}

#[test]
fn real_to_protected_to_long_to_compatibility_and_all_the_way_back() {
    let mut guest = real();
    guest.memory.write_u16(Gpa(POINTER + 8), 0).expect("RAM");
    for n in 0..4 {
        guest.poke(0x20_2000 + n * 8, n << 21 | P | RW | PS);
    }
    guest.poke(0x20_0000, 0x20_1000 | P | RW);
    guest.poke(0x20_1000, 0x20_2000 | P | RW);
    // Real mode: to protected mode.
    guest.program(|a| {
        a.lgdt(fword_ptr(POINTER))?;
        a.mov(eax, cr0)?;
        a.or(al, 1)?;
        a.mov(cr0, eax)?;
        jump(a, true, sel::CODE32, PART32)
    });
    // Protected mode: on to long mode.
    guest.code(PART32, 32, |a| {
        a.mov(ax, u32::from(sel::DATA0))?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(dword_ptr(DATA), 0x32)?;
        a.mov(eax, cr4)?;
        a.bts(eax, 5)?;
        a.mov(cr4, eax)?;
        a.mov(eax, 0x20_0000)?;
        a.mov(cr3, eax)?;
        a.mov(ecx, 0xc000_0080u32)?;
        a.rdmsr()?;
        a.bts(eax, 8)?;
        a.wrmsr()?;
        a.mov(eax, cr0)?;
        a.bts(eax, 31)?;
        a.mov(cr0, eax)?;
        // Compatibility mode still: this is one instruction there, two in 64-bit mode.
        a.inc(eax)?;
        a.rdmsr()?;
        a.mov(dword_ptr(DATA + 4), eax)?;
        jump(a, false, sel::CODE64, PART64)
    });
    guest.code(PART64, 64, |a| {
        a.mov(rax, 0x1234_5678_9abc_def0u64)?;
        a.mov(qword_ptr(DATA + 8), rax)?;
        a.push(i32::from(sel::CODE32))?;
        a.push(PART32 as i32 + 0x200)?;
        a.db(&[0x48, 0xcb]) // retfq
    });
    // Compatibility mode: paging off, long mode off, real mode again.
    guest.code(PART32 + 0x200, 32, |a| {
        a.mov(dword_ptr(DATA + 16), 0xc0)?;
        a.mov(eax, cr0)?;
        a.btr(eax, 31)?;
        a.mov(cr0, eax)?;
        a.mov(ecx, 0xc000_0080u32)?;
        a.rdmsr()?;
        a.mov(dword_ptr(DATA + 20), eax)?;
        a.btr(eax, 8)?;
        a.wrmsr()?;
        a.mov(ax, u32::from(sel::DATA16))?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        jump(a, false, sel::CODE16, 0x9000)
    });
    guest.code(0x9000, 16, |a| {
        a.mov(eax, cr0)?;
        a.and(al, 0xfeu32 as i32)?;
        a.mov(cr0, eax)?;
        a.db(&[0xea, 0x00, 0x02, 0x00, 0x09]) // jmp 0900:0200
    });
    guest
        .memory
        .write(
            Gpa(0x9200),
            &assemble(0x200, 16, |a| {
                a.xor(ax, ax)?;
                a.mov(ds, ax)?;
                a.mov(bx, cs)?;
                a.mov(word_ptr(0x600u64), 0x16)?;
                a.out(u32::from(super::machine::STOP), al)
            }),
        )
        .expect("RAM");
    guest.finishes();
    assert_eq!(guest.peek32(DATA), 0x32);
    let active = (efer::LME | efer::LMA) as u32;
    assert_eq!(guest.peek32(DATA + 4) & active, active);
    assert_eq!(guest.peek(DATA + 8), 0x1234_5678_9abc_def0);
    assert_eq!(
        (guest.peek32(DATA + 16), guest.peek32(DATA + 20) & active),
        (0xc0, efer::LME as u32)
    );
    assert_eq!((guest.peek16(0x600), guest.rbx() & 0xffff), (0x16, 0x900));
    let control = &guest.state.control;
    assert_eq!((control.cr0 & 1, control.efer), (0, 0));
}

#[test]
fn real_mode_keeps_limits_that_protected_mode_loaded() {
    // SDM 3A, 10.9.2: "big real mode".
    let mut guest = real();
    guest.poke(0x12_3456, 0xcafe);
    guest.program_finishes(|a| {
        a.lgdt(fword_ptr(POINTER))?;
        a.mov(eax, cr0)?;
        a.or(al, 1)?;
        a.mov(cr0, eax)?;
        a.mov(bx, u32::from(sel::DATA0))?;
        a.mov(es, bx)?;
        a.and(al, 0xfeu32 as i32)?;
        a.mov(cr0, eax)?;
        // Loading ES again changes its base, not its limit.
        a.xor(bx, bx)?;
        a.mov(es, bx)?;
        a.mov(edi, 0x12_3456)?;
        a.mov(cx, word_ptr(edi).es())
    });
    assert_eq!(guest.rcx() & 0xffff, 0xcafe);
}

#[test]
fn real_mode_segments_end_at_64k() {
    for (body, vector) in [
        ((|a: &mut CodeAssembler| a.mov(ax, word_ptr(0xffffu64))) as fn(&mut _) -> _, 13),
        (|a| a.push(ax), 12),
    ] {
        let mut guest = real();
        guest.state.gpr[4] = 1;
        guest.memory.write_u32(Gpa(vector * 4), 0x0000_9000).expect("RAM");
        guest.code(0x9000, 16, |a| {
            a.mov(sp, 0x8000)?;
            stop(a)
        });
        guest.program(body);
        // With SP odd at 1 the frame itself has no room: the processor shuts down; give #GP one.
        if vector == 13 {
            guest.state.gpr[4] = 0x8000;
            guest.finishes();
        } else {
            assert_eq!(guest.run(), Exit::Shutdown);
        }
    }
}

#[test]
fn real_mode_code_ends_at_64k() {
    // The last byte is the first of two: #GP, with the address of the instruction.
    let mut guest = real();
    guest.memory.write(Gpa(0xfffe), &[0x40, 0xb8, 0x11, 0x22]).expect("RAM");
    guest.state.rip = 0xfffe;
    let trap = guest.traps();
    assert_eq!((trap.vector, trap.ip), (13, 0xffff));
    assert_eq!(guest.rax() & 0xffff, 1);
}

#[test]
fn real_mode_interrupts_push_six_bytes_and_clear_if() {
    let mut guest = real();
    guest.state.rflags |= riad_cpu::x86::rflags::IF;
    let trap = guest.program_traps(|a| a.int(0x21));
    assert_eq!((trap.vector, trap.ip, trap.cs, trap.flags & 0x200), (0x21, 0x8002, 0, 0x200));
    assert_eq!((guest.state.gpr[4], guest.state.rflags & 0x200), (0x7ffa, 0));
    // And IRET comes back.
    let mut guest = real();
    guest.memory.write_u32(Gpa(0x21 * 4), 0x0900_0010).expect("RAM");
    guest
        .memory
        .write(Gpa(0x9010), &assemble(0x10, 16, |a| a.inc(ax).and_then(|()| a.iret())))
        .expect("RAM");
    guest.program_finishes(|a| {
        a.int(0x21)?;
        a.int(0x21)
    });
    assert_eq!(guest.rax() & 0xffff, 2);
}

#[test]
fn addresses_above_1m_are_reached_from_real_mode() {
    // There is no A20 gate.
    let mut guest = real();
    guest.memory.write_u16(Gpa(0x10_0010), 0x1234).expect("RAM");
    guest.program_finishes(|a| {
        a.mov(ax, 0xffffu32)?;
        a.mov(ds, ax)?;
        a.mov(cx, word_ptr(0x20u64))
    });
    assert_eq!(guest.rcx() & 0xffff, 0x1234);
}

#[test]
fn lmsw_sets_pe_but_cannot_clear_it() {
    let mut guest = real();
    guest.program_finishes(|a| {
        a.lgdt(fword_ptr(POINTER))?;
        a.mov(ax, 0x000f)?;
        a.lmsw(ax)?;
        a.xor(ax, ax)?;
        a.lmsw(ax)?;
        a.smsw(bx)
    });
    assert_eq!((guest.state.control.cr0 & 15, guest.rbx() & 15), (1, 1));
}

#[test]
fn control_registers_refuse_combinations() {
    // SDM 3A, 2.5 and 5.1.1; SDM 2B, MOV CRn.
    type Change = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let cases: [(&str, Change); 11] = [
        ("PG without PE", |a| change(a, cr0, |a| a.btr(rax, 0))),
        ("NW without CD", |a| change(a, cr0, |a| a.bts(rax, 29))),
        ("upper half of CR0", |a| change(a, cr0, |a| a.bts(rax, 40))),
        ("PG off in 64-bit mode", |a| change(a, cr0, |a| a.btr(rax, 31))),
        ("PAE off in long mode", |a| change(a, cr4, |a| a.btr(rax, 5))),
        ("unknown CR4 bit", |a| change(a, cr4, |a| a.bts(rax, 22))),
        ("VMXE", |a| change(a, cr4, |a| a.bts(rax, 13))),
        ("CR3 beyond the physical width", |a| change(a, cr3, |a| a.bts(rax, 41))),
        ("CR3's bit 63 without PCIDs", |a| change(a, cr3, |a| a.bts(rax, 63))),
        ("CR8 above 15", |a| a.mov(eax, 16).and_then(|()| a.mov(cr8, rax))),
        ("EFER's reserved bits", |a| {
            a.mov(ecx, 0xc000_0080u32)?;
            a.rdmsr()?;
            a.bts(eax, 14)?;
            a.wrmsr()
        }),
    ];
    for (what, body) in cases {
        let mut guest = Guest::long();
        let before = guest.state.control;
        let trap = guest.program_traps(body);
        assert_eq!(trap.what(), (13, Some(0)), "{what}");
        assert_eq!(guest.state.control, before, "{what}");
    }
    let mut guest = Guest::long();
    let trap = guest.program_traps(|a| {
        a.mov(ecx, 0xc000_0080u32)?;
        a.rdmsr()?;
        a.btr(eax, 8)?;
        a.wrmsr()
    });
    assert_eq!(trap.what(), (13, Some(0)), "LME off while paging");
    let mut guest = Guest::long();
    guest.state.control.cr3 |= 0x18;
    let trap = guest.program_traps(|a| change(a, cr4, |a| a.bts(rax, 17)));
    assert_eq!(trap.what(), (13, Some(0)), "PCIDE with a PCID in CR3");
    let mut guest = Guest::protected();
    let trap = guest.program_traps(|a| {
        a.mov(eax, cr4)?;
        a.bts(eax, 17)?;
        a.mov(cr4, eax)
    });
    assert_eq!(trap.what(), (13, Some(0)), "PCIDE outside of long mode");
    assert_eq!(guest.state.control.cr4 & cr4::PCIDE, 0);
}

fn change(
    a: &mut CodeAssembler,
    register: AsmRegisterCr,
    how: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
) -> Result<(), iced_x86::IcedError> {
    a.mov(rax, register)?;
    how(a)?;
    a.mov(register, rax)
}

#[test]
fn long_mode_cannot_be_entered_without_pae_or_from_a_64_bit_segment() {
    for (pae, long_segment) in [(false, false), (true, true)] {
        let mut guest = Guest::protected();
        guest.state.control.efer = efer::LME;
        guest.state.control.cr3 = 0x20_0000;
        if pae {
            guest.state.control.cr4 |= cr4::PAE;
        }
        if long_segment {
            guest.state.segments.cs.rights = 0xa09b | 0x4000;
        }
        let trap = guest.program_traps(|a| {
            a.mov(eax, cr0)?;
            a.bts(eax, 31)?;
            a.mov(cr0, eax)
        });
        assert_eq!(trap.what(), (13, Some(0)));
    }
}

// --- INIT and start-up ---

#[test]
fn a_start_up_ipi_starts_a_waiting_processor_in_real_mode_at_its_page() {
    // SDM 3A, 9.4.4.1.
    let guest = Guest::protected();
    let mut other = guest.another(1);
    assert_eq!(other.state().expect("state").events.activity, Activity::WaitForSipi);
    guest
        .memory
        .write(
            Gpa(0x7_0000),
            &assemble(0, 16, |a| {
                a.mov(ax, cs)?;
                a.mov(bx, 0x77)?;
                stop(a)
            }),
        )
        .expect("RAM");
    // As MSIs: INIT, then a start-up at page 0x70, to APIC id 1.
    guest.engine.send_msi(0xfee0_1000, 0x4500);
    guest.engine.send_msi(0xfee0_1000, 0x4670);
    assert_eq!(other.run(Limit::Instructions(1000)).expect("an exit"), Exit::Stopped);
    let state = other.state().expect("state");
    assert_eq!((state.gpr[0] & 0xffff, state.gpr[3] & 0xffff), (0x7000, 0x77));
    assert_eq!((state.segments.cs.base, state.control.cr0 & 1), (0x7_0000, 0));
}

#[test]
fn a_start_up_ipi_to_a_running_processor_does_nothing() {
    let mut guest = Guest::protected();
    guest.program(|a| {
        a.mov(ebx, 5)?;
        a.nop()
    });
    guest.vcpu.set_state(&guest.state).expect("state");
    guest.engine.send_msi(0xfee0_0000, 0x4670);
    assert_eq!(guest.vcpu.run(Limit::Instructions(1000)).expect("an exit"), Exit::Stopped);
    assert_eq!(guest.vcpu.state().expect("state").gpr[3], 5);
}

#[test]
fn init_resets_what_it_should_and_leaves_the_rest() {
    // SDM 3A, table 10-1.
    let mut guest = Guest::long();
    guest.state.msrs.lstar = 0x1234;
    guest.state.fpu.xmm[3] = 99;
    guest.state.gpr[9] = 9;
    guest.program(|a| a.nop());
    guest.finishes();
    guest.engine.send_msi(0xfee0_0000, 0x4500);
    let before = guest.vcpu.state().expect("state");
    if Lender::COUNTS {
        assert_eq!(guest.vcpu.run(Limit::Instructions(0)).expect("an exit"), Exit::Limit);
        let _ = guest.vcpu.run(Limit::Instructions(1)).expect("an exit");
    }
    // Where nobody counts, the request was taken when the state was asked for.
    let state = guest.vcpu.state().expect("state");
    assert_eq!((state.control.cr0 & 0x8000_0001, state.control.efer, state.control.cr4), (0, 0, 0));
    assert_eq!(state.segments.cs.base, 0xffff_0000, "the bootstrap processor starts over");
    assert_eq!((state.gpr[9], state.gpr[4]), (0, 0));
    assert_eq!(state.msrs, before.msrs);
    assert_eq!(state.fpu, before.fpu);
    assert!(state.tsc >= before.tsc);
    guest.is_at(1..u64::MAX);
}

#[test]
fn requests_that_were_not_taken_yet_are_part_of_the_state() {
    let guest = Guest::protected();
    let other = guest.another(1);
    guest.engine.send_msi(0xfee0_1000, 0x4500);
    guest.engine.send_msi(0xfee0_1000, 0x4670);
    let saved = other.state().expect("state");
    // An engine may have taken them as it was asked.
    if saved.events.init_pending {
        assert_eq!(saved.events.start_up_pending, Some(0x70));
    } else {
        assert_eq!(saved.segments.cs.selector, 0x7000);
    }
    // In a new machine it starts where it was told to.
    let fresh = Guest::protected();
    fresh.memory.write(Gpa(0x7_0000), &assemble(0, 16, stop)).expect("RAM");
    let mut other = fresh.another(1);
    other.set_state(&saved).expect("a state");
    assert_eq!(other.run(Limit::Instructions(10)).expect("an exit"), Exit::Stopped);
    assert_eq!(other.state().expect("state").segments.cs.selector, 0x7000);
}
