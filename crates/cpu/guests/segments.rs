//! Segmentation: loading segment registers, limits, and the instructions that look at descriptors
//! (SDM 3A, chapters 3 and 6).

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use riad_cpu::x86::Segment;

use super::machine::{CODE, DATA, Guest, descriptor, sel};

/// Loads DS (or SS) in 32-bit mode; the error, if any.
fn load(stack: bool, selector: u16, user: bool) -> Option<(u8, Option<u32>)> {
    let mut guest = Guest::protected();
    // Data of level 0 that may be loaded with any RPL; conforming code; execute-only code.
    guest.set_descriptor(sel::FREE, descriptor(0, 0xf_ffff, 0x99, 0xc));
    if user {
        guest.enter_user();
    }
    guest.state.gpr[0] = u64::from(selector);
    guest.program(|a| {
        if stack {
            a.mov(ss, eax)?;
        } else {
            a.mov(ds, eax)?;
        }
        a.ud2()
    });
    let trap = guest.traps();
    (trap.vector != 6).then(|| trap.what())
}

fn gp(selector: u16) -> Option<(u8, Option<u32>)> {
    Some((13, Some(u32::from(selector & !3))))
}

#[test]
fn data_segments_take_readable_segments_of_their_level_or_null() {
    // SDM 3A, 6.6.
    for good in [0, 3, sel::DATA0, sel::CODE32, sel::READ_ONLY, sel::USER_DATA, sel::CONFORMING32] {
        assert_eq!(load(false, good, false), None, "{good:#x}");
    }
    for bad in [sel::DATA0 | 3, sel::FREE, sel::TSS, 0x1f8, 4] {
        assert_eq!(load(false, bad, false), gp(bad), "{bad:#x}");
    }
    assert_eq!(load(false, sel::DATA0, true), gp(sel::DATA0));
    assert_eq!(load(false, sel::CONFORMING32, true), None, "conforming code is for everybody");
    assert_eq!(load(false, sel::ABSENT_DATA, false), Some((11, Some(sel::ABSENT_DATA.into()))));
}

#[test]
fn the_stack_segment_must_be_writable_and_of_exactly_this_level() {
    // SDM 3A, 6.7.
    assert_eq!(load(true, sel::DATA0, false), None);
    assert_eq!(load(true, sel::USER_DATA, true), None);
    for bad in [0, sel::DATA0 | 1, sel::READ_ONLY, sel::CODE32, sel::USER_DATA, 0x1f8] {
        assert_eq!(load(true, bad, false), gp(bad), "{bad:#x}");
    }
    assert_eq!(load(true, sel::ABSENT_DATA, false), Some((12, Some(sel::ABSENT_DATA.into()))));
}

#[test]
fn a_null_stack_segment_is_for_64_bit_mode_below_level_3() {
    let mut guest = Guest::long();
    guest.program_finishes(|a| {
        a.xor(eax, eax)?;
        a.mov(ss, eax)?;
        a.push(rax)?;
        a.pop(rcx)
    });
    let mut guest = Guest::user();
    let trap = guest.program_traps(|a| {
        a.mov(eax, 3)?;
        a.mov(ss, eax)
    });
    assert_eq!(trap.what(), (13, Some(0)));
}

#[test]
fn loading_a_segment_sets_its_accessed_bit() {
    let mut guest = Guest::protected();
    guest.set_descriptor(sel::FREE, descriptor(0, 0xf_ffff, 0x92, 0xc));
    guest.program_finishes(|a| {
        a.mov(eax, u32::from(sel::FREE))?;
        a.mov(es, eax)
    });
    assert_eq!(guest.peek(super::machine::GDT + u64::from(sel::FREE)) >> 40 & 0xff, 0x93);
}

#[test]
fn a_null_data_segment_faults_when_it_is_used() {
    let mut guest = Guest::protected();
    let trap = guest.program_traps(|a| {
        a.xor(eax, eax)?;
        a.mov(es, eax)?;
        a.mov(eax, dword_ptr(DATA).es())
    });
    assert_eq!(trap.what(), (13, Some(0)));
    assert_eq!(trap.ip, CODE + 4);
}

