//! A file or a block device of the host, byte for byte.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    Disk, Error, SECTOR_SIZE, Sink, Source, check_range, check_write, host_length, length, sys,
};

/// Zeros, to write where the host's file system cannot make them.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file or block device.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    name: String,
    label: Option<String>,
    /// In bytes; it only grows.
    size: AtomicU64,
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

    /// As [`open`](Self::open), alone: nobody else writes to it meanwhile, and if this process is to
    /// write, nobody else reads it either, of those who open it so. The lock is the kernel's
    /// (flock(2)), and ends with the process.
    ///
    /// # Errors
    /// [`Error::InUse`], and those of `open`.
    pub fn open_alone(path: &Path, read_only: bool) -> Result<Self, Error> {
        let disk = Self::open(path, read_only)?;
        let locked = if read_only { disk.file.try_lock_shared() } else { disk.file.try_lock() };
        match locked {
            Ok(()) => Ok(disk),
            Err(TryLockError::WouldBlock) => Err(Error::InUse(disk.name)),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", &disk.name, source)),
        }
    }

    /// The same disk, which guests are to know by `label`.
    #[must_use]
    pub fn labelled(self, label: &str) -> Self {
        Self { label: Some(label.to_owned()), ..self }
    }

    /// Makes a disk in a file larger, durably, while it is in use or not. What is new reads as zeros.
    ///
    /// # Errors
    /// [`Error::BadImage`] when it would become smaller, or is no whole number of sectors;
    /// [`Error::ReadOnly`], [`Error::Io`].
    pub fn grow(&self, size: u64) -> Result<(), Error> {
        let old = self.size();
        let bad = |reason| Error::BadImage { name: self.name.clone(), reason };
        if self.read_only {
            return Err(Error::ReadOnly(self.name.clone()));
        }
        if size < old {
            return Err(bad(format!(
                "it has {old} bytes already, and disks only grow: ask for more than that"
            )));
        }
        if !size.is_multiple_of(SECTOR_SIZE) {
            return Err(bad(format!("{size} bytes are not a multiple of {SECTOR_SIZE}")));
        }
        self.file.set_len(size).and_then(|()| self.file.sync_all()).map_err(self.error("grow"))?;
        self.size.fetch_max(size, Ordering::AcqRel);
        Ok(())
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
        Ok(Self { file, name, label: None, size: AtomicU64::new(size), read_only })
    }

    /// The open file, with the lock that [`open_alone`](Self::open_alone) took: whoever is given a copy of
    /// the descriptor has that too, for as long as any copy is open.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
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

    fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
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

    fn read_to(&self, offset: u64, len: u64, to: &mut dyn Sink) -> Result<(), Error> {
        check_range(self, offset, len)?;
        to.take_file(&self.file, offset, host_length(len)).map_err(self.error("read"))
    }

    fn write_from(&self, offset: u64, len: u64, from: &mut dyn Source) -> Result<(), Error> {
        check_write(self, offset, len)?;
        from.give_file(&self.file, offset, host_length(len)).map_err(self.changing("write"))
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
