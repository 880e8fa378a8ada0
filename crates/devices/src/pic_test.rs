use proptest::prelude::*;

use super::*;
use crate::test_bench::{self, Access, PortExt, poke};

/// Controllers as Linux initializes them, all inputs unmasked.
fn bench() -> (Pic, Arc<test_bench::Wire>) {
    let intr = test_bench::Wire::new();
    let mut pic = Pic::new(intr.clone());
    initialize(&mut pic, 0x01);
    (pic, intr)
}

fn initialize(pic: &mut Pic, icw4: u8) {
    for (base, vector, cascade) in [(0x20, 0x30, 4), (0xa0, 0x38, 2)] {
        pic.outb(base, 0x11);
        pic.outb(base + 1, vector);
        pic.outb(base + 1, cascade);
        pic.outb(base + 1, icw4);
        pic.outb(base + 1, 0);
    }
}

fn pulse(pic: &Pic, irq: u8) {
    pic.line(irq).set(true);
    pic.line(irq).set(false);
}

#[test]
fn linux_probe_reads_back_the_mask() {
    let (mut pic, _) = bench();
    pic.outb(0xa1, 0xff);
    pic.outb(0x21, 0xfb);
    assert_eq!((pic.inb(0x21), pic.inb(0xa1)), (0xfb, 0xff));
}

#[test]
fn silent_until_initialized() {
    let intr = test_bench::Wire::new();
    let mut pic = Pic::new(intr.clone());
    pic.outb(0x20, 0x11);
    pulse(&pic, 1);
    assert!(!intr.level());
}

#[test]
fn priorities_nest() {
    let (mut pic, intr) = bench();
    pulse(&pic, 4);
    assert!(intr.level());
    assert_eq!(pic.acknowledge(), 0x34);
    pulse(&pic, 5);
    assert!(!intr.level(), "lower priority waits");
    pulse(&pic, 1);
    assert!(intr.level(), "higher priority interrupts");
    assert_eq!(pic.acknowledge(), 0x31);
    pic.outb(0x20, 0x0b);
    assert_eq!(pic.inb(0x20), 0x12);
    pic.outb(0x20, 0x20);
    assert_eq!(pic.inb(0x20), 0x10, "the highest in service ends first");
    assert!(!intr.level());
    pic.outb(0x20, 0x64);
    assert!(intr.level());
    assert_eq!(pic.acknowledge(), 0x35);
}

#[test]
fn cascade() {
    let (mut pic, intr) = bench();
    pulse(&pic, 12);
    pulse(&pic, 8);
    assert_eq!(pic.acknowledge(), 0x38);
    assert!(!intr.level());
    // The second's EOI alone does not let IRQ 12 through: input 2 is still in service.
    pic.outb(0xa0, 0x20);
    assert!(!intr.level());
    pic.outb(0x20, 0x62);
    assert!(intr.level());
    assert_eq!(pic.acknowledge(), 0x3c);
    pic.outb(0xa0, 0x20);
    pic.outb(0x20, 0x20);
    pic.line(2).set(true);
    assert!(!intr.level(), "the cascade wire leads nowhere");
}

#[test]
fn special_fully_nested_lets_the_second_interrupt_itself() {
    let (mut pic, intr) = bench();
    initialize(&mut pic, 0x11);
    pulse(&pic, 12);
    assert_eq!(pic.acknowledge(), 0x3c);
    pulse(&pic, 8);
    assert!(intr.level());
    assert_eq!(pic.acknowledge(), 0x38);
}

#[test]
fn spurious_interrupts() {
    let (mut pic, _) = bench();
    assert_eq!(pic.acknowledge(), 0x37);
    pic.outb(0x4d1, 0x02);
    let line = pic.line(9);
    line.set(true);
    line.set(false);
    assert_eq!(pic.acknowledge(), 0x37, "the request went away at both");
    pic.outb(0x20, 0x0b);
    pic.outb(0xa0, 0x0b);
    assert_eq!((pic.inb(0x20), pic.inb(0xa0)), (0, 0), "nothing is in service");
}

