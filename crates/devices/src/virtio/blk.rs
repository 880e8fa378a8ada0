//! Block device (virtio 1.3, section 5.2): one queue in front of a [`Disk`].
//!
//! Requests are served in order. What takes no time is served at once, by the processor that tells of it:
//! short reads of what the host has in its memory, and short writes. To wake another thread, and be woken
//! by it, would take far longer. All else is a worker thread's: whatever may wait for the host's disk.
//! Bytes go straight between guest memory and the disk's file.
//!
//! When the host has no room for what a guest writes, the request is put aside and tried again now and
//! then, while others are served: to the guest, a disk that is slow. An error would have its file system
//! give up, though nothing is wrong with it.
//!
//! A driver that did not accept FLUSH is given a write-through disk (section 5.2.6.2): every write
//! is made durable before it completes.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use riad_confine::Kind;
use riad_disk::{Disk, Error, SECTOR_SIZE};
use riad_memory::Wait;
use serde::{Deserialize, Serialize};

use super::chain::{Chain, Reader, Writer};
use super::worker::{Control, Task, Worker};
use super::{
    ActivateError, Activation, DeviceState, DeviceType, QueueError, SharedQueue, VirtioDevice,
    VirtioInterrupt, read_image,
};
use crate::pci::lock;

mod counters;
mod handle;
pub use counters::{BlkCounters, BlkCounts};
pub use handle::BlkHandle;

/// Zeros written at a time, for what a request left unwritten.
const ZEROS: [u8; 4096] = [0; 4096];
/// Bytes of the longest request that a processor serves itself: copying them takes about as long as
/// waking two threads does.
const HERE: u64 = 1 << 20;
/// Requests that a processor serves in a row, and the bytes after which it leaves the rest to the worker.
const HERE_IN_A_ROW: usize = 32;
const HERE_BYTES: u64 = 2 << 20;
/// Bytes that processors write between two flushes: a host that has so much to write to its disk begins
/// to hold writers up (Linux, `balance_dirty_pages`), and that is better done to the worker.
const HERE_UNFLUSHED: u64 = 64 << 20;
/// Bytes of a serial number.
pub const SERIAL_LEN: usize = 20;
/// How often a request is tried again for which the host has no room.
const AGAIN: Duration = Duration::from_millis(500);
/// Requests served before the driver is told.
const BATCH: usize = 16;
const QUEUE: u16 = 0;
const QUEUE_SIZES: [u16; 1] = [256];

/// Segments of a request: what fits into the queue with header and status.
const SEGMENTS: u32 = 254;
/// Bytes of a segment. 254 of them stay within what a chain may describe.
const SEGMENT_BYTES: u32 = 1 << 20;
/// Ranges in one discard or write-zeroes request.
const RANGES: u32 = 64;
/// Sectors in one such range: 2 GiB.
const RANGE_SECTORS: u32 = 1 << 22;

/// Feature bits (section 5.2.3).
mod feature {
    pub(super) const SIZE_MAX: u64 = 1 << 1;
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Request types (section 5.2.6).
mod request {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// How a request went (section 5.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    /// It is answered: so many bytes were written to its buffers.
    Answered(u32),
    /// The host has no room for it.
    NoRoom,
    /// It may take its time, which the processor that asked has not.
    NotHere,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// The guest is told.
    Told(Status),
    /// The host has no room, which may change.
    NoRoom,
    /// It would have to be waited for.
    NotHere,
}

const IO_ERROR: Failed = Failed::Told(Status::IoError);
const UNSUPPORTED: Failed = Failed::Told(Status::Unsupported);

/// The block device.
#[derive(Debug)]
pub struct Blk {
    disk: Arc<dyn Disk>,
    serial: [u8; SERIAL_LEN],
    handle: BlkHandle,
    /// Requests that were put aside, by the first descriptor of each.
    aside: Arc<Mutex<Vec<u16>>>,
    worker: Option<Worker<Turns>>,
    /// What the worker and the processors do, one of them at a time.
    work: Option<Arc<Mutex<Work>>>,
}

/// Saved block device. The disk's contents are saved by whoever owns the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkState {
    /// Serial number, padded with zeros.
    pub serial: [u8; SERIAL_LEN],
    /// Size of the disk in sectors of 512 bytes: the disk given on restore has the same.
    pub sectors: u64,
    /// Requests that wait for room on the host, by the first descriptor of each, in their order.
    #[serde(default)]
    pub aside: Vec<u16>,
}

