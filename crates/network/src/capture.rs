//! Writing down what goes over a cable, for `wireshark` and `tcpdump`: pcapng
//! (draft-ietf-opsawg-pcapng).
//!
//! [`Captured`] sits at a link and looks at each frame as it goes by. While nobody captures it costs
//! a look at a flag. While somebody does, frames are written through a buffer in the card's thread; an
//! error of the file's ends the capture, and nothing else.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::link::{Accepts, Link, MAX_FRAME, Mac, Offload, now};

/// Blocks of the format (sections 4.1 to 4.3).
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// How the reader finds the byte order.
const MAGIC: u32 = 0x1a2b_3c4d;
/// Ethernet.
const LINK_TYPE: u16 = 1;
/// Options: end, the program (section header), time's resolution (interface), direction (packet).
const END: u16 = 0;
const PROGRAM: u16 = 4;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
/// Directions, as the guest sees them.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A capture that goes on.
#[derive(Debug)]
struct Writer {
    file: BufWriter<File>,
    /// Bytes that may still be written.
    left: u64,
    /// The host's clock when monotonic time was zero.
    epoch: Duration,
    frames: u64,
}

/// Starts and stops captures of a link; for any thread.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    on: AtomicBool,
    writer: Mutex<Option<Writer>>,
}

/// Why a capture cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("the capture cannot be written: {0}; what was captured so far is whole")]
pub struct CaptureError(#[from] io::Error);

impl Capture {
    /// Captures to a file, at most `most` bytes of it; instead of the capture before, if there is one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn start(&self, file: File, most: u64) -> Result<(), CaptureError> {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = epoch.saturating_sub(now());
        let mut writer = Writer { file: BufWriter::new(file), left: most, epoch, frames: 0 };
        writer.begin()?;
        *self.writer() = Some(writer);
        self.shared.on.store(true, Ordering::Release);
        Ok(())
    }

    /// Ends the capture; how many frames are in it. `None` when there was none, or when it had ended
    /// by itself because its file was full.
    ///
    /// # Errors
    /// When the end of the file cannot be written.
    pub fn stop(&self) -> Result<Option<u64>, CaptureError> {
        self.shared.on.store(false, Ordering::Release);
        let Some(mut writer) = self.writer().take() else { return Ok(None) };
        writer.file.flush()?;
        Ok(Some(writer.frames))
    }

    /// Whether frames are being captured.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.on.load(Ordering::Acquire)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frame(&self, direction: u32, offload: &Offload, frame: &[u8]) {
        let mut slot = self.writer();
        let Some(writer) = slot.as_mut() else { return };
        match writer.packet(direction, offload, frame) {
            Ok(true) => {}
            Ok(false) => {
                let _ = writer.file.flush();
                self.shared.on.store(false, Ordering::Release);
                *slot = None;
            }
            Err(error) => {
                tracing::warn!(%error, "a capture ends: its file cannot be written");
                self.shared.on.store(false, Ordering::Release);
                *slot = None;
            }
        }
    }
}

impl Writer {
    /// The section's header, and the one interface.
    fn begin(&mut self) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend(MAGIC.to_le_bytes());
        body.extend([1, 0, 0, 0]);
        // How long the section is: not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, PROGRAM, b"riad");
        option(&mut body, END, &[]);
        self.block(SECTION, &body)?;
        body.clear();
        body.extend(LINK_TYPE.to_le_bytes());
        body.extend([0; 2]);
        body.extend((MAX_FRAME as u32).to_le_bytes());
        // Nanoseconds.
        option(&mut body, RESOLUTION, &[9]);
        option(&mut body, END, &[]);
        self.block(INTERFACE, &body)?;
        self.file.flush()
    }

    /// A frame; whether there is room for more.
    fn packet(&mut self, direction: u32, offload: &Offload, frame: &[u8]) -> io::Result<bool> {
        let len = frame.len().min(MAX_FRAME);
        let mut body = Vec::with_capacity(64 + len);
        let time = (self.epoch + now()).as_nanos() as u64;
        body.extend([0; 4]);
        body.extend(((time >> 32) as u32).to_le_bytes());
        body.extend((time as u32).to_le_bytes());
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
        body.resize(body.len().next_multiple_of(4), 0);
        option(&mut body, FLAGS, &direction.to_le_bytes());
        option(&mut body, END, &[]);
        let size = body.len() as u64 + 12;
        let Some(left) = self.left.checked_sub(size) else { return Ok(false) };
        self.left = left;
        self.frames += 1;
        self.block(PACKET, &body)?;
        Ok(true)
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let len = (body.len() as u32 + 12).to_le_bytes();
        self.file.write_all(&kind.to_le_bytes())?;
        self.file.write_all(&len)?;
        self.file.write_all(body)?;
        self.file.write_all(&len)
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
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
