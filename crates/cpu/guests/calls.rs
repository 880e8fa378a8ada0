//! Far transfers, call gates, and the fast system calls (SDM 3A, 6.8).

use iced_x86::code_asm::*;
use riad_cpu::x86::{Segment, cr4, rflags};

use super::machine::{
    CODE, DATA, Guest, STACK, STACK0, USER_CODE, USER_STACK, descriptor, sel, stop,
};

/// A call gate: target, parameters, access byte.
fn call_gate(selector: u16, to: u64, parameters: u8, access: u8) -> u64 {
    to & 0xffff
        | u64::from(selector) << 16
        | u64::from(parameters) << 32
        | u64::from(access) << 40
        | (to >> 16 & 0xffff) << 48
}

const TARGET: u64 = 0x1_8000;

/// `call selector:0` or `jmp selector:0` of 32-bit code.
fn far(a: &mut CodeAssembler, opcode: u8, selector: u16) -> Result<(), iced_x86::IcedError> {
    let [low, high] = selector.to_le_bytes();
    a.db(&[opcode, 0, 0, 0, 0, low, high])
}

// --- direct far transfers ---

#[test]
fn a_far_call_and_return_change_the_code_segment_at_the_same_level() {
    let mut guest = Guest::protected();
    guest.set_descriptor(sel::FREE, descriptor(TARGET as u32, 0xfff, 0x9b, 0x4));
    guest.code(TARGET, 32, |a| {
        a.mov(ecx, cs)?;
        a.mov(edx, dword_ptr(esp))?;
        a.db(&[0xca, 4, 0]) // retf 4
    });
    guest.program_finishes(|a| {
        a.push(9)?;
        far(a, 0x9a, sel::FREE)
    });
    assert_eq!((guest.rcx(), guest.rdx()), (u64::from(sel::FREE), CODE + 9));
    assert_eq!((guest.state.gpr[4], guest.state.segments.cs.selector), (STACK, sel::CODE32));
}

#[test]
fn a_far_transfer_names_the_selector_it_cannot_use() {
    for (selector, vector, code) in [
        (0, 13, 0),
        (3, 13, 0),
        (sel::DATA0, 13, sel::DATA0),
        (sel::USER_CODE32, 13, sel::USER_CODE32 & !3),
        (sel::CODE32 | 3, 13, sel::CODE32),
        (sel::ABSENT_CODE, 11, sel::ABSENT_CODE),
        (0x1f8, 13, 0x1f8),
    ] {
        for opcode in [0x9a, 0xea] {
            let mut guest = Guest::protected();
            let trap = guest.program_traps(|a| far(a, opcode, selector));
            assert_eq!(trap.what(), (vector, Some(u32::from(code))), "{selector:#x}");
            assert_eq!((trap.ip, guest.state.gpr[4]), (CODE, STACK - 16));
        }
    }
}

#[test]
fn conforming_code_runs_at_the_callers_level() {
    let mut guest = Guest::protected();
    guest.enter_user();
    guest.set_descriptor(sel::FREE, descriptor(USER_CODE as u32 + 0x100, 0xfff, 0x9f, 0x4));
    guest.code(USER_CODE + 0x100, 32, |a| {
        a.mov(ecx, cs)?;
        a.ud2()
    });
    let trap = guest.program_traps(|a| far(a, 0xea, sel::FREE));
    assert_eq!((trap.cs, guest.rcx()), (sel::FREE | 3, u64::from(sel::FREE | 3)));
}

#[test]
fn retf_to_an_outer_level_pops_the_stack_and_drops_parameters_from_both() {
    let mut guest = Guest::protected();
    let words = [
        USER_CODE as u32,
        sel::USER_CODE32.into(),
        0,
        0,
        USER_STACK as u32 - 8,
        sel::USER_DATA.into(),
    ];
    for (n, word) in words.into_iter().enumerate() {
        guest.memory.write_u32(riad_memory::Gpa(STACK - 24 + n as u64 * 4), word).expect("RAM");
    }
    guest.state.gpr[4] = STACK - 24;
    guest.code(USER_CODE, 32, |a| a.ud2());
    let trap = guest.program_traps(|a| a.db(&[0xca, 8, 0]));
    assert_eq!((trap.cs, trap.ip), (sel::USER_CODE32, USER_CODE));
    assert_eq!(trap.stack, Some((USER_STACK, sel::USER_DATA)));
}

