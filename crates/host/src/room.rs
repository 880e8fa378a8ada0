//! A disk that tells when the host has no room for what its guest writes, and when it has again. The
//! guest waits meanwhile (`riad_devices::virtio::blk`), and somebody has to make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use riad_disk::{Disk, Error};

use crate::watched::{Watch, Watched};

/// Called when there is no room any more, with why, and when there is again.
pub(crate) type Told = Box<dyn Fn(Option<&Error>) + Send + Sync>;

/// A disk whose want of room is told.
pub(crate) type Room = Watched<Want>;

/// Looks for a want of room.
pub(crate) struct Want {
    is_full: AtomicBool,
    told: Told,
}

impl Room {
    pub(crate) fn new(disk: Arc<dyn Disk>, told: Told) -> Self {
        Self::by(Want { is_full: AtomicBool::new(false), told }, disk)
    }
}

impl Watch for Want {
    fn changed(&self, result: &Result<(), Error>) {
        let is_full = matches!(result, Err(Error::Full { .. }));
        if (is_full || result.is_ok()) && self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            (self.told)(result.as_ref().err());
        }
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