/// Runs with ES made from a descriptor; whether the access faulted.
fn access(raw: u64, body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> bool {
    let mut guest = Guest::protected();
    guest.set_descriptor(sel::FREE, raw);
    guest.program(|a| {
        a.mov(eax, u32::from(sel::FREE))?;
        a.mov(es, eax)?;
        body(a)
    });
    match guest.go() {
        None => false,
        Some(trap) => {
            assert_eq!(trap.what(), (13, Some(0)));
            true
        }
    }
}

#[test]
fn limits_are_of_bytes_or_pages_and_inclusive() {
    // SDM 3A, 6.3.
    let small = descriptor(DATA as u32, 0x1ff, 0x93, 0x4);
    assert!(!access(small, |a| a.mov(eax, dword_ptr(0x1fcu64).es())));
    assert!(access(small, |a| a.mov(eax, dword_ptr(0x1fdu64).es())));
    assert!(!access(small, |a| a.mov(al, byte_ptr(0x1ffu64).es())));
    assert!(access(small, |a| a.mov(byte_ptr(0x200u64).es(), al)));
    let pages = descriptor(DATA as u32, 1, 0x93, 0xc);
    assert!(!access(pages, |a| a.mov(eax, dword_ptr(0x1ffcu64).es())));
    assert!(access(pages, |a| a.mov(eax, dword_ptr(0x1ffdu64).es())));
}

#[test]
fn expand_down_segments_hold_what_is_above_their_limit() {
    let down = descriptor(DATA as u32, 0xfff, 0x97, 0x4);
    assert!(access(down, |a| a.mov(eax, dword_ptr(0xfffu64).es())));
    assert!(!access(down, |a| a.mov(eax, dword_ptr(0x1000u64).es())));
    // Without the B bit they end at 64 KiB.
    let down16 = descriptor(DATA as u32, 0xfff, 0x97, 0);
    assert!(!access(down16, |a| a.mov(eax, dword_ptr(0xfffcu64).es())));
    assert!(access(down16, |a| a.mov(eax, dword_ptr(0xfffdu64).es())));
}

#[test]
fn read_only_data_cannot_be_written_and_execute_only_code_cannot_be_read() {
    let read_only = descriptor(0, 0xf_ffff, 0x91, 0xc);
    assert!(!access(read_only, |a| a.mov(eax, dword_ptr(DATA).es())));
    assert!(access(read_only, |a| a.mov(dword_ptr(DATA).es(), eax)));
    let mut guest = Guest::protected();
    guest.state.segments.cs.rights = 0xc099;
    assert_eq!(guest.program_traps(|a| a.mov(eax, dword_ptr(CODE).cs())).what(), (13, Some(0)));
}

#[test]
fn code_is_never_writable_in_protected_mode() {
    let mut guest = Guest::protected();
    let trap = guest.program_traps(|a| a.mov(dword_ptr(DATA).cs(), eax));
    assert_eq!(trap.what(), (13, Some(0)));
    let mut guest = Guest::protected();
    guest.program_finishes(|a| a.mov(eax, dword_ptr(CODE).cs()));
    assert_eq!(guest.rax(), u64::from(guest.peek32(CODE)));
}

#[test]
fn the_stack_beyond_its_limit_is_a_stack_fault() {
    let mut guest = Guest::protected();
    guest.state.segments.ss.limit = 0x7fff;
    // The handler works on the same stack.
    guest.program(|a| {
        a.mov(ebp, 0x7ffd)?;
        a.mov(eax, dword_ptr(ebp))
    });
    assert_eq!(guest.traps().what(), (12, Some(0)));
}

#[test]
fn in_64_bit_mode_only_fs_and_gs_have_bases_and_nothing_has_limits() {
    // SDM 3A, 3.2.4.
    let mut guest = Guest::long();
    let odd = Segment { base: 0x1000, limit: 0, ..guest.state.segments.ds };
    guest.state.segments.ds = odd;
    guest.state.segments.fs = Segment { base: 0x10, ..odd };
    guest.poke(DATA, 1);
    guest.poke(DATA + 0x10, 2);
    guest.program_finishes(|a| {
        a.mov(rax, qword_ptr(DATA))?;
        a.mov(rbx, qword_ptr(DATA).fs())
    });
    assert_eq!((guest.rax(), guest.rbx()), (1, 2));
}

#[test]
fn code_beyond_its_limit_faults_before_the_instruction() {
    // SDM 3A, 6.3. The limit cuts INC EBX short.
    let mut guest = Guest::protected();
    guest.program(|a| {
        a.inc(eax)?;
        a.db(&[0xff, 0xc3])
    });
    guest.state.segments.cs.limit = CODE as u32 + 1;
    guest.state.gpr[3] = 0;
    let trap = guest.traps();
    assert_eq!((trap.what(), trap.ip), ((13, Some(0)), CODE + 1));
    assert_eq!((guest.rax(), guest.rbx()), (1, 0));
}

#[test]
fn code_that_was_cached_under_a_larger_limit_obeys_a_smaller_one() {
    let mut guest = Guest::protected();
    guest.program_finishes(|a| {
        for _ in 0..8 {
            a.inc(eax)?;
        }
        Ok(())
    });
    assert_eq!(guest.rax(), 8);
    guest.state.rip = CODE;
    guest.state.segments.cs.limit = CODE as u32 + 3;
    guest.state.segments.cs.selector = sel::CODE32;
    let trap = guest.traps();
    assert_eq!((trap.ip, guest.rax()), (CODE + 4, 12));
}

// --- LAR, LSL, VERR, VERW, ARPL (SDM 3A, 6.10) ---

#[test]
fn lar_and_lsl_tell_of_segments_that_may_be_seen() {
    let mut guest = Guest::protected();
    guest.enter_user();
    let trap = guest.program_traps(|a| {
        a.mov(ebx, u32::from(sel::USER_CODE32))?;
        a.lar(ecx, ebx)?;
        a.sete(ah)?;
        a.lsl(edx, ebx)?;
        a.mov(ebx, u32::from(sel::DATA0))?;
        a.lar(esi, ebx)?;
        a.sete(al)?;
        a.ud2()
    });
    assert_eq!(trap.vector, 6);
    assert_eq!((guest.rcx(), guest.rdx()), (0xcf_fb00 & 0xf0_ff00, 0xffff_ffff));
    assert_eq!(guest.rax() & 0xffff, 0x0100, "level 3 cannot see level 0's data");
}

#[test]
fn verr_and_verw_say_whether_an_access_would_do() {
    for (selector, readable, writable) in [
        (sel::USER_DATA, true, true),
        (sel::USER_CODE32, true, false),
        (sel::DATA0, false, false),
        (sel::CONFORMING32, true, false),
        (0, false, false),
        (sel::TSS, false, false),
    ] {
        let mut guest = Guest::protected();
        guest.enter_user();
        guest.state.gpr[3] = u64::from(selector);
        guest.program_traps(|a| {
            a.verr(bx)?;
            a.sete(al)?;
            a.verw(bx)?;
            a.sete(ah)?;
            a.ud2()
        });
        let said = (guest.rax() & 1 != 0, guest.rax() >> 8 & 1 != 0);
        assert_eq!(said, (readable, writable), "{selector:#x}");
    }
}

#[test]
fn arpl_raises_an_rpl_and_says_so() {
    let mut guest = Guest::protected();
    guest.program_finishes(|a| {
        a.mov(eax, 0x10)?;
        a.mov(ebx, 0x23)?;
        a.arpl(ax, bx)?;
        a.sete(cl)?;
        a.arpl(ax, bx)?;
        a.sete(ch)
    });
    assert_eq!((guest.rax(), guest.rcx() & 0xffff), (0x13, 1));
}

// --- LTR and LLDT (SDM 3A, 3.5) ---

#[test]
fn ltr_takes_an_available_task_state_and_marks_it_busy() {
    for long in [true, false] {
        let mut guest = if long { Guest::long() } else { Guest::protected() };
        guest.set_descriptor(sel::FREE, descriptor(0x7_0000, 0x67, 0x89, 0));
        guest.set_descriptor(sel::FREE + 8, 1);
        guest.program(|a| {
            a.mov(eax, u32::from(sel::FREE))?;
            a.ltr(ax)?;
            a.str(ecx)
        });
        guest.finishes();
        let base = if long { 0x1_0007_0000 } else { 0x7_0000 };
        assert_eq!((guest.state.segments.tr.base, guest.rcx()), (base, u64::from(sel::FREE)));
        // Busy now: a second time it is refused.
        guest.state.rip = CODE;
        assert_eq!(guest.traps().what(), (13, Some(u32::from(sel::FREE))));
    }
}

#[test]
fn system_descriptors_of_long_mode_must_lie_within_the_table_whole() {
    let mut guest = Guest::long();
    guest.set_descriptor(sel::FREE, descriptor(0x7_0000, 0x67, 0x89, 0));
    guest.state.gdtr.limit = sel::FREE + 7;
    let trap = guest.program_traps(|a| {
        a.mov(eax, u32::from(sel::FREE))?;
        a.ltr(ax)
    });
    assert_eq!(trap.what(), (13, Some(u32::from(sel::FREE))));
}

#[test]
fn segments_can_come_from_a_local_table() {
    let mut guest = Guest::protected();
    guest.set_descriptor(sel::FREE, descriptor(0x7_0000, 0x1f, 0x82, 0));
    guest.poke(0x7_0018, descriptor(DATA as u32, 0xfff, 0x93, 0x4));
    guest.poke(DATA + 4, 55);
    guest.program_finishes(|a| {
        a.mov(eax, u32::from(sel::FREE))?;
        a.lldt(ax)?;
        a.mov(eax, 0x1c)?;
        a.mov(es, eax)?;
        a.mov(ecx, dword_ptr(4u64).es())
    });
    assert_eq!(guest.rcx(), 55);
    // Beyond its limit, or without one.
    guest.state.rip = CODE;
    let trap = guest.program_traps(|a| {
        a.mov(eax, 0x24)?;
        a.mov(es, eax)
    });
    assert_eq!(trap.what(), (13, Some(0x24)));
}
