//! What a block device has served, for whoever measures a machine. It is no part of the device's
//! state: a restored machine counts from zero.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Status, request};

/// Counts that only grow. They are read while the device serves, so that a request may be in one of
/// them and not yet in another.
#[derive(Debug, Default)]
pub struct BlkCounters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
    failures: AtomicU64,
}

/// The counts at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlkCounts {
    /// Read requests that were served.
    pub reads: u64,
    /// Bytes that they read.
    pub read_bytes: u64,
    /// Write requests that were served.
    pub writes: u64,
    /// Bytes that they wrote.
    pub written_bytes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Requests to discard ranges, or to fill them with zeros.
    pub discards: u64,
    /// Requests that failed, or were none that the device knows.
    pub failures: u64,
}

impl BlkCounters {
    /// The counts now.
    #[must_use]
    pub fn read(&self) -> BlkCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Self { reads, read_bytes, writes, written_bytes, flushes, discards, failures } = self;
        BlkCounts {
            reads: of(reads),
            read_bytes: of(read_bytes),
            writes: of(writes),
            written_bytes: of(written_bytes),
            flushes: of(flushes),
            discards: of(discards),
            failures: of(failures),
        }
    }

    /// A request of this kind (virtio 1.3, 5.2.6), with so many bytes of data, was answered.
    pub(super) fn answered(&self, kind: u32, bytes: u64, status: Status) {
        let count = |counter: &AtomicU64, by| counter.fetch_add(by, Ordering::Relaxed);
        if status != Status::Ok {
            count(&self.failures, 1);
            return;
        }
        match kind {
            request::IN => {
                count(&self.reads, 1);
                count(&self.read_bytes, bytes);
            }
            request::OUT => {
                count(&self.writes, 1);
                count(&self.written_bytes, bytes);
            }
            request::FLUSH => drop(count(&self.flushes, 1)),
            request::DISCARD | request::WRITE_ZEROES => drop(count(&self.discards, 1)),
            _ => {}
        }
    }
}
