use super::*;
use riad_clock::ManualClock;

/// Reads as its number and remembers what was written where.
#[derive(Default)]
struct Probe {
    id: u8,
    written: Vec<(u64, Vec<u8>)>,
}

impl PortDevice for Probe {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        data.fill(self.id);
        data[0] = self.id + offset as u8;
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        self.written.push((offset.into(), data.to_vec()));
    }
}

impl MmioDevice for Probe {
    fn mmio_read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(self.id);
    }

    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        self.written.push((offset, data.to_vec()));
    }
}

fn probe(id: u8) -> Shared<Probe> {
    Arc::new(Mutex::new(Probe { id, written: Vec::new() }))
}

fn ports() -> PortBus {
    PortBus::new(Arc::new(Timers::new(Arc::new(ManualClock::new(0)))))
}

#[test]
fn ports_reach_their_device_with_its_offsets() {
    let mut bus = ports();
    let (counts, knows) = (probe(0x10), probe(0x20));
    bus.add(0x3f8..=0x3ff, counts.clone(), None).unwrap();
    bus.add_fixed(&[0x20..=0x21, 0xa0..=0xa1], &knows, None).unwrap();
    let mut byte = [0];
    assert!(bus.read(0x3fa, &mut byte));
    assert_eq!(byte, [0x12]);
    assert!(bus.write(0xa1, &[7]));
    assert_eq!(lock(&knows).written, [(0xa1, vec![7])]);
    assert!(!bus.read(0x22, &mut byte));
    assert!(!bus.write(0x3f7, &[1]));
}

#[test]
fn an_access_across_devices_is_split() {
    let mut bus = ports();
    let (first, second) = (probe(0x10), probe(0x20));
    bus.add(0x60..=0x61, first.clone(), None).unwrap();
    bus.add(0x62..=0x62, second.clone(), None).unwrap();
    let mut data = [0; 4];
    assert!(bus.read(0x61, &mut data));
    assert_eq!(data, [0x11, 0x20, 0xff, 0xff]);
    bus.write(0x61, &[1, 2, 3, 4]);
    assert_eq!(lock(&first).written, [(1, vec![1])]);
    assert_eq!(lock(&second).written, [(0, vec![2])]);
    bus.add(0xffff..=0xffff, probe(0x30), None).unwrap();
    assert!(bus.read(0xffff, &mut data), "the last port, with nothing after it");
}

#[test]
fn memory_accesses_stay_inside_their_device() {
    let mut bus = MmioBus::default();
    let device = probe(0x10);
    bus.add(0xfec0_0000, 0x1000, device.clone()).unwrap();
    assert!(bus.write(0xfec0_0ff8, &[0; 8]));
    assert!(!bus.write(0xfec0_0ff9, &[0; 8]));
    assert!(!bus.write(0xfec0_1000, &[0]));
    assert!(!bus.read(0xfebf_ffff, &mut [0; 2]));
    assert_eq!(lock(&device).written.len(), 1);
}

#[test]
fn overlaps_are_refused() {
    let mut bus = MmioBus::default();
    bus.add(0x1000, 0x1000, probe(1)).unwrap();
    for (first, len) in
        [(0x1fff, 1), (0xfff, 2), (0x800, 0x2000), (0x1400, 1), (0, 0), (u64::MAX, 2)]
    {
        assert!(bus.add(first, len, probe(2)).is_err(), "{first:#x}+{len:#x}");
    }
    bus.add(0x2000, 1, probe(3)).unwrap();
    bus.add(0xfff, 1, probe(4)).unwrap();
}