// --- call gates (SDM 3A, 6.8.3) ---

#[test]
fn a_call_gate_to_an_inner_level_switches_stacks_and_copies_parameters() {
    let mut guest = Guest::protected();
    guest.enter_user();
    guest.set_descriptor(sel::FREE, call_gate(sel::CODE32, TARGET, 2, 0xec));
    guest.code(TARGET, 32, stop);
    guest.program(|a| {
        a.push(0x11)?;
        a.push(0x22)?;
        far(a, 0x9a, sel::FREE | 3)
    });
    guest.finishes();
    let frame: Vec<u32> = (0..6).map(|n| guest.peek32(STACK0 - 24 + n * 4)).collect();
    let back = USER_CODE as u32 + 11;
    let expected =
        [back, sel::USER_CODE32.into(), 0x22, 0x11, USER_STACK as u32 - 8, sel::USER_DATA.into()];
    assert_eq!(frame, expected);
    assert_eq!(guest.state.segments.cs.selector, sel::CODE32);
    assert_eq!((guest.state.gpr[4], guest.state.segments.ss.selector), (STACK0 - 24, sel::DATA0));
}

#[test]
fn a_call_gate_of_long_mode_pushes_the_old_stack_and_comes_back_with_retf() {
    let mut guest = Guest::user();
    guest.set_descriptor(sel::FREE, call_gate(sel::CODE64, TARGET, 0, 0xec));
    guest.set_descriptor(sel::FREE + 8, 0);
    guest.code(TARGET, 64, |a| {
        a.mov(ecx, cs)?;
        a.mov(r8, qword_ptr(rsp + 16))?;
        a.mov(r9, qword_ptr(rsp + 24))?;
        a.mov(r10, ss)?;
        a.db(&[0x48, 0xcb]) // retfq
    });
    guest
        .memory
        .write(riad_memory::Gpa(USER_STACK - 16), &[0, 0, 0, 0, sel::FREE as u8 | 3, 0])
        .expect("RAM");
    guest.state.gpr[3] = USER_STACK - 16;
    let trap = guest.program_traps(|a| {
        a.db(&[0xff, 0x1b])?; // call far [rbx]
        a.ud2()
    });
    assert_eq!((trap.vector, trap.ip, trap.cs), (6, USER_CODE + 2, sel::USER_CODE64));
    let g = guest.state.gpr;
    assert_eq!(
        (g[1], g[8], g[9], g[10]),
        (sel::CODE64.into(), USER_STACK, sel::USER_DATA.into(), 0)
    );
}

#[test]
fn a_call_gate_checks_its_own_level_and_its_target() {
    let cases = [
        // The gate's level keeps callers out.
        (call_gate(sel::CODE32, TARGET, 0, 0x8c), 13, sel::FREE),
        (call_gate(sel::CODE32, TARGET, 0, 0x6c), 11, sel::FREE),
        (call_gate(0, TARGET, 0, 0xec), 13, 0),
        (call_gate(sel::DATA0, TARGET, 0, 0xec), 13, sel::DATA0),
        (call_gate(sel::ABSENT_CODE, TARGET, 0, 0xec), 11, sel::ABSENT_CODE),
    ];
    for (gate, vector, code) in cases {
        let mut guest = Guest::protected();
        guest.enter_user();
        guest.set_descriptor(sel::FREE, gate);
        let trap = guest.program_traps(|a| far(a, 0x9a, sel::FREE | 3));
        assert_eq!(trap.what(), (vector, Some(u32::from(code))), "{gate:#x}");
        assert_eq!(trap.stack, Some((USER_STACK, sel::USER_DATA)));
    }
    // A jump through a gate cannot change the level.
    let mut guest = Guest::protected();
    guest.enter_user();
    guest.set_descriptor(sel::FREE, call_gate(sel::CODE32, TARGET, 0, 0xec));
    let trap = guest.program_traps(|a| far(a, 0xea, sel::FREE | 3));
    assert_eq!(trap.what(), (13, Some(u32::from(sel::CODE32))));
}