/// A disk that is not the one that was saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the saved machine had a disk of {saved} sectors, but this one has {given}; give it the disk it was saved with"
)]
pub struct WrongDisk {
    /// Sectors of the saved disk.
    pub saved: u64,
    /// Sectors of the disk given.
    pub given: u64,
}

impl Blk {
    /// A device in front of `disk`. The guest sees the first [`SERIAL_LEN`] bytes of `serial`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, serial: &str) -> Self {
        let mut bytes = [0; SERIAL_LEN];
        for (byte, given) in bytes.iter_mut().zip(serial.bytes()) {
            *byte = given;
        }
        let (handle, aside) = (BlkHandle::default(), Arc::default());
        Self { disk, serial: bytes, handle, aside, worker: None, work: None }
    }

    /// A device as saved, in front of the disk it had.
    ///
    /// # Errors
    /// [`WrongDisk`] when the disk has another size.
    pub fn restore(disk: Arc<dyn Disk>, state: &BlkState) -> Result<Self, WrongDisk> {
        let BlkState { serial, sectors: saved, ref aside } = *state;
        let given = sectors(&*disk);
        if given != saved {
            return Err(WrongDisk { saved, given });
        }
        let aside = Arc::new(Mutex::new(aside.clone()));
        let handle = BlkHandle::default();
        Ok(Self { disk, serial, handle, aside, worker: None, work: None })
    }

    /// The host's end of it.
    #[must_use]
    pub fn handle(&self) -> BlkHandle {
        self.handle.clone()
    }
}

fn sectors(disk: &dyn Disk) -> u64 {
    disk.size() / SECTOR_SIZE
}

impl VirtioDevice for Blk {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn features(&self) -> u64 {
        let both = feature::SIZE_MAX | feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH;
        if self.disk.read_only() {
            both | feature::RO
        } else {
            both | feature::DISCARD | feature::WRITE_ZEROES
        }
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_len(&self) -> u32 {
        60
    }

    /// `struct virtio_blk_config`, section 5.2.4.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut image = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &sectors(&*self.disk).to_le_bytes());
        put(8, &SEGMENT_BYTES.to_le_bytes());
        put(12, &SEGMENTS.to_le_bytes());
        put(20, &(SECTOR_SIZE as u32).to_le_bytes());
        if !self.disk.read_only() {
            put(36, &RANGE_SECTORS.to_le_bytes());
            put(40, &RANGES.to_le_bytes());
            put(44, &8u32.to_le_bytes());
            put(48, &RANGE_SECTORS.to_le_bytes());
            put(52, &RANGES.to_le_bytes());
            put(56, &[1]);
        }
        read_image(&image, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.handle.attach(Some(Arc::clone(&activation.interrupt)));
        let Some(queue) = activation.queue(usize::from(QUEUE)) else { return Ok(()) };
        // Of a machine that was saved; a driver that begins has none.
        let aside = lock(&self.aside).clone();
        let waiting: Result<VecDeque<Chain>, QueueError> =
            aside.iter().map(|head| lock(&queue).again(*head)).collect();
        let waiting = waiting.inspect_err(|error| activation.interrupt.fail(error));
        let work = Work {
            server: Server {
                disk: Arc::clone(&self.disk),
                handle: self.handle.clone(),
                serial: self.serial,
                write_through: !activation.has(feature::FLUSH),
                memory: activation.memory,
                unflushed: 0,
            },
            queue,
            interrupt: activation.interrupt,
            broken: waiting.is_err(),
            waiting: waiting.unwrap_or_default(),
            aside: Arc::clone(&self.aside),
        };
        let work = Arc::new(Mutex::new(work));
        let turns = Turns(Arc::clone(&work));
        self.worker = Some(Worker::spawn(Kind::Disk, "virtio-blk", turns, activation.paused)?);
        self.work = Some(work);
        Ok(())
    }

