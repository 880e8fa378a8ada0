//! Virtio over PCI (virtio 1.3, section 4.1), modern devices only.
//!
//! One memory BAR holds, a page each: common configuration, ISR status, device configuration,
//! notifications, the MSI-X table and its pending bits. Vendor capabilities in configuration space
//! say so. A processor without memory-mapped access may go through the PCI configuration access
//! capability (section 4.1.4.9).
//!
//! A notification wakes the device and has no other meaning, so that the engine is asked to ring the
//! queue's bell by itself, wherever the guest has the BAR ([`Doorbells`]).
//!
//! Reset is complete when the write of 0 to the status register returns: the device has drained
//! what was in flight by then.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use riad_memory::{Gpa, GuestMemory};
use serde::{Deserialize, Serialize};

use super::queue::{Queue, QueueLayout, QueueProgress};
use super::signals::{NO_VECTOR, Signals, status};
use super::{
    ActivateError, Activation, DeviceState, QueueError, SharedQueue, VirtioDevice, VirtioInterrupt,
    feature,
};
use crate::pci::{
    BarKind, BarWindow, ConfigSpace, ConfigState, Identity, Msix, MsixState, PciDevice, PciError,
    lock,
};
use crate::{Bell, Doorbells, MsiTarget};

mod common;

use common::Common;
pub use common::{CommonState, QueueState};

/// PCI vendor ID of virtio devices.
const VENDOR: u16 = 0x1af4;
/// PCI device ID of virtio device 0; modern devices add their virtio ID.
const DEVICE_BASE: u16 = 0x1040;
/// Vendor-specific capability.
const CAP_VENDOR: u8 = 0x09;

/// Layout of BAR 0: the byte offset of each structure, a page apart.
mod layout {
    pub(super) const BAR: u8 = 0;
    pub(super) const BAR_SIZE: u64 = 0x8000;
    pub(super) const COMMON: u64 = 0x0000;
    pub(super) const COMMON_LEN: u32 = 0x40;
    pub(super) const ISR: u64 = 0x1000;
    pub(super) const DEVICE: u64 = 0x2000;
    pub(super) const NOTIFY: u64 = 0x3000;
    pub(super) const NOTIFY_MULTIPLIER: u32 = 4;
    pub(super) const MSIX_TABLE: u64 = 0x4000;
    pub(super) const MSIX_PENDING: u64 = 0x5000;
    pub(super) const PAGE: u64 = 0x1000;
    /// Vectors that fit into the table's page.
    pub(super) const MAX_QUEUES: usize = 64;
}

/// Capability types (section 4.1.4).
mod cap {
    pub(super) const COMMON: u8 = 1;
    pub(super) const NOTIFY: u8 = 2;
    pub(super) const ISR: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
    pub(super) const PCI: u8 = 5;
}

/// Why a device could not be put behind the transport.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// PCI refused.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// The device has more queues than the transport has room for.
    #[error("a virtio device cannot have {0} queues (at most 64)")]
    TooManyQueues(usize),
    /// The saved queues do not fit.
    #[error("the saved virtio state does not fit: {0}")]
    Queue(#[from] QueueError),
    /// The device could not go on.
    #[error(transparent)]
    Activate(#[from] ActivateError),
    /// The saved state is of another device.
    #[error(
        "the saved virtio state does not fit this device ({0}); restore it with the version of Riad that saved it"
    )]
    StateMismatch(&'static str),
}

/// Saved state of a virtio PCI function with its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioPciState {
    /// Configuration space, BARs included.
    pub config: ConfigState,
    /// MSI-X table.
    pub msix: MsixState,
    /// Negotiation, queues and interrupts.
    pub common: CommonState,
    /// The device itself: what its own constructor restores from.
    pub device: DeviceState,
}

/// Why work is held back.
mod hold {
    /// The machine is paused.
    pub(super) const MACHINE: u8 = 1;
    /// The function may not master the bus.
    pub(super) const BUS_MASTER: u8 = 2;
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    signals: Arc<Signals>,
    memory: GuestMemory,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Configuration space as after power-on.
    blank: ConfigSpace,
    config: ConfigSpace,
    capabilities: Capabilities,
    common: Common,
    device: Box<dyn VirtioDevice>,
    /// Queues the device works on since DRIVER_OK; empty before.
    queues: Vec<Option<SharedQueue>>,
    bells: HungBells,
    /// `hold` bits.
    held: u8,
}

/// The bells of queues that others ring. Not saved: it follows from where the BAR is and which queues
/// are worked on.
#[derive(Default)]
struct HungBells {
    ringer: Option<Arc<dyn Doorbells>>,
    /// Where the bus hears the BAR, if it does.
    bar: Option<u64>,
    hung: Vec<(Gpa, Bell)>,
}

