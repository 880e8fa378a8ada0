//! Bells that others ring: they hang where the guest notifies, and no ring is lost.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use super::*;
use crate::pci::config::{command, reg};
use crate::virtio::driver_test::{Choices, Guest};
use crate::virtio::{HostEntropy, Rng};

const BASE: u64 = 0xc000_0000;

fn rng() -> Box<Rng> {
    Box::new(Rng::new(Box::new(HostEntropy)))
}

/// Whoever rings bells: what hangs where.
#[derive(Debug, Default)]
struct Porch(Mutex<BTreeMap<u64, Bell>>);

impl Porch {
    fn hung(&self) -> Vec<u64> {
        lock(&self.0).keys().copied().collect()
    }

    fn ring(&self, at: u64) {
        lock(&self.0)[&at].ring();
    }
}

impl Doorbells for Porch {
    fn hang(&self, at: Gpa, bell: &Bell) -> bool {
        assert!(lock(&self.0).insert(at.0, bell.clone()).is_none(), "two bells at {at:?}");
        true
    }

    fn take_down(&self, at: Gpa, bell: &Bell) {
        let hung = lock(&self.0).remove(&at.0).expect("a bell hangs there");
        assert_eq!(hung.as_fd().as_raw_fd(), bell.as_fd().as_raw_fd(), "the one that hangs there");
    }
}

/// A guest whose driver has not begun, with BAR 0 at [`BASE`].
fn guest() -> (Guest, Arc<Porch>) {
    let porch = Arc::new(Porch::default());
    let ringer = Arc::<Porch>::clone(&porch);
    let guest = Guest::idle_at(rng(), Choices::default(), |pci| pci.with_doorbells(ringer));
    decode(&guest.pci, Some(BASE));
    (guest, porch)
}

/// The bus hears BAR 0 here.
fn decode(pci: &VirtioPci, base: Option<u64>) {
    let kind = BarKind::Memory32;
    let window = |base| BarWindow { bar: 0, kind, base, size: layout::BAR_SIZE, enabled: true };
    pci.decoded(&base.map(window).into_iter().collect::<Vec<_>>());
}

#[test]
fn bells_hang_where_the_bar_is_while_the_device_works() {
    let (mut guest, porch) = guest();
    assert!(porch.hung().is_empty(), "there is no driver yet");
    guest.start(Choices::default());
    assert_eq!(porch.hung(), [BASE + 0x3000]);
    decode(&guest.pci, Some(BASE + 0x10_0000));
    assert_eq!(porch.hung(), [BASE + 0x10_3000]);
    decode(&guest.pci, None);
    assert!(porch.hung().is_empty());
    decode(&guest.pci, Some(BASE));
    assert_eq!(porch.hung(), [BASE + 0x3000]);
    guest.write8(0x14, 0);
    assert!(porch.hung().is_empty(), "the driver reset the device");
    guest.start(Choices::default());
    guest.pci.reset();
    assert!(porch.hung().is_empty(), "the machine was reset");
}

#[test]
fn queues_that_are_off_have_no_bell() {
    let (guest, porch) = guest();
    guest.accept(guest.offered());
    guest.write8(0x14, 11);
    guest.write8(0x14, 15);
    assert!(porch.hung().is_empty());
}

#[test]
fn a_bell_that_another_rings_is_a_notification() {
    let (mut guest, porch) = guest();
    guest.start(Choices::default());
    for len in [1, 8, 100] {
        guest.rings[0].add(&guest.memory, &[], &[len]);
        porch.ring(BASE + 0x3000);
        assert_eq!(guest.wait(0).len, len);
    }
}

#[test]
fn a_bell_that_rang_while_the_device_was_held_is_answered_afterwards() {
    let (mut guest, porch) = guest();
    guest.start(Choices::default());
    guest.pci.pause();
    guest.rings[0].add(&guest.memory, &[], &[8]);
    porch.ring(BASE + 0x3000);
    // Wherever the machine goes on: from its state, and here.
    let state = guest.pci.save();
    let mut restored = guest.restored(rng(), &state);
    restored.pci.resume();
    assert_eq!(restored.wait(0).len, 8);
    assert_eq!(guest.poll(0), None);
    guest.pci.resume();
    assert_eq!(guest.wait(0).len, 8);
    // The same where the bus holds it.
    guest.pci.config_write(reg::COMMAND as u16, &command::MEMORY.to_le_bytes());
    guest.rings[0].add(&guest.memory, &[], &[9]);
    porch.ring(BASE + 0x3000);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(guest.poll(0), None);
    let on = command::MEMORY | command::BUS_MASTER;
    guest.pci.config_write(reg::COMMAND as u16, &on.to_le_bytes());
    assert_eq!(guest.wait(0).len, 9);
}

#[test]
fn a_restored_function_hangs_its_bells_once_the_bus_hears_it() {
    let (mut guest, _) = guest();
    guest.start(Choices::default());
    let state = guest.pci.save();
    let porch = Arc::new(Porch::default());
    let messages = Arc::clone(&guest.messages);
    let pci = VirtioPci::restore(rng(), guest.memory.clone(), messages, &state).unwrap();
    let pci = pci.with_doorbells(Arc::<Porch>::clone(&porch));
    assert!(porch.hung().is_empty());
    decode(&pci, Some(BASE));
    assert_eq!(porch.hung(), [BASE + 0x3000]);
}
