//! Litmus tests of the memory model: what several processors may see of each other's plain loads
//! and stores, and what they may not (SDM 3A, 9.2.3; named after its examples).
//!
//! Every processor runs its body once a slot, on variables of that slot, and leaves what it saw.
//! Processors wait for each other now and then, but not for long, so that one that the host has
//! put aside does not hold up the others. What they saw is judged afterwards.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use riad_cpu::x86::lapic::LapicState;
use riad_cpu::{Exit, Limit};

use super::machine::{CODE, DATA, Guest, STACK, stop};

const SLOTS: u32 = 8192;
/// Runs of each test: processors meet at the beginning of each.
const RUNS: usize = 3;
/// Shared variables of slot 0; a slot is a line.
const X: i32 = 0x30_0000;
const Y: i32 = 0x38_0000;
/// What processor 0 saw, two words a slot, and how far processor 1's is from there.
const SEEN: i32 = 0x50_0000;
const NEXT: i32 = 0x2_0000;
/// Processors that came to a meeting, ever, and that are done.
const ARRIVED: u64 = DATA + 0x1000;
const DONE: u64 = DATA + 0x1040;

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;
/// What a processor left in EAX and EBX.
type Saw = (u32, u32);

/// Waits for the others, for a while. R14D is how many must have arrived ever.
fn meet(a: &mut CodeAssembler, processors: usize) -> Result<(), IcedError> {
    let (mut wait, mut met) = (a.create_label(), a.create_label());
    a.add(r14d, processors as u32)?;
    a.lock().inc(dword_ptr(ARRIVED))?;
    a.mov(ecx, 2000)?;
    a.set_label(&mut wait)?;
    a.cmp(dword_ptr(ARRIVED), r14d)?;
    a.jae(met)?;
    a.pause()?;
    a.dec(ecx)?;
    a.jne(wait)?;
    a.set_label(&mut met)?;
    a.nop()
}

/// Runs these bodies, a processor each: RDI is the slot's offset, of [`X`] and [`Y`]. Tells in how
/// many slots what all of them saw is what is in question.
fn outcomes(bodies: &[Code], question: impl Fn(&[Saw]) -> bool) -> usize {
    (0..RUNS).map(|_| run(bodies, &question)).sum()
}

fn run(bodies: &[Code], question: &impl Fn(&[Saw]) -> bool) -> usize {
    let mut guest = Guest::long_with(bodies.len() as u32);
    let mut vcpus = Vec::new();
    for (n, body) in bodies.iter().enumerate() {
        let at = CODE + 0x1000 * n as u64;
        guest.code(at, 64, |a| {
            let mut again = a.create_label();
            let (mut alone, mut wait) = (a.create_label(), a.create_label());
            a.xor(edi, edi)?;
            a.mov(esi, SEEN + NEXT * n as i32)?;
            a.xor(r14d, r14d)?;
            a.set_label(&mut again)?;
            a.test(edi, 0x1ff)?;
            a.jne(alone)?;
            meet(a, bodies.len())?;
            a.set_label(&mut alone)?;
            body(a)?;
            a.mov(dword_ptr(rsi), eax)?;
            a.mov(dword_ptr(rsi + 4), ebx)?;
            a.add(esi, 8)?;
            a.add(edi, 64)?;
            a.cmp(edi, SLOTS * 64)?;
            a.jb(again)?;
            a.lock().inc(dword_ptr(DONE))?;
            a.set_label(&mut wait)?;
            a.pause()?;
            a.cmp(dword_ptr(DONE), bodies.len() as u32)?;
            a.jne(wait)?;
            stop(a)
        });
        let mut state = guest.state.clone();
        state.rip = at;
        state.gpr[4] = STACK - 0x400 * n as u64;
        if n == 0 {
            guest.state = state;
            continue;
        }
        let mut vcpu = guest.another(n as u32);
        state.apic = LapicState { svr: state.apic.svr, ..LapicState::reset(n as u32) };
        vcpu.set_state(&state).expect("state");
        vcpus.push(vcpu);
    }
    guest.vcpu.set_state(&guest.state).expect("state");
    std::thread::scope(|scope| {
        for vcpu in vcpus.iter_mut().chain([&mut guest.vcpu]) {
            scope.spawn(move || assert_eq!(vcpu.run(Limit::None).expect("an exit"), Exit::Stopped));
        }
    });
    let saw = |slot: i32, n: usize| {
        let at = (SEEN + NEXT * n as i32 + 8 * slot) as u64;
        (guest.peek32(at), guest.peek32(at + 4))
    };
    (0..SLOTS as i32)
        .map(|slot| (0..bodies.len()).map(|n| saw(slot, n)).collect::<Vec<_>>())
        .filter(|all| question(all))
        .count()
}

