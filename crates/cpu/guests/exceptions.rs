//! Delivery of exceptions: stacks, error codes, double and triple faults, and the way back (SDM 3A,
//! chapter 7).

use iced_x86::code_asm::*;
use riad_cpu::Exit;
use riad_cpu::x86::{Activity, Segment, rflags};

use super::machine::{
    CODE, DATA, Guest, IST1, STACK, STACK0, STUBS, TSS, USER_CODE, USER_STACK, descriptor, sel,
};
use super::tables::{P, RW};

const FAR: u64 = 0x12_3456_7000;

/// A selector's error code, for an exception in the course of delivering an interrupt or exception.
fn external(selector: u16) -> Option<u32> {
    Some(u32::from(selector) | 1)
}

// --- frames (SDM 3A, 7.14.2 to 7.14.4) ---

#[test]
fn in_64_bit_mode_the_stack_is_aligned_and_always_pushed() {
    let mut guest = Guest::long();
    guest.state.gpr[4] = STACK - 3;
    let trap = guest.program_traps(|a| a.ud2());
    assert_eq!((trap.what(), trap.ip, trap.cs), ((6, None), CODE, sel::CODE64));
    assert_eq!(trap.stack, Some((STACK - 3, sel::DATA0)));
    assert_eq!(guest.state.gpr[4], ((STACK - 3) & !15) - 40);
    assert_eq!(guest.state.segments.ss.selector, sel::DATA0, "the same level keeps its SS");
}

#[test]
fn a_change_of_level_takes_the_stack_from_the_task_state_and_loads_a_null_ss() {
    let mut guest = Guest::user();
    let trap = guest.program_traps(|a| a.ud2());
    assert_eq!((trap.what(), trap.ip, trap.cs), ((6, None), USER_CODE, sel::USER_CODE64));
    assert_eq!(trap.stack, Some((USER_STACK, sel::USER_DATA)));
    assert_eq!(guest.state.gpr[4], STACK0 - 40);
    assert_eq!(guest.state.segments.ss.selector, 0);
    assert_eq!(guest.state.segments.ss.dpl(), 0);
}

#[test]
fn an_interrupt_stack_table_entry_is_used_whatever_the_level() {
    for mut guest in [Guest::long(), Guest::user()] {
        guest.gate64(6, STUBS + 6 * 16, 0x8e, 1);
        guest.program_traps(|a| a.ud2());
        assert_eq!(guest.state.gpr[4], IST1 - 40);
    }
}

#[test]
fn interrupt_gates_clear_if_and_trap_gates_do_not() {
    for (access, expected) in [(0x8e, 0), (0x8f, rflags::IF)] {
        let mut guest = Guest::long();
        guest.state.rflags |= rflags::IF | rflags::NT | rflags::AC;
        guest.gate64(6, STUBS + 6 * 16, access, 0);
        let trap = guest.program_traps(|a| a.ud2());
        assert_eq!(guest.state.rflags & (rflags::IF | rflags::NT), expected);
        assert_ne!(guest.state.rflags & rflags::AC, 0, "AC stays");
        assert_ne!(trap.flags & rflags::NT, 0);
    }
}

#[test]
fn protected_mode_pushes_the_stack_only_when_the_level_changes() {
    let mut guest = Guest::protected();
    let trap = guest.program_traps(|a| a.ud2());
    assert_eq!((trap.what(), trap.ip, trap.stack), ((6, None), CODE, None));
    assert_eq!(guest.state.gpr[4], STACK - 12);
    let mut guest = Guest::protected();
    guest.enter_user();
    let trap = guest.program_traps(|a| a.ud2());
    assert_eq!(trap.stack, Some((USER_STACK, sel::USER_DATA)));
    assert_eq!((guest.state.gpr[4], guest.state.segments.ss.selector), (STACK0 - 20, sel::DATA0));
}