    fn control(&self) -> Option<&Control> {
        self.worker.as_ref().map(Worker::control).map(Arc::as_ref)
    }

    fn notify(&mut self) {
        let (Some(worker), Some(work)) = (&self.worker, &self.work) else { return };
        let is_held = worker.control().interrupted();
        // If the worker is at it, it need only be told.
        let is_done = !is_held && work.try_lock().is_ok_and(|mut work| work.here());
        if !is_done {
            worker.control().kick();
        }
    }

    fn reset(&mut self) {
        self.handle.attach(None);
        self.worker = None;
        self.work = None;
        lock(&self.aside).clear();
    }

    fn save(&self) -> DeviceState {
        let Self { disk, serial, aside, handle: _, worker: _, work: _ } = self;
        let (sectors, aside) = (sectors(&**disk), lock(aside).clone());
        DeviceState::Blk(BlkState { serial: *serial, sectors, aside })
    }
}

struct Work {
    server: Server,
    queue: SharedQueue,
    interrupt: Arc<dyn VirtioInterrupt>,
    broken: bool,
    /// Requests that wait for room on the host; no more than the queue has.
    waiting: VecDeque<Chain>,
    /// The same, for whoever saves the device.
    aside: Arc<Mutex<Vec<u16>>>,
}

impl Work {
    /// Serves up to [`BATCH`] requests; returns whether there may be more.
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
            match self.server.serve(&chain, Wait::AsLongAsItTakes) {
                Served::Answered(written) => queue.add_used(chain, written)?,
                // Nobody is in haste here.
                Served::NotHere => {
                    queue.unpop(chain);
                    break;
                }
                // Who waits for more than there is in a queue gave out the same buffers again.
                Served::NoRoom if self.waiting.len() >= usize::from(queue.size()) => {
                    let size = queue.size();
                    return Err(QueueError::TooManyAvailable { pending: size, size });
                }
                Served::NoRoom => self.waiting.push_back(chain),
            }
        }
        if queue.publish()? {
            self.interrupt.queue(QUEUE);
        }
        Ok(more)
    }

    /// Tries what was put aside again, in order.
    fn try_again(&mut self) -> Result<(), QueueError> {
        let mut queue = lock(&self.queue);
        while let Some(chain) = self.waiting.pop_front() {
            match self.server.serve(&chain, Wait::AsLongAsItTakes) {
                Served::Answered(written) => queue.add_used(chain, written)?,
                Served::NoRoom | Served::NotHere => {
                    self.waiting.push_front(chain);
                    break;
                }
            }
        }
        if queue.publish()? {
            self.interrupt.queue(QUEUE);
        }
        Ok(())
    }

    /// On a processor's thread: what takes no time. Returns whether that was all.
    fn here(&mut self) -> bool {
        if self.broken || !self.waiting.is_empty() {
            return self.broken;
        }
        self.some_here().unwrap_or_else(|error| {
            self.broken = true;
            self.interrupt.fail(&error);
            true
        })
    }

    fn some_here(&mut self) -> Result<bool, QueueError> {
        let mut queue = lock(&self.queue);
        let (mut is_all, mut bytes) = (false, 0);
        for _ in 0..HERE_IN_A_ROW {
            if bytes >= HERE_BYTES {
                break;
            }
            let Some(chain) = queue.pop()? else {
                if queue.enable_notifications()? {
                    continue;
                }
                is_all = true;
                break;
            };
            bytes += chain.bytes();
            match self.server.serve(&chain, Wait::NotAtAll) {
                Served::Answered(written) => queue.add_used(chain, written)?,
                // What has no room is put aside by the worker, who tries again.
                Served::NoRoom | Served::NotHere => {
                    queue.unpop(chain);
                    break;
                }
            }
        }
        if queue.publish()? {
            self.interrupt.queue(QUEUE);
        }
        Ok(is_all)
    }

    /// Everything that can be done now.
    fn work(&mut self, control: &Control) -> Result<(), QueueError> {
        if !self.waiting.is_empty() {
            self.try_again()?;
        }
        while !control.interrupted() && self.batch(control)? {}
        Ok(())
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("broken", &self.broken).finish_non_exhaustive()
    }
}