impl HungBells {
    fn hang(&mut self, device: &dyn VirtioDevice, queues: &[Option<SharedQueue>]) {
        self.take_down();
        let (Some(ringer), Some(bar)) = (&self.ringer, self.bar) else { return };
        for (index, _) in (0u16..).zip(queues).filter(|(_, queue)| queue.is_some()) {
            let offset = layout::NOTIFY + u64::from(index) * u64::from(layout::NOTIFY_MULTIPLIER);
            let (Some(at), Some(bell)) = (bar.checked_add(offset), device.bell()) else {
                continue;
            };
            if ringer.hang(Gpa(at), bell) {
                self.hung.push((Gpa(at), bell.clone()));
            }
        }
    }

    fn take_down(&mut self) {
        for (at, bell) in self.hung.drain(..) {
            if let Some(ringer) = &self.ringer {
                ringer.take_down(at, &bell);
            }
        }
    }
}

/// Offsets in configuration space.
#[derive(Debug, Clone, Copy)]
struct Capabilities {
    msix: u8,
    pci: u8,
}

impl std::fmt::Debug for VirtioPci {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtioPci").field("signals", &self.signals).finish_non_exhaustive()
    }
}

impl VirtioPci {
    /// A function with `device` behind it, as after power-on.
    ///
    /// # Errors
    /// [`TransportError`] when the device has too many queues.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        msi: Arc<dyn MsiTarget>,
    ) -> Result<Self, TransportError> {
        let kind = device.device_type();
        let sizes = device.queue_sizes();
        if sizes.len() > layout::MAX_QUEUES {
            return Err(TransportError::TooManyQueues(sizes.len()));
        }
        // One vector a queue, one for configuration changes.
        let msix = Msix::new(sizes.len() + 1, msi)?;
        let (config, capabilities) = config_space(&*device, &msix)?;
        let signals = Arc::new(Signals::new(kind.name(), sizes.len(), msix));
        let common = Common::new(offered(&*device), sizes);
        let inner = Inner {
            blank: config.clone(),
            config,
            capabilities,
            common,
            device,
            queues: Vec::new(),
            bells: HungBells::default(),
            held: hold::BUS_MASTER,
        };
        Ok(Self { signals, memory, inner: Mutex::new(inner) })
    }

    /// Has `ringer` ring the bells of queues. To be called before the function is put on a bus.
    #[must_use]
    pub fn with_doorbells(self, ringer: Arc<dyn Doorbells>) -> Self {
        lock(&self.inner).bells.ringer = Some(ringer);
        self
    }

    /// A function as saved. `device` was restored from [`VirtioPciState::device`]. It is paused:
    /// when the whole machine stands, [`resume`](Self::resume) lets it go on.
    ///
    /// # Errors
    /// [`TransportError`] when the state does not fit the device or the guest's memory.
    pub fn restore(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        msi: Arc<dyn MsiTarget>,
        state: &VirtioPciState,
    ) -> Result<Self, TransportError> {
        let VirtioPciState { config, msix, common, device: _ } = state;
        let vectors = device.queue_sizes().len() + 1;
        let this = Self::new(device, memory, Arc::clone(&msi))?;
        {
            let mut inner = lock(&this.inner);
            let inner = &mut *inner;
            inner.config = inner.blank.clone().restore(config)?;
            let at = inner.capabilities.msix;
            *lock(&this.signals.msix) = Msix::restore(msix, &inner.config, at, vectors, msi)?;
            inner.common.restore(common, &this.signals)?;
            inner.held = hold::MACHINE;
            if !inner.config.bus_master() {
                inner.held |= hold::BUS_MASTER;
            }
            let now = this.signals.status();
            if now & status::DRIVER_OK != 0 && now & status::NEEDS_RESET == 0 {
                let progress: Vec<_> = common.queues.iter().map(|queue| queue.progress).collect();
                let queues = inner.common.queues(&this.memory, &progress)?;
                inner.activate(queues, &this.memory, &this.signals)?;
            }
        }
        Ok(this)
    }

    /// The saved state. Holds the device for a moment when it is not paused.
    pub fn save(&self) -> VirtioPciState {
        let Self { signals, memory: _, inner } = self;
        let mut inner = lock(inner);
        if inner.held == 0 {
            inner.device.pause();
        }
        let Inner { blank: _, config, capabilities: _, common, device, queues, bells: _, held } =
            &mut *inner;
        let progress: Vec<Option<QueueProgress>> =
            queues.iter().map(|queue| queue.as_ref().map(|queue| lock(queue).progress())).collect();
        let state = VirtioPciState {
            config: config.save(),
            msix: lock(&signals.msix).save(),
            common: common.save(signals, &progress),
            device: device.save(),
        };
        if *held == 0 {
            device.resume();
        }
        state
    }

    /// Holds the device's work. When it returns, nothing is in flight. Idempotent.
    pub fn pause(&self) {
        lock(&self.inner).hold(hold::MACHINE, true);
    }

    /// Lets the device work. Idempotent.
    pub fn resume(&self) {
        lock(&self.inner).hold(hold::MACHINE, false);
    }

    fn write_status(&self, value: u8) {
        let mut inner = lock(&self.inner);
        let inner = &mut *inner;
        if value == 0 {
            inner.reset(&self.signals);
            return;
        }
        let was = self.signals.status();
        let mut new = value & !was & status::BY_DRIVER;
        if new & status::FEATURES_OK != 0 && !inner.common.features_acceptable() {
            new &= !status::FEATURES_OK;
        }
        let now = was | new;
        let begin = new & status::DRIVER_OK != 0;
        if begin && now & status::FEATURES_OK == 0 {
            self.signals.fail(&"DRIVER_OK before FEATURES_OK");
            return;
        }
        self.signals.status.fetch_or(new, Ordering::SeqCst);
        if begin && now & status::NEEDS_RESET == 0 {
            match inner.common.queues(&self.memory, &[]) {
                Ok(queues) => {
                    if let Err(error) = inner.activate(queues, &self.memory, &self.signals) {
                        self.signals.fail(&error);
                    }
                }
                Err(error) => self.signals.fail(&error),
            }
        }
    }

    fn common_write(&self, offset: u64, data: &[u8]) {
        if offset == common::STATUS {
            if let Some(value) = data.first() {
                self.write_status(*value);
            }
            return;
        }
        lock(&self.inner).common.write(offset, data, &self.signals);
    }

    /// An access to the data field of the configuration access capability reaches through it.
    fn window(&self, offset: u16, len: usize) -> Option<(u8, u64, usize)> {
        let inner = lock(&self.inner);
        let at = usize::from(inner.capabilities.pci);
        let data = at + 16;
        let start = usize::from(offset);
        if start >= data + 4 || start + len <= data {
            return None;
        }
        let bar = inner.config.read_u16(at + 4).to_le_bytes()[0];
        let target = u64::from(inner.config.read_u32(at + 8));
        let width = inner.config.read_u32(at + 12);
        let allowed = matches!(width, 1 | 2 | 4)
            && target % u64::from(width) == 0
            && target + u64::from(width) <= layout::BAR_SIZE
            && bar == layout::BAR;
        allowed.then_some((bar, target, width as usize))
    }
}