#[test]
fn a_16_bit_gate_pushes_a_16_bit_frame() {
    let mut guest = Guest::protected();
    guest.gate32(6, STUBS + 6 * 16, 0x86);
    guest.poke(STACK - 8, 0);
    guest.program_traps(|a| a.ud2());
    assert_eq!(guest.state.gpr[4], STACK - 6);
    assert_eq!((guest.peek16(STACK - 4), guest.peek16(STACK - 6)), (sel::CODE32, CODE as u16));
}

#[test]
fn a_conforming_handler_runs_at_the_interrupted_level() {
    let mut guest = Guest::protected();
    guest.enter_user();
    guest.gate32_to(6, sel::CONFORMING32, USER_CODE + 0x100, 0x8e);
    guest.code(USER_CODE + 0x100, 32, |a| {
        a.mov(ecx, cs)?;
        a.ud1(eax, eax)
    });
    // UD1 goes the same way again.
    guest.program(|a| a.ud2());
    guest.run_for(riad_cpu::Limit::Instructions(4));
    assert_eq!(guest.rcx(), u64::from(sel::CONFORMING32 | 3));
}

#[test]
fn faults_push_rf_set_and_traps_do_not() {
    // SDM 3B, 18.3.1.1.
    let mut guest = Guest::long();
    assert_ne!(guest.program_traps(|a| a.ud2()).flags & rflags::RF, 0);
    let mut guest = Guest::long();
    assert_eq!(guest.program_traps(|a| a.int3()).flags & rflags::RF, 0);
}

#[test]
fn int3_and_int_n_return_to_what_follows_and_ud2_to_itself() {
    type Body = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let cases: [(Body, u8, u64); 4] = [
        (|a| a.int3(), 3, 1),
        (|a| a.int(0x40), 0x40, 2),
        (|a| a.ud2(), 6, 0),
        (|a| a.int1(), 1, 1),
    ];
    for (body, vector, length) in cases {
        let mut guest = Guest::long();
        let trap = guest.program_traps(body);
        assert_eq!((trap.vector, trap.ip), (vector, CODE + length));
    }
}

#[test]
fn into_and_bound_raise_their_exceptions_in_32_bit_code() {
    let mut guest = Guest::protected();
    guest.state.rflags |= rflags::OF;
    let trap = guest.program_traps(|a| a.into());
    assert_eq!((trap.vector, trap.ip), (4, CODE + 1));
    let mut guest = Guest::protected();
    guest.program_finishes(|a| a.into());
    let mut guest = Guest::protected();
    guest.poke(DATA, 10 << 32 | 5);
    guest.state.gpr[0] = 10;
    guest.program_finishes(|a| a.bound(eax, qword_ptr(DATA)));
    guest.state.gpr[0] = 11;
    guest.state.rip = CODE;
    let trap = guest.traps();
    assert_eq!((trap.vector, trap.ip), (5, CODE));
}

// --- error codes (SDM 3A, 7.13) ---

#[test]
fn software_needs_a_gate_of_its_own_level() {
    for vector in [3, 0x40] {
        let mut guest = Guest::user();
        let trap = guest.program_traps(|a| if vector == 3 { a.int3() } else { a.int(vector) });
        assert_eq!(trap.what(), (13, Some(vector as u32 * 8 + 2)));
        assert_eq!(trap.ip, USER_CODE, "a fault of the INT");
        let mut guest = Guest::user();
        guest.gate64(vector as u8, STUBS + vector as u64 * 16, 0xee, 0);
        guest.program(|a| if vector == 3 { a.int3() } else { a.int(vector) });
        assert_eq!(guest.traps().what(), (vector as u8, None));
    }
    // INT1 and the processor's own exceptions do not.
    let mut guest = Guest::user();
    assert_eq!(guest.program_traps(|a| a.int1()).vector, 1);
}

