//! Writing down what goes over a cable, for `wireshark` and `tcpdump`: pcapng
//! (draft-ietf-opsawg-pcapng).
//!
//! [`Captured`] sits at a link and looks at each frame as it goes by. While nobody captures it costs
//! a look at a flag. While somebody does, the card's thread puts frames into memory, and whoever
//! captures takes them out from there ([`Recording`]): a reader that is slow makes neither the guest
//! wait nor memory grow. What there is no room for is left out of the capture, and counted.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::link::{Accepts, Link, MAX_FRAME, Mac, Offload, now};

/// Captures of a link at a time.
pub const MOST_CAPTURES: usize = 4;
/// Bytes that wait to be taken, of each capture. As many again are with whoever took them last.
pub const MOST_WAITING: usize = 8 << 20;

/// Blocks of the format (sections 4.1 to 4.3 and 4.6).
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// The kind of a block that has a frame.
pub const PACKET: u32 = 6;
/// The kind of a block that counts frames, the last.
pub const STATISTICS: u32 = 5;
/// How the reader finds the byte order.
const MAGIC: u32 = 0x1a2b_3c4d;
/// Ethernet.
const LINK_TYPE: u16 = 1;
/// Options: end, the program (section header), time's resolution (interface), direction (packet),
/// and of the statistics, frames that went by and those of them that were left out.
const END: u16 = 0;
const PROGRAM: u16 = 4;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
const RECEIVED: u16 = 4;
/// The option of [`STATISTICS`] that says how many frames were left out.
pub const DROPPED: u16 = 5;
/// Directions, as the guest sees them.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Starts captures of a link; for any thread.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// There are some.
    on: AtomicBool,
    recordings: Mutex<Vec<Arc<Queue>>>,
}

/// What waits to be taken.
#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
    /// The host's clock when monotonic time was zero.
    epoch: Duration,
}

struct Waiting {
    /// Whole blocks.
    blocks: Vec<u8>,
    /// Frames that went by, and of them those that there was no room for.
    frames: u64,
    dropped: u64,
    /// No more frames are wanted.
    stopped: bool,
    /// The last block is written.
    ended: bool,
}

/// A capture that goes on. Dropping it ends it.
#[derive(Debug)]
pub struct Recording {
    capture: Capture,
    queue: Arc<Queue>,
}

/// Why a capture cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{MOST_CAPTURES} captures of this card go on already, which is the most: end one first")]
pub struct CaptureError;

impl Capture {
    /// Captures from now on.
    ///
    /// # Errors
    /// When there are [`MOST_CAPTURES`].
    pub fn start(&self) -> Result<Recording, CaptureError> {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = epoch.saturating_sub(now());
        let mut blocks = Vec::new();
        begin(&mut blocks);
        let waiting = Waiting { blocks, frames: 0, dropped: 0, stopped: false, ended: false };
        let queue = Queue { waiting: Mutex::new(waiting), more: Condvar::new(), epoch };
        let queue = Arc::new(queue);
        let mut recordings = self.recordings();
        if recordings.len() >= MOST_CAPTURES {
            return Err(CaptureError);
        }
        recordings.push(Arc::clone(&queue));
        self.shared.on.store(true, Ordering::Release);
        drop(recordings);
        Ok(Recording { capture: self.clone(), queue })
    }

    /// Whether frames are being captured.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.on.load(Ordering::Acquire)
    }

    fn recordings(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.shared.recordings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frame(&self, direction: u32, offload: &Offload, frame: &[u8]) {
        for queue in self.recordings().iter() {
            queue.put(direction, offload, frame);
        }
    }
}

impl Recording {
    /// Waits for the next blocks, and has them in place of what is in `blocks`, whose memory is used
    /// again. The first of all are the file's header; the last, once it was [stopped](Self::stop), says how
    /// many frames were left out. Returns whether there are any: after the last, there are none.
    #[must_use]
    pub fn next(&self, blocks: &mut Vec<u8>) -> bool {
        blocks.clear();
        let waits = |waiting: &mut Waiting| waiting.blocks.is_empty() && !waiting.stopped;
        let waiting = self.queue.more.wait_while(self.queue.waiting(), waits);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        if waiting.stopped && !std::mem::replace(&mut waiting.ended, true) {
            let (time, frames, dropped) = (self.queue.time(), waiting.frames, waiting.dropped);
            end(&mut waiting.blocks, time, frames, dropped);
        }
        std::mem::swap(&mut waiting.blocks, blocks);
        !blocks.is_empty()
    }

    /// Takes no more frames. What was taken can still be had.
    pub fn stop(&self) {
        let mut recordings = self.capture.recordings();
        recordings.retain(|other| !Arc::ptr_eq(other, &self.queue));
        self.capture.shared.on.store(!recordings.is_empty(), Ordering::Release);
        drop(recordings);
        self.queue.waiting().stopped = true;
        self.queue.more.notify_all();
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blocks, frames, dropped, .. } = self;
        f.debug_struct("Waiting")
            .field("bytes", &blocks.len())
            .field("frames", frames)
            .field("dropped", dropped)
            .finish_non_exhaustive()
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's clock, nanoseconds.
    fn time(&self) -> u64 {
        (self.epoch + now()).as_nanos() as u64
    }