impl Inner {
    fn hold(&mut self, reason: u8, on: bool) {
        let was = self.held;
        self.held = if on { was | reason } else { was & !reason };
        match (was == 0, self.held == 0) {
            (true, false) => self.device.pause(),
            (false, true) => self.device.resume(),
            _ => {}
        }
    }

    fn activate(
        &mut self,
        queues: Vec<Option<SharedQueue>>,
        memory: &GuestMemory,
        signals: &Arc<Signals>,
    ) -> Result<(), ActivateError> {
        self.queues.clone_from(&queues);
        self.device.activate(Activation {
            memory: memory.clone(),
            features: self.common.driver_features(),
            queues,
            interrupt: Arc::<Signals>::clone(signals),
            paused: self.held != 0,
        })?;
        self.bells.hang(&*self.device, &self.queues);
        Ok(())
    }

    fn reset(&mut self, signals: &Signals) {
        // A bell goes with the worker that it wakes.
        self.bells.take_down();
        self.device.reset();
        self.queues.clear();
        self.common.reset();
        signals.reset();
    }

    fn config_written(&mut self, signals: &Signals) {
        lock(&signals.msix).update_control(&self.config, self.capabilities.msix);
        let master = self.config.bus_master();
        self.hold(hold::BUS_MASTER, !master);
    }
}

