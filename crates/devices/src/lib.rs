//! Devices: the chipset, and virtio.
//!
//! A device sees guest memory, its interrupt line, a clock, and the backend it was given; it knows
//! neither the engine, nor the host, nor other devices (wall 3). It is reached by port or by memory
//! ([`PortDevice`], [`MmioDevice`]); the machine decides where. Its state is a plain value
//! (wall 4): `save()` destructures `self` without `..`, and restoring is a constructor.
//!
//! Where to begin: [`mod@line`] for how devices signal, `pit.rs` for a whole small device, and
//! `virtio/` for queues, the PCI transport and the virtio devices.

pub mod bell;
pub mod cmos;
pub mod debug_exit;
pub mod hotplug;
pub mod i8042;
pub mod ioapic;
pub mod line;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod port;
pub mod post;
pub mod power;
pub mod reset;
pub mod serial;
#[cfg(test)]
mod test_bench;
pub mod virtio;

pub use bell::{Bell, Doorbells};
pub use line::{InterruptLine, MsiTarget, NoLine, SharedLine};
pub use port::PortRange;
pub use power::{PowerControl, PowerEvent, SharedPower};

use riad_clock::Nanos;

/// A device behind x86 I/O ports.
///
/// `offset` counts from the first port of the range the machine gave the device ([`port`] says which
/// devices want a range that starts at 0). `data` is 1, 2 or 4 bytes, little-endian. A device fills
/// all of `data` on reads: what it does not drive reads as ones.
pub trait PortDevice: Send {
    /// The guest reads.
    fn port_read(&mut self, offset: u16, data: &mut [u8]);
    /// The guest writes.
    fn port_write(&mut self, offset: u16, data: &[u8]);
}

/// A device behind guest-physical addresses. `data` is 1 to 8 bytes; as for [`PortDevice`].
pub trait MmioDevice: Send {
    /// The guest reads.
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]);
    /// The guest writes.
    fn mmio_write(&mut self, offset: u64, data: &[u8]);
}

/// A device that does something at a time of its own choosing.
pub trait TimedDevice: Send {
    /// When [`expire`](Self::expire) wants to be called next, in guest time.
    fn next_deadline(&self) -> Option<Nanos>;
    /// The deadline has passed (spurious calls are harmless).
    fn expire(&mut self);
}
