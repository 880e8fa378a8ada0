//! A capture as whoever asked for it has it: a pcapng file, a block at a time.

use std::io::{self, BufReader, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use riad_network::capture::{DROPPED, PACKET, STATISTICS};

use crate::machines::{MachineError, Name};

/// The longest block, bytes: a frame's, with room to spare.
const MOST_BLOCK: usize = 128 << 10;

/// A capture that goes on, in the machine's process. It ends with this.
#[derive(Debug)]
pub struct Capturing {
    name: Name,
    reader: BufReader<UnixStream>,
    stream: UnixStream,
}

/// A block of the file.
#[derive(Debug)]
pub struct Block<'a> {
    /// What it is.
    pub kind: BlockKind,
    /// All of it.
    pub bytes: &'a [u8],
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// A frame.
    Frame,
    /// The last, which says how many frames were left out because they came too fast for whoever
    /// reads.
    End {
        /// So many.
        dropped: u64,
    },
    /// What belongs to the file.
    Other,
}

impl Capturing {
    pub(super) fn new(name: Name, reader: BufReader<UnixStream>, stream: UnixStream) -> Self {
        Self { name, reader, stream }
    }

    /// What [`stop`](Self::stop) takes, for another thread.
    ///
    /// # Errors
    /// The host refuses a descriptor.
    pub fn stream(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Has the capture end: what was captured so far is still to be read.
    pub fn stop(stream: &UnixStream) {
        // It fails when the capture is over already.
        let _ = stream.shutdown(Shutdown::Write);
    }

    /// Whether more is here already.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// The next block, in `memory`. `None` when the machine's process ended, or the last one was read.
    ///
    /// # Errors
    /// [`MachineError::Process`]: what comes is no capture.
    pub fn next<'a>(&mut self, memory: &'a mut Vec<u8>) -> Result<Option<Block<'a>>, MachineError> {
        match block(&mut self.reader, memory) {
            Ok(Some(kind)) => Ok(Some(Block { kind, bytes: memory })),
            Ok(None) => Ok(None),
            Err(error) => {
                let (name, reason) = (self.name.clone(), error.to_string());
                Err(MachineError::Process { name, reason })
            }
        }
    }
}

/// Reads a block to `memory`; `None` at the end, also when that comes in the middle of one.
fn block(reader: &mut impl Read, memory: &mut Vec<u8>) -> io::Result<Option<BlockKind>> {
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(None),
        _ => Err(error),
    };
    memory.clear();
    memory.resize(8, 0);
    if let Err(error) = reader.read_exact(memory) {
        return cut(error);
    }
    let word = |at: usize, memory: &[u8]| {
        memory.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b))
    };
    let (kind, length) = (word(0, memory), word(4, memory) as usize);
    if !(12..=MOST_BLOCK).contains(&length) || !length.is_multiple_of(4) {
        return Err(io::Error::other(format!("it sent a block of {length} bytes, which is none")));
    }
    memory.resize(length, 0);
    if let Err(error) = reader.read_exact(memory.get_mut(8..).unwrap_or_default()) {
        return cut(error);
    }
    Ok(Some(match kind {
        PACKET => BlockKind::Frame,
        STATISTICS => BlockKind::End { dropped: dropped(memory) },
        _ => BlockKind::Other,
    }))
}

/// How many frames were left out, as the statistics say it: behind 12 bytes of the block's are its
/// interface's options, after the time.
fn dropped(block: &[u8]) -> u64 {
    let mut options = block.get(20..).unwrap_or_default();
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let [a, b, c, d] = *head;
        let (code, length) = (u16::from_le_bytes([a, b]), usize::from(u16::from_le_bytes([c, d])));
        if code == DROPPED && length == 8 {
            return rest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        }
        options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    0
}

#[cfg(test)]
#[path = "capture_test.rs"]
mod tests;
