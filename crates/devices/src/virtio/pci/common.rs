//! The common configuration structure (virtio 1.3, section 4.1.4.3).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{
    Deserialize, Gpa, GuestMemory, NO_VECTOR, Queue, QueueError, QueueLayout, QueueProgress,
    Serialize, SharedQueue, Signals, TransportError, feature, status,
};

/// Offset of `device_status`, which the transport handles itself.
pub(super) const STATUS: u64 = 0x14;

/// Negotiation and queue setup: the registers that are not [`Signals`].
#[derive(Debug)]
pub(super) struct Common {
    offered: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    queues: Vec<Setup>,
}

/// A queue as the driver sets it up.
#[derive(Debug, Clone, Copy)]
struct Setup {
    max: u16,
    enabled: bool,
    layout: QueueLayout,
}

impl Setup {
    fn new(max: u16) -> Self {
        let layout =
            QueueLayout { size: max, descriptors: Gpa(0), available: Gpa(0), used: Gpa(0) };
        Self { max, enabled: false, layout }
    }
}

/// Saved negotiation and queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommonState {
    /// Device status.
    pub status: u8,
    /// ISR status.
    pub isr: u8,
    /// Configuration generation.
    pub generation: u8,
    /// Half of the offered features that reads show.
    pub device_feature_select: u32,
    /// Half of the accepted features that writes change.
    pub driver_feature_select: u32,
    /// Accepted features.
    pub driver_features: u64,
    /// Queue that the queue registers show.
    pub queue_select: u16,
    /// Vector for configuration changes.
    pub config_vector: u16,
    /// The queues.
    pub queues: Vec<QueueState>,
}

/// One saved queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Where the driver put it.
    pub layout: QueueLayout,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Its vector.
    pub vector: u16,
    /// How far the device has come; `None` while the device does not work on it.
    pub progress: Option<QueueProgress>,
}

impl Common {
    pub(super) fn new(offered: u64, sizes: &[u16]) -> Self {
        Self {
            offered,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: sizes.iter().copied().map(Setup::new).collect(),
        }
    }

