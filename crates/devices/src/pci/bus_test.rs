use std::sync::Mutex;

use super::*;
use crate::pci::{ConfigSpace, Identity, lock};

/// A function whose BARs read as their number and remember the last write.
struct Probe {
    blank: ConfigSpace,
    config: Mutex<ConfigSpace>,
    written: Mutex<Option<(u8, u64, Vec<u8>)>>,
    /// Where the bus last said that it hears the function.
    decoded: Mutex<Vec<u64>>,
}

impl Probe {
    fn new(bars: &[(u8, BarKind, u64)]) -> Arc<Self> {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 0,
            class: 0xff_00_00,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        for &(bar, kind, size) in bars {
            config.add_bar(bar, kind, size).unwrap();
        }
        Arc::new(Self {
            blank: config.clone(),
            config: Mutex::new(config),
            written: Mutex::new(None),
            decoded: Mutex::default(),
        })
    }
}

impl PciDevice for Probe {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        lock(&self.config).read(offset, data);
    }
    fn config_write(&self, offset: u16, data: &[u8]) {
        lock(&self.config).write(offset, data);
    }
    fn bars(&self) -> Vec<BarWindow> {
        lock(&self.config).bars()
    }
    fn decoded(&self, windows: &[BarWindow]) {
        *lock(&self.decoded) = windows.iter().map(|bar| bar.base).collect();
    }
    fn bar_read(&self, bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(bar);
    }
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        *lock(&self.written) = Some((bar, offset, data.to_vec()));
    }
    fn reset(&self) {
        *lock(&self.config) = self.blank.clone();
    }
}

fn bus() -> PciBus {
    PciBus::new(Apertures {
        memory: 0xc000_0000..0xc010_0000,
        memory64: 0x10_0000_0000..0x20_0000_0000,
        ports: 0xc000..0xd000,
    })
}

fn command(bus: &PciBus, slot: u8, bits: u16) {
    bus.config_write(slot, reg::COMMAND as u16, &bits.to_le_bytes());
}

#[test]
fn devices_are_placed_and_answer() {
    let bus = bus();
    let probe = Probe::new(&[
        (0, BarKind::Memory32, 0x100),
        (1, BarKind::Memory64, 0x8000),
        (4, BarKind::Io, 0x20),
    ]);
    bus.add_device(3, probe.clone()).unwrap();
    let bases: Vec<u64> = probe.bars().iter().map(|bar| bar.base).collect();
    assert_eq!(bases, [0xc000_0000, 0xc000_8000, 0xc000]);
    let mut data = [9; 4];
    assert!(bus.mmio_read(0xc000_8004, &mut data));
    assert_eq!(data, [1; 4]);
    assert!(bus.port_write(0xc01f, &[7]));
    assert_eq!(*lock(&probe.written), Some((4, 0x1f, vec![7])));
    assert!(!bus.mmio_read(0xc000_0100, &mut data));
    assert!(!bus.mmio_read(0xc000_00fe, &mut data), "an access may not leave its BAR");
    assert!(!bus.port_read(0xbfff, &mut data));
}

#[test]
fn the_guest_may_move_bars_and_turn_decoding_off() {
    let bus = bus();
    bus.add_device(1, Probe::new(&[(0, BarKind::Memory64, 0x1000)])).unwrap();
    bus.config_write(1, 0x10, &0x10_0000_1000u64.to_le_bytes());
    let mut data = [9];
    assert!(!bus.mmio_read(0xc000_0000, &mut data));
    assert!(bus.mmio_read(0x10_0000_1fff, &mut data));
    command(&bus, 1, 0);
    assert!(!bus.mmio_read(0x10_0000_1fff, &mut data));
    // Outside the apertures: over RAM, over the local APIC, at the end of the address space.
    command(&bus, 1, command::MEMORY);
    for base in [0u64, 0xfee0_0000, !0xfff] {
        bus.config_write(1, 0x10, &base.to_le_bytes());
        assert!(!bus.mmio_read(base, &mut data), "{base:#x}");
    }
    bus.reset();
    assert!(bus.mmio_read(0xc000_0000, &mut data));
}

#[test]
fn a_function_is_told_where_the_bus_hears_it() {
    let bus = bus();
    let probe = Probe::new(&[(0, BarKind::Memory32, 0x1000), (1, BarKind::Io, 0x20)]);
    let told = || lock(&probe.decoded).clone();
    bus.add_device(1, probe.clone()).unwrap();
    assert_eq!(told(), [0xc000_0000, 0xc000]);
    bus.config_write(1, 0x10, &0xc008_0000u32.to_le_bytes());
    assert_eq!(told(), [0xc008_0000, 0xc000]);
    // Over the local APIC, where the bus hears nothing.
    bus.config_write(1, 0x10, &0xfee0_0000u32.to_le_bytes());
    assert_eq!(told(), [0xc000]);
    command(&bus, 1, 0);
    assert!(told().is_empty());
    bus.reset();
    assert_eq!(told(), [0xc000_0000, 0xc000]);
}

#[test]
fn slots_and_room_are_checked() {
    let bus = bus();
    let small = || Probe::new(&[(0, BarKind::Memory32, 0x1000)]);
    bus.add_device(1, small()).unwrap();
    assert_eq!(bus.add_device(1, small()), Err(PciError::SlotTaken(1)));
    assert_eq!(bus.add_device(32, small()), Err(PciError::BadSlot(32)));
    let large = Probe::new(&[(0, BarKind::Memory32, 0x10_0000)]);
    assert_eq!(bus.add_device(2, large), Err(PciError::NoWindow { size: 0x10_0000 }));
}

#[test]
fn restored_devices_stay_where_they_were() {
    let bus = bus();
    let probe = Probe::new(&[(0, BarKind::Memory32, 0x1000)]);
    probe.config_write(0x10, &0xc008_0000u32.to_le_bytes());
    probe.config_write(4, &[2]);
    bus.add_restored(1, probe).unwrap();
    let mut data = [9];
    assert!(bus.mmio_read(0xc008_0000, &mut data));
    bus.reset();
    assert!(bus.mmio_read(0xc000_0000, &mut data));
}

#[test]
fn what_is_plugged_in_is_placed_by_the_guest_and_gone_when_it_is_removed() {
    let bus = bus();
    let kept = Probe::new(&[(0, BarKind::Memory32, 0x1000)]);
    bus.add_device(1, kept.clone()).unwrap();
    // As often as one likes: nothing of the window is used up.
    for _ in 0..1000 {
        let probe = Probe::new(&[(0, BarKind::Memory32, 0x1000)]);
        bus.plug(9, probe.clone()).unwrap();
        assert_eq!(bus.plug(9, probe.clone()), Err(PciError::SlotTaken(9)));
        let mut id = [0; 2];
        bus.config_read(9, 0, &mut id);
        assert_eq!(id, [0x34, 0x12]);
        assert!(!probe.bars()[0].enabled);
        bus.config_write(9, 0x10, &0xc000_4000u32.to_le_bytes());
        command(&bus, 9, command::MEMORY);
        assert!(bus.mmio_write(0xc000_4000, &[7]));
        assert!(bus.remove(9).is_some());
        assert!(!bus.mmio_write(0xc000_4000, &[7]));
        assert!(lock(&probe.decoded).is_empty());
        assert_eq!(probe.bars()[0].base, 0, "it was reset");
        bus.config_read(9, 0, &mut id);
        assert_eq!(id, [0xff; 2]);
    }
    assert!(bus.remove(9).is_none() && bus.remove(32).is_none());
    assert!(bus.mmio_write(0xc000_0000, &[7]), "the other one is where it was");
}
