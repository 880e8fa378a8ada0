//! Single-stepping and breakpoints (SDM 3B, chapter 18).

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use riad_cpu::x86::{cr4, rflags};

use super::machine::{CODE, DATA, Guest, STUBS, USER_CODE, USER_STACK, sel};

/// A handler of #DB that counts in R15, keeps RIPs in a list at R14 and DR6 in R13 (which it
/// clears), sets RF when R12 is 1, and goes back.
const HANDLER: u64 = 0x1_8000;
const LIST: u64 = DATA + 0x1_0000;

const B0: u64 = 1;
const BD: u64 = 1 << 13;
const BS: u64 = 1 << 14;

fn counting() -> Guest {
    let mut guest = Guest::long();
    count(&mut guest);
    guest
}

fn count(guest: &mut Guest) {
    guest.gate64(1, HANDLER, 0x8e, 1);
    guest.state.gpr[14] = LIST;
    guest.code(HANDLER, 64, |a| {
        a.push(rax)?;
        a.mov(rax, qword_ptr(rsp + 8))?;
        a.mov(qword_ptr(r14 + r15 * 8), rax)?;
        a.inc(r15)?;
        a.mov(r13, dr6)?;
        a.mov(eax, 0xffff_0ff0u32)?;
        a.mov(dr6, rax)?;
        a.mov(rax, r12)?;
        a.shl(rax, 16)?;
        a.or(qword_ptr(rsp + 24), rax)?;
        a.pop(rax)?;
        a.iretq()
    });
}

/// Where #DB was reported, relative to the program.
fn reported(guest: &Guest) -> Vec<u64> {
    (0..guest.state.gpr[15]).map(|n| guest.peek(LIST + n * 8).wrapping_sub(CODE)).collect()
}

