use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::test_bench::{Access, PortExt, PowerLog, Wire, poke};

fn bench() -> (I8042, Arc<Wire>, Arc<PowerLog>) {
    let (wire, power) = (Wire::new(), PowerLog::new());
    (I8042::new(wire.clone(), power.clone()), wire, power)
}

/// What Linux's i8042 driver asks when it looks for a controller.
#[test]
fn linux_finds_a_controller_and_no_devices() {
    let (mut kbc, wire, _) = bench();
    assert_eq!(kbc.inb(0x64) & 0x03, 0, "nothing to flush");
    kbc.outb(0x64, 0xaa);
    assert_eq!(kbc.inb(0x64) & 0x01, 1);
    assert_eq!(kbc.inb(0x60), 0x55);
    kbc.outb(0x64, 0x20);
    let byte = kbc.inb(0x60);
    kbc.outb(0x64, 0x60);
    kbc.outb(0x60, byte | 0x10);
    kbc.outb(0x64, 0x20);
    assert_eq!(kbc.inb(0x60), byte | 0x10);

    kbc.outb(0x64, 0xd3);
    kbc.outb(0x60, 0x5a);
    assert_eq!(kbc.inb(0x64) & 0x01, 0, "no auxiliary port");
    kbc.outb(0x64, 0xa9);
    assert_eq!(kbc.inb(0x60), 0x01);

    kbc.outb(0x60, 0xf2);
    assert!(wire.level());
    assert_eq!(kbc.inb(0x64) & 0x61, 0x41, "timed out");
    assert_eq!(kbc.inb(0x60), 0xfe);
    assert!(!wire.level());
    kbc.outb(0x64, 0xd4);
    kbc.outb(0x60, 0xf2);
    assert_eq!(kbc.inb(0x64) & 0x61, 0x61);
    assert!(!wire.level(), "interrupt 12 is not connected");
}

#[test]
fn resets() {
    let (mut kbc, _, power) = bench();
    kbc.outb(0x64, 0xfe);
    assert_eq!(power.take(), [PowerEvent::Reset]);
    kbc.outb(0x64, 0xd1);
    kbc.outb(0x60, 0xfe);
    assert_eq!(power.take(), [PowerEvent::Reset]);
    kbc.outb(0x64, 0xd1);
    kbc.outb(0x60, 0xdf);
    kbc.outb(0x64, 0xff);
    assert_eq!(power.take(), []);
    assert_eq!(kbc.inb(0x92), 0x02);
    kbc.outb(0x92, 0x03);
    kbc.outb(0x92, 0x03);
    assert_eq!(power.take(), [PowerEvent::Reset]);
}

#[test]
fn a_restored_controller_goes_on() {
    let (mut kbc, _, power) = bench();
    kbc.outb(0x64, 0xd2);
    kbc.outb(0x60, 0x1c);
    let json = serde_json::to_string(&kbc.save()).unwrap();
    let wire = Wire::new();
    let mut again = I8042::restore(serde_json::from_str(&json).unwrap(), wire.clone(), power);
    assert_eq!(again.save(), kbc.save());
    assert!(wire.level());
    assert_eq!(again.inb(0x60), 0x1c);
}

proptest! {
    #[test]
    fn no_access_panics(accesses: Vec<Access>) {
        let (mut kbc, ..) = bench();
        for access in accesses {
            let ports = [0x60, 0x64, 0x92, 0x61];
            let port = ports[usize::from(access.1) % ports.len()];
            poke(&mut kbc, (access.0, port, access.2, access.3, access.4));
        }
    }
}
