use std::sync::Arc;

use proptest::prelude::*;
use riad_clock::{Clock, ManualClock};

use super::*;
use crate::test_bench::{Access, PortExt, Wire, poke, run_until};

/// 2025-03-09 14:05:06 UTC, a Sunday.
const THEN: u64 = 1_741_529_106;
const S: u64 = 1_000_000_000;

fn bench() -> (Cmos, Arc<Wire>, Arc<ManualClock>) {
    let (wire, clock) = (Wire::new(), Arc::new(ManualClock::new(THEN * S)));
    let memory = MemorySize { below_4g: 3 << 30, above_4g: 5 << 30 };
    (Cmos::new(memory, clock.clone(), wire.clone()), wire, clock)
}

fn get(cmos: &mut Cmos, index: u8) -> u8 {
    cmos.outb(0x70, 0x80 | index);
    cmos.inb(0x71)
}

fn set(cmos: &mut Cmos, index: u8, value: u8) {
    cmos.outb(0x70, index);
    cmos.outb(0x71, value);
}

fn time(cmos: &mut Cmos) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| get(cmos, index))
}

#[test]
fn shows_the_wall_clock_in_every_format() {
    let (mut cmos, ..) = bench();
    assert_eq!(time(&mut cmos), [0x20, 0x25, 0x03, 0x09, 0x01, 0x14, 0x05, 0x06]);
    set(&mut cmos, 0x0b, 0x00);
    assert_eq!(get(&mut cmos, 4), 0x82);
    set(&mut cmos, 0x0b, 0x06);
    assert_eq!(time(&mut cmos), [20, 25, 3, 9, 1, 14, 5, 6]);
    set(&mut cmos, 0x0b, 0x04);
    assert_eq!(get(&mut cmos, 4), 0x82);
    assert_eq!(get(&mut cmos, 0x0d), 0x80);
    assert_eq!(get(&mut cmos, 0x0a), 0x26);
}

/// Linux's `mc146818_set_time`.
#[test]
fn linux_sets_the_time() {
    let (mut cmos, _, clock) = bench();
    let b = get(&mut cmos, 0x0b);
    set(&mut cmos, 0x0b, b | 0x80);
    let a = get(&mut cmos, 0x0a);
    set(&mut cmos, 0x0a, a | 0x70);
    clock.advance(3 * S);
    for (index, value) in [(9, 0x31), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59)] {
        set(&mut cmos, index, value);
        assert_eq!(get(&mut cmos, index), value);
    }
    set(&mut cmos, 0x32, 0x20);
    set(&mut cmos, 0x0b, b);
    set(&mut cmos, 0x0a, a);
    assert_eq!(time(&mut cmos), [0x20, 0x31, 0x12, 0x31, 0x04, 0x23, 0x59, 0x59]);
    clock.advance(S / 2);
    assert_eq!(time(&mut cmos), [0x20, 0x32, 0x01, 0x01, 0x05, 0x00, 0x00, 0x00]);
}

#[test]
fn a_running_clock_can_be_set_byte_by_byte() {
    let (mut cmos, _, clock) = bench();
    set(&mut cmos, 4, 0x03);
    assert_eq!(get(&mut cmos, 4), 0x03);
    clock.advance(S);
    assert_eq!(get(&mut cmos, 0), 0x07);
}

#[test]
fn updates_are_announced_and_interrupt() {
    let (mut cmos, wire, clock) = bench();
    assert_eq!(get(&mut cmos, 0x0a) & 0x80, 0);
    clock.advance(S - 100_000);
    assert_eq!(get(&mut cmos, 0x0a) & 0x80, 0x80);
    set(&mut cmos, 0x0b, 0x12);
    assert_eq!(cmos.next_deadline(), Some(S));
    run_until(&clock, &mut cmos, S);
    assert!(wire.level());
    assert_eq!(cmos.next_deadline(), None, "until register C is read");
    assert_eq!(get(&mut cmos, 0x0c), 0xd0, "and the period of 1024 Hz");
    assert!(!wire.level());
    assert_eq!(cmos.next_deadline(), Some(2 * S));
    clock.advance_to(2 * S);
    assert_eq!(get(&mut cmos, 0x0c) & 0x10, 0x10, "also without the timer");
}

#[test]
fn alarms() {
    let (mut cmos, wire, clock) = bench();
    for (index, value) in [(1, 0x00), (3, 0x06), (5, 0xff)] {
        set(&mut cmos, index, value);
    }
    set(&mut cmos, 0x0b, 0x22);
    assert_eq!(cmos.next_deadline(), Some(54 * S));
    run_until(&clock, &mut cmos, 54 * S);
    assert!(wire.level());
    assert_eq!(get(&mut cmos, 0x0c) & 0xa0, 0xa0);
    assert_eq!(cmos.next_deadline(), Some((54 + 3600) * S));
    set(&mut cmos, 1, 0x77);
    assert_eq!(cmos.next_deadline(), None, "such a second does not exist");
}