#[test]
fn store_buffering_is_allowed_without_a_fence() {
    // SDM 3A, 9.2.3.4: allowed, not promised: what it counts is shown.
    // Allowed, and how often it is seen is the host's matter.
    outcomes(
        &[
            |a| {
                a.mov(dword_ptr(rdi + X), 1)?;
                a.mov(eax, dword_ptr(rdi + Y))
            },
            |a| {
                a.mov(dword_ptr(rdi + Y), 1)?;
                a.mov(eax, dword_ptr(rdi + X))
            },
        ],
        |saw| saw[0].0 == 0 && saw[1].0 == 0,
    );
}

#[test]
fn store_buffering_is_forbidden_with_mfence() {
    let count = outcomes(
        &[
            |a| {
                a.mov(dword_ptr(rdi + X), 1)?;
                a.mfence()?;
                a.mov(eax, dword_ptr(rdi + Y))
            },
            |a| {
                a.mov(dword_ptr(rdi + Y), 1)?;
                a.mfence()?;
                a.mov(eax, dword_ptr(rdi + X))
            },
        ],
        |saw| saw[0].0 == 0 && saw[1].0 == 0,
    );
    assert_eq!(count, 0);
}

#[test]
fn store_buffering_is_forbidden_with_a_locked_instruction_between() {
    // SDM 3A, 9.2.3.9: to a line of its own, so that only the lock orders.
    let count = outcomes(
        &[
            |a| {
                a.mov(dword_ptr(rdi + X), 1)?;
                a.lock().add(dword_ptr(rsp - 64), 0)?;
                a.mov(eax, dword_ptr(rdi + Y))
            },
            |a| {
                a.mov(dword_ptr(rdi + Y), 1)?;
                a.lock().add(dword_ptr(rsp - 64), 0)?;
                a.mov(eax, dword_ptr(rdi + X))
            },
        ],
        |saw| saw[0].0 == 0 && saw[1].0 == 0,
    );
    assert_eq!(count, 0);
}

#[test]
fn store_buffering_is_forbidden_when_xchg_stores() {
    let count = outcomes(
        &[
            |a| {
                a.mov(ecx, 1)?;
                a.xchg(dword_ptr(rdi + X), ecx)?;
                a.mov(eax, dword_ptr(rdi + Y))
            },
            |a| {
                a.mov(ecx, 1)?;
                a.xchg(dword_ptr(rdi + Y), ecx)?;
                a.mov(eax, dword_ptr(rdi + X))
            },
        ],
        |saw| saw[0].0 == 0 && saw[1].0 == 0,
    );
    assert_eq!(count, 0);
}

#[test]
fn message_passing_keeps_its_order() {
    // SDM 3A, 9.2.3.2.
    let count = outcomes(
        &[
            |a| {
                a.mov(dword_ptr(rdi + X), 1)?;
                a.mov(dword_ptr(rdi + Y), 1)
            },
            |a| {
                a.mov(eax, dword_ptr(rdi + Y))?;
                a.mov(ebx, dword_ptr(rdi + X))
            },
        ],
        |saw| saw[1] == (1, 0),
    );
    assert_eq!(count, 0);
}