    fn put(&self, direction: u32, offload: &Offload, frame: &[u8]) {
        let mut waiting = self.waiting();
        waiting.frames += 1;
        if waiting.blocks.len() + block_size(frame) > MOST_WAITING {
            waiting.dropped += 1;
            return;
        }
        let was_empty = waiting.blocks.is_empty();
        packet(&mut waiting.blocks, self.time(), direction, offload, frame);
        drop(waiting);
        if was_empty {
            self.more.notify_one();
        }
    }
}

/// The section's header, and the one interface.
fn begin(out: &mut Vec<u8>) {
    block(out, SECTION, |body| {
        body.extend(MAGIC.to_le_bytes());
        body.extend([1, 0, 0, 0]);
        // How long the section is: not known.
        body.extend(u64::MAX.to_le_bytes());
        option(body, PROGRAM, b"riad");
        option(body, END, &[]);
    });
    block(out, INTERFACE, |body| {
        body.extend(LINK_TYPE.to_le_bytes());
        body.extend([0; 2]);
        body.extend((MAX_FRAME as u32).to_le_bytes());
        // Nanoseconds.
        option(body, RESOLUTION, &[9]);
        option(body, END, &[]);
    });
}

/// Bytes of a frame's block, at most.
fn block_size(frame: &[u8]) -> usize {
    frame.len().min(MAX_FRAME) + 64
}

/// A frame.
fn packet(out: &mut Vec<u8>, time: u64, direction: u32, offload: &Offload, frame: &[u8]) {
    let len = frame.len().min(MAX_FRAME);
    block(out, PACKET, |body| {
        body.extend([0; 4]);
        put_time(body, time);
        body.extend((len as u32).to_le_bytes());
        body.extend((frame.len() as u32).to_le_bytes());
        let start = body.len();
        body.extend(&frame[..len]);
        // As it would be on a wire: readers take what is left to a card for an error.
        if offload.fits(len)
            && let Some(partial) = offload.checksum
        {
            let from = start + usize::from(partial.start);
            let at = from + usize::from(partial.offset);
            let sum = !smoltcp::wire::checksum::data(&body[from..]);
            body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        body.resize(start + len.next_multiple_of(4), 0);
        option(body, FLAGS, &direction.to_le_bytes());
        option(body, END, &[]);
    });
}

/// What there is to say of the interface when the capture is over.
fn end(out: &mut Vec<u8>, time: u64, frames: u64, dropped: u64) {
    block(out, STATISTICS, |body| {
        body.extend([0; 4]);
        put_time(body, time);
        option(body, RECEIVED, &frames.to_le_bytes());
        option(body, DROPPED, &dropped.to_le_bytes());
        option(body, END, &[]);
    });
}

fn put_time(body: &mut Vec<u8>, time: u64) {
    body.extend(((time >> 32) as u32).to_le_bytes());
    body.extend((time as u32).to_le_bytes());
}

/// A block, whose body is written right behind what there is.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let len = ((out.len() - start + 4) as u32).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&len);
    out.extend(len);
}

/// An option; what is before it ends at a multiple of four bytes.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.extend(&[0; 4][..value.len().next_multiple_of(4) - value.len()]);
}

/// A link whose frames can be captured.
#[derive(Debug)]
pub struct Captured<L> {
    link: L,
    capture: Capture,
}

impl<L: Link> Captured<L> {
    /// Puts a tap at a link.
    #[must_use]
    pub fn new(link: L) -> (Self, Capture) {
        let capture = Capture::default();
        (Self { link, capture: capture.clone() }, capture)
    }
}

impl<L: Link> Link for Captured<L> {
    fn send(&mut self, offload: &Offload, frame: &[u8]) {
        if self.capture.is_on() {
            self.capture.frame(OUTBOUND, offload, frame);
        }
        self.link.send(offload, frame);
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)> {
        let (offload, len) = self.link.receive(frame)?;
        if self.capture.is_on() {
            self.capture.frame(INBOUND, &offload, frame.get(..len).unwrap_or_default());
        }
        Some((offload, len))
    }

    fn accepts(&mut self, accepts: Accepts) {
        self.link.accepts(accepts);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.link.descriptor()
    }

    fn deadline(&self) -> Option<Duration> {
        self.link.deadline()
    }

    fn turn(&mut self, now: Duration) {
        self.link.turn(now);
    }

    fn mtu(&self) -> u16 {
        self.link.mtu()
    }

    fn mac(&self) -> Mac {
        self.link.mac()
    }

    fn up(&self) -> bool {
        self.link.up()
    }
}

#[cfg(test)]
#[path = "capture_test.rs"]
mod tests;
