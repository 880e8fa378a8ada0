use std::sync::Arc;

use proptest::prelude::*;
use riad_clock::ManualClock;

use super::*;
use crate::test_bench::{Access, PowerLog, Wire, poke, run_until};

struct Bench {
    pm: Pm,
    sci: Arc<Wire>,
    power: Arc<PowerLog>,
    clock: Arc<ManualClock>,
}

fn bench(width: TimerWidth) -> Bench {
    let (sci, power, clock) = (Wire::new(), PowerLog::new(), Arc::new(ManualClock::new(0)));
    let pm = Pm::new(width, clock.clone(), sci.clone(), power.clone());
    Bench { pm, sci, power, clock }
}

impl Bench {
    fn word(&mut self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.pm.port_read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    fn set_word(&mut self, offset: u16, value: u16) {
        self.pm.port_write(offset, &value.to_le_bytes());
    }

    fn timer(&mut self) -> u32 {
        let mut data = [0; 4];
        self.pm.port_read(8, &mut data);
        u32::from_le_bytes(data)
    }
}

#[test]
fn the_timer_is_exact() {
    let mut b = bench(TimerWidth::Bits24);
    b.clock.advance(1_000_000_000);
    assert_eq!(u64::from(b.timer()), TIMER_FREQUENCY);
    b.clock.advance(9_000_000_000);
    assert_eq!(u64::from(b.timer()), 10 * TIMER_FREQUENCY % (1 << 24));
    let mut b = bench(TimerWidth::Bits32);
    b.clock.advance(10_000_000_000);
    assert_eq!(u64::from(b.timer()), 10 * TIMER_FREQUENCY);
}

#[test]
fn s5_turns_the_machine_off() {
    let mut b = bench(TimerWidth::Bits24);
    assert_eq!(b.word(4), 1, "ACPI mode");
    b.set_word(4, u16::from(SLEEP_TYPE_S5) << 10);
    assert_eq!(b.power.take(), []);
    b.set_word(4, u16::from(SLEEP_TYPE_S5) << 10 | 1 << 13);
    assert_eq!(b.power.take(), [PowerEvent::PowerOff]);
    assert_eq!(b.word(4), 1 | u16::from(SLEEP_TYPE_S5) << 10);
    b.set_word(4, 1 << 13);
    assert_eq!(b.power.take(), []);
    // Byte by byte, as some systems do.
    b.pm.port_write(5, &[SLEEP_TYPE_S5 << 2 | 0x20]);
    assert_eq!(b.power.take(), [PowerEvent::PowerOff]);
}

#[test]
fn the_power_button_interrupts_until_it_is_cleared() {
    let mut b = bench(TimerWidth::Bits24);
    b.pm.press_power_button();
    assert!(!b.sci.level());
    b.set_word(2, 0xffff);
    assert_eq!(b.word(2), 0x0721);
    assert!(b.sci.level());
    b.set_word(0, 0x0020);
    assert!(b.sci.level());
    assert_eq!(b.word(0), 0x0100);
    b.set_word(0, 0x0100);
    assert!(!b.sci.level());
}

#[test]
fn the_timer_interrupts_when_its_highest_bit_changes() {
    let mut b = bench(TimerWidth::Bits24);
    assert_eq!(b.pm.next_deadline(), None);
    b.set_word(2, 1);
    let at = b.pm.next_deadline().unwrap();
    run_until(&b.clock, &mut b.pm, at - 1);
    assert_eq!(b.timer(), (1 << 23) - 1);
    assert!(!b.sci.level());
    run_until(&b.clock, &mut b.pm, at);
    assert_eq!(b.timer(), 1 << 23);
    assert!(b.sci.level());
    b.set_word(0, 1);
    assert!(!b.sci.level());
    assert!(b.pm.next_deadline().unwrap() > 2 * at - 2);
}

#[test]
fn a_general_event_interrupts_when_it_is_enabled_until_it_is_cleared() {
    let mut b = bench(TimerWidth::Bits32);
    b.pm.general_event(1);
    assert!(!b.sci.level() && !b.pm.general_event_enabled(1));
    // Status and enable registers, a byte each.
    assert_eq!(b.word(12), 0x0002);
    b.pm.port_write(13, &[0x02]);
    assert!(b.sci.level() && b.pm.general_event_enabled(1) && !b.pm.general_event_enabled(0));
    // What else is written clears nothing.
    b.set_word(0, 0xffff);
    assert!(b.sci.level());
    b.pm.port_write(12, &[0x02]);
    assert!(!b.sci.level());
    assert_eq!(b.word(12), 0x0200);
    b.pm.general_event(8);
    assert_eq!(b.word(12), 0x0200, "there are eight");
    b.pm.general_event(1);
    let sci = Wire::new();
    let again = Pm::restore(b.pm.save(), b.clock.clone(), sci.clone(), b.power.clone());
    assert!(sci.level() && again.general_event_enabled(1));
}

#[test]
fn what_was_saved_before_there_were_general_events_has_none() {
    let mut b = bench(TimerWidth::Bits32);
    let mut old = serde_json::to_value(b.pm.save()).unwrap();
    for field in ["general_status", "general_enable"] {
        old.as_object_mut().unwrap().remove(field).unwrap();
    }
    let state = serde_json::from_value(old).unwrap();
    b.pm = Pm::restore(state, b.clock.clone(), b.sci.clone(), b.power.clone());
    assert_eq!(b.word(12), 0);
}

#[test]
fn restored_hardware_goes_on() {
    let mut b = bench(TimerWidth::Bits32);
    b.set_word(2, 0x0100);
    b.pm.press_power_button();
    let json = serde_json::to_string(&b.pm.save()).unwrap();
    let sci = Wire::new();
    let state = serde_json::from_str(&json).unwrap();
    let again = Pm::restore(state, b.clock.clone(), sci.clone(), b.power.clone());
    assert_eq!(again.save(), b.pm.save());
    assert!(sci.level());
}

proptest! {
    #[test]
    fn no_access_panics(accesses: Vec<Access>) {
        let mut b = bench(TimerWidth::Bits24);
        for access in accesses {
            poke(&mut b.pm, (access.0, access.1 % 20, access.2, access.3, access.4));
            b.clock.advance(u64::from(access.4));
            b.pm.next_deadline();
            b.pm.expire();
        }
        b.clock.advance_to(u64::MAX);
        b.pm.expire();
        b.pm.next_deadline();
    }
}