#[test]
fn level_triggered_inputs_ask_again() {
    let (mut pic, intr) = bench();
    pic.outb(0x4d0, 0xff);
    pic.outb(0x4d1, 0xff);
    assert_eq!((pic.inb(0x4d0), pic.inb(0x4d1)), (0xf8, 0xde));
    let line = pic.line(11);
    line.set(true);
    for _ in 0..2 {
        assert_eq!(pic.acknowledge(), 0x3b);
        pic.outb(0xa0, 0x20);
        pic.outb(0x20, 0x20);
        assert!(intr.level());
    }
    line.set(false);
    assert!(!intr.level());
}

#[test]
fn special_mask_mode_lets_lower_priorities_through() {
    let (mut pic, intr) = bench();
    pulse(&pic, 3);
    pic.acknowledge();
    pulse(&pic, 6);
    assert!(!intr.level());
    pic.outb(0x20, 0x68);
    pic.outb(0x21, 0x08);
    assert!(intr.level());
    assert_eq!(pic.acknowledge(), 0x36);
}

#[test]
fn automatic_end_and_rotation() {
    let (mut pic, intr) = bench();
    initialize(&mut pic, 0x03);
    pic.outb(0x20, 0x80);
    pulse(&pic, 3);
    pulse(&pic, 4);
    assert_eq!(pic.acknowledge(), 0x33);
    pulse(&pic, 3);
    assert_eq!(pic.acknowledge(), 0x34, "3 has the lowest priority now");
    assert_eq!(pic.acknowledge(), 0x33);
    assert!(!intr.level());
    // Rotate on a specific end: 5 becomes the lowest, 6 the highest.
    initialize(&mut pic, 0x01);
    pic.outb(0x20, 0xc5);
    pulse(&pic, 5);
    pulse(&pic, 6);
    assert_eq!(pic.acknowledge(), 0x36);
    pic.outb(0x20, 0xa0);
    assert_eq!(pic.save().first.highest, 7);
}

#[test]
fn poll_is_an_acknowledge() {
    let (mut pic, intr) = bench();
    pulse(&pic, 1);
    pic.outb(0x20, 0x0c);
    assert_eq!(pic.inb(0x20), 0x81);
    assert!(!intr.level());
    pic.outb(0x20, 0x0c);
    assert_eq!(pic.inb(0x20), 0);
}

#[test]
fn masked_requests_wait() {
    let (mut pic, intr) = bench();
    pic.outb(0x21, 0x02);
    pulse(&pic, 1);
    assert!(!intr.level());
    pic.outb(0x21, 0);
    assert!(intr.level());
}

#[test]
fn a_restored_pair_goes_on() {
    let (mut pic, _) = bench();
    pulse(&pic, 3);
    pic.acknowledge();
    pulse(&pic, 14);
    pulse(&pic, 1);
    let json = serde_json::to_string(&pic.save()).unwrap();
    let intr = test_bench::Wire::new();
    let again = Pic::restore(serde_json::from_str(&json).unwrap(), intr.clone());
    assert_eq!(again.save(), pic.save());
    assert!(intr.level());
    assert_eq!(again.acknowledge(), 0x31);
    pic.outb(0x20, 0x20);
}

proptest! {
    #[test]
    fn no_access_panics(accesses: Vec<Access>) {
        let (mut pic, intr) = bench();
        for access in accesses {
            let ports = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x4d2];
            let port = ports[usize::from(access.1) % ports.len()];
            poke(&mut pic, (access.0, port, access.2, access.3, access.4));
            pic.line(access.4.to_le_bytes()[0] % 20).set(access.4 & 0x100 != 0);
            prop_assert_eq!(intr.level(), pic.output());
            if access.4 & 0x600 == 0 {
                pic.acknowledge();
            }
        }
        let state = pic.save();
        prop_assert_eq!(Pic::restore(state.clone(), test_bench::Wire::new()).save(), state);
    }
}
