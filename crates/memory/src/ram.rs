//! RAM regions over one memory file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::page::PageTable;
use crate::sys::Mapping;
use crate::{Gpa, PAGE_SIZE};

/// What can go wrong with guest memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refused the memory.
    #[error("the host could not give {bytes} bytes of memory for the guest: {source}")]
    Allocate {
        /// Bytes asked for.
        bytes: u64,
        /// The host's reason.
        source: std::io::Error,
    },
    /// Regions are empty, misaligned or overlap.
    #[error(
        "guest memory region at {start} of {len} bytes is empty, not page-aligned or overlaps another"
    )]
    BadRegion {
        /// First address.
        start: Gpa,
        /// Length in bytes.
        len: u64,
    },
    /// An access outside RAM.
    #[error("guest address {at} (+{len} bytes) is not in the guest's memory")]
    OutOfRange {
        /// First address.
        at: Gpa,
        /// Length in bytes.
        len: u64,
    },
    /// Reading or writing the memory's contents from or to a file failed.
    #[error("guest memory could not be copied: {0}")]
    Copy(#[source] std::io::Error),
}

/// A run of RAM in the guest-physical address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First address, page-aligned.
    pub start: Gpa,
    /// Length in bytes, a multiple of the page size.
    pub len: u64,
    /// Where the region begins in the memory file, bytes.
    pub offset: u64,
}

/// A page of RAM as a processor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Host address of the page's first byte. Valid as long as the [`GuestMemory`] it came from.
    pub host: *mut u8,
    /// Index in the [`PageTable`].
    pub index: usize,
}

/// A machine's RAM. Cloning shares it.
#[derive(Debug, Clone)]
pub struct GuestMemory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    regions: Vec<Region>,
    map: Mapping,
    pages: PageTable,
}

impl GuestMemory {
    /// RAM in the given (start, length) runs, all zero.
    ///
    /// # Errors
    /// When a run is empty, not page-aligned or overlaps another, or the host has no memory.
    pub fn new(runs: &[(Gpa, u64)]) -> Result<Self, Error> {
        let mut regions = Vec::new();
        let mut offset = 0u64;
        let mut end_of_last = 0u64;
        for &(start, len) in runs {
            let bad = || Error::BadRegion { start, len };
            let aligned = start.0 % PAGE_SIZE == 0 && len % PAGE_SIZE == 0 && len > 0;
            let end = start.0.checked_add(len).ok_or_else(bad)?;
            if !aligned || start.0 < end_of_last {
                return Err(bad());
            }
            regions.push(Region { start, len, offset });
            offset = offset.checked_add(len).ok_or_else(bad)?;
            end_of_last = end;
        }
        let allocate = |source| Error::Allocate { bytes: offset, source };
        let size = usize::try_from(offset)
            .map_err(|_| allocate(std::io::ErrorKind::OutOfMemory.into()))?;
        let map = Mapping::new(size).map_err(allocate)?;
        let pages = PageTable::new(size / PAGE_SIZE as usize);
        Ok(Self { inner: Arc::new(Inner { regions, map, pages }) })
    }

    /// The RAM's regions, in address order.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.inner.regions
    }

    /// Bytes of RAM.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.inner.map.len() as u64
    }

    /// The page states.
    #[must_use]
    pub fn pages(&self) -> &PageTable {
        &self.inner.pages
    }

    /// The memory file: every region lies in it at its [`Region::offset`].
    #[must_use]
    pub fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        self.inner.map.file()
    }

    /// The page that holds `at`, or `None` when `at` is not RAM.
    #[inline]
    #[must_use]
    pub fn page(&self, at: Gpa) -> Option<Page> {
        for region in &self.inner.regions {
            let within = at.0.wrapping_sub(region.start.0);
            if within < region.len {
                let offset = (region.offset + within) & !(PAGE_SIZE - 1);
                let host = self.inner.map.at(offset as usize);
                return Some(Page { host, index: (offset / PAGE_SIZE) as usize });
            }
        }
        None
    }

    /// Host address of `at` when `len` bytes from there lie in one region.
    pub(crate) fn host(&self, at: Gpa, len: usize) -> Result<(*mut u8, u64), Error> {
        let wanted = len as u64;
        for region in &self.inner.regions {
            let within = at.0.wrapping_sub(region.start.0);
            if within < region.len && wanted <= region.len - within {
                let offset = region.offset + within;
                return Ok((self.inner.map.at(offset as usize), offset));
            }
        }
        Err(Error::OutOfRange { at, len: wanted })
    }

    /// Whether `len` bytes from `at` are RAM (in one region).
    #[must_use]
    pub fn contains(&self, at: Gpa, len: u64) -> bool {
        usize::try_from(len).is_ok_and(|len| self.host(at, len).is_ok())
    }

    /// Has the host gather the stretch at an offset in the memory file into a huge page. Returns
    /// whether it makes sense to ask for others.
    pub(crate) fn gather(&self, offset: usize) -> bool {
        self.inner.map.gather(offset)
    }

    pub(crate) fn note_range(&self, offset: u64, len: usize) {
        if len == 0 {
            return;
        }
        let first = (offset / PAGE_SIZE) as usize;
        let last = ((offset + len as u64 - 1) / PAGE_SIZE) as usize;
        for page in first..=last {
            self.inner.pages.note_write(page);
        }
    }

    /// Copies bytes out of RAM. Not atomic.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; then `buf` is untouched.
    pub fn read(&self, at: Gpa, buf: &mut [u8]) -> Result<(), Error> {
        let (host, _) = self.host(at, buf.len())?;
        crate::sys::copy_from(host, buf);
        Ok(())
    }

    /// Copies bytes into RAM. Not atomic.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; then nothing is written.
    pub fn write(&self, at: Gpa, buf: &[u8]) -> Result<(), Error> {
        let (host, offset) = self.host(at, buf.len())?;
        crate::sys::copy_to(host, buf);
        self.note_range(offset, buf.len());
        Ok(())
    }

    /// Fills RAM with a byte.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; then nothing is written.
    pub fn fill(&self, at: Gpa, len: usize, byte: u8) -> Result<(), Error> {
        let (host, offset) = self.host(at, len)?;
        crate::sys::fill(host, len, byte);
        self.note_range(offset, len);
        Ok(())
    }

    /// Reads `len` bytes into a new vector. The caller bounds `len` (wall 5).
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn read_vec(&self, at: Gpa, len: usize) -> Result<Vec<u8>, Error> {
        self.host(at, len)?;
        let mut buf = vec![0; len];
        self.read(at, &mut buf)?;
        Ok(buf)
    }
}

