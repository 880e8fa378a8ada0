//! A file or a block device of the host, byte for byte.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{Disk, Error, SECTOR_SIZE, check_range, check_write, length, sys};

/// Zeros, to write where the host's file system cannot make them.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file or block device.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    name: String,
    size: u64,
    read_only: bool,
}

impl RawDisk {
    /// Opens a file or block device.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::OddSize`].
    pub fn open(path: &Path, read_only: bool) -> Result<Self, Error> {
        let name = path.display().to_string();
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(|source| Error::io("open", &name, source))?;
        Self::from_file(file, name, read_only)
    }

    /// The disk in an open file or block device, called `name` in messages. Its size is that of
    /// now.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::OddSize`].
    pub fn from_file(mut file: File, name: String, read_only: bool) -> Result<Self, Error> {
        let metadata = file.metadata().map_err(|source| Error::io("stat", &name, source))?;
        if metadata.is_dir() {
            return Err(Error::io("open", &name, io::ErrorKind::IsADirectory.into()));
        }
        // A block device's metadata has no size; its end does.
        let size =
            file.seek(SeekFrom::End(0)).map_err(|source| Error::io("seek", &name, source))?;
        if !size.is_multiple_of(SECTOR_SIZE) {
            return Err(Error::OddSize { name, size });
        }
        Ok(Self { file, name, size, read_only })
    }

    fn error(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::io(what, &self.name, source)
    }

    fn changing(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::change(what, &self.name, source)
    }

    /// Makes a checked range read as zeros: with a hole, or by writing them.
    fn zero(&self, what: &'static str, offset: u64, len: u64) -> Result<(), Error> {
        if len == 0 || sys::punch_hole(&self.file, offset, len).map_err(self.changing(what))? {
            return Ok(());
        }
        write_zeros(&self.file, offset, len).map_err(self.changing(what))
    }
}

/// Writes zeros the slow way.
pub(crate) fn write_zeros(file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
    while len > 0 {
        let chunk = usize::try_from(len).map_or(ZEROS.len(), |len| len.min(ZEROS.len()));
        let zeros = &ZEROS[..chunk];
        file.write_all_at(zeros, offset)?;
        offset += length(zeros);
        len -= length(zeros);
    }
    Ok(())
}

impl Disk for RawDisk {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        check_range(self, offset, length(buf))?;
        self.file.read_exact_at(buf, offset).map_err(self.error("read"))
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        check_write(self, offset, length(buf))?;
        self.file.write_all_at(buf, offset).map_err(self.changing("write"))
    }

    fn flush(&self) -> Result<(), Error> {
        if self.read_only {
            return Ok(());
        }
        self.file.sync_data().map_err(self.error("flush"))
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        check_write(self, offset, len)?;
        self.zero("discard", offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        check_write(self, offset, len)?;
        self.zero("write of zeros", offset, len)
    }
}

#[cfg(test)]
#[path = "raw_test.rs"]
mod tests;
