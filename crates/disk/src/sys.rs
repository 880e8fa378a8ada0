//! What only Linux does.

use std::fs::File;
use std::io;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Gives the space of a range of a file back, so that it reads as zeros. Returns whether the host
/// can do that; nothing was changed when it cannot.
///
/// # Errors
/// The host's reason.
pub(crate) fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        return match rustix::fs::fallocate(file, flags, offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            // No holes: this file system, this block device, or a range a block device cannot cut.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL) => Ok(false),
            Err(errno) => Err(errno.into()),
        };
    }
}