// --- SYSCALL and SYSRET (SDM 2B) ---

fn with_syscall() -> Guest {
    let mut guest = Guest::user();
    guest.state.msrs.star = 0x20 << 48 | u64::from(sel::CODE64) << 32;
    guest.state.msrs.lstar = TARGET;
    guest.state.msrs.sfmask = rflags::IF | rflags::DF;
    guest
}

#[test]
fn syscall_saves_rip_and_flags_in_registers_and_masks_flags() {
    let mut guest = with_syscall();
    guest.state.rflags |= rflags::IF | rflags::DF | rflags::CF;
    guest.code(TARGET, 64, stop);
    guest.program(|a| a.syscall());
    guest.finishes();
    assert_eq!(guest.rcx(), USER_CODE + 2);
    assert_eq!(guest.state.gpr[11], rflags::ONE | rflags::IF | rflags::DF | rflags::CF);
    assert_eq!(guest.state.rflags & 0xfff, rflags::ONE | rflags::CF);
    let s = guest.state.segments;
    assert_eq!((s.cs.selector, s.ss.selector, s.ss.dpl()), (sel::CODE64, sel::DATA0, 0));
    assert_eq!(guest.state.gpr[4], USER_STACK, "the stack is the kernel's matter");
}

#[test]
fn sysret_goes_back_to_64_bit_or_32_bit_code() {
    for wide in [true, false] {
        let mut guest = with_syscall();
        guest.code(TARGET, 64, |a| if wide { a.sysretq() } else { a.sysret() });
        let target = USER_CODE + 0x100;
        guest.memory.write(riad_memory::Gpa(target), &[0x0f, 0x0b]).expect("RAM");
        guest.code(TARGET, 64, |a| {
            a.mov(ecx, target as u32)?;
            if wide { a.sysretq() } else { a.sysret() }
        });
        let trap = guest.program_traps(|a| a.syscall());
        let code = if wide { sel::USER_CODE64 } else { sel::USER_CODE32 };
        assert_eq!((trap.vector, trap.ip, trap.cs), (6, target, code));
        assert_eq!(trap.stack.map(|s| s.1), Some(sel::USER_DATA));
    }
}

#[test]
fn sysret_to_a_non_canonical_address_faults_at_level_0() {
    let mut guest = Guest::long();
    guest.state.msrs.star = 0x20 << 48;
    guest.state.gpr[1] = 1 << 47;
    let trap = guest.program_traps(|a| a.sysretq());
    assert_eq!((trap.what(), trap.ip, trap.cs), ((13, Some(0)), CODE, sel::CODE64));
}

#[test]
fn syscall_does_not_exist_without_sce_or_outside_of_64_bit_mode() {
    let mut guest = with_syscall();
    guest.state.control.efer &= !riad_cpu::x86::efer::SCE;
    assert_eq!(guest.program_traps(|a| a.syscall()).vector, 6);
    let mut guest = with_syscall();
    guest.state.segments.cs.rights = 0xc0fb;
    assert_eq!(guest.program_traps(|a| a.syscall()).vector, 6);
    let mut guest = Guest::user();
    assert_eq!(guest.program_traps(|a| a.sysretq()).what(), (13, Some(0)));
}

// --- SYSENTER and SYSEXIT (SDM 2B) ---

