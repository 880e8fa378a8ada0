//! Bells: what wakes the thread of a device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use riad_memory::Gpa;
use rustix::event::{EventfdFlags, eventfd};

/// Rung by many, heard by one. It is an eventfd, so that the host's kernel can ring it, too, and a
/// thread can wait for it and for other descriptors at once. Clones are the same bell.
#[derive(Debug, Clone)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// When the host refuses a file descriptor.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Rings.
    pub fn ring(&self) {
        // A full counter has rung already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Forgets who rang so far.
    pub fn hush(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

/// Readable once it was rung.
impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Who rings a device's bells for the guest, so that no processor leaves the guest for it: the host's
/// kernel, where it lends the processors. Must not call back into devices.
pub trait Doorbells: Send + Sync {
    /// From now on a write to `at`, of any length, rings `bell` and does nothing else. Returns whether
    /// it will; if not, such a write comes to the device as every other.
    fn hang(&self, at: Gpa, bell: &Bell) -> bool;

    /// Ends what [`hang`](Self::hang) began. Nobody rings the bell afterwards.
    fn take_down(&self, at: Gpa, bell: &Bell);
}
