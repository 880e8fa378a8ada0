use proptest::prelude::*;

use super::*;
use crate::test_bench::MsiLog;

fn bench() -> (IoApic, Arc<MsiLog>) {
    let log = MsiLog::new();
    (IoApic::new(log.clone()), log)
}

fn read(ioapic: &mut IoApic, register: u8) -> u32 {
    ioapic.mmio_write(0, &u32::from(register).to_le_bytes());
    let mut data = [0; 4];
    ioapic.mmio_read(0x10, &mut data);
    u32::from_le_bytes(data)
}

fn write(ioapic: &mut IoApic, register: u8, value: u32) {
    ioapic.mmio_write(0, &u32::from(register).to_le_bytes());
    ioapic.mmio_write(0x10, &value.to_le_bytes());
}

fn route(ioapic: &mut IoApic, pin: u8, low: u32, destination: u32) {
    write(ioapic, 0x11 + 2 * pin, destination << 24);
    write(ioapic, 0x10 + 2 * pin, low);
}

const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

#[test]
fn identifies_itself() {
    let (mut ioapic, _) = bench();
    assert_eq!(read(&mut ioapic, 1), 0x0017_0020);
    write(&mut ioapic, 0, 0x0500_0000);
    assert_eq!(read(&mut ioapic, 0), 0x0500_0000);
    assert_eq!(read(&mut ioapic, 0x10), MASKED);
    assert_eq!(read(&mut ioapic, 0x3f), 0);
    assert_eq!(read(&mut ioapic, 0x40), 0);
}

#[test]
fn edges_send_once() {
    let (mut ioapic, log) = bench();
    route(&mut ioapic, 4, 0x0824, 0x03);
    let line = ioapic.line(4);
    line.set(true);
    line.set(true);
    assert_eq!(log.take(), [(0xfee0_3004, 0x4024)], "logical, fixed");
    line.set(false);
    assert_eq!(log.take(), []);
    write(&mut ioapic, 0x18, 0x0824 | MASKED);
    line.set(true);
    write(&mut ioapic, 0x18, 0x0824);
    assert_eq!(log.take(), [], "an edge at a masked pin is lost");
}

#[test]
fn levels_are_sent_again_after_the_end() {
    let (mut ioapic, log) = bench();
    route(&mut ioapic, 10, 0x41 | LEVEL, 1);
    let line = ioapic.line(10);
    line.set(true);
    assert_eq!(log.take(), [(0xfee0_1000, 0xc041)]);
    assert_eq!(read(&mut ioapic, 0x24), 0x41 | LEVEL | REMOTE_IRR);
    line.set(false);
    line.set(true);
    assert_eq!(log.take(), [], "waits for the end");
    ioapic.eoi(0x42);
    assert_eq!(log.take(), []);
    ioapic.eoi(0x41);
    assert_eq!(log.take(), [(0xfee0_1000, 0xc041)]);
    line.set(false);
    ioapic.mmio_write(0x40, &[0x41, 0, 0, 0]);
    assert_eq!(log.take(), []);
    assert_eq!(read(&mut ioapic, 0x24), 0x41 | LEVEL);
}

#[test]
fn masked_levels_wait() {
    let (mut ioapic, log) = bench();
    route(&mut ioapic, 10, 0x41 | LEVEL | MASKED, 1);
    ioapic.line(10).set(true);
    assert_eq!(log.take(), []);
    write(&mut ioapic, 0x24, 0x41 | LEVEL);
    assert_eq!(log.take().len(), 1);
}

/// What Linux does for an I/O APIC without an EOI register.
#[test]
fn becoming_edge_triggered_is_an_end() {
    let (mut ioapic, log) = bench();
    route(&mut ioapic, 10, 0x41 | LEVEL, 1);
    ioapic.line(10).set(true);
    log.take();
    write(&mut ioapic, 0x24, 0x41 | MASKED);
    assert_eq!(read(&mut ioapic, 0x24), 0x41 | MASKED);
    write(&mut ioapic, 0x24, 0x41 | LEVEL);
    assert_eq!(log.take().len(), 1);
}

#[test]
fn read_only_bits_stay() {
    let (mut ioapic, _) = bench();
    write(&mut ioapic, 0x10, !MASKED);
    assert_eq!(read(&mut ioapic, 0x10), 0xafff);
    write(&mut ioapic, 0x11, 0xffff_ffff);
    assert_eq!(read(&mut ioapic, 0x11), 0xff00_0000);
}

#[test]
fn external_interrupts_keep_their_mode() {
    let (mut ioapic, log) = bench();
    route(&mut ioapic, 0, 0x700, 0);
    ioapic.line(0).set(true);
    assert_eq!(log.take(), [(0xfee0_0000, 0x4700)]);
}

#[test]
fn a_message_target_may_signal_an_end_at_once() {
    struct Eager(Mutex<Option<IoApic>>, Mutex<u32>);
    impl MsiTarget for Eager {
        fn send(&self, _address: u64, data: u32) {
            *self.1.lock().unwrap() += 1;
            if *self.1.lock().unwrap() < 3 {
                let ioapic = self.0.lock().unwrap().clone();
                ioapic.unwrap().eoi(data.to_le_bytes()[0]);
            }
        }
    }
    let eager = Arc::new(Eager(Mutex::new(None), Mutex::new(0)));
    let mut ioapic = IoApic::new(eager.clone());
    *eager.0.lock().unwrap() = Some(ioapic.clone());
    route(&mut ioapic, 5, 0x35 | LEVEL, 0);
    ioapic.line(5).set(true);
    assert_eq!(*eager.1.lock().unwrap(), 3);
}

#[test]
fn a_restored_ioapic_goes_on() {
    let (mut ioapic, _) = bench();
    route(&mut ioapic, 9, 0x51 | LEVEL, 2);
    ioapic.line(9).set(true);
    let json = serde_json::to_string(&ioapic.save()).unwrap();
    let log = MsiLog::new();
    let again = IoApic::restore(serde_json::from_str(&json).unwrap(), log.clone());
    assert_eq!(again.save(), ioapic.save());
    again.line(9).set(true);
    assert_eq!(log.take(), [], "it was sent before");
    again.eoi(0x51);
    assert_eq!(log.take().len(), 1);
}

proptest! {
    #[test]
    fn no_access_panics(accesses: Vec<(bool, u16, u8, u64, u8)>) {
        let (mut ioapic, _) = bench();
        for (write, offset, width, value, pin) in accesses {
            let width = usize::from(width % 8) + 1;
            let mut data = value.to_le_bytes();
            let offsets = [0x00, 0x10, 0x40, u64::from(offset & 0xfff)];
            let offset = offsets[usize::from(offset % 4)];
            if write {
                ioapic.mmio_write(offset, &data[..width]);
            } else {
                ioapic.mmio_read(offset, &mut data[..width]);
            }
            ioapic.line(pin & 0x1f).set(pin & 0x80 != 0);
            ioapic.eoi(pin);
        }
        let state = ioapic.save();
        prop_assert_eq!(IoApic::restore(state.clone(), MsiLog::new()).save(), state);
    }
}
