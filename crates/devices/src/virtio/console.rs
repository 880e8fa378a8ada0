//! Console device (virtio 1.3, section 5.3): one port, two queues, and a window size.
//!
//! Bytes from the guest go to a sink. Bytes for the guest wait in a buffer of [`INPUT_MAX`] bytes
//! until the driver gives room: whoever pushes more is told how much was taken, and can wait.

use std::collections::VecDeque;
use std::io::{Read as _, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use riad_confine::Kind;
use riad_memory::GuestMemory;
use serde::{Deserialize, Serialize};

use super::worker::{Control, Task, Worker};
use super::{
    ActivateError, Activation, DeviceState, DeviceType, QueueError, SharedQueue, VirtioDevice,
    VirtioInterrupt, read_image,
};
use crate::pci::lock;

/// The most bytes of input that wait for the guest.
pub const INPUT_MAX: usize = 64 << 10;
/// The most bytes given to the sink at a time.
const PIECE: usize = 64 << 10;
/// Buffers handled before the driver is told.
const BATCH: usize = 64;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUE_SIZES: [u16; 2] = [64, 64];
/// Feature: the window size is in the configuration (section 5.3.3).
const F_SIZE: u64 = 1 << 0;

/// The console device.
pub struct Console {
    shared: Arc<Shared>,
    sink: Arc<Mutex<Box<dyn Write + Send>>>,
    worker: Option<Worker<Work>>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// The host's end: types into the console and resizes it. Cloning shares it.
#[derive(Clone)]
pub struct ConsoleHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for ConsoleHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleHandle").finish_non_exhaustive()
    }
}

/// Saved console.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Columns; 0 when unknown.
    pub columns: u16,
    /// Rows; 0 when unknown.
    pub rows: u16,
    /// Input the guest has not taken yet.
    pub input: Vec<u8>,
}

/// What device, handle and worker share.
struct Shared {
    port: Mutex<Port>,
    /// Signalled when there is room for input again.
    room: Condvar,
}

struct Port {
    columns: u16,
    rows: u16,
    input: VecDeque<u8>,
    /// Set while a driver runs.
    driver: Option<Driver>,
}

struct Driver {
    interrupt: Arc<dyn VirtioInterrupt>,
    control: Arc<Control>,
}

impl Console {
    /// A console of unknown size whose output goes to `sink`. The sink should not block for long:
    /// pausing and resetting wait for it.
    #[must_use]
    pub fn new(sink: Box<dyn Write + Send>) -> (Self, ConsoleHandle) {
        Self::restore(sink, &ConsoleState::default())
    }

    /// A console as saved.
    #[must_use]
    pub fn restore(sink: Box<dyn Write + Send>, state: &ConsoleState) -> (Self, ConsoleHandle) {
        let ConsoleState { columns, rows, input } = state;
        let input = input.iter().copied().take(INPUT_MAX).collect();
        let port = Port { columns: *columns, rows: *rows, input, driver: None };
        let shared = Arc::new(Shared { port: Mutex::new(port), room: Condvar::new() });
        let handle = ConsoleHandle { shared: Arc::clone(&shared) };
        (Self { shared, sink: Arc::new(Mutex::new(sink)), worker: None }, handle)
    }
}

impl ConsoleHandle {
    /// Types as much of `bytes` as there is room for; returns how much that was.
    #[must_use]
    pub fn push(&self, bytes: &[u8]) -> usize {
        let mut port = lock(&self.shared.port);
        let taken = bytes.len().min(INPUT_MAX.saturating_sub(port.input.len()));
        port.input.extend(bytes.iter().take(taken));
        if let Some(driver) = &port.driver {
            driver.control.kick();
        }
        taken
    }

