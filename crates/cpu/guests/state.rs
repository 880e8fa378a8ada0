//! A processor can be stopped at any instruction, saved, and go on elsewhere (wall 4 of the design).

use iced_x86::code_asm::*;
use proptest::prelude::*;
use riad_clock::{Clock, ClockState};
use riad_cpu::x86::{VcpuState, cr0, efer, rflags};
use riad_cpu::{Exit, Limit};
use riad_memory::Gpa;

use super::busy::{self, CALLS, HANDLER, ROUNDS, TIMER, outcome};
use super::machine::{CODE, Guest, RAM, sel, stop};

/// Instructions that a machine and its copy go on side by side.
const STRETCH: u64 = 7000;

/// A busy guest that calls by SYSCALL and ends by itself.
fn busy() -> Guest {
    let mut guest = busy::busy(30_000, |a| a.syscall(), |_| Ok(()));
    let s = &mut guest.state;
    s.msrs.star = 0x20 << 48 | u64::from(sel::CODE64) << 32;
    s.msrs.lstar = HANDLER;
    s.msrs.sfmask = rflags::IF;
    // SYSCALL: count; end when R15 says so.
    guest.code(HANDLER, 64, |a| {
        let mut on = a.create_label();
        a.inc(qword_ptr(CALLS))?;
        a.test(r15, r15)?;
        a.jne(on)?;
        stop(a)?;
        a.set_label(&mut on)?;
        a.sysretq()
    });
    guest
}

/// The same machine again, from what can be written to a file.
fn rebuilt(guest: &Guest) -> Guest {
    let json = serde_json::to_string(&guest.vcpu.state().expect("state")).expect("JSON");
    let state: VcpuState = serde_json::from_str(&json).expect("the same");
    let mut copy = Guest::long();
    let ram = guest.memory.read_vec(Gpa(0), RAM as usize).expect("RAM");
    copy.memory.write(Gpa(0), &ram).expect("RAM");
    let ClockState { now } = guest.clock.save();
    copy.clock.advance_to(now);
    copy.vcpu.set_state(&state).expect("a state a processor can be in");
    assert_eq!(copy.vcpu.state().expect("state"), state, "nothing was lost or added");
    copy
}

fn ends(guest: &mut Guest) -> Exit {
    guest.vcpu.run(Limit::Instructions(10_000_000)).expect("an exit")
}

#[test]
fn a_guest_goes_on_the_same_after_being_rebuilt_at_any_instruction() {
    let mut reference = busy();
    reference.vcpu.set_state(&reference.state).expect("state");
    assert_eq!(ends(&mut reference), Exit::Stopped);
    let length = reference.vcpu.instructions().expect("it counts");
    let expected = outcome(&reference);
    assert_eq!((expected.calls, expected.divisions), (u64::from(ROUNDS) + 1, u64::from(ROUNDS)));
    assert!(reference.peek(TIMER) > 3, "the timer interrupted it");

    let config =
        ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    // Not so late that it ends meanwhile.
    let points = proptest::collection::vec(1..length / 3 - STRETCH, 1..=3);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&points, |points| {
        let mut guest = busy();
        guest.vcpu.set_state(&guest.state).expect("state");
        for count in points {
            prop_assert_eq!(
                guest.vcpu.run(Limit::Instructions(count)).expect("an exit"),
                Exit::Limit
            );
            let mut copy = rebuilt(&guest);
            // For a while both go on in step, to the instruction and the nanosecond...
            for machine in [&mut guest, &mut copy] {
                let _ = machine.vcpu.run(Limit::Instructions(STRETCH)).expect("an exit");
            }
            prop_assert_eq!(guest.vcpu.state().expect("state"), copy.vcpu.state().expect("state"));
            prop_assert_eq!(guest.clock.now(), copy.clock.now());
            let ram = |machine: &Guest| machine.memory.read_vec(Gpa(0), RAM as usize).expect("RAM");
            let differs: Vec<_> = (0..)
                .zip(ram(&guest).into_iter().zip(ram(&copy)))
                .filter(|(_, (one, other))| one != other)
                .map(|(at, (one, other)): (u64, _)| format!("{at:#x}: {one:02x} {other:02x}"))
                .collect();
            prop_assert!(differs.is_empty(), "{differs:?}");
            guest = copy;
        }
        // ... and the end is what it would have been.
        prop_assert_eq!(ends(&mut guest), Exit::Stopped);
        prop_assert!(outcome(&guest) == expected);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn every_single_instruction_of_a_stretch_can_be_the_last() {
    // Interrupt frames, shadows and repetitions included: stop after each one.
    let mut guest = busy();
    guest.vcpu.set_state(&guest.state).expect("state");
    guest.vcpu.run(Limit::Instructions(3000)).expect("an exit");
    for _ in 0..150 {
        let state = guest.vcpu.state().expect("state");
        let json = serde_json::to_string(&state).expect("JSON");
        assert_eq!(serde_json::from_str::<VcpuState>(&json).expect("the same"), state);
        guest.vcpu.set_state(&state).expect("a state a processor can be in");
        guest.vcpu.run(Limit::Instructions(1)).expect("an exit");
    }
    assert_eq!(ends(&mut guest), Exit::Stopped);
    let mut reference = busy();
    reference.vcpu.set_state(&reference.state).expect("state");
    ends(&mut reference);
    assert!(outcome(&guest) == outcome(&reference));
}

#[test]
fn limits_are_exact() {
    let mut guest = Guest::long();
    guest.program(|a| {
        for _ in 0..50 {
            a.inc(rax)?;
        }
        Ok(())
    });
    guest.vcpu.set_state(&guest.state).expect("state");
    let mut total = 0;
    for count in [1, 2, 3, 5, 7, 11] {
        assert_eq!(guest.vcpu.run(Limit::Instructions(count)).expect("an exit"), Exit::Limit);
        total += count;
        let state = guest.vcpu.state().expect("state");
        assert_eq!((state.gpr[0], state.rip), (total, CODE + total * 3));
    }
    assert_eq!(guest.vcpu.instructions(), Some(total));
}

#[test]
fn states_no_processor_can_be_in_are_refused_and_the_old_state_stays() {
    type Change = fn(&mut VcpuState);
    let changes: &[Change] = &[
        |s| s.control.cr0 &= !cr0::PE,
        |s| s.control.efer &= !efer::LMA,
        |s| s.control.cr4 = 1 << 40,
        |s| s.rflags |= rflags::VM,
        |s| s.segments.fs.base = 1 << 63,
        |s| s.apic.id = 3,
        |s| s.events.pending_debug = u64::MAX,
    ];
    let mut guest = Guest::long();
    guest.vcpu.set_state(&guest.state).expect("state");
    let before = guest.vcpu.state().expect("state");
    for (n, change) in changes.iter().enumerate() {
        let mut state = before.clone();
        change(&mut state);
        assert!(guest.vcpu.set_state(&state).is_err(), "change {n}");
        assert_eq!(guest.vcpu.state().expect("state"), before);
    }
}
