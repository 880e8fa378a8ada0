//! A disk that tells when the guest first reads from it: the guest has found its drivers by then,
//! which says that the kernel stage is over without asking the guest for anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use riad_disk::{Disk, Error, Sink, Source};

use crate::watched::{Watch, Watched};

/// Called once.
type Notify = Box<dyn Fn() + Send + Sync>;

/// A disk whose first read is told.
pub(crate) type Observed = Watched<FirstRead>;

/// Looks for the first read.
pub(crate) struct FirstRead {
    was_read: AtomicBool,
    notify: Notify,
}

impl Observed {
    pub(crate) fn new(disk: Arc<dyn Disk>, notify: Notify) -> Self {
        Self::by(FirstRead { was_read: AtomicBool::new(false), notify }, disk)
    }
}

impl Watch for FirstRead {
    fn reads(&self) {
        if !self.was_read.swap(true, Ordering::Relaxed) {
            (self.notify)();
        }
    }
}

/// A disk whose flushes are not carried out: for a disk image that is worth nothing until it is
/// complete, and that whoever makes it writes through to the host's disk once, at the end.
#[derive(Debug)]
pub(crate) struct Unflushed(pub(crate) riad_disk::RawDisk);

impl Disk for Unflushed {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_only(&self) -> bool {
        self.0.read_only()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.0.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        self.0.write(offset, buf)
    }

    fn read_to(&self, offset: u64, len: u64, to: &mut dyn Sink) -> Result<(), Error> {
        self.0.read_to(offset, len, to)
    }

    fn write_from(&self, offset: u64, len: u64, from: &mut dyn Source) -> Result<(), Error> {
        self.0.write_from(offset, len, from)
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.0.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.0.write_zeroes(offset, len)
    }

    /// Nobody would be told.
    fn waits_for_room(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[path = "observed_test.rs"]
mod tests;
