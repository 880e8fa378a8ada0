//! A disk that tells when the host has no room for what its guest writes, and when it has again. The
//! guest waits meanwhile (`riad_devices::virtio::blk`), and somebody has to make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use riad_disk::{Disk, Error};

/// Called when there is no room any more, with why, and when there is again.
pub(crate) type Told = Box<dyn Fn(Option<&Error>) + Send + Sync>;

/// A disk whose want of room is told.
pub(crate) struct Room {
    disk: Arc<dyn Disk>,
    is_full: AtomicBool,
    told: Told,
}

impl Room {
    pub(crate) fn new(disk: Arc<dyn Disk>, told: Told) -> Self {
        Self { disk, is_full: AtomicBool::new(false), told }
    }

    /// Looks at how a change went.
    fn look(&self, result: Result<(), Error>) -> Result<(), Error> {
        let is_full = matches!(result, Err(Error::Full { .. }));
        if (is_full || result.is_ok()) && self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            (self.told)(result.as_ref().err());
        }
        result
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Room {
    fn name(&self) -> &str {
        self.disk.name()
    }

    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_only(&self) -> bool {
        self.disk.read_only()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.disk.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        self.look(self.disk.write(offset, buf))
    }

    fn flush(&self) -> Result<(), Error> {
        self.look(self.disk.flush())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.look(self.disk.discard(offset, len))
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.look(self.disk.write_zeroes(offset, len))
    }

    fn waits_for_room(&self) -> bool {
        self.disk.waits_for_room()
    }
}

/// What a person is told, be it of no room or of room again.
pub(crate) fn sentence(why: Option<&Error>) -> String {
    match why {
        Some(error) => format!("the guest waits: {error}"),
        None => "there is room on the host again, and the guest goes on".to_owned(),
    }
}

#[cfg(test)]
#[path = "room_test.rs"]
mod tests;