#[test]
fn periodic_interrupts_have_the_exact_rate() {
    for (rate, per_second) in [(6u8, 1024), (15, 2), (3, 8192), (1, 256)] {
        let (mut cmos, wire, clock) = bench();
        set(&mut cmos, 0x0a, 0x20 | rate);
        set(&mut cmos, 0x0b, 0x42);
        let mut seen = 0;
        while let Some(at) = cmos.next_deadline().filter(|&at| at <= S) {
            clock.advance_to(at);
            cmos.expire();
            seen += wire.take_rises();
            assert_eq!(get(&mut cmos, 0x0c) & 0xc0, 0xc0);
        }
        assert_eq!(seen, per_second);
    }
}

#[test]
fn tells_how_much_memory_there_is() {
    let (mut cmos, ..) = bench();
    let mut word = |index| u16::from_le_bytes([get(&mut cmos, index), get(&mut cmos, index + 1)]);
    assert_eq!(word(0x15), 640);
    assert_eq!((word(0x17), word(0x30)), (0xffff, 0xffff));
    assert_eq!(word(0x34), 0xbf00);
    assert_eq!(word(0x5b), 0x4000);
    assert_eq!(get(&mut cmos, 0x5d), 0x01);
    let (mut small, ..) = bench();
    small.state.bytes = initial_bytes(MemorySize { below_4g: 8 << 20, above_4g: 0 });
    assert_eq!((get(&mut small, 0x17), get(&mut small, 0x18)), (0x00, 0x1c));
    assert_eq!(get(&mut small, 0x34), 0);
}

#[test]
fn memory_is_kept() {
    let (mut cmos, ..) = bench();
    set(&mut cmos, 0x0f, 0x0a);
    set(&mut cmos, 0x7f, 0x55);
    assert_eq!((get(&mut cmos, 0x0f), get(&mut cmos, 0x7f)), (0x0a, 0x55));
}

#[test]
fn a_restored_clock_goes_on() {
    let (mut cmos, _, clock) = bench();
    set(&mut cmos, 4, 0x03);
    set(&mut cmos, 0x0b, 0x12);
    clock.advance(S);
    cmos.expire();
    let json = serde_json::to_string(&cmos.save()).unwrap();
    let wire = Wire::new();
    let state: CmosState = serde_json::from_str(&json).unwrap();
    let mut again = Cmos::restore(state, clock.clone(), wire.clone());
    assert_eq!(again.save(), cmos.save());
    assert!(wire.level());
    assert_eq!(time(&mut again), time(&mut cmos));
}

#[test]
fn dates() {
    for (unix, date) in [
        (0, (1970, 1, 1, 5)),
        (951_782_400, (2000, 2, 29, 3)),
        (4_107_542_399, (2100, 2, 28, 1)),
        (4_107_542_400, (2100, 3, 1, 2)),
        (253_402_300_799, (9999, 12, 31, 6)),
        (-62_135_596_800, (1, 1, 1, 2)),
    ] {
        let time = DateTime::from_unix(unix);
        assert_eq!((time.year, time.month, time.day, time.weekday), date);
        assert_eq!(time.to_unix(), unix);
    }
}

proptest! {
    #[test]
    fn dates_round_trip(unix in -62_135_596_800i64..253_402_300_800) {
        let time = DateTime::from_unix(unix);
        prop_assert_eq!(time.to_unix(), unix);
        for b in 0..8 {
            let b = RegisterB::from_bits(b);
            prop_assert_eq!(DateTime::from_bytes(|index| time.to_byte(index, b), b), time);
        }
    }

    #[test]
    fn alarms_ring_at_their_time(after in 0i64..1 << 36, s in 0u8..62, m in 0u8..62, h in 0u8..26) {
        let any = |value: u8, limit: u8| (value < limit).then_some(value);
        let alarm = Alarm { hour: any(h, 24), minute: any(m, 60), second: any(s, 60) };
        let at = alarm.next_after(after).unwrap();
        let matches = |at: i64| {
            let time = DateTime::from_unix(at);
            alarm.hour.is_none_or(|h| h == time.hour)
                && alarm.minute.is_none_or(|m| m == time.minute)
                && alarm.second.is_none_or(|s| s == time.second)
        };
        prop_assert!(matches(at));
        prop_assert!(!(after + 1..at).any(matches));
    }

    #[test]
    fn no_access_panics(accesses: Vec<Access>) {
        let (mut cmos, _, clock) = bench();
        for access in accesses {
            let index = if access.1 & 0x100 == 0 { access.1 % 14 } else { access.1 };
            cmos.outb(0x70, index.to_le_bytes()[0]);
            poke(&mut cmos, (access.0, 0x71 - (access.1 >> 9 & 1), access.2, access.3, access.4));
            clock.advance(u64::from(access.4) << (access.1 % 20));
            if let Some(at) = cmos.next_deadline() {
                clock.advance_to(at.min(clock.now().saturating_add(S)));
                cmos.expire();
            }
        }
    }
}
