//! Disks: what stands behind a block device, on the host's side.
//!
//! A block device sees a [`Disk`] and nothing else: [`RawDisk`] is a file or a block device of the
//! host, [`Overlay`] keeps what is written apart from a base that stays as it is, [`Layer`] does so
//! in a file that lasts, [`Qcow2`] reads QEMU's images, and [`MemDisk`] is for tests. All may be used from several threads at once. Ranges come from the guest, so every
//! method checks them; the data of concurrent accesses to the same bytes is undefined, as on
//! hardware.
//!
//! Where to begin: [`Disk`], then `raw.rs`.

mod layer;
mod mem;
mod overlay;
mod qcow2;
mod raw;
mod sparse;
mod sys;
mod transfer;

pub use layer::{Layer, LayerInfo};
pub use mem::MemDisk;
pub use overlay::{CLUSTER_SIZE, Overlay, OverlayState};
pub use qcow2::Qcow2;
pub use raw::RawDisk;
pub use sparse::copy as copy_sparse;
pub use transfer::{Sink, Source};

use std::fmt;
use std::io::ErrorKind;

/// Bytes in a sector, the unit of virtio-blk addresses (virtio 1.3, section 5.2).
pub const SECTOR_SIZE: u64 = 512;

/// What can go wrong with a disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's file refused.
    #[error("{what} failed on disk {name}: {source}")]
    Io {
        /// `read`, `write`, `flush`, ...
        what: &'static str,
        /// The disk's file, as the user knows it.
        name: String,
        /// The host's reason.
        source: std::io::Error,
    },
    /// The host has no room for what is written. Nothing of it counts as written, and it can be
    /// written again when there is room.
    #[error(
        "there is no room on the host for disk {name}: {source}; make room on that file system"
    )]
    Full {
        /// The disk's file, as the user knows it.
        name: String,
        /// The host's reason.
        source: std::io::Error,
    },
    /// An access past the end.
    #[error("access at byte {offset} (+{len}) is past the end of disk {name} ({size} bytes)")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Size of the disk in bytes.
        size: u64,
        /// The disk's file.
        name: String,
    },
    /// A write to a disk that was opened for reading.
    #[error("disk {0} is read-only")]
    ReadOnly(String),
    /// A disk that is not made of whole sectors.
    #[error(
        "disk {name} is {size} bytes long, which is not a multiple of {SECTOR_SIZE}: \
         is it a disk image? `truncate --size=%{SECTOR_SIZE} FILE` extends one to a whole sector"
    )]
    OddSize {
        /// The disk's file.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
    /// Somebody else writes to it.
    #[error("disk {0} is in use by another process: stop the machine that it belongs to first")]
    InUse(String),
    /// A file that is no layer, or not one that can be used.
    #[error("{name} cannot be used as a machine's disk: {reason}")]
    BadLayer {
        /// The file.
        name: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// An image of another format that cannot be read.
    #[error("{name} cannot be read as a disk: {reason}")]
    BadImage {
        /// The file.
        name: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The saved state of an overlay does not belong to this base.
    #[error(
        "the saved overlay does not fit disk {name}: {reason}; \
         restore it on the disk it was saved from"
    )]
    BadState {
        /// The base.
        name: String,
        /// What does not fit.
        reason: String,
    },
}

impl Error {
    /// An error of the host's.
    fn io(what: &'static str, name: &str, source: std::io::Error) -> Self {
        Self::Io { what, name: name.to_owned(), source }
    }

    /// An error of the host's at a change that can be made again as it is.
    fn change(what: &'static str, name: &str, source: std::io::Error) -> Self {
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Self::Full { name: name.to_owned(), source }
            }
            _ => Self::io(what, name, source),
        }
    }
}

/// Checks that `len` bytes at `offset` are inside the disk.
fn check_range(disk: &dyn Disk, offset: u64, len: u64) -> Result<(), Error> {
    let size = disk.size();
    if offset.checked_add(len).is_some_and(|end| end <= size) {
        return Ok(());
    }
    Err(Error::OutOfRange { offset, len, size, name: disk.name().to_owned() })
}

/// The length of a buffer.
fn length(buf: &[u8]) -> u64 {
    // A buffer of 2^64 bytes does not exist; were there one, it would be out of range.
    u64::try_from(buf.len()).unwrap_or(u64::MAX)
}

/// The length of a buffer that there is.
fn host_length(len: u64) -> usize {
    // None is longer than the host's memory.
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// As [`check_range`], and that the disk may be written.
fn check_write(disk: &dyn Disk, offset: u64, len: u64) -> Result<(), Error> {
    if disk.read_only() {
        return Err(Error::ReadOnly(disk.name().to_owned()));
    }
    check_range(disk, offset, len)
}

/// A disk as a block device sees it. Methods may be called from several threads at once.
pub trait Disk: Send + Sync + fmt::Debug {
    /// The disk as the user knows it, for messages.
    fn name(&self) -> &str {
        "(unnamed)"
    }
    /// What a guest is to know it by, whatever its place among the machine's disks; `None` when its
    /// place is all that there is to it.
    fn label(&self) -> Option<&str> {
        None
    }
    /// Size in bytes, a multiple of [`SECTOR_SIZE`].
    fn size(&self) -> u64;
    /// Whether writes are refused.
    fn read_only(&self) -> bool;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Io`].
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error>;
    /// Writes `buf` at `offset`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::ReadOnly`], [`Error::Full`], [`Error::Io`].
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Error>;
    /// Reads `len` bytes from `offset` to where they are wanted, which may have some of them when that
    /// fails.
    ///
    /// # Errors
    /// As for [`read`](Self::read); [`Error::Io`] with [`WouldBlock`](ErrorKind::WouldBlock) when the
    /// sink is [hasty](Sink::is_hasty) and they are not at hand.
    fn read_to(&self, offset: u64, len: u64, to: &mut dyn Sink) -> Result<(), Error> {
        transfer::read_to(self, offset, len, to)
    }
    /// Writes `len` bytes at `offset` from where they are.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn write_from(&self, offset: u64, len: u64, from: &mut dyn Source) -> Result<(), Error> {
        transfer::write_from(self, offset, len, from)
    }
    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// [`Error::Full`] when it can be asked for again; [`Error::Io`] when something may be lost.
    fn flush(&self) -> Result<(), Error>;
    /// Gives the space of a range back; it reads as anything (Riad: zeros) afterwards.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn discard(&self, offset: u64, len: u64) -> Result<(), Error>;
    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error>;
    /// Whether a guest whose write finds the host [full](Error::Full) is to wait until there is
    /// room, rather than be told of an error that it would take for a broken disk.
    fn waits_for_room(&self) -> bool {
        true
    }
}
