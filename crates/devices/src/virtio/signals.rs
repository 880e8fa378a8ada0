//! What a device tells its driver: status, interrupts, configuration changes. Shared by the
//! transport's registers (processor threads) and the device's worker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use super::VirtioInterrupt;
use crate::pci::{Msix, lock};

/// Device status bits (virtio 1.3, section 2.1).
pub(super) mod status {
    /// The driver can drive the device.
    pub(in crate::virtio) const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete.
    pub(in crate::virtio) const FEATURES_OK: u8 = 8;
    /// The device has met an error it cannot recover from.
    pub(in crate::virtio) const NEEDS_RESET: u8 = 64;
    /// Bits the driver sets, one by one (ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED).
    pub(in crate::virtio) const BY_DRIVER: u8 = 0x8f;
}

/// Interrupt vector number of "none" (virtio 1.3, section 4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// ISR status bits (virtio 1.3, section 4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// Status, ISR, vectors and the MSI-X table of one function.
#[derive(Debug)]
pub(super) struct Signals {
    /// For the log.
    pub(super) name: &'static str,
    pub(super) status: AtomicU8,
    pub(super) isr: AtomicU8,
    /// Changes when the device's configuration does.
    pub(super) generation: AtomicU8,
    pub(super) config_vector: AtomicU16,
    pub(super) queue_vectors: Box<[AtomicU16]>,
    pub(super) msix: Mutex<Msix>,
}

impl Signals {
    pub(super) fn new(name: &'static str, queues: usize, msix: Msix) -> Self {
        Self {
            name,
            status: AtomicU8::new(0),
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            msix: Mutex::new(msix),
        }
    }

    pub(super) fn status(&self) -> u8 {
        self.status.load(Ordering::SeqCst)
    }

    /// The vector a driver asked for, if the function has it; otherwise none.
    pub(super) fn accept_vector(&self, vector: u16) -> u16 {
        let exists = usize::from(vector) < lock(&self.msix).len();
        if exists { vector } else { NO_VECTOR }
    }

    pub(super) fn queue_vector(&self, index: u16) -> Option<&AtomicU16> {
        self.queue_vectors.get(usize::from(index))
    }

    /// Virtio reset (section 2.4): the MSI-X table is PCI's and stays.
    pub(super) fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.isr.store(0, Ordering::SeqCst);
        self.config_vector.store(NO_VECTOR, Ordering::SeqCst);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::SeqCst);
        }
    }
}

impl VirtioInterrupt for Signals {
    fn queue(&self, index: u16) {
        let vector = self.queue_vector(index).map_or(NO_VECTOR, |v| v.load(Ordering::SeqCst));
        let mut msix = lock(&self.msix);
        if msix.enabled() {
            msix.signal(vector);
        } else {
            self.isr.fetch_or(ISR_QUEUE, Ordering::SeqCst);
        }
    }

    fn config(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.isr.fetch_or(ISR_CONFIG, Ordering::SeqCst);
        lock(&self.msix).signal(self.config_vector.load(Ordering::SeqCst));
    }

    fn fail(&self, reason: &dyn std::fmt::Display) {
        let was = self.status.fetch_or(status::NEEDS_RESET, Ordering::SeqCst);
        if was & status::NEEDS_RESET != 0 {
            return;
        }
        tracing::warn!(device = self.name, %reason, "the guest's driver broke a rule; the device waits for a reset");
        if was & status::DRIVER_OK != 0 {
            self.config();
        }
    }
}