    /// Waits until [`push`](Self::push) would take something, for `patience` at most. Returns
    /// whether it would.
    #[must_use]
    pub fn wait_for_room(&self, patience: Duration) -> bool {
        let full = |port: &mut Port| port.input.len() >= INPUT_MAX;
        let port = lock(&self.shared.port);
        let waited = self.shared.room.wait_timeout_while(port, patience, full);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Tells the guest that the window has another size, in characters.
    pub fn resize(&self, columns: u16, rows: u16) {
        let mut port = lock(&self.shared.port);
        if (port.columns, port.rows) == (columns, rows) {
            return;
        }
        (port.columns, port.rows) = (columns, rows);
        if let Some(driver) = &port.driver {
            driver.interrupt.config();
        }
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> DeviceType {
        DeviceType::Console
    }

    fn features(&self) -> u64 {
        F_SIZE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_len(&self) -> u32 {
        12
    }

    /// `struct virtio_console_config`, section 5.3.4.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let port = lock(&self.shared.port);
        let mut image = [0; 12];
        image[..2].copy_from_slice(&port.columns.to_le_bytes());
        image[2..4].copy_from_slice(&port.rows.to_le_bytes());
        image[4] = 1;
        read_image(&image, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let work = Work {
            shared: Arc::clone(&self.shared),
            sink: Arc::clone(&self.sink),
            receive: activation.queue(usize::from(RECEIVE)),
            transmit: activation.queue(usize::from(TRANSMIT)),
            memory: activation.memory,
            interrupt: Arc::clone(&activation.interrupt),
            buffer: Vec::new(),
            broken: false,
        };
        let worker = Worker::spawn(Kind::Device, "virtio-console", work, activation.paused)?;
        let control = Arc::clone(worker.control());
        lock(&self.shared.port).driver = Some(Driver { interrupt: activation.interrupt, control });
        self.worker = Some(worker);
        Ok(())
    }

    fn control(&self) -> Option<&Control> {
        self.worker.as_ref().map(Worker::control).map(Arc::as_ref)
    }

    fn reset(&mut self) {
        lock(&self.shared.port).driver = None;
        self.worker = None;
    }

    fn save(&self) -> DeviceState {
        let Self { shared, sink: _, worker: _ } = self;
        let Shared { port, room: _ } = &**shared;
        let Port { columns, rows, input, driver: _ } = &*lock(port);
        let input = input.iter().copied().collect();
        DeviceState::Console(ConsoleState { columns: *columns, rows: *rows, input })
    }
}

struct Work {
    shared: Arc<Shared>,
    sink: Arc<Mutex<Box<dyn Write + Send>>>,
    receive: Option<SharedQueue>,
    transmit: Option<SharedQueue>,
    memory: GuestMemory,
    interrupt: Arc<dyn VirtioInterrupt>,
    buffer: Vec<u8>,
    broken: bool,
}

impl Work {
    /// Guest to sink: up to [`BATCH`] buffers. Returns whether there may be more.
    fn output(&mut self, control: &Control) -> Result<bool, QueueError> {
        let Some(queue) = &self.transmit else { return Ok(false) };
        let mut queue = lock(queue);
        let mut more = true;
        for _ in 0..BATCH {
            if control.interrupted() {
                break;
            }
            let Some(chain) = queue.pop()? else {
                more = queue.enable_notifications()?;
                break;
            };
            let mut reader = chain.reader(&self.memory);
            // A chain is taken whole: half of it could not be given back.
            while reader.remaining() > 0 {
                self.buffer.resize(PIECE, 0);
                let Ok(len @ 1..) = reader.read(&mut self.buffer) else { break };
                let piece = self.buffer.get(..len).unwrap_or(&[]);
                // Nobody reads the console any more: the guest need not know.
                if let Err(error) = lock(&self.sink).write_all(piece) {
                    tracing::debug!(%error, "console output is lost");
                }
            }
            queue.add_used(chain, 0)?;
        }
        // There is nobody to tell whether the sink kept it.
        let _ = lock(&self.sink).flush();
        if queue.publish()? {
            self.interrupt.queue(TRANSMIT);
        }
        Ok(more)
    }

    /// Host to guest: up to [`BATCH`] buffers, while the driver has room. Returns whether there may
    /// be more.
    fn input(&mut self) -> Result<bool, QueueError> {
        let Some(queue) = &self.receive else { return Ok(false) };
        let mut queue = lock(queue);
        let mut port = lock(&self.shared.port);
        let mut more = true;
        for _ in 0..BATCH {
            if port.input.is_empty() {
                more = false;
                break;
            }
            let Some(chain) = queue.pop()? else {
                more = queue.enable_notifications()?;
                break;
            };
            let mut writer = chain.writer(&self.memory);
            let (front, back) = port.input.as_slices();
            let front_len = front.len();
            let mut len = writer.write(front).unwrap_or(0);
            if len == front_len {
                len += writer.write(back).unwrap_or(0);
            }
            port.input.drain(..len);
            self.shared.room.notify_all();
            let written = writer.written();
            queue.add_used(chain, written)?;
        }
        drop(port);
        if queue.publish()? {
            self.interrupt.queue(RECEIVE);
        }
        Ok(more)
    }
}

impl Task for Work {
    fn turn(&mut self, control: &Control) {
        while !self.broken && !control.interrupted() {
            match self.input().and_then(|more| Ok(self.output(control)? || more)) {
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
#[path = "console_test.rs"]
mod tests;
