use std::sync::Arc;

use proptest::prelude::*;
use riad_clock::{Clock, ManualClock};

use super::*;
use crate::test_bench::{Access, PortExt, Wire, poke, run_until};

fn bench() -> (Pit, Arc<Wire>, Arc<ManualClock>) {
    let (wire, clock) = (Wire::new(), Arc::new(ManualClock::new(0)));
    let pit = Pit::new(clock.clone(), wire.clone());
    wire.take_rises();
    (pit, wire, clock)
}

/// Moves the clock by whole ticks, to just after one.
fn step(clock: &ManualClock, ticks: u64) {
    clock.advance_to(nanos_of(ticks_at(clock.now()) + ticks));
}

fn program(pit: &mut Pit, counter: u16, mode: u8, count: u16) {
    let [low, high] = count.to_le_bytes();
    let select = (counter as u8) << 6;
    pit.outb(0x43, select | 0x30 | mode << 1);
    pit.outb(0x40 + counter, low);
    pit.outb(0x40 + counter, high);
}

fn count(pit: &mut Pit, counter: u16) -> u16 {
    pit.outb(0x43, (counter as u8) << 6);
    u16::from_le_bytes([pit.inb(0x40 + counter), pit.inb(0x40 + counter)])
}

#[test]
fn ticks_are_exact() {
    assert_eq!(ticks_at(1_000_000_000), FREQUENCY);
    for tick in [0, 1, 17, FREQUENCY, 1 << 40] {
        assert_eq!(ticks_at(nanos_of(tick)), tick);
        assert!(tick == 0 || ticks_at(nanos_of(tick) - 1) == tick - 1);
    }
}

/// Linux's `pit_calibrate_tsc`: counter 2 in mode 0 for 50 ms, until its output shows in port 0x61.
#[test]
fn linux_calibrates_against_counter_2() {
    let (mut pit, _, clock) = bench();
    let port = pit.inb(0x61);
    pit.outb(0x61, port & !0x02 | 0x01);
    let latch = (FREQUENCY / 20) as u16;
    pit.outb(0x43, 0xb0);
    pit.outb(0x42, latch.to_le_bytes()[0]);
    pit.outb(0x42, latch.to_le_bytes()[1]);
    let start = clock.now();
    while pit.inb(0x61) & 0x20 == 0 {
        clock.advance(100);
    }
    let took = clock.now() - start;
    assert!((49_999_000..50_002_000).contains(&took), "{took} ns");
}

/// Linux's `quick_pit_calibrate`: reads the running count of mode 0 without latching.
#[test]
fn linux_calibrates_quickly() {
    let (mut pit, _, clock) = bench();
    pit.outb(0x61, 0x01);
    pit.outb(0x43, 0xb0);
    pit.outb(0x42, 0xff);
    pit.outb(0x42, 0xff);
    for msb in (0xf0..=0xfe).rev() {
        let before = clock.now();
        loop {
            pit.inb(0x42);
            if pit.inb(0x42) == msb {
                break;
            }
            clock.advance(1_000);
            assert!(clock.now() - before < 440_000);
        }
    }
}

#[test]
fn mode_0_raises_the_line_once() {
    let (mut pit, wire, clock) = bench();
    program(&mut pit, 0, 0, 100);
    assert!(!wire.level());
    let at = pit.next_deadline().unwrap();
    assert_eq!(at, nanos_of(ticks_at(0) + 101));
    run_until(&clock, &mut pit, at - 1);
    assert_eq!(wire.take_rises(), 0);
    run_until(&clock, &mut pit, at + 1_000_000_000);
    assert_eq!(wire.take_rises(), 1);
    assert_eq!(pit.next_deadline(), None);
}

#[test]
fn mode_2_ticks_exactly() {
    for mode in [2, 3, 6, 7] {
        let (mut pit, wire, clock) = bench();
        program(&mut pit, 0, mode, 1193);
        wire.take_rises();
        run_until(&clock, &mut pit, 10_000_000_000);
        assert_eq!(wire.take_rises() as u64, (10 * FREQUENCY - 1) / 1193, "mode {mode}");
    }
}

#[test]
fn late_ticks_are_merged() {
    let (mut pit, wire, clock) = bench();
    program(&mut pit, 0, 2, 1193);
    wire.take_rises();
    clock.advance(5_500_000);
    pit.expire();
    pit.expire();
    assert_eq!(wire.take_rises(), 1);
    assert!(pit.next_deadline().unwrap() > clock.now());
    assert!(pit.next_deadline().unwrap() <= clock.now() + 1_000_000);
}

#[test]
fn mode_4_strobes() {
    let (mut pit, wire, clock) = bench();
    program(&mut pit, 0, 4, 10);
    assert!(wire.level());
    step(&clock, 12);
    pit.expire();
    assert_eq!(wire.take_rises(), 1);
    assert_eq!(pit.next_deadline(), None);
}

#[test]
fn a_gate_holds_mode_0() {
    let (mut pit, _, clock) = bench();
    pit.outb(0x61, 0x01);
    program(&mut pit, 2, 0, 1000);
    step(&clock, 101);
    assert_eq!(count(&mut pit, 2), 900);
    pit.outb(0x61, 0);
    step(&clock, 5000);
    assert_eq!(count(&mut pit, 2), 900);
    pit.outb(0x61, 0x01);
    step(&clock, 100);
    assert_eq!(count(&mut pit, 2), 800);
    step(&clock, 799);
    assert_eq!(pit.inb(0x61) & 0x20, 0);
    step(&clock, 1);
    assert_eq!(pit.inb(0x61) & 0x20, 0x20);
}

