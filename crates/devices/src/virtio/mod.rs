//! Virtio 1.3 devices, behind its PCI transport.
//!
//! A driver in the guest puts buffers on queues in guest memory; a device takes them off, does what
//! they ask, and hands them back.
//!
//! * [`queue`] and [`chain`]: split virtqueues, and buffers as readers and writers;
//! * [`pci`]: the transport ([`VirtioPci`]): negotiation, queues' addresses, interrupts, reset;
//! * [`worker`]: the thread a device does its work on, so that no processor waits for a disk;
//! * [`blk`], [`console`], [`net`], [`rng`], [`vsock`]: the devices. Each file has the same order: what it
//!   is, its configuration, its state, its work, its saved state.
//!
//! The driver is hostile (wall 5). Whatever it writes, a device does a bounded amount of work for
//! it; a ring that makes no sense ends in DEVICE_NEEDS_RESET (section 2.1.2), never in a panic.

pub mod blk;
pub mod chain;
pub mod console;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rng;
mod signals;
pub mod vsock;
pub mod worker;

#[cfg(test)]
mod driver_test;
#[cfg(test)]
mod golden_test;

use std::sync::{Arc, Mutex};

use riad_memory::GuestMemory;
use serde::{Deserialize, Serialize};

use crate::Bell;
use worker::Control;

pub use blk::{Blk, BlkState};
pub use chain::Chain;
pub use console::{Console, ConsoleHandle, ConsoleState};
pub use net::{Net, NetHandle, NetState};
pub use pci::{VirtioPci, VirtioPciState};
pub use queue::{Queue, QueueError};
pub use rng::{Entropy, HostEntropy, Rng, RngState};
pub use vsock::{Vsock, VsockHandle, VsockState};

/// Feature bits that belong to queues and transport (virtio 1.3, section 6).
pub mod feature {
    /// Descriptors may point to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Notifications are suppressed by index (section 2.7.10).
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device is a virtio 1.x device. Not optional here.
    pub const VERSION_1: u64 = 1 << 32;
}

/// What a device is (virtio 1.3, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// Block device.
    Block,
    /// Console.
    Console,
    /// Entropy source.
    Entropy,
    /// Network card.
    Network,
    /// Socket device.
    Socket,
}

impl DeviceType {
    /// Virtio device ID.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::Network => 1,
            Self::Block => 2,
            Self::Console => 3,
            Self::Entropy => 4,
            Self::Socket => 19,
        }
    }

    /// PCI class code, 24 bits.
    #[must_use]
    pub fn pci_class(self) -> u32 {
        match self {
            // Mass storage, other; communication, other; Ethernet; no class fits an entropy source.
            Self::Block => 0x01_80_00,
            Self::Console | Self::Socket => 0x07_80_00,
            Self::Network => 0x02_00_00,
            Self::Entropy => 0xff_00_00,
        }
    }

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Block => "virtio-blk",
            Self::Console => "virtio-console",
            Self::Entropy => "virtio-rng",
            Self::Network => "virtio-net",
            Self::Socket => "virtio-vsock",
        }
    }
}

/// How a device asks for the driver's attention. Callable from any thread.
pub trait VirtioInterrupt: Send + Sync {
    /// Buffers of queue `index` were used.
    fn queue(&self, index: u16);
    /// The device's configuration changed.
    fn config(&self);
    /// The driver broke the rules beyond repair: sets DEVICE_NEEDS_RESET. The device stops its
    /// work until it is reset.
    fn fail(&self, reason: &dyn std::fmt::Display);
}

/// A queue that a device works on, and that the transport saves.
pub type SharedQueue = Arc<Mutex<Queue>>;

/// What a device gets when the driver says DRIVER_OK.
#[derive(Clone)]
pub struct Activation {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Features the driver accepted.
    pub features: u64,
    /// The queues, in the device's order; `None` for those the driver left disabled.
    pub queues: Vec<Option<SharedQueue>>,
    /// Interrupts.
    pub interrupt: Arc<dyn VirtioInterrupt>,
    /// The device does not begin to work before [`VirtioDevice::resume`].
    pub paused: bool,
}

impl std::fmt::Debug for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Activation")
            .field("features", &self.features)
            .field("queues", &self.queues)
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}

impl Activation {
    /// Queue `index`, if the driver enabled it.
    #[must_use]
    pub fn queue(&self, index: usize) -> Option<SharedQueue> {
        self.queues.get(index).and_then(Clone::clone)
    }

    /// Whether the driver accepted a feature.
    #[must_use]
    pub fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }
}

/// Why a device could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The host refused a thread or a file descriptor.
    #[error("the host refused what the device needs to run (threads or file descriptors): {0}")]
    Host(#[from] std::io::Error),
}

/// A virtio device, without its transport.
///
/// The transport calls it with a lock held, so methods do not overlap; a device never calls the
/// transport except through [`VirtioInterrupt`].
pub trait VirtioDevice: Send {
    /// What it is.
    fn device_type(&self) -> DeviceType;
    /// Device-specific features it offers.
    fn features(&self) -> u64;
    /// The largest size of each queue; powers of two.
    fn queue_sizes(&self) -> &[u16];
    /// Bytes of device configuration.
    fn config_len(&self) -> u32;
    /// Reads device configuration; fills all of `data`, with zeros beyond its end.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// Writes device configuration.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }
    /// Begins to work.
    ///
    /// # Errors
    /// [`ActivateError`]; the transport then sets DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;
    /// What its thread looks at, since it was activated and until it is reset.
    fn control(&self) -> Option<&Control>;
    /// What wakes it when the driver has notified a queue, since it was activated and until it is
    /// reset. It looks at its queues when it is rung, resumed and activated, so that a bell that was
    /// rung while it was held is no state.
    fn bell(&self) -> Option<&Bell> {
        self.control().map(Control::bell)
    }
    /// The driver has notified a queue, and nobody rang the bell for it. The transport calls this on
    /// the processor's thread, and nothing else of the device meanwhile: a device may serve what is short
    /// there and then, unless it is held.
    fn notify(&mut self) {
        if let Some(bell) = self.bell() {
            bell.ring();
        }
    }
    /// Stops, and forgets everything the driver set up. When it returns, the device does not touch
    /// guest memory.
    fn reset(&mut self);
    /// Holds the work: when it returns, nothing is in flight and guest memory is not touched.
    /// Idempotent.
    fn pause(&mut self) {
        if let Some(control) = self.control() {
            control.pause();
        }
    }
    /// Goes on. Idempotent.
    fn resume(&mut self) {
        if let Some(control) = self.control() {
            control.resume();
        }
    }
    /// The saved state. The device is paused.
    fn save(&self) -> DeviceState;
}

/// Saved state of any device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// A block device.
    Blk(BlkState),
    /// A console.
    Console(ConsoleState),
    /// A network card.
    Net(NetState),
    /// An entropy source.
    Rng(RngState),
    /// A socket device.
    Vsock(VsockState),
}

/// Serves a read of configuration from its `image`; zeros beyond the end.
fn read_image(image: &[u8], offset: u64, data: &mut [u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    for (index, byte) in data.iter_mut().enumerate() {
        *byte = image.get(start.saturating_add(index)).copied().unwrap_or(0);
    }
}
