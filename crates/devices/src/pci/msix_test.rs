use std::sync::Mutex;

use super::*;
use crate::pci::Identity;
use crate::pci::config::{command, reg};

#[derive(Default)]
struct Sent(Mutex<Vec<(u64, u32)>>);

impl MsiTarget for Sent {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

impl Sent {
    fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn setup() -> (Arc<Sent>, ConfigSpace, Msix, u8) {
    let sent = Arc::new(Sent::default());
    let mut config = ConfigSpace::new(Identity {
        vendor: 1,
        device: 2,
        revision: 0,
        class: 0,
        subsystem_vendor: 0,
        subsystem: 0,
    });
    let msix = Msix::new(10, sent.clone()).unwrap();
    let at = msix.add_capability(&mut config, 0, 0x4000, 0x5000).unwrap();
    config.write(reg::COMMAND as u16, &command::BUS_MASTER.to_le_bytes());
    (sent, config, msix, at)
}

fn set_control(config: &mut ConfigSpace, msix: &mut Msix, at: u8, control: u16) {
    config.write(u16::from(at) + 2, &control.to_le_bytes());
    msix.update_control(config, at);
}

fn program(msix: &mut Msix, vector: u64, masked: u32) {
    msix.table_write(16 * vector, &(0xfee0_0000u64 + vector).to_le_bytes());
    msix.table_write(16 * vector + 8, &(0x40 + vector as u32).to_le_bytes());
    msix.table_write(16 * vector + 12, &masked.to_le_bytes());
}

#[test]
fn off_until_enabled() {
    let (sent, mut config, mut msix, at) = setup();
    program(&mut msix, 3, 0);
    msix.signal(3);
    assert!(!msix.enabled());
    set_control(&mut config, &mut msix, at, CONTROL_ENABLE);
    assert_eq!(sent.take(), []);
    msix.signal(3);
    msix.signal(99);
    assert_eq!(sent.take(), [(0xfee0_0003, 0x43)]);
}

#[test]
fn masked_messages_wait_once() {
    let (sent, mut config, mut msix, at) = setup();
    set_control(&mut config, &mut msix, at, CONTROL_ENABLE);
    program(&mut msix, 9, 1);
    msix.signal(9);
    msix.signal(9);
    let mut bits = [0; 8];
    msix.pending_read(0, &mut bits);
    assert_eq!(bits, [0, 2, 0, 0, 0, 0, 0, 0]);
    msix.table_write(16 * 9 + 12, &0u32.to_le_bytes());
    assert_eq!(sent.take(), [(0xfee0_0009, 0x49)]);
    msix.pending_read(0, &mut bits);
    assert_eq!(bits, [0; 8]);
}

#[test]
fn function_mask_and_bus_master_hold_messages_back() {
    let (sent, mut config, mut msix, at) = setup();
    program(&mut msix, 0, 0);
    set_control(&mut config, &mut msix, at, CONTROL_ENABLE | CONTROL_MASK);
    msix.signal(0);
    assert_eq!(sent.take(), []);
    set_control(&mut config, &mut msix, at, CONTROL_ENABLE);
    assert_eq!(sent.take().len(), 1);
    config.write(reg::COMMAND as u16, &[0, 0]);
    msix.update_control(&config, at);
    msix.signal(0);
    assert_eq!(sent.take(), []);
    config.write(reg::COMMAND as u16, &command::BUS_MASTER.to_le_bytes());
    msix.update_control(&config, at);
    assert_eq!(sent.take().len(), 1);
}

#[test]
fn table_reads_back_and_restores() {
    let (sent, mut config, mut msix, at) = setup();
    set_control(&mut config, &mut msix, at, CONTROL_ENABLE);
    program(&mut msix, 1, 1);
    msix.signal(1);
    let mut word = [0; 8];
    msix.table_read(16, &mut word);
    assert_eq!(u64::from_le_bytes(word), 0xfee0_0001);
    msix.table_read(24, &mut word);
    assert_eq!(word, [0x41, 0, 0, 0, 1, 0, 0, 0]);
    msix.table_read(u64::MAX - 3, &mut word);

    let state = msix.save();
    let mut again = Msix::restore(&state, &config, at, 10, sent.clone()).unwrap();
    assert_eq!(again.save(), state);
    assert_eq!(sent.take(), []);
    again.table_write(16 + 12, &[0]);
    assert_eq!(sent.take(), [(0xfee0_0001, 0x41)]);
    assert!(Msix::restore(&state, &config, at, 11, sent).is_err());
}
