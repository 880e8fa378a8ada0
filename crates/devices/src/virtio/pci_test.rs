use super::*;
use crate::pci::config::{command, reg};
use crate::virtio::driver_test::{Choices, Guest, ram};
use crate::virtio::{HostEntropy, Rng};

fn rng() -> Box<Rng> {
    Box::new(Rng::new(Box::new(HostEntropy)))
}

fn idle() -> Guest {
    Guest::idle(rng(), Choices::default())
}

fn config32(guest: &Guest, at: u16) -> u32 {
    let mut data = [0; 4];
    guest.pci.config_read(at, &mut data);
    u32::from_le_bytes(data)
}

/// Offset of the PCI configuration access capability.
fn window(guest: &Guest) -> u16 {
    let mut at = config32(guest, 0x34) & 0xff;
    while config32(guest, at as u16) & 0xff != 0x09
        || config32(guest, at as u16) >> 24 != u32::from(cap::PCI)
    {
        at = (config32(guest, at as u16) >> 8) & 0xff;
        assert_ne!(at, 0);
    }
    at as u16
}

#[test]
fn capabilities_lead_to_every_structure() {
    let guest = idle();
    let mut found = Vec::new();
    let mut at = config32(&guest, 0x34) & 0xff;
    while at != 0 {
        let head = config32(&guest, at as u16);
        if head & 0xff == 0x09 {
            let (offset, len) = (config32(&guest, at as u16 + 8), config32(&guest, at as u16 + 12));
            found.push((head >> 24, offset, len));
        } else {
            assert_eq!(head & 0xff, 0x11);
            assert_eq!(head >> 16, 1, "two vectors");
        }
        at = (head >> 8) & 0xff;
    }
    assert_eq!(found, [(1, 0, 0x40), (3, 0x1000, 1), (4, 0x2000, 4), (2, 0x3000, 4), (5, 0, 0)]);
}

#[test]
fn features_are_negotiated() {
    let guest = idle();
    let transport = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;
    assert_eq!(guest.offered(), transport);
    guest.write8(0x14, 3);
    // A legacy driver; and one that accepts what was not offered.
    for refused in [0, feature::EVENT_IDX, transport | 1, transport | (1 << 63)] {
        guest.accept(refused);
        guest.write8(0x14, 11);
        assert_eq!(guest.status(), 3, "{refused:#x}");
    }
    guest.accept(transport);
    guest.write8(0x14, 11);
    assert_eq!(guest.status(), 11);
    guest.accept(0);
    guest.write32(8, 1);
    assert_eq!(guest.read32(0xc), 1, "too late to change");
    guest.write8(0x14, 3);
    assert_eq!(guest.status(), 11, "bits are only cleared by reset");
    guest.write8(0x14, 0);
    assert_eq!(guest.status(), 0);
    guest.write32(8, 1);
    assert_eq!(guest.read32(0xc), 0);
}

#[test]
fn features_beyond_the_known_read_as_zero() {
    let guest = idle();
    guest.write32(0, 7);
    assert_eq!(guest.read32(4), 0);
    guest.write32(8, 7);
    guest.write32(0xc, 1);
    assert_eq!(guest.read32(0xc), 0);
}

#[test]
fn queue_registers_show_the_selected_queue() {
    let guest = idle();
    assert_eq!((guest.read16(0x12), guest.read16(0x18), guest.read16(0x1e)), (1, 64, 0));
    guest.pci.bar_write(0, 0x20, &0x1_2345_6780u64.to_le_bytes());
    assert_eq!((guest.read32(0x20), guest.read32(0x24)), (0x2345_6780, 1));
    guest.write16(0x16, 1);
    assert_eq!((guest.read16(0x18), guest.read32(0x20), guest.read16(0x1a)), (0, 0, NO_VECTOR));
    guest.write16(0x18, 8);
    guest.write16(0x1c, 1);
    guest.write16(0x16, 0);
    assert_eq!((guest.read16(0x18), guest.read16(0x1c)), (64, 0));
}

#[test]
fn vectors_that_do_not_exist_are_refused() {
    let guest = idle();
    guest.write16(0x10, 1);
    assert_eq!(guest.read16(0x10), 1);
    guest.write16(0x10, 2);
    assert_eq!(guest.read16(0x10), NO_VECTOR);
    guest.write16(0x1a, 999);
    assert_eq!(guest.read16(0x1a), NO_VECTOR);
}

#[test]
fn driver_ok_without_features_needs_a_reset() {
    let guest = idle();
    guest.write8(0x14, 7);
    assert_eq!(guest.status() & status::NEEDS_RESET, status::NEEDS_RESET);
}

#[test]
fn queues_outside_ram_need_a_reset() {
    let guest = idle();
    guest.accept(guest.offered());
    guest.write8(0x14, 11);
    guest.set_up_queues();
    guest.write8(0x14, 0);
    guest.accept(guest.offered());
    guest.write8(0x14, 11);
    guest.write32(0x20, 0xffff_f000);
    guest.write16(0x1c, 1);
    guest.write8(0x14, 15);
    assert_eq!(guest.status(), 15 | status::NEEDS_RESET);
}