fn step_over(body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Guest {
    let mut guest = counting();
    // POPF sets TF: the first trap comes after the instruction that follows it.
    guest.program_finishes(|a| {
        a.push(0x102)?;
        a.popfq()?;
        body(a)?;
        a.push(2)?;
        a.popfq()
    });
    guest
}

/// Offset of the first instruction after POPF.
const BODY: u64 = 6;

// --- single step (SDM 3B, 18.3.1.4) ---

#[test]
fn a_single_step_trap_comes_after_each_instruction() {
    let guest = step_over(|a| {
        a.nop()?;
        a.inc(rax)?;
        a.nop()
    });
    // PUSH is stepped over too, and POPF, at whose start TF was set.
    let expected = [1, 4, 5, 7, 8].map(|n| BODY + n);
    assert_eq!(reported(&guest), expected);
    assert_eq!(guest.state.gpr[13] & 0xffff, 0x0ff0 | BS);
    assert_eq!(guest.rax(), 1);
}

#[test]
fn a_taken_branch_is_one_step() {
    let guest = step_over(|a| {
        let mut there = a.create_label();
        a.jmp(there)?;
        a.nop()?;
        a.set_label(&mut there)?;
        a.nop()
    });
    assert_eq!(reported(&guest)[0], BODY + 3);
}

#[test]
fn mov_ss_holds_the_trap_back_for_an_instruction_and_sti_does_not() {
    let guest = step_over(|a| {
        a.mov(eax, ss)?;
        a.mov(ss, eax)?;
        a.nop()?;
        a.sti()?;
        a.cli()
    });
    assert_eq!(reported(&guest)[..5], [2, 5, 6, 7, 9].map(|n| BODY + n));
}

#[test]
fn a_repeated_string_instruction_traps_after_every_iteration() {
    let mut guest = counting();
    guest.state.gpr[1] = 3;
    guest.state.gpr[7] = DATA;
    guest.program_finishes(|a| {
        a.push(0x102)?;
        a.popfq()?;
        a.rep().stosb()?;
        a.push(2)?;
        a.popfq()
    });
    assert_eq!(reported(&guest)[..4], [BODY, BODY, BODY + 2, BODY + 4]);
    assert_eq!(guest.rcx(), 0);
}

#[test]
fn ins_and_outs_trap_after_every_iteration() {
    let mut guest = counting();
    guest.state.gpr[1] = 2;
    guest.state.gpr[6] = DATA;
    guest.state.gpr[2] = 0x80;
    guest.program_finishes(|a| {
        a.push(0x102)?;
        a.popfq()?;
        a.rep().outsb()?;
        a.push(2)?;
        a.popfq()
    });
    assert_eq!(reported(&guest)[..2], [BODY, BODY + 2]);
}

#[test]
fn int_n_clears_tf_and_no_trap_follows_it() {
    let mut guest = counting();
    guest.state.rflags |= rflags::TF;
    let trap = guest.program_traps(|a| a.int(0x40));
    assert_eq!(trap.vector, 0x40);
    assert_ne!(trap.flags & rflags::TF, 0, "the image has it");
    assert_eq!((guest.state.gpr[15], guest.state.rflags & rflags::TF), (0, 0));
}

#[test]
fn a_fault_is_not_stepped_over() {
    let mut guest = counting();
    guest.state.rflags |= rflags::TF;
    let trap = guest.program_traps(|a| a.ud2());
    assert_eq!((trap.vector, guest.state.gpr[15]), (6, 0));
}

#[test]
fn hlt_is_stepped_over_and_wakes() {
    let guest = step_over(|a| {
        a.hlt()?;
        a.nop()
    });
    assert_eq!(reported(&guest)[..2], [BODY + 1, BODY + 2]);
}

#[test]
fn a_kernel_that_masks_tf_is_not_stepped_into_by_syscall() {
    for masked in [true, false] {
        let mut guest = Guest::user();
        count(&mut guest);
        guest.state.rflags |= rflags::TF;
        guest.state.msrs.lstar = CODE;
        guest.state.msrs.star = u64::from(sel::CODE64) << 32;
        guest.state.msrs.sfmask = if masked { rflags::TF } else { 0 };
        guest.code(CODE, 64, |a| {
            a.and(r11d, !0x100)?;
            super::machine::stop(a)
        });
        guest.program(|a| a.syscall());
        guest.finishes();
        assert_eq!(guest.state.gpr[15] == 0, masked);
        if !masked {
            assert_eq!(guest.peek(LIST), CODE, "the trap is after SYSCALL");
        }
    }
}

#[test]
fn sysret_with_tf_traps_at_once() {
    let mut guest = counting();
    guest.state.msrs.star = 0x20 << 48;
    guest.state.gpr[1] = USER_CODE;
    guest.state.gpr[11] = 0x102;
    guest.code(USER_CODE, 64, |a| a.ud2());
    guest.gate64(1, STUBS + 16, 0x8e, 0);
    let trap = guest.program_traps(|a| a.sysretq());
    assert_eq!((trap.vector, trap.ip), (1, USER_CODE));
}

// --- breakpoints (SDM 3B, 18.2.4 and 18.3.1) ---

/// DR7 with breakpoint 0 of this kind and length on.
fn enabled(kind: u64, length: u64) -> u64 {
    0x402 | kind << 16 | length << 18
}

#[test]
fn an_instruction_breakpoint_is_a_fault_before_the_instruction_with_rf_clear() {
    let mut guest = Guest::long();
    guest.state.debug.address[0] = CODE + 3;
    guest.state.debug.dr7 = enabled(0, 0);
    let trap = guest.program_traps(|a| {
        a.inc(rax)?;
        a.inc(rax)
    });
    assert_eq!((trap.vector, trap.ip), (1, CODE + 3));
    assert_eq!(trap.flags & rflags::RF, 0);
    assert_eq!(guest.rax(), 1);
    assert_eq!(guest.state.debug.dr6, 0xffff_0ff0 | B0);
}

#[test]
fn rf_in_the_image_lets_the_instruction_run_once() {
    let mut guest = counting();
    guest.state.gpr[12] = 1;
    guest.state.gpr[1] = 3;
    guest.state.debug.address[2] = CODE;
    guest.state.debug.dr7 = 0x400 | 1 << 4;
    guest.program_finishes(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(rax)?;
        a.dec(ecx)?;
        a.jne(again)
    });
    assert_eq!(reported(&guest), [0, 0, 0], "once for each time round");
    assert_eq!((guest.rax(), guest.state.gpr[13] & 15), (3, 4));
}

#[test]
fn a_long_repetition_hits_its_breakpoint_once() {
    let mut guest = counting();
    guest.state.gpr[12] = 1;
    guest.state.gpr[1] = 0x1_8000;
    guest.state.gpr[7] = DATA + 0x2_0000;
    guest.state.debug.address[0] = CODE;
    guest.state.debug.dr7 = enabled(0, 0);
    guest.program_finishes(|a| a.rep().stosb());
    assert_eq!((reported(&guest), guest.rcx()), (vec![0], 0));
}

#[test]
fn an_instruction_breakpoint_after_mov_ss_is_missed() {
    let mut guest = counting();
    guest.state.debug.address[0] = CODE + 4;
    guest.state.debug.dr7 = enabled(0, 0);
    guest.program_finishes(|a| {
        a.mov(eax, ss)?;
        a.mov(ss, eax)?;
        a.nop()
    });
    assert!(reported(&guest).is_empty());
}

#[test]
fn a_data_breakpoint_traps_after_the_access() {
    // (kind, length code, access, hit)
    let cases: &[(u64, u64, u64, bool, bool)] = &[
        (1, 3, DATA, true, true),
        (1, 3, DATA, false, false),
        (3, 3, DATA, false, true),
        (3, 0, DATA + 1, true, false),
        (3, 3, DATA + 3, true, true),
        (3, 2, DATA + 7, true, true),
        (1, 0, DATA - 3, true, true),
        (1, 0, DATA - 4, true, false),
    ];
    for &(kind, length, at, write, hit) in cases {
        let mut guest = counting();
        guest.state.gpr[3] = at;
        guest.state.debug.address[0] = DATA;
        guest.state.debug.dr7 = enabled(kind, length);
        guest.program_finishes(|a| {
            if write {
                a.mov(dword_ptr(rbx), ecx)?;
            } else {
                a.mov(eax, dword_ptr(rbx))?;
            }
            a.nop()
        });
        let expected = if hit { vec![2] } else { vec![] };
        assert_eq!(
            reported(&guest),
            expected,
            "kind {kind}, length {length}, {at:#x}, write {write}"
        );
        if hit {
            assert_eq!(guest.state.gpr[13] & 0xf, B0);
        }
    }
}