#[test]
fn sysenter_and_sysexit_take_everything_from_registers() {
    for long in [true, false] {
        let mut guest = if long { Guest::long() } else { Guest::protected() };
        guest.enter_user();
        // Selectors are at fixed distances from this: flat ones, whatever the table says.
        guest.state.msrs.sysenter_cs = 0x100;
        guest.state.msrs.sysenter_eip = TARGET;
        guest.state.msrs.sysenter_esp = STACK0;
        guest.state.rflags |= rflags::IF | rflags::CF;
        guest.code(TARGET, if long { 64 } else { 32 }, |a| {
            a.mov(edi, cs)?;
            a.mov(esi, ss)?;
            a.mov(ebp, esp)?;
            a.pushfd_or_q(long)?;
            a.pop_ax(long)?;
            a.mov(edx, USER_CODE as u32 + 0x100)?;
            a.mov(ecx, USER_STACK as u32 - 0x40)?;
            if long { a.sysexitq() } else { a.sysexit() }
        });
        guest.memory.write(riad_memory::Gpa(USER_CODE + 0x100), &[0x0f, 0x0b]).expect("RAM");
        let trap = guest.program_traps(|a| a.sysenter());
        let g = guest.state.gpr;
        assert_eq!((g[7], g[6], g[5]), (0x100, 0x108, STACK0));
        assert_eq!(g[0] & (rflags::IF | rflags::CF), rflags::CF);
        let (code, stack) = if long { (0x123, 0x12b) } else { (0x113, 0x11b) };
        assert_eq!((trap.vector, trap.cs, trap.ip), (6, code, USER_CODE + 0x100));
        assert_eq!(trap.stack, Some((USER_STACK - 0x40, stack)));
    }
}

trait ByWidth {
    fn pushfd_or_q(&mut self, long: bool) -> Result<(), iced_x86::IcedError>;
    fn pop_ax(&mut self, long: bool) -> Result<(), iced_x86::IcedError>;
}

impl ByWidth for CodeAssembler {
    fn pushfd_or_q(&mut self, long: bool) -> Result<(), iced_x86::IcedError> {
        if long { self.pushfq() } else { self.pushfd() }
    }
    fn pop_ax(&mut self, long: bool) -> Result<(), iced_x86::IcedError> {
        if long { self.pop(rax) } else { self.pop(eax) }
    }
}

#[test]
fn sysenter_without_a_selector_and_sysexit_at_level_3_fault() {
    let mut guest = Guest::user();
    guest.state.msrs.sysenter_cs = 3;
    assert_eq!(guest.program_traps(|a| a.sysenter()).what(), (13, Some(0)));
    let mut guest = Guest::user();
    guest.state.msrs.sysenter_cs = 0x100;
    assert_eq!(guest.program_traps(|a| a.sysexit()).what(), (13, Some(0)));
}

// --- SWAPGS and the base registers ---

#[test]
fn swapgs_exchanges_the_base_with_the_msr() {
    let mut guest = Guest::long();
    guest.state.segments.gs = Segment { base: 0x10, ..guest.state.segments.ds };
    guest.state.msrs.kernel_gs_base = DATA;
    guest.poke(DATA + 8, 5);
    guest.program_finishes(|a| {
        a.swapgs()?;
        a.mov(rax, qword_ptr(8u64).gs())
    });
    assert_eq!((guest.rax(), guest.state.msrs.kernel_gs_base), (5, 0x10));
}

#[test]
fn base_instructions_need_cr4_and_canonical_values() {
    let mut guest = Guest::user();
    assert_eq!(guest.program_traps(|a| a.rdfsbase(rax)).what(), (6, None));
    let mut guest = Guest::user();
    guest.state.control.cr4 |= cr4::FSGSBASE;
    guest.state.gpr[0] = 0x7fff_0000_1234;
    let trap = guest.program_traps(|a| {
        a.wrfsbase(rax)?;
        a.rdfsbase(rbx)?;
        a.wrgsbase(eax)?;
        a.rdgsbase(rcx)?;
        a.bts(rax, 63)?;
        a.wrgsbase(rax)
    });
    assert_eq!(trap.what(), (13, Some(0)));
    assert_eq!((guest.rbx(), guest.rcx()), (0x7fff_0000_1234, 0x1234));
}
