//! What the tests of devices connect them to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::line::{InterruptLine, MsiTarget};
use crate::power::{PowerControl, PowerEvent};
use crate::{PortDevice, TimedDevice};

/// A wire that remembers its level and counts its rising edges.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    level: AtomicBool,
    rises: AtomicUsize,
}

impl Wire {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn level(&self) -> bool {
        self.level.load(Ordering::Relaxed)
    }

    /// Rising edges since the last call.
    pub(crate) fn take_rises(&self) -> usize {
        self.rises.swap(0, Ordering::Relaxed)
    }
}

impl InterruptLine for Wire {
    fn set(&self, level: bool) {
        if !self.level.swap(level, Ordering::Relaxed) && level {
            self.rises.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Remembers messages.
#[derive(Debug, Default)]
pub(crate) struct MsiLog(Mutex<Vec<(u64, u32)>>);

impl MsiLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl MsiTarget for MsiLog {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

/// Remembers power events.
#[derive(Debug, Default)]
pub(crate) struct PowerLog(Mutex<Vec<PowerEvent>>);

impl PowerLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn take(&self) -> Vec<PowerEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl PowerControl for PowerLog {
    fn power(&self, event: PowerEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// Byte accesses, as a driver makes them.
pub(crate) trait PortExt: PortDevice {
    fn inb(&mut self, port: u16) -> u8 {
        let mut data = [0];
        self.port_read(port, &mut data);
        data[0]
    }

    fn outb(&mut self, port: u16, value: u8) {
        self.port_write(port, &[value]);
    }
}

impl<T: PortDevice + ?Sized> PortExt for T {}

/// Moves `clock` to `end`, stopping at each deadline of `device` on the way.
pub(crate) fn run_until(clock: &riad_clock::ManualClock, device: &mut dyn TimedDevice, end: u64) {
    use riad_clock::Clock;
    while let Some(at) = device.next_deadline().filter(|&at| at <= end) {
        let before = clock.now();
        clock.advance_to(at);
        device.expire();
        assert!(
            device.next_deadline().is_none_or(|next| next > clock.now()),
            "a deadline that was served at {before} must not stay in the past"
        );
    }
    clock.advance_to(end);
}

/// One access of a hostile guest: (is write, port, width selector, value, time to pass).
pub(crate) type Access = (bool, u16, u8, u32, u32);

/// Makes one hostile access to a port device.
pub(crate) fn poke(device: &mut dyn PortDevice, (write, port, width, value, _): Access) {
    let width = [1, 2, 4][usize::from(width % 3)];
    let mut data = value.to_le_bytes();
    if write {
        device.port_write(port, &data[..width]);
    } else {
        device.port_read(port, &mut data[..width]);
    }
}
