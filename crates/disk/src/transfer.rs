//! What a disk's bytes are read to and written from, where that is not a slice: guest memory, which others
//! use meanwhile, and which a file's bytes can go to and come from without a stop in between.

use std::fs::File;
use std::io;

use crate::{Disk, Error, length};

/// Bytes moved at a time by disks that know slices alone.
const PIECE: usize = 1 << 20;

/// Takes bytes, in order.
pub trait Sink {
    /// Takes `len` bytes of a file, from an offset on.
    ///
    /// # Errors
    /// The host's reason. [`WouldBlock`](io::ErrorKind::WouldBlock) when the bytes are not at hand, and
    /// whoever asks does not wait.
    fn take_file(&mut self, file: &File, at: u64, len: usize) -> io::Result<()>;
    /// Takes bytes.
    ///
    /// # Errors
    /// There is no room for them.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Whether bytes that may not be at hand are not to be waited for.
    fn is_hasty(&self) -> bool {
        false
    }
}

/// Gives bytes, in order.
pub trait Source {
    /// Gives the next `len` bytes to a file, from an offset on.
    ///
    /// # Errors
    /// The host's reason.
    fn give_file(&mut self, file: &File, at: u64, len: usize) -> io::Result<()>;
    /// Gives bytes.
    ///
    /// # Errors
    /// There are not so many.
    fn give(&mut self, bytes: &mut [u8]) -> io::Result<()>;
}

/// Reads through a buffer.
pub(crate) fn read_to<D: Disk + ?Sized>(
    disk: &D,
    mut offset: u64,
    mut len: u64,
    to: &mut dyn Sink,
) -> Result<(), Error> {
    // Whether it would wait cannot be told.
    if to.is_hasty() {
        return Err(Error::io("read", disk.name(), io::ErrorKind::WouldBlock.into()));
    }
    let mut buffer = Vec::new();
    while len > 0 {
        buffer.resize(piece(len), 0);
        disk.read(offset, &mut buffer)?;
        to.take(&buffer).map_err(|source| Error::io("read", disk.name(), source))?;
        offset += length(&buffer);
        len -= length(&buffer);
    }
    Ok(())
}

/// Writes through a buffer.
pub(crate) fn write_from<D: Disk + ?Sized>(
    disk: &D,
    mut offset: u64,
    mut len: u64,
    from: &mut dyn Source,
) -> Result<(), Error> {
    let mut buffer = Vec::new();
    while len > 0 {
        buffer.resize(piece(len), 0);
        from.give(&mut buffer).map_err(|source| Error::io("write", disk.name(), source))?;
        disk.write(offset, &buffer)?;
        offset += length(&buffer);
        len -= length(&buffer);
    }
    Ok(())
}

fn piece(len: u64) -> usize {
    usize::try_from(len).map_or(PIECE, |len| len.min(PIECE))
}