#[test]
fn loads_are_not_delayed_behind_later_stores() {
    // SDM 3A, 9.2.3.3.
    let count = outcomes(
        &[
            |a| {
                a.mov(eax, dword_ptr(rdi + X))?;
                a.mov(dword_ptr(rdi + Y), 1)
            },
            |a| {
                a.mov(eax, dword_ptr(rdi + Y))?;
                a.mov(dword_ptr(rdi + X), 1)
            },
        ],
        |saw| saw[0].0 == 1 && saw[1].0 == 1,
    );
    assert_eq!(count, 0);
}

#[test]
fn a_processor_sees_its_own_store_at_once() {
    // SDM 3A, 9.2.3.5: each forwards to itself; that the other's is not seen yet is allowed.
    let count = outcomes(
        &[
            |a| {
                a.mov(dword_ptr(rdi + X), 1)?;
                a.mov(eax, dword_ptr(rdi + X))?;
                a.mov(ebx, dword_ptr(rdi + Y))
            },
            |a| {
                a.mov(dword_ptr(rdi + Y), 1)?;
                a.mov(eax, dword_ptr(rdi + Y))?;
                a.mov(ebx, dword_ptr(rdi + X))
            },
        ],
        |saw| saw[0].0 == 0 || saw[1].0 == 0,
    );
    assert_eq!(count, 0);
}

#[test]
fn stores_are_seen_transitively() {
    // SDM 3A, 9.2.3.6.
    let count = outcomes(
        &[
            |a| a.mov(dword_ptr(rdi + X), 1),
            |a| {
                a.mov(eax, dword_ptr(rdi + X))?;
                a.mov(dword_ptr(rdi + Y), 1)
            },
            |a| {
                a.mov(eax, dword_ptr(rdi + Y))?;
                a.mov(ebx, dword_ptr(rdi + X))
            },
        ],
        |saw| saw[1].0 == 1 && saw[2] == (1, 0),
    );
    assert_eq!(count, 0);
}

#[test]
fn independent_reads_of_independent_writes_agree() {
    // SDM 3A, 9.2.3.7.
    let count = outcomes(
        &[
            |a| a.mov(dword_ptr(rdi + X), 1),
            |a| a.mov(dword_ptr(rdi + Y), 1),
            |a| {
                a.mov(eax, dword_ptr(rdi + X))?;
                a.mov(ebx, dword_ptr(rdi + Y))
            },
            |a| {
                a.mov(eax, dword_ptr(rdi + Y))?;
                a.mov(ebx, dword_ptr(rdi + X))
            },
        ],
        |saw| saw[2] == (1, 0) && saw[3] == (1, 0),
    );
    assert_eq!(count, 0);
}

#[test]
fn stores_of_eight_bytes_within_a_line_are_never_seen_in_halves() {
    // SDM 3A, 9.1.1: aligned ones, and since the P6 family all that lie within a line.
    let write: Code = |a| {
        for round in 0..8 {
            a.mov(rcx, round % 2 - 1i64)?;
            a.mov(qword_ptr(rdi + X), rcx)?;
            a.mov(qword_ptr(rdi + X + 51), rcx)?;
        }
        Ok(())
    };
    let read: Code = |a| {
        // EAX: how often its halves differed.
        a.xor(eax, eax)?;
        for round in 0..16 {
            a.mov(rcx, qword_ptr(rdi + X + 51 * (round & 1)))?;
            a.mov(rdx, rcx)?;
            a.shr(rdx, 32)?;
            a.xor(ebx, ebx)?;
            a.cmp(edx, ecx)?;
            a.setne(bl)?;
            a.add(eax, ebx)?;
        }
        Ok(())
    };
    assert_eq!(outcomes(&[write, read], |saw| saw[1].0 != 0), 0);
}
