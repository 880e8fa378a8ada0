//! What only Linux does.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, SeekFrom};
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

/// The first byte at or after `offset` that is not in a hole; `None` when there is none. Where the
/// file system does not know, everything is data.
///
/// # Errors
/// The host's reason.
pub(crate) fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            Ok(Some(offset).filter(|at| file.metadata().is_ok_and(|metadata| *at < metadata.len())))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// The end of the data that `offset` is in.
///
/// # Errors
/// The host's reason.
pub(crate) fn next_hole(file: &File, offset: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Hole(offset)) {
        Ok(hole) => Ok(hole),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(file.metadata()?.len()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes an empty file share all blocks of another. Returns whether the host could.
pub(crate) fn share_blocks(from: &File, to: &File) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}