/// The worker's share of the work.
struct Turns(Arc<Mutex<Work>>);

impl Task for Turns {
    fn turn(&mut self, control: &Control) {
        lock(&self.0).turn(control);
    }

    fn wait(&mut self, control: &Control) {
        let work = lock(&self.0);
        let waits = !work.broken && !work.waiting.is_empty();
        // Whoever comes meanwhile kicks, and is noticed.
        drop(work);
        control.wait_for_kick_until(waits.then_some(AGAIN));
    }
}

impl Work {
    fn turn(&mut self, control: &Control) {
        if self.broken {
            return;
        }
        if let Err(error) = self.work(control) {
            self.broken = true;
            self.interrupt.fail(&error);
        }
        let mut aside = lock(&self.aside);
        aside.clear();
        aside.extend(self.waiting.iter().map(Chain::head));
    }
}

/// Serves one request at a time.
struct Server {
    disk: Arc<dyn Disk>,
    handle: BlkHandle,
    serial: [u8; SERIAL_LEN],
    write_through: bool,
    memory: riad_memory::GuestMemory,
    /// Bytes written since the last flush.
    unflushed: u64,
}

impl Server {
    /// Serves a request, if that takes no longer than it may.
    fn serve(&mut self, chain: &Chain, wait: Wait) -> Served {
        let memory = self.memory.clone();
        let mut reader = chain.reader(&memory);
        let mut writer = chain.writer(&memory);
        // The status is the last writable byte; without one there is no way to answer.
        let Some(data_len) = writer.remaining().checked_sub(1) else {
            tracing::debug!("a request without a status byte");
            return Served::Answered(0);
        };
        let result = match reader.array::<16>() {
            Some(header) => self.request(header, &mut reader, &mut writer, data_len, wait),
            None => Err(IO_ERROR),
        };
        let status = match result {
            Ok(()) => Status::Ok,
            Err(Failed::Told(status)) => status,
            Err(Failed::NoRoom) => return Served::NoRoom,
            Err(Failed::NotHere) if wait == Wait::NotAtAll => return Served::NotHere,
            // A disk that would wait and was told to.
            Err(Failed::NotHere) => Status::IoError,
        };
        // The length in the used ring counts from the start (section 2.7.8.2) and includes the
        // status, so what the request left unwritten is written now.
        let mut unwritten = writer.remaining().saturating_sub(1);
        while unwritten > 0 {
            let len = unwritten.min(ZEROS.len() as u64);
            let zeros = ZEROS.get(..len as usize).unwrap_or(&[]);
            if writer.write_all(zeros).is_err() {
                break;
            }
            unwritten -= len;
        }
        // There is exactly one byte left.
        let _ = writer.write_all(&[status as u8]);
        Served::Answered(writer.written())
    }

    fn request(
        &mut self,
        header: [u8; 16],
        reader: &mut Reader<'_>,
        writer: &mut Writer<'_>,
        data_len: u64,
        wait: Wait,
    ) -> Result<(), Failed> {
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        let bytes = if kind == request::OUT { reader.remaining() } else { data_len };
        if wait == Wait::NotAtAll && !self.is_short(kind, bytes) {
            return Err(Failed::NotHere);
        }
        let result = match kind {
            request::IN => self.read(sector, writer, data_len, wait),
            request::OUT => self.write(sector, reader),
            request::FLUSH => {
                self.unflushed = 0;
                self.done(self.disk.flush())
            }
            request::GET_ID => {
                let len = usize::try_from(data_len).unwrap_or(SERIAL_LEN).min(SERIAL_LEN);
                let id = self.serial.get(..len).unwrap_or(&[]);
                writer.write_all(id).map_err(|_| IO_ERROR)
            }
            kind @ (request::DISCARD | request::WRITE_ZEROES) if !self.disk.read_only() => {
                self.ranges(kind, reader)
            }
            _ => Err(UNSUPPORTED),
        };
        match result {
            Ok(()) => self.handle.counters().answered(kind, bytes, Status::Ok),
            Err(Failed::Told(status)) => self.handle.counters().answered(kind, bytes, status),
            // Not yet.
            Err(Failed::NoRoom | Failed::NotHere) => {}
        }
        result
    }