#[test]
fn a_broken_ring_needs_a_reset_and_a_reset_helps() {
    let mut guest = Guest::new(rng(), Choices::default());
    let ring = &mut guest.rings[0];
    ring.offer(&guest.memory, 99);
    guest.notify(0);
    guest.wait_for_status(status::NEEDS_RESET);
    assert_eq!(guest.messages.count(1), 1, "a configuration interrupt says so");
    let mut isr = [0];
    guest.pci.bar_read(0, 0x1000, &mut isr);
    assert_eq!(isr, [2]);
    // The driver clears its rings and begins again.
    for page in 0..0x400 {
        guest.memory.fill(Gpa(0x10_0000 + page * 4096), 4096, 0).unwrap();
    }
    guest.start(Choices::default());
    guest.submit(0, &[], &[8]);
    assert_eq!(guest.wait(0).len, 8);
}

#[test]
fn without_msix_the_isr_tells() {
    let mut guest = Guest::new(rng(), Choices::default());
    guest.pci.config_write(0x42, &0u16.to_le_bytes());
    guest.submit(0, &[], &[8]);
    guest.wait(0);
    crate::virtio::driver_test::until(|| {
        let mut isr = [0];
        guest.pci.bar_read(0, 0x1000, &mut isr);
        isr == [1]
    });
    let mut isr = [9];
    guest.pci.bar_read(0, 0x1000, &mut isr);
    assert_eq!(isr, [0], "reading clears");
}

#[test]
fn a_function_that_may_not_master_the_bus_is_still() {
    let mut guest = Guest::new(rng(), Choices::default());
    guest.pci.config_write(reg::COMMAND as u16, &command::MEMORY.to_le_bytes());
    guest.submit(0, &[], &[8]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(guest.poll(0), None);
    let on = command::MEMORY | command::BUS_MASTER;
    guest.pci.config_write(reg::COMMAND as u16, &on.to_le_bytes());
    assert_eq!(guest.wait(0).len, 8);
}

#[test]
fn the_configuration_window_reaches_the_bar() {
    let guest = idle();
    let at = window(&guest);
    // num_queues: BAR 0, offset 0x12, 2 bytes.
    guest.pci.config_write(at + 4, &[0]);
    guest.pci.config_write(at + 8, &0x12u32.to_le_bytes());
    guest.pci.config_write(at + 12, &2u32.to_le_bytes());
    assert_eq!(config32(&guest, at + 16) & 0xffff, 1);
    // Status.
    guest.pci.config_write(at + 8, &0x14u32.to_le_bytes());
    guest.pci.config_write(at + 12, &1u32.to_le_bytes());
    guest.pci.config_write(at + 16, &[3]);
    assert_eq!(guest.status(), 3);
    // Nonsense reaches nothing.
    for (bar, offset, len) in
        [(1u8, 0u32, 4u32), (0, 0x8000, 4), (0, 2, 4), (0, 0, 3), (0, u32::MAX, 1)]
    {
        guest.pci.config_write(at + 4, &[bar]);
        guest.pci.config_write(at + 8, &offset.to_le_bytes());
        guest.pci.config_write(at + 12, &len.to_le_bytes());
        guest.pci.config_write(at + 16, &[0; 4]);
        config32(&guest, at + 16);
    }
    assert_eq!(guest.status(), 3);
}

#[test]
fn every_register_takes_every_write() {
    // No width, offset or value may panic; the device stays resettable.
    let mut guest = Guest::new(rng(), Choices::default());
    let mut random = 1u64;
    for _ in 0..20_000 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let len = 1 << ((random >> 30) & 3);
        let page =
            [0, 0, 0, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x7000][(random >> 40) as usize % 9];
        let offset = page + ((random >> 48) & 0x47);
        let mut data = random.to_be_bytes();
        guest.pci.bar_write(0, offset, &data[..len]);
        guest.pci.bar_read(0, offset, &mut data[..len]);
        let register = ((random >> 20) & 0x1ff) as u16;
        guest.pci.config_read(register, &mut data[..len]);
        if register > 8 {
            guest.pci.config_write(register, &data[..len]);
        }
    }
    guest.pci.reset();
    let on = command::MEMORY | command::BUS_MASTER;
    guest.pci.config_write(reg::COMMAND as u16, &on.to_le_bytes());
    for page in 0..0x400 {
        guest.memory.fill(Gpa(0x10_0000 + page * 4096), 4096, 0).unwrap();
    }
    guest.start(Choices::default());
    guest.submit(0, &[], &[8]);
    assert_eq!(guest.wait(0).len, 8);
}

#[test]
fn state_of_another_device_is_refused() {
    let guest = Guest::new(rng(), Choices::default());
    let state = guest.pci.save();
    let (console, _) = crate::virtio::Console::new(Box::new(std::io::sink()));
    let restored = VirtioPci::restore(Box::new(console), ram(), guest.messages.clone(), &state);
    assert!(matches!(restored, Err(TransportError::Pci(PciError::StateMismatch(_)))));

    let mut bad = state.clone();
    bad.common.queues[0].layout.size = 3;
    let restored = VirtioPci::restore(rng(), ram(), guest.messages.clone(), &bad);
    assert!(matches!(restored, Err(TransportError::Queue(_))));
    let mut bad = state;
    bad.common.queues.clear();
    assert!(VirtioPci::restore(rng(), ram(), guest.messages.clone(), &bad).is_err());
}
