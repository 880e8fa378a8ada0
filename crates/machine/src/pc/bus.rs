//! Which device answers at a port or an address.
//!
//! A bus is filled while the board is built, and only read afterwards: many processors look things
//! up at once, and wait for each other only at a device they both use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use riad_devices::{MmioDevice, PortDevice, PortRange};

use super::timers::{TimerId, Timers};

/// A device that several processors reach.
pub type Shared<T> = Arc<Mutex<T>>;

/// Two devices in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("two devices of the board claim {first:#x}..={last:#x}")]
pub struct Overlap {
    /// First port or address of the second device.
    pub first: u64,
    /// Its last port or address.
    pub last: u64,
}

/// Locks; a thread that panicked while it held the lock does not take the machine with it.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ranges of numbers with something at each, in order.
#[derive(Debug)]
struct Ranges<T> {
    entries: Vec<Range<T>>,
}

#[derive(Debug)]
struct Range<T> {
    first: u64,
    last: u64,
    what: T,
}

impl<T> Ranges<T> {
    fn add(&mut self, first: u64, last: u64, what: T) -> Result<(), Overlap> {
        let at = self.entries.partition_point(|r| r.last < first);
        if first > last || self.entries.get(at).is_some_and(|r| r.first <= last) {
            return Err(Overlap { first, last });
        }
        self.entries.insert(at, Range { first, last, what });
        Ok(())
    }

    fn find(&self, at: u64) -> Option<&Range<T>> {
        let index = self.entries.partition_point(|r| r.last < at);
        self.entries.get(index).filter(|r| r.first <= at)
    }
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

/// A device on the port bus.
struct Port {
    /// The port that is offset 0 to the device.
    base: u16,
    device: Shared<dyn PortDevice>,
    /// Its deadline, which an access may change.
    timer: Option<TimerId>,
}

/// The I/O ports.
pub struct PortBus {
    ranges: Ranges<Port>,
    timers: Arc<Timers>,
}

impl PortBus {
    /// Ports that nobody answers at. Timed devices among those added are in `timers`.
    #[must_use]
    pub fn new(timers: Arc<Timers>) -> Self {
        Self { ranges: Ranges::default(), timers }
    }

    /// Puts a device that counts from its first port at `ports`.
    ///
    /// # Errors
    /// [`Overlap`].
    pub fn add(
        &mut self,
        ports: PortRange,
        device: Shared<dyn PortDevice>,
        timer: Option<TimerId>,
    ) -> Result<(), Overlap> {
        let base = *ports.start();
        self.insert(ports, Port { base, device, timer })
    }

    /// Puts a device that knows the numbers of its ports at them.
    ///
    /// # Errors
    /// [`Overlap`].
    pub fn add_fixed<T: PortDevice + 'static>(
        &mut self,
        ports: &[PortRange],
        device: &Shared<T>,
        timer: Option<TimerId>,
    ) -> Result<(), Overlap> {
        for range in ports {
            let device: Shared<dyn PortDevice> = Arc::<Mutex<T>>::clone(device);
            self.insert(range.clone(), Port { base: 0, device, timer })?;
        }
        Ok(())
    }

    fn insert(&mut self, ports: PortRange, port: Port) -> Result<(), Overlap> {
        self.ranges.add((*ports.start()).into(), (*ports.end()).into(), port)
    }

    /// After an access to a timed device.
    fn touched(&self, port: &Port) {
        if let Some(timer) = port.timer {
            self.timers.touched(timer);
        }
    }

    /// Reads 1, 2 or 4 bytes; `false` when nobody answers, then `data` is untouched.
    pub fn read(&self, port: u16, data: &mut [u8]) -> bool {
        let Some(range) = self.ranges.find(port.into()) else { return false };
        if reaches_past(range, port.into(), data.len()) {
            // As on the ISA bus: each byte is a cycle of its own.
            for (at, byte) in (port..=u16::MAX).zip(data.chunks_mut(1)) {
                if !self.read(at, byte) {
                    byte.fill(0xff);
                }
            }
        } else {
            lock(&range.what.device).port_read(port - range.what.base, data);
            self.touched(&range.what);
        }
        true
    }

    /// Writes 1, 2 or 4 bytes; `false` when nobody answers.
    pub fn write(&self, port: u16, data: &[u8]) -> bool {
        let Some(range) = self.ranges.find(port.into()) else { return false };
        if reaches_past(range, port.into(), data.len()) {
            for (at, byte) in (port..=u16::MAX).zip(data.chunks(1)) {
                self.write(at, byte);
            }
        } else {
            lock(&range.what.device).port_write(port - range.what.base, data);
            self.touched(&range.what);
        }
        true
    }
}

/// Memory that is not RAM.
#[derive(Default)]
pub struct MmioBus {
    ranges: Ranges<Shared<dyn MmioDevice>>,
}

impl MmioBus {
    /// Puts a device at `len` bytes from `first`.
    ///
    /// # Errors
    /// [`Overlap`].
    pub fn add(
        &mut self,
        first: u64,
        len: u64,
        device: Shared<dyn MmioDevice>,
    ) -> Result<(), Overlap> {
        let last = len.checked_sub(1).and_then(|len| first.checked_add(len));
        let last = last.ok_or(Overlap { first, last: first })?;
        self.ranges.add(first, last, device)
    }

    /// Reads 1 to 8 bytes; `false` when nobody answers, then `data` is untouched. An access that
    /// begins in a device and reaches past it is answered by nobody.
    pub fn read(&self, at: u64, data: &mut [u8]) -> bool {
        let Some(range) = self.ranges.find(at) else { return false };
        if reaches_past(range, at, data.len()) {
            return false;
        }
        lock(&range.what).mmio_read(at - range.first, data);
        true
    }

    /// Writes 1 to 8 bytes; `false` when nobody answers.
    pub fn write(&self, at: u64, data: &[u8]) -> bool {
        let Some(range) = self.ranges.find(at) else { return false };
        if reaches_past(range, at, data.len()) {
            return false;
        }
        lock(&range.what).mmio_write(at - range.first, data);
        true
    }
}

/// Whether `len` bytes from `at`, which is in `range`, are not all in it.
fn reaches_past<T>(range: &Range<T>, at: u64, len: usize) -> bool {
    len as u64 > (range.last - at).saturating_add(1)
}

/// How often nobody answered: a guest that probes does it a few times, one that is lost does it
/// without end.
#[derive(Debug, Default)]
pub(super) struct UnclaimedCount {
    count: AtomicU64,
}

impl UnclaimedCount {
    /// After this many, accesses are counted but not logged.
    const LOGGED: u64 = 256;

    /// Counts one access.
    pub(super) fn note(&self, kind: &'static str, at: u64, len: usize) {
        if self.count.fetch_add(1, Ordering::Relaxed) < Self::LOGGED {
            tracing::debug!(kind, at = format_args!("{at:#x}"), len, "nothing answers");
        }
    }

    /// Accesses so far.
    pub(super) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod tests;
