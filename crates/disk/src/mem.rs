//! A disk in memory, for tests.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use crate::{Disk, Error, SECTOR_SIZE, check_range, check_write, length};

/// A disk in memory.
pub struct MemDisk {
    bytes: RwLock<Vec<u8>>,
    size: u64,
    read_only: bool,
}

impl MemDisk {
    /// A disk of zeros.
    ///
    /// # Errors
    /// [`Error::OddSize`].
    pub fn new(size: usize) -> Result<Self, Error> {
        Self::from_bytes(vec![0; size])
    }

    /// A disk with this content.
    ///
    /// # Errors
    /// [`Error::OddSize`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        let size = length(&bytes);
        if !size.is_multiple_of(SECTOR_SIZE) {
            return Err(Error::OddSize { name: "(memory)".to_owned(), size });
        }
        Ok(Self { bytes: RwLock::new(bytes), size, read_only: false })
    }

    /// The same disk, refusing writes.
    #[must_use]
    pub fn into_read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// A copy of the content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the bytes of a checked range.
    fn change(&self, offset: u64, len: u64, change: impl FnOnce(&mut [u8])) -> Result<(), Error> {
        check_write(self, offset, len)?;
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(start), Ok(len)) = (usize::try_from(offset), usize::try_from(len))
            && let Some(range) = bytes.get_mut(start..).and_then(|rest| rest.get_mut(..len))
        {
            change(range);
        }
        Ok(())
    }
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes: _, size, read_only } = self;
        f.debug_struct("MemDisk")
            .field("size", size)
            .field("read_only", read_only)
            .finish_non_exhaustive()
    }
}

impl Disk for MemDisk {
    fn name(&self) -> &str {
        "(memory)"
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        check_range(self, offset, length(buf))?;
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        if let Ok(start) = usize::try_from(offset)
            && let Some(range) = bytes.get(start..).and_then(|rest| rest.get(..buf.len()))
        {
            buf.copy_from_slice(range);
        }
        Ok(())
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        self.change(offset, length(buf), |bytes| bytes.copy_from_slice(buf))
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.write_zeroes(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.change(offset, len, |bytes| bytes.fill(0))
    }
}

#[cfg(test)]
#[path = "mem_test.rs"]
mod tests;
