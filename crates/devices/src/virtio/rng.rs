//! Entropy device (virtio 1.3, section 5.4): fills the driver's buffers with random bytes.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex};

use riad_confine::Kind;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::worker::{Control, Task, Worker};
use super::{
    ActivateError, Activation, DeviceState, DeviceType, QueueError, SharedQueue, VirtioDevice,
    VirtioInterrupt,
};
use crate::pci::lock;

/// The most bytes given for one buffer; a driver that wants more asks again.
pub const MAX_REQUEST: usize = 64 << 10;
/// Buffers filled before the driver is told.
const BATCH: usize = 16;
const QUEUE: u16 = 0;
const QUEUE_SIZES: [u16; 1] = [64];

/// Where random bytes come from: the host, or something repeatable.
pub trait Entropy: Send + fmt::Debug {
    /// Fills `buf`.
    ///
    /// # Errors
    /// When the source has failed; the driver's request is then given no bytes.
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<()>;
}

/// The host kernel's random number generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostEntropy;

impl Entropy for HostEntropy {
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match getrandom(rest, GetRandomFlags::empty()) {
                Ok(got) => done += got,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The entropy device.
#[derive(Debug)]
pub struct Rng {
    source: Arc<Mutex<Box<dyn Entropy>>>,
    worker: Option<Worker<Work>>,
}

/// Saved entropy device: it has no state besides its queue, which the transport saves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RngState {}

impl Rng {
    /// A device that gives what `source` gives.
    #[must_use]
    pub fn new(source: Box<dyn Entropy>) -> Self {
        Self { source: Arc::new(Mutex::new(source)), worker: None }
    }

    /// A device as saved.
    #[must_use]
    pub fn restore(source: Box<dyn Entropy>, state: &RngState) -> Self {
        let RngState {} = state;
        Self::new(source)
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_len(&self) -> u32 {
        0
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Some(queue) = activation.queue(usize::from(QUEUE)) else { return Ok(()) };
        let work = Work {
            source: Arc::clone(&self.source),
            queue,
            memory: activation.memory,
            interrupt: activation.interrupt,
            buffer: Vec::new(),
            broken: false,
        };
        self.worker = Some(Worker::spawn(Kind::Device, "virtio-rng", work, activation.paused)?);
        Ok(())
    }

    fn control(&self) -> Option<&Control> {
        self.worker.as_ref().map(Worker::control).map(Arc::as_ref)
    }

    fn reset(&mut self) {
        self.worker = None;
    }

    fn save(&self) -> DeviceState {
        let Self { source: _, worker: _ } = self;
        DeviceState::Rng(RngState {})
    }
}

struct Work {
    source: Arc<Mutex<Box<dyn Entropy>>>,
    queue: SharedQueue,
    memory: riad_memory::GuestMemory,
    interrupt: Arc<dyn VirtioInterrupt>,
    buffer: Vec<u8>,
    broken: bool,
}

impl Work {
    /// Fills up to [`BATCH`] buffers; returns whether there may be more.
    fn batch(&mut self, control: &Control) -> Result<bool, QueueError> {
        let mut queue = lock(&self.queue);
        let mut more = true;
        for _ in 0..BATCH {
            if control.interrupted() {
                break;
            }
            let Some(chain) = queue.pop()? else {
                more = queue.enable_notifications()?;
                break;
            };
            let mut writer = chain.writer(&self.memory);
            let len = usize::try_from(writer.remaining()).unwrap_or(MAX_REQUEST).min(MAX_REQUEST);
            self.buffer.resize(len, 0);
            match lock(&self.source).fill(&mut self.buffer) {
                // A chain has the room it said it had.
                Ok(()) => drop(writer.write_all(&self.buffer)),
                Err(error) => tracing::warn!(%error, "no entropy for the guest"),
            }
            let written = writer.written();
            queue.add_used(chain, written)?;
        }
        if queue.publish()? {
            self.interrupt.queue(QUEUE);
        }
        Ok(more)
    }
}

impl Task for Work {
    fn turn(&mut self, control: &Control) {
        while !self.broken && !control.interrupted() {
            match self.batch(control) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.broken = true;
                    self.interrupt.fail(&error);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "rng_test.rs"]
mod tests;
