//! The host's side: the memory file, its mapping, and raw copies. The only `unsafe` of this crate.
#![expect(unsafe_code, reason = "mapping memory and copying to it is what this module is for")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of what the host may keep as one page. x86-64 and aarch64 with pages of 4 KiB agree.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Bytes, at least, before and behind a mapping at which nothing lies that could be read or written:
/// whoever runs off an end ends the process instead of meeting memory of the host's.
pub(crate) const GUARD: usize = HUGE_PAGE;

/// A memory file, mapped shared, readable and writable, with a guard at each end.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// A multiple of [`HUGE_PAGE`].
    base: *mut u8,
    len: usize,
    file: OwnedFd,
    /// The whole, with the guards.
    start: *mut u8,
}

// SAFETY: the mapping is plain shared memory; every access through it is a raw copy or an atomic,
// never a Rust reference to non-atomic data, so threads may share it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(len: usize) -> std::io::Result<Self> {
        let file = rustix::fs::memfd_create("riad-guest-memory", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        let whole = Self::whole(len).ok_or(std::io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh mapping at an address the kernel picks touches nothing of ours; nothing can
        // be done with it.
        let start = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), whole, ProtFlags::empty(), flags)?
        };
        let start = start.cast::<u8>();
        let before = (start.addr() + GUARD).next_multiple_of(HUGE_PAGE) - start.addr();
        let mapping = Self { base: start.wrapping_add(before), len, file, start };
        // SAFETY: replaces the middle of the mapping just made, which nobody else knows of.
        unsafe {
            rustix::mm::mmap(
                mapping.base.cast(),
                len.max(1),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED,
                &mapping.file,
                0,
            )?
        };
        Ok(mapping)
    }

    /// Bytes of a mapping with its guards, which are whole pages, wherever it begins.
    fn whole(len: usize) -> Option<usize> {
        len.max(1).checked_next_multiple_of(4096)?.checked_add(2 * GUARD + HUGE_PAGE)
    }

    /// Has the host gather the huge page's worth of memory at `offset` into one huge page; what it
    /// holds stays. Returns whether the host knows what is meant, and may do so for others.
    pub(crate) fn gather(&self, offset: usize) -> bool {
        let whole = offset.is_multiple_of(HUGE_PAGE);
        if !whole || offset.checked_add(HUGE_PAGE).is_none_or(|end| end > self.len) {
            return true;
        }
        // SAFETY: a stretch of this mapping; its contents do not change.
        let refused =
            unsafe { libc::madvise(self.at(offset).cast(), HUGE_PAGE, libc::MADV_COLLAPSE) != 0 };
        // EINVAL: a kernel older than this advice. Others: no huge page is free, or the moment is bad.
        let error = std::io::Error::last_os_error();
        !(refused && error.raw_os_error() == Some(libc::EINVAL))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Host address of byte `offset`.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.len, "offset beyond the mapping");
        // SAFETY: the offset lies within the mapping.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`; nothing outlives the `GuestMemory` that owns it.
        // A failure leaves the mapping in place, which harms nothing.
        let _ = unsafe {
            let whole = Self::whole(self.len).unwrap_or_default();
            rustix::mm::munmap(self.start.cast(), whole)
        };
    }
}

/// Copies guest bytes out. `host` and the following `buf.len()` bytes were bounds-checked.
pub(crate) fn copy_from(host: *const u8, buf: &mut [u8]) {
    // SAFETY: the caller checked that the range lies in the mapping; `buf` is ours and cannot
    // overlap it. The guest may write concurrently: bytes may tear, which the guest brought on itself.
    unsafe { std::ptr::copy_nonoverlapping(host, buf.as_mut_ptr(), buf.len()) }
}

/// Copies bytes into the guest. `host` and the following `buf.len()` bytes were bounds-checked.
pub(crate) fn copy_to(host: *mut u8, buf: &[u8]) {
    // SAFETY: as in `copy_from`.
    unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), host, buf.len()) }
}

/// A run of guest bytes, as the kernel takes it. It was bounds-checked, and stays in the mapping while
/// the `GuestMemory` that it came from is there.
#[repr(transparent)]
pub(crate) struct Part(libc::iovec);

impl Part {
    pub(crate) fn new(host: *mut u8, len: usize) -> Self {
        Self(libc::iovec { iov_base: host.cast(), iov_len: len })
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Leaves out its first bytes, of which it has as many at least.
    pub(crate) fn skip(&mut self, count: usize) {
        let count = count.min(self.0.iov_len);
        self.0.iov_base = self.0.iov_base.wrapping_byte_add(count);
        self.0.iov_len -= count;
    }
}

/// Reads from a file into guest bytes; with `now`, only what the host has in its memory. Gives how many
/// bytes there were.
pub(crate) fn read_file(
    file: BorrowedFd<'_>,
    parts: &[Part],
    at: u64,
    now: bool,
) -> io::Result<usize> {
    let (count, at) = (count(parts), offset(at)?);
    let flags = if now { libc::RWF_NOWAIT } else { 0 };
    // SAFETY: the parts are within the mapping, which the kernel writes as a processor would: see
    // `copy_to`. They have the layout of `iovec`.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), parts.as_ptr().cast(), count, at, flags) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error());
    match read {
        // A file system that cannot tell what is in memory.
        Err(error) if now && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        read => read,
    }
}

/// Writes guest bytes to a file. Gives how many it took.
pub(crate) fn write_file(file: BorrowedFd<'_>, parts: &[Part], at: u64) -> io::Result<usize> {
    let (count, at) = (count(parts), offset(at)?);
    // SAFETY: as in `read_file`; the kernel only reads.
    let written = unsafe { libc::pwritev(file.as_raw_fd(), parts.as_ptr().cast(), count, at) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

fn count(parts: &[Part]) -> libc::c_int {
    libc::c_int::try_from(parts.len()).unwrap_or(libc::c_int::MAX)
}

fn offset(at: u64) -> io::Result<i64> {
    i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Fills guest bytes. `host` and the following `len` bytes were bounds-checked.
pub(crate) fn fill(host: *mut u8, len: usize, byte: u8) {
    // SAFETY: as in `copy_from`.
    unsafe { std::ptr::write_bytes(host, byte, len) }
}

/// Views an aligned, bounds-checked guest address as an atomic.
pub(crate) fn atomic<'a, A>(host: *mut u8) -> &'a A {
    // SAFETY: the caller checked bounds and alignment; `A` is one of the std atomics, for which
    // any bit pattern is valid and concurrent access is defined.
    unsafe { &*host.cast::<A>() }
}