    /// Whether a request takes no time, if nothing has to be waited for.
    fn is_short(&self, kind: u32, bytes: u64) -> bool {
        let is_soon = match kind {
            request::IN => true,
            request::OUT => !self.write_through && self.unflushed + bytes <= HERE_UNFLUSHED,
            _ => false,
        };
        is_soon && bytes <= HERE
    }

    /// Where `len` bytes from `sector` lie, if they are whole sectors of the disk.
    fn place(&self, sector: u64, len: u64) -> Option<u64> {
        let start = sector.checked_mul(SECTOR_SIZE)?;
        let end = start.checked_add(len)?;
        (len.is_multiple_of(SECTOR_SIZE) && end <= self.disk.size()).then_some(start)
    }

    fn read(
        &mut self,
        sector: u64,
        writer: &mut Writer<'_>,
        len: u64,
        wait: Wait,
    ) -> Result<(), Failed> {
        let at = self.place(sector, len).ok_or(IO_ERROR)?;
        let read = self.disk.read_to(at, len, &mut writer.sink(wait));
        self.done(read)
    }

    fn write(&mut self, sector: u64, reader: &mut Reader<'_>) -> Result<(), Failed> {
        let len = reader.remaining();
        let at = self.place(sector, len).ok_or(IO_ERROR)?;
        if self.disk.read_only() {
            return Err(IO_ERROR);
        }
        self.unflushed += len;
        let written = self.disk.write_from(at, len, reader);
        self.done(written)?;
        self.written()
    }

    /// What was written is durable before it is answered, if the driver does not ask for that.
    fn written(&self) -> Result<(), Failed> {
        if self.write_through { self.done(self.disk.flush()) } else { Ok(()) }
    }

    /// Discard and write zeroes: `struct virtio_blk_discard_write_zeroes`, several of them.
    fn ranges(&mut self, kind: u32, reader: &mut Reader<'_>) -> Result<(), Failed> {
        const UNMAP: u32 = 1;
        let bytes = reader.remaining();
        if bytes == 0 || !bytes.is_multiple_of(16) || bytes > 16 * u64::from(RANGES) {
            return Err(IO_ERROR);
        }
        while let Some(range) = reader.array::<16>() {
            let range = u128::from_le_bytes(range);
            let (sector, count, flags) = (range as u64, (range >> 64) as u32, (range >> 96) as u32);
            let allowed = if kind == request::DISCARD { 0 } else { UNMAP };
            if flags & !allowed != 0 {
                return Err(UNSUPPORTED);
            }
            let len = u64::from(count) * SECTOR_SIZE;
            let at = self.place(sector, len).filter(|_| count <= RANGE_SECTORS).ok_or(IO_ERROR)?;
            let result = if kind == request::DISCARD {
                self.disk.discard(at, len)
            } else {
                self.disk.write_zeroes(at, len)
            };
            self.done(result)?;
        }
        self.written()
    }

    /// A disk's answer; the reason why something failed goes to the log.
    fn done(&self, result: Result<(), Error>) -> Result<(), Failed> {
        result.map_err(|error| match error {
            Error::Full { .. } if self.disk.waits_for_room() => {
                tracing::debug!(%error, "the guest's disk request waits");
                Failed::NoRoom
            }
            Error::Io { source, .. } if source.kind() == ErrorKind::WouldBlock => Failed::NotHere,
            error => {
                tracing::warn!(%error, "the guest's disk request failed");
                IO_ERROR
            }
        })
    }
}

#[cfg(test)]
#[path = "blk_test.rs"]
mod tests;