#[test]
fn a_gate_that_is_absent_or_beyond_the_table_or_of_another_type() {
    let mut guest = Guest::long();
    guest.gate64(0x40, STUBS, 0x0e, 0);
    assert_eq!(guest.program_traps(|a| a.int(0x40)).what(), (11, Some(0x202)));
    let mut guest = Guest::long();
    guest.gate64(0x40, STUBS, 0x8c, 0);
    assert_eq!(guest.program_traps(|a| a.int(0x40)).what(), (13, Some(0x202)));
    let mut guest = Guest::long();
    guest.state.idtr.limit = 0x40 * 16 + 14;
    assert_eq!(guest.program_traps(|a| a.int(0x40)).what(), (13, Some(0x202)));
}

#[test]
fn a_gate_to_a_bad_code_segment_names_the_segment() {
    let cases = [
        (0, 13, 0),
        (sel::DATA0, 13, sel::DATA0),
        (sel::ABSENT_CODE, 11, sel::ABSENT_CODE),
        (0x1f8, 13, 0x1f8),
    ];
    for (selector, vector, code) in cases {
        let mut guest = Guest::protected();
        guest.gate32_to(0x40, selector, STUBS, 0x8e);
        let trap = guest.program_traps(|a| a.int(0x40));
        assert_eq!(trap.what(), (vector, Some(u32::from(code))), "{selector:#x}");
        // The same while an exception is delivered: EXT is set.
        let mut guest = Guest::protected();
        guest.gate32_to(6, selector, STUBS, 0x8e);
        let trap = guest.program_traps(|a| a.ud2());
        assert_eq!(trap.what(), (vector, external(code)), "{selector:#x}");
    }
}

#[test]
fn a_long_gate_to_a_segment_that_is_not_64_bit_code() {
    let mut guest = Guest::long();
    guest.gate64_to(0x40, sel::CODE32, STUBS, 0x8e, 0);
    assert_eq!(guest.program_traps(|a| a.int(0x40)).what(), (13, Some(u32::from(sel::CODE32))));
}

#[test]
fn a_long_gate_to_a_non_canonical_handler() {
    let mut guest = Guest::long();
    guest.gate64(0x40, 1 << 63, 0x8e, 0);
    assert_eq!(guest.program_traps(|a| a.int(0x40)).what(), (13, Some(0)));
    let mut guest = Guest::long();
    guest.gate64(6, 1 << 63, 0x8e, 0);
    assert_eq!(guest.program_traps(|a| a.ud2()).what(), (13, Some(1)));
}

#[test]
fn a_bad_inner_stack_is_an_invalid_task_state_naming_the_stack() {
    // SDM 3A, 7.15, interrupt 10.
    let cases = [
        (0, 10, 0),
        (sel::USER_DATA, 10, sel::USER_DATA & !3),
        (sel::CODE32, 10, sel::CODE32),
        (sel::READ_ONLY, 10, sel::READ_ONLY),
        (sel::ABSENT_DATA, 12, sel::ABSENT_DATA),
    ];
    for (stack, vector, code) in cases {
        let mut guest = Guest::protected();
        guest.enter_user();
        guest.gate32(0x40, STUBS + 0x400, 0xee);
        // The handlers must not need that stack: they are conforming.
        for v in [10, 12] {
            guest.gate32_to(v, sel::CONFORMING32, STUBS + u64::from(v) * 16, 0x8e);
        }
        guest.memory.write_u16(riad_memory::Gpa(TSS + 8), stack).expect("RAM");
        guest.state.rflags |= rflags::IOPL;
        let trap = guest.program_traps(|a| a.int(0x40));
        assert_eq!(trap.what(), (vector, Some(u32::from(code))), "SS0 {stack:#x}");
        assert_eq!(trap.ip, USER_CODE);
    }
}

#[test]
fn a_task_state_too_short_for_the_stack_is_an_invalid_task_state() {
    let mut guest = Guest::user();
    guest.state.segments.tr.limit = 10;
    guest.gate64(10, STUBS + 160, 0x8e, 0);
    guest.program(|a| a.ud2());
    // #TS cannot be delivered either: it needs the same stack.
    assert_eq!(guest.run(), Exit::Shutdown);
    let mut guest = Guest::protected();
    guest.enter_user();
    guest.state.segments.tr.limit = 10;
    guest.gate32_to(10, sel::CONFORMING32, STUBS + 160, 0x8e);
    guest.state.rflags |= rflags::IOPL;
    let trap = guest.program_traps(|a| a.ud2());
    assert_eq!(trap.what(), (10, external(sel::TSS)));
}