/// Bytes copied at a time between memory and a file.
const COPY_CHUNK: usize = 1 << 20;

impl GuestMemory {
    /// Writes all of RAM to a file, in the layout of the memory file; pages of zeros become holes.
    ///
    /// # Errors
    /// [`Error::Copy`].
    pub fn write_to(&self, file: &std::fs::File) -> Result<(), Error> {
        use std::os::unix::fs::FileExt;
        file.set_len(self.size()).map_err(Error::Copy)?;
        let mut chunk = vec![0; COPY_CHUNK];
        let mut offset = 0;
        while offset < self.size() {
            let len = COPY_CHUNK.min((self.size() - offset) as usize);
            crate::sys::copy_from(self.inner.map.at(offset as usize), &mut chunk[..len]);
            for (n, page) in chunk[..len].chunks(PAGE_SIZE as usize).enumerate() {
                if page.iter().any(|&byte| byte != 0) {
                    file.write_all_at(page, offset + n as u64 * PAGE_SIZE).map_err(Error::Copy)?;
                }
            }
            offset += len as u64;
        }
        Ok(())
    }

    /// Fills RAM, which is new and all zero, from a file that [`write_to`](Self::write_to) wrote.
    ///
    /// # Errors
    /// [`Error::Copy`]; also when the file is of another size.
    pub fn read_from(&self, file: &std::fs::File) -> Result<(), Error> {
        use std::os::unix::fs::FileExt;
        if file.metadata().map_err(Error::Copy)?.len() != self.size() {
            let message = "the memory file is not as large as the machine's memory";
            return Err(Error::Copy(std::io::Error::new(std::io::ErrorKind::InvalidData, message)));
        }
        let mut page = [0; PAGE_SIZE as usize];
        let mut offset = 0;
        while offset < self.size() {
            // Holes are skipped without reading them.
            match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
                Ok(data) => offset = data & !(PAGE_SIZE - 1),
                Err(rustix::io::Errno::NXIO) => return Ok(()),
                Err(error) => return Err(Error::Copy(error.into())),
            }
            if offset >= self.size() {
                break;
            }
            file.read_exact_at(&mut page, offset).map_err(Error::Copy)?;
            if page.iter().any(|&byte| byte != 0) {
                crate::sys::copy_to(self.inner.map.at(offset as usize), &page);
                self.inner.pages.note_write((offset / PAGE_SIZE) as usize);
            }
            offset += PAGE_SIZE;
        }
        Ok(())
    }
}

macro_rules! atomics {
    ($($load:ident $store:ident $int:ty, $atomic:ty;)*) => {$(
        impl GuestMemory {
            #[doc = concat!("Reads a little-endian `", stringify!($int), "`; atomic (acquire) when naturally aligned.")]
            ///
            /// # Errors
            /// [`Error::OutOfRange`].
            pub fn $load(&self, at: Gpa) -> Result<$int, Error> {
                let (host, _) = self.host(at, size_of::<$int>())?;
                if at.0 % size_of::<$int>() as u64 == 0 {
                    let cell = crate::sys::atomic::<$atomic>(host);
                    return Ok(<$int>::from_le(cell.load(Ordering::Acquire)));
                }
                let mut bytes = [0; size_of::<$int>()];
                self.read(at, &mut bytes)?;
                Ok(<$int>::from_le_bytes(bytes))
            }

            #[doc = concat!("Writes a little-endian `", stringify!($int), "`; atomic (release) when naturally aligned.")]
            ///
            /// # Errors
            /// [`Error::OutOfRange`].
            pub fn $store(&self, at: Gpa, value: $int) -> Result<(), Error> {
                let (host, offset) = self.host(at, size_of::<$int>())?;
                if at.0 % size_of::<$int>() as u64 != 0 {
                    return self.write(at, &value.to_le_bytes());
                }
                let cell = crate::sys::atomic::<$atomic>(host);
                cell.store(value.to_le(), Ordering::Release);
                self.note_range(offset, size_of::<$int>());
                Ok(())
            }
        }
    )*};
}

atomics! {
    read_u16 write_u16 u16, AtomicU16;
    read_u32 write_u32 u32, AtomicU32;
    read_u64 write_u64 u64, AtomicU64;
}

#[cfg(test)]
#[path = "ram_test.rs"]
mod tests;