#[test]
fn data_breakpoints_see_string_instructions_and_the_stack() {
    let mut guest = counting();
    guest.state.gpr[1] = 16;
    guest.state.gpr[7] = DATA;
    guest.state.debug.address[0] = DATA + 5;
    guest.state.debug.dr7 = enabled(1, 0);
    guest.program_finishes(|a| {
        a.rep().stosb()?;
        a.nop()
    });
    assert_eq!(reported(&guest).len(), 1);
    let mut guest = counting();
    guest.state.debug.address[0] = super::machine::STACK - 8;
    guest.state.debug.dr7 = enabled(1, 2);
    guest.program_finishes(|a| {
        a.push(rax)?;
        a.pop(rax)
    });
    assert_eq!(reported(&guest), [1]);
}

#[test]
fn an_access_that_faults_hits_no_breakpoint() {
    let mut guest = counting();
    guest.state.gpr[3] = 0x12_3456_7000;
    guest.state.debug.address[0] = 0x12_3456_7000;
    guest.state.debug.dr7 = enabled(3, 3);
    let trap = guest.program_traps(|a| a.mov(eax, dword_ptr(rbx)));
    assert_eq!((trap.vector, guest.state.gpr[15]), (14, 0));
    assert_eq!(guest.state.events.pending_debug, 0);
}

#[test]
fn io_breakpoints_need_cr4_de() {
    for de in [true, false] {
        let mut guest = counting();
        if de {
            guest.state.control.cr4 |= cr4::DE;
        }
        guest.state.debug.address[0] = 0x84;
        guest.state.debug.dr7 = enabled(2, 3);
        guest.program_finishes(|a| {
            a.out(0x86, al)?;
            a.out(0x88, al)
        });
        assert_eq!(reported(&guest), if de { vec![2] } else { vec![] });
    }
}

#[test]
fn general_detect_guards_the_debug_registers_and_is_off_in_the_handler() {
    let mut guest = Guest::long();
    guest.state.debug.dr7 = 0x400 | 1 << 13;
    let trap = guest.program_traps(|a| a.mov(rax, dr0));
    assert_eq!((trap.vector, trap.ip), (1, CODE));
    assert_ne!(trap.flags & rflags::RF, 0);
    assert_eq!(guest.state.debug.dr6, 0xffff_0ff0 | BD);
    assert_eq!(guest.state.debug.dr7, 0x400);
}

#[test]
fn debug_registers_keep_their_fixed_bits() {
    let mut guest = Guest::long();
    guest.program_finishes(|a| {
        // All but general detection, and bit 11, which belongs to transactional memory.
        a.mov(eax, 0xffff_d7ff_u32)?;
        a.mov(dr7, rax)?;
        a.mov(rbx, dr7)?;
        a.xor(eax, eax)?;
        a.mov(dr7, rax)?;
        a.mov(rcx, dr7)?;
        a.mov(dr6, rax)?;
        a.mov(rdx, dr6)
    });
    assert_eq!((guest.rbx(), guest.rcx(), guest.rdx()), (0xffff_07ff, 0x400, 0xffff_0ff0));
    for register in [dr6, dr7] {
        let mut guest = Guest::long();
        guest.state.gpr[0] = 1 << 32;
        assert_eq!(guest.program_traps(|a| a.mov(register, rax)).what(), (13, Some(0)));
    }
}

#[test]
fn dr4_and_dr5_are_other_names_until_cr4_de() {
    let mut guest = Guest::long();
    guest.program_finishes(|a| a.mov(rax, dr4));
    assert_eq!(guest.rax(), 0xffff_0ff0);
    let mut guest = Guest::long();
    guest.state.control.cr4 |= cr4::DE;
    assert_eq!(guest.program_traps(|a| a.mov(rax, dr4)).what(), (6, None));
}

#[test]
fn breakpoints_work_at_level_3_and_in_compatibility_mode() {
    let mut guest = Guest::user();
    guest.state.segments.cs.rights = 0xc0fb;
    guest.state.segments.cs.selector = sel::USER_CODE32;
    guest.state.debug.address[0] = USER_CODE + 1;
    guest.state.debug.dr7 = enabled(0, 0);
    let trap = guest.program_traps(|a| a.nop().and_then(|()| a.nop()));
    assert_eq!(
        (trap.vector, trap.ip, trap.stack.map(|s| s.0)),
        (1, USER_CODE + 1, Some(USER_STACK))
    );
}