#[test]
fn an_inner_stack_without_room_is_a_stack_fault_naming_it() {
    let mut guest = Guest::protected();
    guest.enter_user();
    // Expand-down: offsets above 0xffff_0000 only.
    guest.set_descriptor(sel::FREE, descriptor(0, 0xf_fff0, 0x97, 0xc));
    guest.memory.write_u16(riad_memory::Gpa(TSS + 8), sel::FREE).expect("RAM");
    guest.gate32_to(12, sel::CONFORMING32, STUBS + 12 * 16, 0x8e);
    guest.gate32(0x40, STUBS, 0xee);
    guest.state.rflags |= rflags::IOPL;
    let trap = guest.program_traps(|a| a.int(0x40));
    assert_eq!(trap.what(), (12, Some(u32::from(sel::FREE))));
}

// --- faults while delivering (SDM 3A, 7.15, interrupt 8) ---

#[test]
fn two_contributory_faults_are_a_double_fault_with_code_0() {
    let mut guest = Guest::long();
    guest.gate64(13, STUBS, 0x0e, 0);
    let trap = guest.program_traps(|a| {
        a.mov(eax, 0x1f8)?;
        a.mov(ds, eax)
    });
    assert_eq!((trap.what(), trap.ip), ((8, Some(0)), CODE + 5));
}

#[test]
fn a_page_fault_while_delivering_a_page_fault_is_a_double_fault_and_cr2_is_the_second() {
    let mut guest = Guest::long();
    guest.gate64(14, FAR + 0x5000, 0x8e, 0);
    guest.gate64(8, STUBS + 8 * 16, 0x8e, 1);
    guest.state.gpr[4] = FAR + 0x2000;
    guest.state.gpr[3] = FAR;
    let trap = guest.program_traps(|a| a.mov(rax, qword_ptr(rbx)));
    assert_eq!((trap.what(), trap.ip), ((8, Some(0)), CODE));
    assert_eq!(guest.state.control.cr2, FAR + 0x1ff8);
    assert_eq!(
        trap.stack.map(|s| s.0),
        Some(FAR + 0x2000),
        "nothing of the first delivery is left"
    );
}

#[test]
fn a_page_fault_after_a_contributory_fault_is_delivered_by_itself() {
    let mut guest = Guest::long();
    // #GP's handler is on a stack that is not there.
    guest.gate64(13, STUBS + 13 * 16, 0x8e, 2);
    guest.poke(TSS + 44, FAR);
    let trap = guest.program_traps(|a| {
        a.mov(eax, 0x1f8)?;
        a.mov(ds, eax)
    });
    assert_eq!((trap.what(), trap.ip), ((14, Some(2)), CODE + 5));
    assert_eq!(guest.state.control.cr2, FAR - 8);
}

#[test]
fn a_fault_after_a_benign_exception_is_delivered_by_itself() {
    let mut guest = Guest::long();
    guest.gate64(6, STUBS, 0x0e, 0);
    assert_eq!(guest.program_traps(|a| a.ud2()).what(), (11, Some(6 * 8 + 2 + 1)));
}

#[test]
fn a_fault_while_delivering_a_double_fault_shuts_the_processor_down() {
    for mut guest in [Guest::long(), Guest::protected(), Guest::real()] {
        guest.state.idtr.limit = 0;
        guest.program(|a| a.ud2());
        assert_eq!(guest.run(), Exit::Shutdown);
        assert_eq!(guest.state.events.activity, Activity::Shutdown);
        assert_eq!(guest.run(), Exit::Shutdown, "and there it stays");
    }
}