    pub(super) fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max).collect();
        *self = Self::new(self.offered, &sizes);
    }

    pub(super) fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// Whether FEATURES_OK may stay (section 3.1.1): nothing that was not offered, and not a legacy
    /// driver.
    pub(super) fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered == 0 && self.driver_features & feature::VERSION_1 != 0
    }

    /// The enabled queues, ready to be worked on.
    pub(super) fn queues(
        &self,
        memory: &GuestMemory,
        progress: &[Option<QueueProgress>],
    ) -> Result<Vec<Option<SharedQueue>>, QueueError> {
        let mut queues = Vec::with_capacity(self.queues.len());
        for (index, setup) in self.queues.iter().enumerate() {
            if !setup.enabled {
                queues.push(None);
                continue;
            }
            if setup.layout.size > setup.max {
                return Err(QueueError::BadSize(setup.layout.size));
            }
            let progress = progress.get(index).copied().flatten().unwrap_or_default();
            let queue = Queue::new(memory.clone(), setup.layout, progress, self.driver_features)?;
            queues.push(Some(Arc::new(Mutex::new(queue))));
        }
        Ok(queues)
    }

    pub(super) fn save(
        &self,
        signals: &Signals,
        progress: &[Option<QueueProgress>],
    ) -> CommonState {
        let Self {
            offered: _,
            device_feature_select,
            driver_feature_select,
            driver_features,
            queue_select,
            queues,
        } = self;
        let Signals { name: _, status, isr, generation, config_vector, queue_vectors, msix: _ } =
            signals;
        let queues = queues.iter().zip(queue_vectors).enumerate();
        let queues = queues.map(|(index, (setup, vector))| {
            let Setup { max: _, enabled, layout } = *setup;
            QueueState {
                layout,
                enabled,
                vector: vector.load(Ordering::SeqCst),
                progress: progress.get(index).copied().flatten(),
            }
        });
        CommonState {
            status: status.load(Ordering::SeqCst),
            isr: isr.load(Ordering::SeqCst),
            generation: generation.load(Ordering::SeqCst),
            device_feature_select: *device_feature_select,
            driver_feature_select: *driver_feature_select,
            driver_features: *driver_features,
            queue_select: *queue_select,
            config_vector: config_vector.load(Ordering::SeqCst),
            queues: queues.collect(),
        }
    }

    pub(super) fn restore(
        &mut self,
        state: &CommonState,
        signals: &Signals,
    ) -> Result<(), TransportError> {
        let CommonState {
            status,
            isr,
            generation,
            device_feature_select,
            driver_feature_select,
            driver_features,
            queue_select,
            config_vector,
            queues,
        } = state;
        if queues.len() != self.queues.len() {
            return Err(TransportError::StateMismatch("another number of queues"));
        }
        if status & status::FEATURES_OK != 0 && driver_features & !self.offered != 0 {
            return Err(TransportError::StateMismatch("features that are not offered any more"));
        }
        let accept = |vector: u16| signals.accept_vector(vector);
        self.device_feature_select = *device_feature_select;
        self.driver_feature_select = *driver_feature_select;
        self.driver_features = *driver_features;
        self.queue_select = *queue_select;
        for ((setup, saved), own) in self.queues.iter_mut().zip(queues).zip(&signals.queue_vectors)
        {
            let QueueState { layout, enabled, vector, progress: _ } = *saved;
            (setup.layout, setup.enabled) = (layout, enabled);
            own.store(accept(vector), Ordering::SeqCst);
        }
        signals.status.store(*status, Ordering::SeqCst);
        signals.isr.store(*isr, Ordering::SeqCst);
        signals.generation.store(*generation, Ordering::SeqCst);
        signals.config_vector.store(accept(*config_vector), Ordering::SeqCst);
        Ok(())
    }

    /// Reads have no side effects: the whole structure is laid out and a part of it given.
    pub(super) fn read(&self, offset: u64, data: &mut [u8], signals: &Signals) {
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let mut image = [0; 0x40];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(room) = image.get_mut(at..at + bytes.len()) {
                room.copy_from_slice(bytes);
            }
        };
        put(0x00, &self.device_feature_select.to_le_bytes());
        put(0x04, &half(self.offered, self.device_feature_select).to_le_bytes());
        put(0x08, &self.driver_feature_select.to_le_bytes());
        put(0x0c, &half(self.driver_features, self.driver_feature_select).to_le_bytes());
        put(0x10, &signals.config_vector.load(Ordering::SeqCst).to_le_bytes());
        put(0x12, &(self.queues.len() as u16).to_le_bytes());
        put(0x14, &[signals.status(), signals.generation.load(Ordering::SeqCst)]);
        put(0x16, &self.queue_select.to_le_bytes());
        let vector = signals
            .queue_vector(self.queue_select)
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::SeqCst));
        put(0x1a, &vector.to_le_bytes());
        // A queue that does not exist has size 0.
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(0x18, &queue.layout.size.to_le_bytes());
            put(0x1c, &u16::from(queue.enabled).to_le_bytes());
            put(0x1e, &self.queue_select.to_le_bytes());
            put(0x20, &queue.layout.descriptors.0.to_le_bytes());
            put(0x28, &queue.layout.available.0.to_le_bytes());
            put(0x30, &queue.layout.used.0.to_le_bytes());
        }
        crate::virtio::read_image(&image, offset, data);
    }

    /// Writes one register, or half of a 64-bit one. Accesses of other widths are not allowed to
    /// drivers (section 4.1.3.1) and do nothing, and so do writes that come too late.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], signals: &Signals) {
        let status = signals.status();
        let negotiating = status & status::FEATURES_OK == 0;
        let setting_up = status & status::DRIVER_OK == 0;
        let index = self.queue_select;
        let value =
            data.iter().take(8).rev().fold(0, |value: u64, byte| (value << 8) | u64::from(*byte));
        match (offset, data.len()) {
            (0x00, 4) => self.device_feature_select = value as u32,
            (0x08, 4) => self.driver_feature_select = value as u32,
            (0x0c, 4) if negotiating => match self.driver_feature_select {
                0 => set_half(&mut self.driver_features, 0, value),
                1 => set_half(&mut self.driver_features, 32, value),
                // What is offered beyond 64 bits is nothing; accepting some of it is not possible.
                _ => {}
            },
            (0x10, 2) => {
                let vector = signals.accept_vector(value as u16);
                signals.config_vector.store(vector, Ordering::SeqCst);
            }
            (0x16, 2) => self.queue_select = value as u16,
            (0x1a, 2) => {
                if let Some(own) = signals.queue_vector(index) {
                    own.store(signals.accept_vector(value as u16), Ordering::SeqCst);
                }
            }
            (0x18..0x38, len) if setting_up => {
                let Some(queue) = self.queues.get_mut(usize::from(index)) else { return };
                if !queue.enabled {
                    queue.write(offset, len, value);
                }
            }
            _ => {}
        }
    }
}

impl Setup {
    fn write(&mut self, offset: u64, len: usize, value: u64) {
        let (cell, at) = match offset {
            0x18 if len == 2 => {
                self.layout.size = value as u16;
                return;
            }
            0x1c if len == 2 => {
                self.enabled = value == 1;
                return;
            }
            0x20..0x28 => (&mut self.layout.descriptors.0, offset - 0x20),
            0x28..0x30 => (&mut self.layout.available.0, offset - 0x28),
            0x30..0x38 => (&mut self.layout.used.0, offset - 0x30),
            _ => return,
        };
        match (at, len) {
            (0, 8) => *cell = value,
            (0, 4) => set_half(cell, 0, value),
            (4, 4) => set_half(cell, 32, value),
            _ => {}
        }
    }
}

fn set_half(cell: &mut u64, shift: u32, value: u64) {
    *cell = (*cell & !(0xffff_ffff << shift)) | ((value & 0xffff_ffff) << shift);
}
