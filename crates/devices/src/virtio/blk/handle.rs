//! The host's end of a block device: what it serves is counted, and its driver is told when the disk
//! has another size.

use std::sync::{Arc, Mutex};

use super::{BlkCounters, BlkCounts};
use crate::pci::lock;
use crate::virtio::VirtioInterrupt;

/// The host's end of a block device. Cloning shares it; it works from any thread.
#[derive(Debug, Clone, Default)]
pub struct BlkHandle(Arc<Inner>);

#[derive(Default)]
struct Inner {
    counters: BlkCounters,
    /// While a driver drives the device.
    interrupt: Mutex<Option<Arc<dyn VirtioInterrupt>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl BlkHandle {
    /// What the device has served.
    #[must_use]
    pub fn counts(&self) -> BlkCounts {
        self.0.counters.read()
    }

    /// Tells the driver that the disk has another size (virtio 1.3, section 5.2.4: the capacity may
    /// change while the device is driven). Returns whether there is one to be told; one that comes
    /// later reads the size that is true then.
    pub fn resized(&self) -> bool {
        let interrupt = lock(&self.0.interrupt).clone();
        interrupt.inspect(|interrupt| interrupt.config()).is_some()
    }

    /// Whether a driver in the guest drives the device.
    #[must_use]
    pub fn driven(&self) -> bool {
        lock(&self.0.interrupt).is_some()
    }

    pub(super) fn counters(&self) -> &BlkCounters {
        &self.0.counters
    }

    pub(super) fn attach(&self, interrupt: Option<Arc<dyn VirtioInterrupt>>) {
        *lock(&self.0.interrupt) = interrupt;
    }
}
