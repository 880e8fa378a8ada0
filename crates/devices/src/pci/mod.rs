//! PCI: one bus of functions, found and placed by the guest the way the PCI Local Bus
//! Specification 3.0 says.
//!
//! Riad's machine has bus 0 only, with one function a slot. There is no firmware, so the bus does
//! what firmware would: it gives each base address register (BAR) an address and turns decoding
//! on. The guest may move everything afterwards; [`PciBus`] follows.
//!
//! * [`config`]: a function's configuration space, with write masks and capabilities;
//! * [`msix`]: the MSI-X table, the only kind of interrupt functions here have;
//! * [`bus`]: slots, and which function answers at an address;
//! * [`host`]: the host bridge, and the two ways a guest reaches configuration space
//!   (ports 0xCF8/0xCFC, and the memory-mapped ECAM).
//!
//! Functions are shared by the processors' threads, so [`PciDevice`] takes `&self`. Locks are taken
//! in one order: bus, function, MSI-X table. An [`MsiTarget`](crate::MsiTarget) and
//! [`Doorbells`](crate::Doorbells) must not call back into PCI.

pub mod bus;
pub mod config;
pub mod host;
pub mod msix;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use bus::{Apertures, PciBus};
pub use config::{BarKind, BarWindow, ConfigSpace, ConfigState, Identity};
pub use host::{ConfigPorts, ConfigPortsState, Ecam, HostBridge};
pub use msix::{Msix, MsixState, MsixVector};

/// Which slot (device number) of bus 0 holds what.
///
/// Guest-visible hardware must not drift between versions of Riad, so slots are assigned here, once,
/// also for devices that are not built yet.
pub mod slot {
    /// The host bridge.
    pub const HOST_BRIDGE: u8 = 0;
    /// virtio-net.
    pub const NET: u8 = 1;
    /// virtio-vsock.
    pub const VSOCK: u8 = 2;
    /// virtio-console.
    pub const CONSOLE: u8 = 3;
    /// virtio-rng.
    pub const RNG: u8 = 4;
    /// Reserved for shared folders, slots 5 to 7.
    pub const SHARE_FIRST: u8 = 5;
    /// The first disk; further disks follow, up to and including [`DISK_LAST`].
    pub const DISK_FIRST: u8 = 8;
    /// The last disk.
    pub const DISK_LAST: u8 = 27;
    /// The second network card; further cards follow, up to and including [`LAST`]: behind the first,
    /// so that a guest that counts its cards counts them in this order.
    pub const NET_MORE: u8 = 28;
    /// The last slot of a bus.
    pub const LAST: u8 = 31;
}

/// What can go wrong while a PCI bus is put together or restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// The slot number does not exist.
    #[error("PCI slot {0} does not exist: a bus has slots 0 to 31")]
    BadSlot(u8),
    /// Two functions for one slot.
    #[error("PCI slot {0} is already taken; give the second device another slot")]
    SlotTaken(u8),
    /// A BAR that the specification does not allow, or declared twice.
    #[error(
        "BAR {bar} of {size:#x} bytes is not possible: sizes are powers of two, BARs are 0 to 5 and used once"
    )]
    BadBar {
        /// BAR number.
        bar: u8,
        /// Size asked for, bytes.
        size: u64,
    },
    /// Configuration space has no room for one more capability.
    #[error("the PCI function has no room for another capability of {0} bytes")]
    NoCapabilityRoom(usize),
    /// More interrupt vectors than MSI-X can have.
    #[error("a PCI function cannot have {0} interrupt vectors (1 to 2048 are possible)")]
    BadVectorCount(usize),
    /// The window for BARs is full.
    #[error("no room for {size:#x} bytes in the PCI memory window; use fewer devices")]
    NoWindow {
        /// Bytes asked for.
        size: u64,
    },
    /// A saved state that belongs to other hardware.
    #[error(
        "the saved PCI state does not fit this device ({0}); restore it with the version of Riad that saved it"
    )]
    StateMismatch(&'static str),
}

/// A single-function PCI device.
///
/// Methods are called by several processor threads at once. What a function does not implement
/// reads as zero and ignores writes.
pub trait PciDevice: Send + Sync {
    /// Reads configuration space at `offset` (bytes, below 4096); fills all of `data`.
    fn config_read(&self, offset: u16, data: &mut [u8]);
    /// Writes configuration space.
    fn config_write(&self, offset: u16, data: &[u8]);
    /// The BARs as the guest has placed them now.
    fn bars(&self) -> Vec<BarWindow>;
    /// The bus hears these BARs from now on, and no others of the function's.
    fn decoded(&self, windows: &[BarWindow]) {
        let _ = windows;
    }
    /// Reads `offset` bytes into BAR `bar`; fills all of `data`.
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);
    /// Writes to BAR `bar`.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);
    /// Back to the state after power-on: BARs unplaced, decoding off.
    fn reset(&self);
}

/// Locks; a thread that panicked while it held the lock does not take the machine with it.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
