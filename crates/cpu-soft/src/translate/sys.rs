//! What the translator needs from the host: memory for code, a stack with a frame, and the step into
//! translated code.
//!
//! Code memory is one memory file mapped twice: once to write, once to run. No mapping is both.
#![expect(unsafe_code, reason = "code is written, and run, through host addresses here")]

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect};

use super::frame::{Frame, LinkData};
use super::thread::Thread;
use crate::cpu::Cpu;
use crate::op::Op;
use crate::sys::mapping::{HUGE, Mapping};

/// Whether this host can run translated code at all.
#[must_use]
pub(crate) fn available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        // Instructions of the guest's processor model are run as they are; all processors that
        // have these have the others. LAHF in 64-bit mode is of the same age.
        std::arch::is_x86_feature_detected!("sse4.2")
            && std::arch::is_x86_feature_detected!("popcnt")
            && std::arch::is_x86_feature_detected!("ssse3")
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        false
    }
}

/// Maps code memory once more, from where a huge page can begin.
fn view(file: &OwnedFd, len: usize, protection: ProtFlags) -> io::Result<Mapping> {
    let view = Mapping::new(0, len, ProtFlags::empty())?;
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // SAFETY: within the mapping just made, which nobody else knows of.
    unsafe { mmap(view.start().cast(), len, protection, flags, file, 0) }?;
    Ok(view)
}

/// Memory for code.
#[derive(Debug)]
pub(crate) struct CodeMemory {
    write: Mapping,
    run: Mapping,
    len: usize,
    /// A bit for each stretch of [`HUGE`] bytes that the mapping to write may have, and how many
    /// these are.
    written: Box<[AtomicU64]>,
    count: AtomicUsize,
}

/// Most stretches that are mapped to be written: the host counts a page once for each mapping.
const MOST_WRITTEN: usize = 6;

