//! A buffer the driver made available: descriptors the device reads, then descriptors it writes
//! (virtio 1.3, section 2.7.4), as [`std::io::Read`] and [`std::io::Write`].

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use riad_disk::{Sink, Source};
use riad_memory::{Gpa, GuestMemory, Wait};

/// A run of guest memory. It was RAM when its chain was taken off the queue, and RAM does not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First byte.
    pub at: Gpa,
    /// Length in bytes.
    pub len: u32,
}

/// One buffer, off the available ring and not yet in the used ring.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    head: u16,
    segments: Vec<Segment>,
    /// How many segments are for reading; the rest is for writing.
    readable: usize,
}

impl Chain {
    /// Becomes an empty chain with this head; the segments are to be filled in.
    pub(super) fn begin(&mut self, head: u16) -> &mut Vec<Segment> {
        (self.head, self.readable) = (head, 0);
        self.segments.clear();
        &mut self.segments
    }

    /// The first `count` segments are for reading.
    pub(super) fn readable_are(&mut self, count: usize) {
        self.readable = count.min(self.segments.len());
    }

    /// Index of the first descriptor: the buffer's name in the used ring.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes that it describes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.len)).sum()
    }

    /// What the device reads.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.readable).unwrap_or(&[])
    }

    /// What the device writes.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(self.readable..).unwrap_or(&[])
    }

    /// Reads what the driver wrote.
    #[must_use]
    pub fn reader<'a>(&'a self, memory: &'a GuestMemory) -> Reader<'a> {
        Reader { cursor: Cursor::new(memory, self.readable()) }
    }

    /// Writes what the driver will read.
    #[must_use]
    pub fn writer<'a>(&'a self, memory: &'a GuestMemory) -> Writer<'a> {
        Writer { cursor: Cursor::new(memory, self.writable()) }
    }
}

#[derive(Debug, Clone)]
struct Cursor<'a> {
    memory: &'a GuestMemory,
    rest: &'a [Segment],
    /// Bytes done of the first of `rest`.
    within: u32,
    remaining: u64,
    done: u64,
}

impl<'a> Cursor<'a> {
    fn new(memory: &'a GuestMemory, segments: &'a [Segment]) -> Self {
        let remaining = segments.iter().map(|segment| u64::from(segment.len)).sum();
        Self { memory, rest: segments, within: 0, remaining, done: 0 }
    }

    /// The next run of at most `most` bytes; `None` at the end.
    fn next(&mut self, most: usize) -> Option<(Gpa, usize)> {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        while let Some((first, others)) = self.rest.split_first() {
            let left = first.len.saturating_sub(self.within);
            if left == 0 {
                (self.rest, self.within) = (others, 0);
                continue;
            }
            let len = left.min(most);
            let at = first.at.checked_add(u64::from(self.within))?;
            self.within += len;
            self.remaining = self.remaining.saturating_sub(u64::from(len));
            self.done += u64::from(len);
            return Some((at, len as usize));
        }
        None
    }

    /// The runs of exactly `len` bytes.
    fn runs(&mut self, mut len: usize) -> io::Result<Vec<(Gpa, usize)>> {
        let mut runs = Vec::new();
        while len > 0 {
            let (at, some) = self.next(len).ok_or(io::ErrorKind::UnexpectedEof)?;
            runs.push((at, some));
            len -= some;
        }
        Ok(runs)
    }

    fn skip(&mut self, mut len: u64) {
        while len > 0 {
            match self.next(usize::try_from(len).unwrap_or(usize::MAX)) {
                Some((_, skipped)) => len -= skipped as u64,
                None => return,
            }
        }
    }
}

/// Reads the device-readable part of a chain, front to back.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    cursor: Cursor<'a>,
}

impl Reader<'_> {
    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.cursor.remaining
    }

    /// The next `N` bytes; `None` when fewer are left.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        io::Read::read_exact(self, &mut bytes).ok()?;
        Some(bytes)
    }
}

impl Source for Reader<'_> {
    fn give_file(&mut self, file: &File, at: u64, len: usize) -> io::Result<()> {
        let runs = self.cursor.runs(len)?;
        self.cursor.memory.write_to_file(&runs, file.as_fd(), at)
    }

    fn give(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        io::Read::read_exact(self, bytes)
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(room) = buf.get_mut(done..).filter(|room| !room.is_empty()) {
            let Some((at, len)) = self.cursor.next(room.len()) else { break };
            let Some(room) = room.get_mut(..len) else { break };
            self.cursor.memory.read(at, room).map_err(io::Error::other)?;
            done += len;
        }
        Ok(done)
    }
}

/// Writes the device-writable part of a chain, front to back.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Writer<'a> {
    /// Bytes there is still room for.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.cursor.remaining
    }

    /// Bytes written or skipped so far: the length for the used ring.
    #[must_use]
    pub fn written(&self) -> u32 {
        u32::try_from(self.cursor.done).unwrap_or(u32::MAX)
    }

    /// The same, for a disk to write to.
    pub(super) fn sink(&mut self, wait: Wait) -> DiskSink<'_, 'a> {
        DiskSink { writer: self, wait }
    }

    /// Leaves `len` bytes as they are.
    pub fn skip(&mut self, len: u64) {
        self.cursor.skip(len);
    }
}

/// A chain's device-writable part, as a disk's bytes come to it.
pub(super) struct DiskSink<'w, 'a> {
    writer: &'w mut Writer<'a>,
    wait: Wait,
}

impl Sink for DiskSink<'_, '_> {
    fn take_file(&mut self, file: &File, at: u64, len: usize) -> io::Result<()> {
        let cursor = &mut self.writer.cursor;
        let runs = cursor.runs(len)?;
        cursor.memory.read_from_file(&runs, file.as_fd(), at, self.wait)
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(self.writer, bytes)
    }

    fn is_hasty(&self) -> bool {
        self.wait == Wait::NotAtAll
    }
}

impl io::Write for Writer<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(left) = buf.get(done..).filter(|left| !left.is_empty()) {
            let Some((at, len)) = self.cursor.next(left.len()) else { break };
            let Some(left) = left.get(..len) else { break };
            self.cursor.memory.write(at, left).map_err(io::Error::other)?;
            done += len;
        }
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