#[test]
fn a_guest_that_does_nothing_but_fault_reaches_its_limit() {
    let mut guest = Guest::long();
    guest.gate64(6, CODE, 0x8e, 1);
    guest.program(|a| a.ud2());
    assert_eq!(guest.run(), Exit::Limit);
}

// --- the way back (SDM 2A, IRET) ---

#[test]
fn iretq_goes_back_to_level_3_with_its_flags_and_stack() {
    let mut guest = Guest::long();
    let frame = STACK - 40;
    let flags = rflags::ONE | rflags::IF | rflags::CF | rflags::DF;
    let words = [USER_CODE, sel::USER_CODE64.into(), flags, USER_STACK - 8, sel::USER_DATA.into()];
    for (n, word) in words.into_iter().enumerate() {
        guest.poke(frame + n as u64 * 8, word);
    }
    guest.state.gpr[4] = frame;
    guest.state.segments.fs = Segment { selector: sel::DATA0, ..guest.state.segments.ds };
    guest.code(USER_CODE, 64, |a| a.ud2());
    let trap = guest.program_traps(|a| a.iretq());
    assert_eq!((trap.what(), trap.ip, trap.cs), ((6, None), USER_CODE, sel::USER_CODE64));
    assert_eq!(trap.flags & !rflags::RF, flags);
    assert_eq!(trap.stack, Some((USER_STACK - 8, sel::USER_DATA)));
    let s = &guest.state.segments;
    assert_eq!((s.ds.selector, s.fs.selector), (0, 0), "inner data segments became null");
}

#[test]
fn iret_to_a_bad_frame_faults_with_the_selector_at_the_iret() {
    let good = [CODE + 0x100, sel::CODE64.into(), 2, STACK, sel::DATA0.into()];
    let cases: [(usize, u64, u8, u16); 8] = [
        (1, 0, 13, 0),
        (1, sel::DATA0.into(), 13, sel::DATA0),
        (1, sel::ABSENT_CODE.into(), 11, sel::ABSENT_CODE),
        (1, 0x1f8, 13, 0x1f8),
        (4, sel::USER_DATA.into(), 13, sel::USER_DATA & !3),
        (4, sel::ABSENT_DATA.into(), 12, sel::ABSENT_DATA),
        (4, sel::CODE64.into(), 13, sel::CODE64),
        (0, 1 << 63, 13, 0),
    ];
    for (place, value, vector, code) in cases {
        let mut guest = Guest::long();
        let mut words = good;
        words[place] = value;
        for (n, word) in words.into_iter().enumerate() {
            guest.poke(STACK - 40 + n as u64 * 8, word);
        }
        guest.state.gpr[4] = STACK - 40;
        guest.gate64(vector, STUBS + u64::from(vector) * 16, 0x8e, 1);
        let trap = guest.program_traps(|a| a.iretq());
        assert_eq!(trap.what(), (vector, Some(u32::from(code))), "word {place} = {value:#x}");
        assert_eq!((trap.ip, trap.stack.map(|s| s.0)), (CODE, Some(STACK - 40)));
    }
}

#[test]
fn iret_with_nt_set_is_refused_in_long_mode() {
    let mut guest = Guest::long();
    guest.state.rflags |= rflags::NT;
    assert_eq!(guest.program_traps(|a| a.iretq()).what(), (13, Some(0)));
}

#[test]
fn iret_and_popf_at_level_3_change_neither_iopl_nor_if() {
    let mut guest = Guest::user();
    guest.state.rflags |= rflags::IF;
    let trap = guest.program_traps(|a| {
        a.push(0x3000 | 1)?;
        a.popfq()?;
        a.ud2()
    });
    assert_eq!(trap.flags & (rflags::IF | rflags::IOPL | rflags::CF), rflags::IF | rflags::CF);
    let mut guest = Guest::user();
    let trap = guest.program_traps(|a| {
        let mut next = a.create_label();
        a.push(u32::from(sel::USER_DATA) as i32)?;
        a.push(USER_STACK as i32)?;
        a.push(0x3203)?;
        a.push(u32::from(sel::USER_CODE64) as i32)?;
        a.lea(rax, qword_ptr(next))?;
        a.push(rax)?;
        a.iretq()?;
        a.set_label(&mut next)?;
        a.ud2()
    });
    assert_eq!(trap.flags & (rflags::IF | rflags::IOPL | rflags::CF), rflags::CF);
}

