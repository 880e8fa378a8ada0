//! A disk that lasts: what was written since a base, in one sparse file.
//!
//! ```text
//! byte 0          header: what the file is, sizes (64 bytes, little-endian; see `header.rs`)
//! byte 4096       map: a bit for each cluster of 4 KiB that is in this file
//! byte 512 MiB    the disk's bytes, each at its own offset
//! ```
//!
//! Clusters whose bit is clear are the base's, or zeros past the base's end. The file is as long as
//! the disk, and takes only the space of what was written.
//!
//! # What is never lost
//!
//! After [`flush`](Disk::flush) returns, everything written before it is there again, whatever
//! happens to the process, the host's kernel or its power. A bit gets to the host's disk only after
//! the cluster that it speaks of: `flush` takes the bits that were set, makes the data durable,
//! writes the bits, and makes them durable. So at every instant the file is whole, and there is
//! nothing to repair: what a power cut leaves behind is clusters that no bit speaks of, which are
//! written over when their turn comes.
//!
//! # Who may open it
//!
//! One process, by a lock of the kernel's (flock(2)) on the file, which ends with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::overlay::{Bitmap, CLUSTER_SIZE, PAGE_BITS, PAGE_BYTES};
use crate::{Disk, Error, Overlay, SECTOR_SIZE, Sink, Source};

mod header;
use header::{DATA, HEADER, Header, MAP};

/// A base, and what was written since, which lasts.
#[derive(Debug)]
pub struct Layer {
    overlay: Overlay,
    file: File,
    /// One flush at a time, so that no page of the map overtakes a later one.
    flushing: Mutex<()>,
}

/// What a layer's file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInfo {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Size of the base in bytes.
    pub base_size: u64,
    /// Bytes that the file takes on the host's disk.
    pub allocated: u64,
}

impl Layer {
    /// The largest disk, in bytes.
    pub const MOST: u64 = 8 << 40;

    /// Makes the file of a layer with nothing written, durably. It must not exist; nobody but its
    /// owner may read it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadLayer`] when `size` is not a multiple of 4 KiB, less than the
    /// base, or more than [`MOST`](Self::MOST).
    pub fn create(path: &Path, base_size: u64, size: u64) -> Result<(), Error> {
        let name = path.display().to_string();
        let header = Header { size, base_size };
        header.check().map_err(|reason| Error::BadLayer { name: name.clone(), reason })?;
        let error = |source| Error::io("create", &name, source);
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(error)?;
        file.set_len(DATA + size).map_err(error)?;
        file.write_all_at(&header.to_bytes(), 0).map_err(error)?;
        file.sync_all().map_err(error)
    }

    /// Opens a layer on the base it was made for, to be written to.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it; [`Error::BadLayer`] when it is none, or was
    /// made for another base; [`Error::Io`].
    pub fn open(path: &Path, base: Arc<dyn Disk>) -> Result<Self, Error> {
        let name = path.display().to_string();
        let error = |what| {
            let name = &name;
            move |source| Error::io(what, name, source)
        };
        let file = open(path, &name)?;
        let header = read_header(&file, &name)?;
        if header.base_size != base.size() {
            let reason = format!(
                "it was made for a base of {} bytes, and {} has {}",
                header.base_size,
                base.name(),
                base.size()
            );
            return Err(Error::BadLayer { name, reason });
        }
        let mut map =
            Bitmap::new(header.size.div_ceil(CLUSTER_SIZE)).map_err(error("read the map of"))?;
        load(&file, &mut map).map_err(error("read the map of"))?;
        let delta = file.try_clone().map_err(error("open"))?;
        let overlay = Overlay::build(base, name, delta, map, DATA, header.size)?;
        Ok(Self { overlay, file, flushing: Mutex::new(()) })
    }

    /// What a layer's file says about itself. Works while it is in use.
    ///
    /// # Errors
    /// [`Error::BadLayer`], [`Error::Io`].
    pub fn info(path: &Path) -> Result<LayerInfo, Error> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| Error::io("open", &name, source))?;
        let Header { size, base_size } = read_header(&file, &name)?;
        let metadata = file.metadata().map_err(|source| Error::io("stat", &name, source))?;
        Ok(LayerInfo { size, base_size, allocated: metadata.blocks() * 512 })
    }

    /// Whether [`grow`](Self::grow) would take this size, and `create` have taken it. Works while
    /// the layer is in use.
    ///
    /// # Errors
    /// [`Error::BadLayer`] says why not; [`Error::Io`].
    pub fn check_growth(path: &Path, size: u64) -> Result<(), Error> {
        let LayerInfo { size: old, base_size, allocated: _ } = Self::info(path)?;
        check_growth(&path.display().to_string(), Header { size: old, base_size }, size).map(drop)
    }

    /// Makes the disk of a layer that is not in use larger, durably. What is new reads as zeros.
    ///
    /// # Errors
    /// [`Error::InUse`]; [`Error::BadLayer`] when it would become smaller, or too large;
    /// [`Error::Io`].
    pub fn grow(path: &Path, size: u64) -> Result<(), Error> {
        let name = path.display().to_string();
        write_size(&open(path, &name)?, &name, size)
    }

    /// As [`grow`](Self::grow), while it is in use.
    ///
    /// # Errors
    /// [`Error::BadLayer`] when it would become smaller, or too large; [`Error::Io`].
    pub fn grow_in_use(&self, size: u64) -> Result<(), Error> {
        // The map grows behind its end, where no flush writes; but one growth at a time.
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        write_size(&self.file, self.overlay.name(), size)?;
        self.overlay.grow(size)
    }

    fn error(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::io(what, self.overlay.name(), source)
    }
}