#[test]
fn a_gate_triggers_modes_1_and_5() {
    for (mode, low_for) in [(1, 0..50), (5, 50..51)] {
        let (mut pit, _, clock) = bench();
        program(&mut pit, 2, mode, 50);
        step(&clock, 60);
        assert_eq!(pit.inb(0x61) & 0x20, 0x20, "no trigger yet");
        pit.outb(0x61, 0x01);
        step(&clock, 1);
        for tick in 0..60 {
            let low = pit.inb(0x61) & 0x20 == 0;
            assert_eq!(low, low_for.contains(&tick), "mode {mode} tick {tick}");
            step(&clock, 1);
        }
    }
}

#[test]
fn square_wave_halves() {
    let (mut pit, _, clock) = bench();
    pit.outb(0x61, 0x01);
    program(&mut pit, 2, 3, 5);
    step(&clock, 1);
    let mut seen = Vec::new();
    for _ in 0..10 {
        seen.push((pit.inb(0x61) & 0x20 != 0, count(&mut pit, 2)));
        step(&clock, 1);
    }
    let period = [(true, 4), (true, 2), (true, 0), (false, 4), (false, 2)];
    assert_eq!(seen, period.repeat(2));
}

#[test]
fn a_new_count_waits_for_the_end_of_the_period() {
    let (mut pit, wire, clock) = bench();
    program(&mut pit, 0, 2, 100);
    step(&clock, 50);
    pit.outb(0x40, 200);
    pit.outb(0x40, 0);
    wire.take_rises();
    step(&clock, 51);
    pit.expire();
    assert_eq!(wire.take_rises(), 1);
    step(&clock, 199);
    pit.expire();
    assert_eq!(wire.take_rises(), 0);
    step(&clock, 1);
    pit.expire();
    assert_eq!(wire.take_rises(), 1);
}

#[test]
fn decimal_counts() {
    let (mut pit, _, clock) = bench();
    pit.outb(0x61, 0x01);
    pit.outb(0x43, 0xb1);
    pit.outb(0x42, 0x00);
    pit.outb(0x42, 0x10);
    step(&clock, 2);
    assert_eq!(count(&mut pit, 2), 0x0999);
    pit.outb(0x43, 0xb1);
    pit.outb(0x42, 0);
    pit.outb(0x42, 0);
    step(&clock, 2);
    assert_eq!(count(&mut pit, 2), 0x9999);
}

#[test]
fn read_back_latches_status_and_count() {
    let (mut pit, _, clock) = bench();
    program(&mut pit, 0, 2, 1000);
    pit.outb(0x43, 0xe2);
    assert_eq!(pit.inb(0x40), 0xf4, "output high, null count, both bytes, mode 2");
    step(&clock, 101);
    pit.outb(0x43, 0xc2);
    step(&clock, 100);
    assert_eq!(pit.inb(0x40), 0xb4);
    assert_eq!(u16::from_le_bytes([pit.inb(0x40), pit.inb(0x40)]), 900);
    assert_eq!(u16::from_le_bytes([pit.inb(0x40), pit.inb(0x40)]), 800);
}

#[test]
fn refresh_toggles() {
    let (mut pit, _, clock) = bench();
    let first = pit.inb(0x61) & 0x10;
    step(&clock, 18);
    assert_ne!(pit.inb(0x61) & 0x10, first);
}

#[test]
fn a_restored_timer_goes_on() {
    let (mut pit, _, clock) = bench();
    program(&mut pit, 0, 2, 1193);
    program(&mut pit, 2, 0, 5000);
    clock.advance(1_500_000);
    pit.expire();
    let json = serde_json::to_string(&(pit.save(), clock.save())).unwrap();
    let (state, time) = serde_json::from_str(&json).unwrap();
    let clock2 = Arc::new(ManualClock::restore(time, 0));
    let wire = Wire::new();
    let mut again = Pit::restore(state, clock2.clone(), wire.clone());
    assert_eq!(again.save(), pit.save());
    assert_eq!(again.next_deadline(), pit.next_deadline());
    assert_eq!(count(&mut again, 2), count(&mut pit, 2));
    run_until(&clock2, &mut again, 10_000_000);
    assert!(wire.take_rises() >= 8);
}

proptest! {
    #[test]
    fn no_access_panics(accesses: Vec<Access>) {
        let (mut pit, _, clock) = bench();
        for access in accesses {
            let ports = [0x40, 0x41, 0x42, 0x43, 0x61];
            let port = ports[usize::from(access.1) % ports.len()];
            poke(&mut pit, (access.0, port, access.2, access.3, access.4));
            clock.advance(u64::from(access.4) >> (access.1 % 32));
            if let Some(at) = pit.next_deadline() {
                clock.advance_to(at.min(clock.now() + 100_000_000));
                pit.expire();
            }
            prop_assert!(pit.next_deadline().is_none_or(|at| at > clock.now()));
        }
        clock.advance_to(u64::MAX);
        pit.expire();
        pit.next_deadline();
    }
}
