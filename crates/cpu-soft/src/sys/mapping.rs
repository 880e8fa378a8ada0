//! Memory that begins where a huge page can.
#![expect(unsafe_code, reason = "memory is mapped, and what lies in it lent, here")]

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use zerocopy::FromZeros;

/// Bytes of a huge page of an x86-64 host.
pub(crate) const HUGE: usize = 2 << 20;

/// Bytes of the process's own, which begin at a multiple of [`HUGE`], with some before them. All zero
/// at first, taken from the host as they are touched, and unmapped when this is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: NonNull<u8>,
    room: usize,
    /// Where in it the bytes begin.
    before: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; who writes where is its owners' matter.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` bytes, and at least `before` in front of them.
    ///
    /// # Errors
    /// The host's, when it has no room.
    pub(crate) fn new(before: usize, len: usize, protection: ProtFlags) -> io::Result<Self> {
        let room = before + len + HUGE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, wherever the host likes.
        let map = unsafe { mmap_anonymous(std::ptr::null_mut(), room, protection, flags) }?;
        let map = NonNull::new(map.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let before = (map.addr().get() + before).next_multiple_of(HUGE) - map.addr().get();
        Ok(Self { map, room, before })
    }

    /// Where the bytes begin.
    pub(crate) fn start(&self) -> *mut u8 {
        self.map.as_ptr().wrapping_add(self.before)
    }

    /// Has the first `len` bytes lie in huge pages where the host has some, for what is used all the
    /// time: it is found through few entries of the host's TLB then.
    pub(crate) fn want_huge_pages(&self, len: usize) {
        // SAFETY: where the bytes lie does not change what they are.
        let _ = unsafe { madvise(self.start().cast(), len, Advice::LinuxHugepage) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this type, and what pointed into it is gone with its owner.
        let _ = unsafe { munmap(self.map.as_ptr().cast(), self.room) };
    }
}

/// A large value in huge pages, zero at first.
#[derive(Debug)]
pub(crate) struct Huge<T> {
    mapping: Mapping,
    value: PhantomData<T>,
}

impl<T: FromZeros> Default for Huge<T> {
    /// As for a box, the process ends when there is no room for it.
    fn default() -> Self {
        const { assert!(align_of::<T>() <= HUGE) };
        let len = size_of::<T>().next_multiple_of(HUGE);
        let Ok(mapping) = Mapping::new(0, len, ProtFlags::READ | ProtFlags::WRITE) else {
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<T>());
        };
        mapping.want_huge_pages(len);
        Self { mapping, value: PhantomData }
    }
}

impl<T> Deref for Huge<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: aligned and long enough, zero at first, which is a value, and reached by this alone.
        unsafe { &*self.mapping.start().cast() }
    }
}

impl<T> DerefMut for Huge<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.mapping.start().cast() }
    }
}