impl CodeMemory {
    /// `len` bytes, taken from the host as they are touched.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let file = memfd_create("riad-code", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        Ok(Self {
            write: view(&file, len, ProtFlags::READ | ProtFlags::WRITE)?,
            run: view(&file, len, ProtFlags::READ | ProtFlags::EXEC)?,
            len,
            written: (0..len.div_ceil(HUGE * 64)).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicUsize::new(0),
        })
    }

    /// Has the host gather the huge pages' worth of code that ends in `range` into huge pages: code is
    /// found through few entries of the host's TLB then. What is there stays and may be run meanwhile.
    /// Where the host has none to give, all stays as it is.
    pub(crate) fn gather(&self, range: Range<u32>) {
        let end = (range.end as usize).min(self.len) / HUGE;
        for stretch in range.start as usize / HUGE..end {
            // SAFETY: a stretch of the mapping, whose contents do not change.
            unsafe {
                let start = self.run.start().add(stretch * HUGE);
                libc::madvise(start.cast(), HUGE, libc::MADV_COLLAPSE);
            }
        }
    }

    /// Host address at which the code at `offset` runs.
    pub(crate) fn address(&self, offset: u32) -> u64 {
        self.run.start().expose_provenance() as u64 + u64::from(offset)
    }

    /// Writes code that nothing runs yet. What does not fit is left out.
    pub(crate) fn write(&self, offset: u32, code: &[u8]) {
        let offset = offset as usize;
        if offset.checked_add(code.len()).is_none_or(|end| end > self.len) {
            return;
        }
        for stretch in offset / HUGE..(offset + code.len()).div_ceil(HUGE) {
            self.will_write(stretch);
        }
        // SAFETY: within the mapping, as just checked; the two do not overlap.
        unsafe {
            let to = self.write.start().add(offset);
            std::ptr::copy_nonoverlapping(code.as_ptr(), to, code.len());
        }
    }

    /// A stretch will be written. When there are many such, the host takes the mapping's pages back: what
    /// they hold stays in the file, and the next access maps them again. Callers take turns.
    fn will_write(&self, stretch: usize) {
        let Some(bits) = self.written.get(stretch / 64) else { return };
        let bit = 1 << (stretch % 64);
        if bits.load(Ordering::Relaxed) & bit != 0 {
            return;
        }
        if self.count.load(Ordering::Relaxed) >= MOST_WRITTEN {
            // SAFETY: the whole mapping, which is a shared one of a file: nothing is lost.
            let _ = unsafe {
                let start = self.write.start().cast();
                rustix::mm::madvise(start, self.len, rustix::mm::Advice::LinuxDontNeed)
            };
            self.written.iter().for_each(|bits| bits.store(0, Ordering::Relaxed));
            self.count.store(0, Ordering::Relaxed);
        }
        bits.fetch_or(bit, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The data of a link at `offset`.
    pub(crate) fn link_data(&self, offset: u32) -> Option<LinkData> {
        let end = (offset as usize).checked_add(LinkData::BYTES)?;
        if end > self.len {
            return None;
        }
        let mut words = [[0u8; 4]; 3];
        // SAFETY: within the mapping, as just checked; the bytes were written before code that leads
        // to them could run.
        unsafe {
            let from = self.run.start().add(offset as usize);
            std::ptr::copy_nonoverlapping(from, words.as_mut_ptr().cast(), LinkData::BYTES);
        }
        let [site, page, place] = words.map(u32::from_le_bytes);
        Some(LinkData { site, page, place })
    }

    /// The eight bytes at `offset`, a multiple of 8, as one atomic value: other processors may run
    /// them meanwhile, and see all old or all new bytes.
    fn cell(&self, offset: u32) -> &AtomicU64 {
        let offset = (offset as usize & !7).min(self.len - 8);
        // SAFETY: aligned, within the mapping, and only ever reached as an atomic once code runs.
        unsafe { &*self.write.start().add(offset).cast::<AtomicU64>() }
    }

    /// Replaces `bytes.len()` (at most 8) bytes at `offset` at once. They lie in one aligned cell
    /// of 8 bytes.
    pub(crate) fn patch(&self, offset: u32, bytes: &[u8]) {
        self.will_write(offset as usize / HUGE);
        let cell = self.cell(offset);
        let mut content = cell.load(Ordering::Relaxed).to_le_bytes();
        let first = (offset & 7) as usize;
        if let Some(place) = content.get_mut(first..first + bytes.len()) {
            place.copy_from_slice(bytes);
            cell.store(u64::from_le_bytes(content), Ordering::SeqCst);
        }
    }
}

/// Bytes of stack below the frame: for functions that translated code calls, and for signals.
const STACK: usize = 1 << 20;
const PAGE: usize = 4096;
/// Bytes of the frame, in whole pages.
const FRAME: usize = size_of::<Frame>().next_multiple_of(PAGE);

/// A processor's frame, with the stack below it and a page that nothing reads above.
#[derive(Debug)]
pub(crate) struct FrameMemory {
    /// The stack first.
    map: Mapping,
}

impl FrameMemory {
    /// A frame, all zero.
    pub(crate) fn new() -> io::Result<Self> {
        const { assert!(STACK + FRAME + 2 * PAGE <= HUGE) };
        // All of this lies in one huge page when the host has one: translated code is here all the
        // time.
        let map = Mapping::new(PAGE, HUGE, ProtFlags::READ | ProtFlags::WRITE)?;
        map.want_huge_pages(HUGE);
        // SAFETY: within the mapping, which nothing uses. A stack that grows too far ends the process
        // there.
        unsafe { mprotect(map.start().sub(PAGE).cast(), PAGE, MprotectFlags::empty()) }?;
        Ok(Self { map })
    }

    fn at(&self, offset: usize) -> *mut u8 {
        self.map.start().wrapping_add(offset)
    }

    /// The frame.
    pub(crate) fn frame(&self) -> *const Frame {
        self.at(STACK).cast_const().cast()
    }

    /// The flag that makes translated code come out.
    pub(crate) fn attention(&self) -> &std::sync::atomic::AtomicU32 {
        // SAFETY: the field is an atomic in memory that lives as long as `self`, and is never
        // reached in another way than as one.
        unsafe { &*std::ptr::addr_of!((*self.frame()).attention) }
    }

    /// Host address of a page that nobody reads, and of the state byte of a page that was written.
    pub(crate) fn sink(&self) -> (u64, u64) {
        let sink = self.at(STACK + FRAME);
        let state = self.at(STACK + FRAME + PAGE);
        // SAFETY: both are pages of the mapping that hold nothing else.
        unsafe { state.write(riad_memory::PageState::DIRTY) };
        (sink.expose_provenance() as u64, state.expose_provenance() as u64)
    }
}

/// Runs translated code at host address `target` until it comes out. Returns the reason.
///
/// `enter` is the code cache's way in, `target` a block's entry in the same cache, which stays while
/// this runs.
pub(crate) fn run(enter: u64, frame: *const Frame, target: u64) -> u32 {
    // SAFETY: `enter` is the address of the routine that the translator wrote for this signature;
    // it keeps what the calling convention says is the caller's. Translated code reaches memory
    // only through the frame: guest pages that the TLB gave, the sink, and the processor.
    unsafe {
        let enter: extern "C" fn(*const Frame, u64) -> u32 =
            std::mem::transmute(std::ptr::with_exposed_provenance::<u8>(enter as usize));
        enter(frame, target)
    }
}

/// A processor's frame, for its own thread.
pub(crate) fn frame(memory: &FrameMemory) -> &Frame {
    // SAFETY: the frame lives as long as its memory. All but the attention flag, which is an atomic,
    // is reached by the processor's own thread only.
    unsafe { &*memory.frame() }
}

/// The op that translated code names.
pub(crate) fn op<'a>(op: *const Op) -> &'a Op {
    // SAFETY: the cache keeps ops as long as the code that names them, and whoever runs that code
    // keeps it from being replaced.
    unsafe { &*op }
}

/// Lends the thread that runs translated code on this processor.
pub(crate) fn lent_thread(cpu: &mut Cpu, use_it: impl FnOnce(&mut Thread, &mut Cpu)) {
    let thread = cpu.lent_thread.load(Ordering::Relaxed);
    if !thread.is_null() {
        // SAFETY: set by `Thread::run` for as long as translated code runs, which does not use
        // itself meanwhile.
        use_it(unsafe { &mut *thread }, cpu);
    }
}

/// The processor and the frame that translated code hands to a function it calls.
///
/// Only for the pointers that translated code passes: to the processor that runs it, which has lent
/// itself and its frame for as long as that code runs.
pub(crate) fn lent<'a>(cpu: *mut Cpu, frame: *const Frame) -> (&'a mut Cpu, &'a Frame) {
    // SAFETY: `Thread::run` put these pointers into the frame and does not use them meanwhile.
    unsafe { (&mut *cpu, &*frame) }
}