#[test]
fn iret_to_compatibility_mode_and_an_interrupt_back() {
    let mut guest = Guest::long();
    let words = [USER_CODE, sel::USER_CODE32.into(), 2, USER_STACK, sel::USER_DATA.into()];
    for (n, word) in words.into_iter().enumerate() {
        guest.poke(STACK - 40 + n as u64 * 8, word);
    }
    guest.state.gpr[4] = STACK - 40;
    guest.gate64(0x80, STUBS + 0x800, 0xee, 0);
    guest.code(USER_CODE, 32, |a| {
        a.inc(eax)?;
        a.push(eax)?;
        a.int(0x80)
    });
    guest.state.gpr[0] = 0xffff_ffff_0000_0004;
    let trap = guest.program_traps(|a| a.iretq());
    assert_eq!((trap.vector, trap.cs, trap.ip), (0x80, sel::USER_CODE32, USER_CODE + 4));
    assert_eq!(trap.stack, Some((USER_STACK - 4, sel::USER_DATA)));
    assert_eq!((guest.rax(), guest.peek32(USER_STACK - 4)), (5, 5), "INC EAX is not a REX prefix");
}

#[test]
fn tables_of_a_64_bit_kernel_work_from_compatibility_mode_even_across_pages() {
    // The task state lies in the upper half of addresses, and its stack pointer across two pages.
    let mut guest = Guest::long();
    let base = 0xffff_8000_0000_0ff8u64;
    guest.tables.map(0xffff_8000_0000_0000, DATA | P | RW);
    guest.tables.map(0xffff_8000_0000_1000, (DATA + 0x1000) | P | RW);
    guest.poke(DATA + 0xff8 + 4, STACK0);
    guest.state.segments.tr.base = base;
    guest.enter_user();
    guest.state.segments.cs =
        Segment { selector: sel::USER_CODE32, base: 0, limit: u32::MAX, rights: 0xc0fb };
    let trap = guest.program_traps(|a| a.ud2());
    assert_eq!((trap.what(), trap.cs), ((6, None), sel::USER_CODE32));
    assert_eq!(guest.state.gpr[4], STACK0 - 40);
}

#[test]
fn iret_to_a_16_bit_stack_keeps_the_upper_half_of_esp() {
    let mut guest = Guest::protected();
    guest.set_descriptor(sel::FREE, descriptor(0, 0xffff, 0xf3, 0));
    let words =
        [USER_CODE as u32, sel::USER_CODE32.into(), 2, 0x1234_5678, u32::from(sel::FREE) | 3];
    for (n, word) in words.into_iter().enumerate() {
        guest.memory.write_u32(riad_memory::Gpa(STACK - 20 + n as u64 * 4), word).expect("RAM");
    }
    guest.state.gpr[4] = STACK - 20;
    guest.code(USER_CODE, 32, |a| a.ud2());
    let trap = guest.program_traps(|a| a.iretd());
    assert_eq!(trap.stack, Some((0x5678, sel::FREE | 3)));
}

// --- privileged instructions (SDM 3A, 6.9) ---

