//! A guest of a few instructions in lockstep, as it is and with mistakes put in.

use std::sync::Arc;

use riad_clock::ManualClock;
use riad_cpu::x86::{Segment, VcpuState, cr0, cr4, efer};
use riad_cpu::{Exit, Limit, Nowhere, Vcpu, VcpuConfig};
use riad_memory::{Gpa, GuestMemory};

use crate::cpu::Cpu;
use crate::{Options, SoftEngine, SoftVcpu, Tier, translates_here};

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;

/// Adds 1 to RBX, stores it, and goes on for ever:
/// `top: add rbx, 1; mov [rsi], rbx; movq xmm0, rbx; jmp top`.
const LOOP: [u8; 14] =
    [0x48, 0x83, 0xc3, 0x01, 0x48, 0x89, 0x1e, 0x66, 0x48, 0x0f, 0x6e, 0xc3, 0xeb, 0xf2];

/// A processor in 64-bit mode, with its memory mapped to itself.
fn vcpu(tier: Tier, code: &[u8]) -> (SoftVcpu, GuestMemory) {
    let memory = GuestMemory::new(&[(Gpa(0), 1 << 20)]).expect("memory");
    memory.write_u64(Gpa(0x1000), 0x2000 | 7).expect("RAM");
    memory.write_u64(Gpa(0x2000), 0x3000 | 7).expect("RAM");
    memory.write_u64(Gpa(0x3000), 0x87).expect("RAM");
    memory.write(Gpa(CODE), code).expect("RAM");
    let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
    let options = Options { tier, code_cache: 1 << 20 };
    let clock = Arc::new(ManualClock::new(0).driven(10));
    let engine = SoftEngine::with_options(memory.clone(), clock, config, options);
    let mut vcpu = engine.vcpu(0, Arc::new(Nowhere));
    let mut state = VcpuState::flat_protected(0, CODE as u32);
    state.segments.cs = Segment { selector: 8, base: 0, limit: u32::MAX, rights: 0xa09b };
    state.control.cr3 = 0x1000;
    state.control.cr0 |= cr0::PG | cr0::PE | cr0::WP;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR;
    state.control.efer = efer::LME | efer::LMA;
    state.gpr[6] = DATA;
    vcpu.set_state(&state).expect("a state a processor can be in");
    (vcpu, memory)
}

/// What is said about a loop whose state is spoiled after every block.
fn spoiled(spoil: fn(&mut Cpu)) -> String {
    let (mut vcpu, _memory) = vcpu(Tier::Lockstep, &LOOP);
    vcpu.lockstep.as_mut().expect("lockstep").spoil = Some(spoil);
    vcpu.run(Limit::Instructions(1000)).expect_err("a difference").to_string()
}

#[test]
fn a_right_translation_runs_on() {
    if !translates_here() {
        return;
    }
    let (mut one, memory) = vcpu(Tier::Lockstep, &LOOP);
    let (mut other, truth) = vcpu(Tier::Interpreter, &LOOP);
    for vcpu in [&mut one, &mut other] {
        assert_eq!(vcpu.run(Limit::Instructions(100_000)).expect("an exit"), Exit::Limit);
    }
    assert_eq!(one.state().expect("a state"), other.state().expect("a state"));
    assert_eq!(memory.read_u64(Gpa(DATA)).expect("RAM"), 25_000);
    assert_eq!(truth.read_u64(Gpa(DATA)).expect("RAM"), 25_000);
    let (blocks, instructions) = one.lockstep.as_ref().expect("lockstep").compared;
    assert_eq!((blocks, instructions), (25_000, 100_000));
}

#[test]
fn a_wrong_register_is_noticed() {
    if !translates_here() {
        return;
    }
    let text = spoiled(|cpu| cpu.regs[12] ^= 0x10);
    assert!(text.contains("disagree on the block at 0x10000, after 4 of 4"), "{text}");
    assert!(text.contains("r12 is 0x10 and should be 0x0"), "{text}");
    assert!(text.contains("Add_rm64_imm8 4883c301;"), "{text}");
}

#[test]
fn wrong_flags_are_noticed() {
    if !translates_here() {
        return;
    }
    let text = spoiled(|cpu| cpu.flags.bits ^= riad_cpu::x86::rflags::CF);
    assert!(text.contains("rflags is 0x3 and should be 0x2"), "{text}");
}

#[test]
fn a_wrong_vector_register_is_noticed() {
    if !translates_here() {
        return;
    }
    let text = spoiled(|cpu| cpu.fpu.xmm[0] += 1);
    assert!(text.contains("xmm0 is 0x2 and should be 0x1"), "{text}");
}

#[test]
fn wrong_memory_is_noticed() {
    if !translates_here() {
        return;
    }
    let text = spoiled(|cpu| cpu.memory.write_u64(Gpa(DATA), 7).expect("RAM"));
    assert!(text.contains("is 0x7 and should be 0x1"), "{text}");
}

#[test]
fn code_that_overwrites_its_own_block_is_the_same_in_both() {
    if !translates_here() {
        return;
    }
    // mov byte [rip + 3], 5; add rbx, 1 (which becomes 5); mov [rsi], rbx; jmp $
    let code = [0xc6, 0x05, 0x03, 0, 0, 0, 5, 0x48, 0x83, 0xc3, 0x01, 0x48, 0x89, 0x1e, 0xeb, 0xfe];
    for tier in [Tier::Interpreter, Tier::Translator, Tier::Lockstep] {
        let (mut vcpu, memory) = vcpu(tier, &code);
        assert_eq!(vcpu.run(Limit::Instructions(100)).expect("an exit"), Exit::Limit);
        assert_eq!(
            memory.read_u64(Gpa(DATA)).expect("RAM"),
            5,
            "{tier:?} {:x?}",
            memory.read_vec(Gpa(CODE), 16)
        );
    }
}

#[test]
fn what_is_behind_a_fault_leaves_no_dirty_bit() {
    if !translates_here() {
        return;
    }
    // mov eax, [rdi], which is not there; mov [rsi], rbx, which would make the page dirty; jmp $
    let code = [0x8b, 0x07, 0x48, 0x89, 0x1e, 0xeb, 0xfe];
    let (mut vcpu, memory) = vcpu(Tier::Lockstep, &code);
    let mut state = vcpu.state().expect("a state");
    state.gpr[7] = 0x8000_0000;
    vcpu.set_state(&state).expect("a state a processor can be in");
    // The page fault has no handler.
    assert_eq!(vcpu.run(Limit::Instructions(10)).expect("an exit"), Exit::Shutdown);
    assert_eq!(memory.read_u64(Gpa(0x3000)).expect("RAM") & 0x40, 0);
}