impl PciDevice for VirtioPci {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        if let Some((bar, target, width)) = self.window(offset, data.len()) {
            let mut value = [0; 4];
            let value = value.get_mut(..width).unwrap_or_default();
            self.bar_read(bar, target, value);
            let mut inner = lock(&self.inner);
            let at = usize::from(inner.capabilities.pci) + 16;
            inner.config.put(at, value);
        }
        lock(&self.inner).config.read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut inner = lock(&self.inner);
        inner.config.write(offset, data);
        inner.config_written(&self.signals);
        let at = usize::from(inner.capabilities.pci) + 16;
        let value = inner.config.read_u32(at).to_le_bytes();
        drop(inner);
        if let Some((bar, target, width)) = self.window(offset, data.len()) {
            self.bar_write(bar, target, value.get(..width).unwrap_or_default());
        }
    }

    fn bars(&self) -> Vec<BarWindow> {
        lock(&self.inner).config.bars()
    }

    fn decoded(&self, windows: &[BarWindow]) {
        let bar = windows.iter().find(|window| window.bar == layout::BAR).map(|bar| bar.base);
        let mut inner = lock(&self.inner);
        let Inner { bells, device, queues, .. } = &mut *inner;
        if bells.bar != bar {
            bells.bar = bar;
            bells.hang(&**device, queues);
        }
    }

    fn bar_read(&self, _bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let within = offset % layout::PAGE;
        match offset - within {
            layout::COMMON => lock(&self.inner).common.read(within, data, &self.signals),
            layout::ISR => {
                if let Some(byte) = data.first_mut().filter(|_| within == 0) {
                    *byte = self.signals.isr.swap(0, Ordering::SeqCst);
                }
            }
            layout::DEVICE => lock(&self.inner).device.read_config(within, data),
            layout::MSIX_TABLE => lock(&self.signals.msix).table_read(within, data),
            layout::MSIX_PENDING => lock(&self.signals.msix).pending_read(within, data),
            _ => {}
        }
    }

    fn bar_write(&self, _bar: u8, offset: u64, data: &[u8]) {
        let within = offset % layout::PAGE;
        match offset - within {
            layout::COMMON => self.common_write(within, data),
            layout::DEVICE => lock(&self.inner).device.write_config(within, data),
            layout::NOTIFY => {
                let index = within / u64::from(layout::NOTIFY_MULTIPLIER);
                let mut inner = lock(&self.inner);
                if let Ok(index) = u16::try_from(index)
                    && usize::from(index) < inner.queues.len()
                {
                    inner.device.notify();
                }
            }
            layout::MSIX_TABLE => lock(&self.signals.msix).table_write(within, data),
            _ => {}
        }
    }

    fn reset(&self) {
        let mut inner = lock(&self.inner);
        inner.reset(&self.signals);
        self.signals.generation.store(0, Ordering::SeqCst);
        inner.config = inner.blank.clone();
        lock(&self.signals.msix).reset();
        inner.config_written(&self.signals);
    }
}

/// Features a device offers, the transport's included.
fn offered(device: &dyn VirtioDevice) -> u64 {
    device.features() | feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX
}

/// Configuration space with the capabilities of section 4.1.4.
fn config_space(
    device: &dyn VirtioDevice,
    msix: &Msix,
) -> Result<(ConfigSpace, Capabilities), PciError> {
    let kind = device.device_type();
    let mut config = ConfigSpace::new(Identity {
        vendor: VENDOR,
        device: DEVICE_BASE + kind.id(),
        revision: 1,
        class: kind.pci_class(),
        subsystem_vendor: VENDOR,
        subsystem: 0x40 + kind.id(),
    });
    config.add_bar(layout::BAR, BarKind::Memory32, layout::BAR_SIZE)?;
    let table = layout::MSIX_TABLE as u32;
    let msix_at =
        msix.add_capability(&mut config, layout::BAR, table, layout::MSIX_PENDING as u32)?;
    let notify_len = device.queue_sizes().len() as u32 * layout::NOTIFY_MULTIPLIER;
    for (kind, offset, len) in [
        (cap::COMMON, layout::COMMON, layout::COMMON_LEN),
        (cap::ISR, layout::ISR, 1),
        (cap::DEVICE, layout::DEVICE, device.config_len().next_multiple_of(4).max(4)),
    ] {
        config.add_capability(CAP_VENDOR, &structure(16, kind, offset, len), &[])?;
    }
    let mut notify = structure(20, cap::NOTIFY, layout::NOTIFY, notify_len).to_vec();
    notify.extend(layout::NOTIFY_MULTIPLIER.to_le_bytes());
    config.add_capability(CAP_VENDOR, &notify, &[])?;
    let mut window = structure(20, cap::PCI, 0, 0).to_vec();
    window.extend([0; 4]);
    // The driver chooses BAR, offset and length, and writes the data.
    let mut writable = [0xff; 18];
    writable[..2].fill(0);
    writable[3..6].fill(0);
    let pci = config.add_capability(CAP_VENDOR, &window, &writable)?;
    Ok((config, Capabilities { msix: msix_at, pci }))
}

/// `struct virtio_pci_cap` after its first two bytes.
fn structure(cap_len: u8, kind: u8, offset: u64, len: u32) -> [u8; 14] {
    let mut bytes = [0; 14];
    bytes[0] = cap_len;
    bytes[1] = kind;
    bytes[2] = layout::BAR;
    bytes[6..10].copy_from_slice(&(offset as u32).to_le_bytes());
    bytes[10..].copy_from_slice(&len.to_le_bytes());
    bytes
}

#[cfg(test)]
#[path = "pci/bells_test.rs"]
mod bells_tests;

#[cfg(test)]
#[path = "pci_test.rs"]
mod tests;