#[test]
fn privileged_instructions_fault_at_level_3() {
    type Body = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let bodies: [(&str, Body); 15] = [
        ("HLT", |a| a.hlt()),
        ("CLI", |a| a.cli()),
        ("STI", |a| a.sti()),
        ("IN", |a| a.in_(al, 0x10)),
        ("OUT", |a| a.out(dx, eax)),
        ("MOV CR", |a| a.mov(rax, cr0)),
        ("MOV DR", |a| a.mov(rax, dr7)),
        ("CLTS", |a| a.clts()),
        ("INVLPG", |a| a.invlpg(byte_ptr(rax))),
        ("WBINVD", |a| a.wbinvd()),
        ("RDMSR", |a| a.rdmsr()),
        ("WRMSR", |a| a.wrmsr()),
        ("LGDT", |a| a.lgdt(fword_ptr(rbx))),
        ("LTR", |a| a.ltr(ax)),
        ("SWAPGS", |a| a.swapgs()),
    ];
    for (name, body) in bodies {
        let mut guest = Guest::user();
        guest.state.gpr[3] = USER_STACK - 64;
        let trap = guest.program_traps(body);
        assert_eq!((trap.what(), trap.ip), ((13, Some(0)), USER_CODE), "{name}");
    }
}

#[test]
fn the_io_bitmap_lets_level_3_use_single_ports() {
    // SDM 1, 19.5.2.
    let mut guest = Guest::user();
    guest.memory.write_u16(riad_memory::Gpa(TSS + 0x66), 0x68).expect("RAM");
    guest.memory.fill(riad_memory::Gpa(TSS + 0x68), 32, 0xff).expect("RAM");
    guest.memory.write(riad_memory::Gpa(TSS + 0x68 + 2), &[0b1100_1111]).expect("RAM");
    let trap = guest.program_traps(|a| {
        a.in_(al, 0x14)?;
        a.in_(ax, 0x14)?;
        a.in_(eax, 0x14)
    });
    assert_eq!((trap.what(), trap.ip), ((13, Some(0)), USER_CODE + 5));
    // With enough I/O privilege nobody asks the bitmap.
    let mut guest = Guest::user();
    guest.state.rflags |= rflags::IOPL;
    guest.program_finishes(|a| a.out(0x10, al));
}

#[test]
fn umip_hides_the_tables_from_level_3() {
    type Body = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let bodies: [Body; 5] = [
        |a| a.sgdt(fword_ptr(rbx)),
        |a| a.sidt(fword_ptr(rbx)),
        |a| a.sldt(eax),
        |a| a.str(eax),
        |a| a.smsw(eax),
    ];
    for body in bodies {
        for umip in [false, true] {
            let mut guest = Guest::user();
            guest.state.gpr[3] = USER_STACK - 64;
            if umip {
                guest.state.control.cr4 |= riad_cpu::x86::cr4::UMIP;
            }
            let trap = guest.program_traps(|a| {
                body(a)?;
                a.ud2()
            });
            assert_eq!(trap.vector, if umip { 13 } else { 6 });
        }
    }
}

#[test]
fn alignment_is_checked_at_level_3_when_am_and_ac_say_so() {
    // SDM 3A, 7.15, interrupt 17.
    for (am, ac, level, faults) in [
        (true, true, 3, true),
        (false, true, 3, false),
        (true, false, 3, false),
        (true, true, 0, false),
    ] {
        let mut guest = if level == 3 { Guest::user() } else { Guest::long() };
        if am {
            guest.state.control.cr0 |= riad_cpu::x86::cr0::AM;
        }
        if ac {
            guest.state.rflags |= rflags::AC;
        }
        guest.state.gpr[3] = USER_STACK - 61;
        let trap = guest.program_traps(|a| {
            a.mov(al, byte_ptr(rbx))?;
            a.mov(eax, dword_ptr(rbx))?;
            a.ud2()
        });
        let expected = if faults { (17, Some(0)) } else { (6, None) };
        assert_eq!(trap.what(), expected, "AM {am}, AC {ac}, level {level}");
    }
}

#[test]
fn an_instruction_longer_than_15_bytes_is_a_general_protection_fault() {
    // SDM 2A, 2.3.11.
    let mut guest = Guest::long();
    guest.program_finishes(|a| a.db(&[0x66; 14]).and_then(|()| a.db(&[0x90])));
    guest.state.rip = CODE;
    let trap = guest.program_traps(|a| a.db(&[0x66; 15]).and_then(|()| a.db(&[0x90])));
    assert_eq!((trap.what(), trap.ip), ((13, Some(0)), CODE));
}