/// The header of a layer that has become larger, if it may.
fn check_growth(name: &str, old: Header, size: u64) -> Result<Header, Error> {
    let bad = |reason| Error::BadLayer { name: name.to_owned(), reason };
    if size < old.size {
        return Err(bad(format!(
            "it has {} bytes already, and disks only grow: ask for more than that",
            old.size
        )));
    }
    let new = Header { size, ..old };
    new.check().map_err(bad)?;
    Ok(new)
}

/// Makes a layer's file larger, durably.
fn write_size(file: &File, name: &str, size: u64) -> Result<(), Error> {
    let new = check_growth(name, read_header(file, name)?, size)?;
    let error = |source| Error::io("grow", name, source);
    // The length first: a header never promises what is not there.
    file.set_len(DATA + size).and_then(|()| file.sync_all()).map_err(error)?;
    file.write_all_at(&new.to_bytes(), 0).and_then(|()| file.sync_all()).map_err(error)
}

/// Opens a file for this process alone.
fn open(path: &Path, name: &str) -> Result<File, Error> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|source| Error::io("open", name, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(name.to_owned())),
        Err(TryLockError::Error(source)) => Err(Error::io("lock", name, source)),
    }
}

fn read_header(file: &File, name: &str) -> Result<Header, Error> {
    let bad = |reason| Error::BadLayer { name: name.to_owned(), reason };
    let mut bytes = [0; HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(bad("it is too short to be one".to_owned()));
        }
        Err(source) => return Err(Error::io("read", name, source)),
    }
    let header = Header::parse(&bytes).map_err(bad)?;
    let length = file.metadata().map_err(|source| Error::io("stat", name, source))?.len();
    if length < DATA + header.size {
        return Err(bad(format!(
            "it was cut short: it has {length} bytes and should have {}",
            DATA + header.size
        )));
    }
    Ok(header)
}

/// Reads the map. Holes, of which most maps consist, are not read.
fn load(file: &File, map: &mut Bitmap) -> io::Result<()> {
    let pages = map.len().div_ceil(PAGE_BITS);
    let page_bytes = PAGE_BYTES as u64;
    let end = MAP + pages * page_bytes;
    let mut page = vec![0; PAGE_BYTES];
    let mut at = MAP;
    while let Some(data) = crate::sys::next_data(file, at)?.filter(|data| *data < end) {
        let number = (data.max(at) - MAP) / page_bytes;
        at = MAP + number * page_bytes;
        file.read_exact_at(&mut page, at)?;
        map.load(usize::try_from(number).unwrap_or(usize::MAX), &page);
        at += page_bytes;
    }
    Ok(())
}

impl Disk for Layer {
    fn name(&self) -> &str {
        self.overlay.name()
    }

    fn size(&self) -> u64 {
        self.overlay.size()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.overlay.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        self.overlay.write(offset, buf)
    }

    fn read_to(&self, offset: u64, len: u64, to: &mut dyn Sink) -> Result<(), Error> {
        self.overlay.read_to(offset, len, to)
    }

    fn write_from(&self, offset: u64, len: u64, from: &mut dyn Source) -> Result<(), Error> {
        self.overlay.write_from(offset, len, from)
    }

    fn flush(&self) -> Result<(), Error> {
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        // Bits that are set from here on are the next flush's.
        let pages = self.overlay.map().take_changed();
        let sync = || self.file.sync_data().map_err(self.error("flush"));
        let written = sync().and_then(|()| {
            if pages.is_empty() {
                return Ok(());
            }
            for (number, bytes) in &pages {
                let at = MAP + *number as u64 * PAGE_BYTES as u64;
                let written = self.file.write_all_at(bytes, at);
                // What these bits speak of is durable by now: they can be written later.
                written.map_err(|source| Error::change("flush", self.name(), source))?;
            }
            sync()
        });
        written.inspect_err(|_| self.overlay.map().put_back(&pages))
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.overlay.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.overlay.write_zeroes(offset, len)
    }
}

const _: () = assert!(CLUSTER_SIZE.is_multiple_of(SECTOR_SIZE));

#[cfg(test)]
#[path = "layer_test.rs"]
mod tests;
