use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::test_bench::{Access, Wire, poke};

/// A bus that remembers what was let go.
#[derive(Default)]
struct Bus(Mutex<Vec<u8>>);

impl Ejector for Bus {
    fn eject(&self, slot: u8) {
        self.0.lock().unwrap().push(slot);
    }
}

struct Bench {
    controller: HotPlug,
    event: Arc<Wire>,
    bus: Arc<Bus>,
}

fn bench() -> Bench {
    let (event, bus) = (Wire::new(), Arc::<Bus>::default());
    let controller = HotPlug::new(event.clone(), bus.clone());
    Bench { controller, event, bus }
}

impl Bench {
    fn read(&mut self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.controller.port_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u16, value: u32) {
        self.controller.port_write(offset, &value.to_le_bytes());
    }

    fn ejected(&self) -> Vec<u8> {
        std::mem::take(&mut self.bus.0.lock().unwrap())
    }
}

#[test]
fn what_was_inserted_is_told_until_the_guest_has_seen_it() {
    let mut b = bench();
    assert_eq!((b.read(0), b.read(4), b.read(8)), (0, 0, 0));
    b.controller.inserted(9);
    b.controller.inserted(31);
    assert!(b.event.level());
    assert_eq!(b.read(0), 1 << 31 | 1 << 9);
    b.write(0, 1 << 9);
    assert_eq!(b.read(0), 1 << 31);
    // Byte by byte, as a driver may.
    b.controller.port_write(3, &[0x80]);
    assert_eq!(b.read(0), 0);
}

#[test]
fn what_is_wanted_back_goes_when_the_guest_lets_it_go_and_not_before() {
    let mut b = bench();
    b.controller.want_back(28);
    assert!(b.event.level());
    assert_eq!((b.read(0), b.read(4)), (0, 1 << 28));
    b.write(4, 1 << 28);
    assert_eq!((b.read(4), b.ejected()), (0, vec![]));
    b.write(8, 1 << 28 | 1 << 9);
    assert_eq!(b.ejected(), [28], "nobody wants slot 9 back");
    b.write(8, 1 << 28);
    assert_eq!(b.ejected(), [0u8; 0], "it is gone already");
}

#[test]
fn what_may_stay_after_all_stays() {
    let mut b = bench();
    b.controller.want_back(10);
    b.controller.keep(10);
    assert_eq!(b.read(4), 0);
    b.write(8, u32::MAX);
    assert_eq!(b.ejected(), [0u8; 0]);
    b.controller.want_back(10);
    b.write(8, 1 << 10);
    assert_eq!(b.ejected(), [10]);
}

#[test]
fn a_restored_controller_goes_on() {
    let mut b = bench();
    b.controller.inserted(12);
    b.controller.want_back(11);
    b.write(4, 1 << 11);
    let json = serde_json::to_string(&b.controller.save()).unwrap();
    let state: HotPlugState = serde_json::from_str(&json).unwrap();
    let (event, bus) = (Wire::new(), Arc::<Bus>::default());
    let controller = HotPlug::restore(state, event.clone(), bus.clone());
    let mut again = Bench { controller, event, bus };
    assert_eq!(again.controller.save(), b.controller.save());
    assert!(!again.event.level(), "the event is not raised a second time");
    assert_eq!((again.read(0), again.read(4)), (1 << 12, 0));
    again.write(8, 1 << 11);
    assert_eq!(again.ejected(), [11]);
}

proptest! {
    #[test]
    fn no_access_panics_or_ejects_what_is_not_wanted_back(accesses: Vec<Access>) {
        let mut b = bench();
        b.controller.want_back(20);
        for access in accesses {
            poke(&mut b.controller, (access.0, access.1 % 16, access.2, access.3, access.4));
        }
        b.controller.inserted(32);
        prop_assert!(matches!(b.ejected().as_slice(), [] | [20]));
    }
}
