//! Loads and stores to guest memory through host addresses: the only `unsafe` of the interpreter.
//!
//! Aligned accesses are single atomic operations, acquire and release, which is x86's memory order
//! but for store-to-load reordering, and costs nothing on an x86-64 host.
#![expect(unsafe_code, reason = "guest memory is reached by host address here")]

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A value that can lie in guest memory.
pub trait Mem: Copy + Eq + std::fmt::Debug + 'static {
    /// Bytes.
    const SIZE: usize;
    /// Loads from a host address.
    ///
    /// # Safety
    /// `at` and the following `SIZE` bytes lie in a guest memory mapping.
    unsafe fn load(at: *const u8) -> Self;
    /// Stores to a host address.
    ///
    /// # Safety
    /// As for [`load`](Self::load).
    unsafe fn store(at: *mut u8, value: Self);
    /// Atomically replaces `old` by `new`; `Err` has what was there.
    ///
    /// # Safety
    /// As for [`load`](Self::load).
    unsafe fn swap_if(at: *mut u8, old: Self, new: Self) -> Result<(), Self>;
    /// From little-endian bytes, the first `SIZE` of `bytes`.
    fn from_bytes(bytes: &[u8; 16]) -> Self;
    /// To little-endian bytes.
    fn to_bytes(self) -> [u8; 16];
}

/// Serialises locked operations across two pages, and on other hosts than x86-64 all that do not lie
/// within an aligned 8-byte cell.
static SPLIT_LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Holds back other locked operations that are split, while the caller carries out its own.
pub(crate) fn split_lock() -> std::sync::MutexGuard<'static, ()> {
    SPLIT_LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Atomically replaces `old` by `new` where they are not aligned. Translated code has the host's
/// processor do this, so the interpreter must too, or the two would not exclude each other.
///
/// # Safety
/// As for [`Mem::load`].
#[cfg(target_arch = "x86_64")]
unsafe fn swap_unaligned<T: Mem>(at: *mut u8, old: T, new: T) -> Result<(), T> {
    let word = |value: T| u64::from_le_bytes(*value.to_bytes().first_chunk().unwrap_or(&[0; 8]));
    let (mut there, new) = (word(old), word(new));
    let same: u8;
    // SAFETY: in the mapping by contract, and LOCK takes any address.
    unsafe {
        match T::SIZE {
            2 => std::arch::asm!("lock cmpxchg [{at}], {new:x}", "sete {same}", at = in(reg) at,
                new = in(reg) new, same = out(reg_byte) same, inout("rax") there),
            4 => std::arch::asm!("lock cmpxchg [{at}], {new:e}", "sete {same}", at = in(reg) at,
                new = in(reg) new, same = out(reg_byte) same, inout("rax") there),
            _ => std::arch::asm!("lock cmpxchg [{at}], {new}", "sete {same}", at = in(reg) at,
                new = in(reg) new, same = out(reg_byte) same, inout("rax") there),
        }
    }
    if same != 0 { Ok(()) } else { Err(T::from_bytes(&u128::from(there).to_le_bytes())) }
}

/// Atomically replaces `old` by `new` where they are not aligned: within an aligned 8-byte cell by
/// way of that, otherwise exclusive among the split ones.
///
/// # Safety
/// As for [`Mem::load`].
#[cfg(not(target_arch = "x86_64"))]
unsafe fn swap_unaligned<T: Mem>(at: *mut u8, old: T, new: T) -> Result<(), T> {
    let within = at.addr() % 8;
    if within + T::SIZE <= 8 {
        // SAFETY: the aligned 8 bytes around lie in the same page, so in the mapping.
        let cell = unsafe { &*at.wrapping_sub(within).cast::<AtomicU64>() };
        let mut word = cell.load(Ordering::SeqCst);
        loop {
            let bytes = word.to_ne_bytes();
            let mut value = [0; 16];
            value[..T::SIZE].copy_from_slice(&bytes[within..within + T::SIZE]);
            let there = T::from_bytes(&value);
            if there != old {
                return Err(there);
            }
            let mut wanted = bytes;
            wanted[within..within + T::SIZE].copy_from_slice(&new.to_bytes()[..T::SIZE]);
            let wanted = u64::from_ne_bytes(wanted);
            match cell.compare_exchange(word, wanted, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        }
    }
    let _exclusive = split_lock();
    // SAFETY: as in the contract.
    let there = unsafe { T::load(at) };
    if there != old {
        return Err(there);
    }
    // SAFETY: as in the contract.
    unsafe { T::store(at, new) };
    Ok(())
}

macro_rules! mem {
    ($($t:ty, $atomic:ty;)*) => {$(
        impl Mem for $t {
            const SIZE: usize = size_of::<$t>();
            #[inline(always)]
            unsafe fn load(at: *const u8) -> Self {
                if at.addr() % size_of::<$t>() == 0 {
                    // SAFETY: in the mapping by contract, aligned as just checked.
                    <$t>::from_le(unsafe { &*at.cast::<$atomic>() }.load(Ordering::Acquire))
                } else {
                    // SAFETY: in the mapping by contract. A racing guest gets torn bytes, as it
                    // may on hardware.
                    <$t>::from_le(unsafe { at.cast::<$t>().read_unaligned() })
                }
            }
            #[inline(always)]
            unsafe fn store(at: *mut u8, value: Self) {
                if at.addr() % size_of::<$t>() == 0 {
                    // SAFETY: as in `load`.
                    unsafe { &*at.cast::<$atomic>() }.store(value.to_le(), Ordering::Release);
                } else {
                    // SAFETY: as in `load`.
                    unsafe { at.cast::<$t>().write_unaligned(value.to_le()) };
                }
            }
            unsafe fn swap_if(at: *mut u8, old: Self, new: Self) -> Result<(), Self> {
                if at.addr() % size_of::<$t>() == 0 {
                    // SAFETY: as in `load`.
                    let cell = unsafe { &*at.cast::<$atomic>() };
                    return cell
                        .compare_exchange(old.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst)
                        .map(|_| ())
                        .map_err(<$t>::from_le);
                }
                // SAFETY: in the mapping by contract.
                unsafe { swap_unaligned(at, old, new) }
            }
            #[inline]
            fn from_bytes(bytes: &[u8; 16]) -> Self {
                let mut mine = [0; size_of::<$t>()];
                mine.copy_from_slice(&bytes[..size_of::<$t>()]);
                <$t>::from_le_bytes(mine)
            }
            #[inline]
            fn to_bytes(self) -> [u8; 16] {
                let mut all = [0; 16];
                all[..size_of::<$t>()].copy_from_slice(&self.to_le_bytes());
                all
            }
        }
    )*};
}

mem! { u8, AtomicU8; u16, AtomicU16; u32, AtomicU32; u64, AtomicU64; }

impl Mem for u128 {
    const SIZE: usize = 16;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: in the mapping by contract. x86 promises no atomicity for 16 bytes here.
        u128::from_le(unsafe { at.cast::<u128>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(at: *mut u8, value: Self) {
        // SAFETY: as in `load`.
        unsafe { at.cast::<u128>().write_unaligned(value.to_le()) };
    }
    unsafe fn swap_if(at: *mut u8, old: Self, new: Self) -> Result<(), Self> {
        #[cfg(target_arch = "x86_64")]
        {
            // CMPXCHG16B: its operand is aligned, or it would have faulted.
            let (mut low, mut high) = (old as u64, (old >> 64) as u64);
            let same: u8;
            // SAFETY: in the mapping by contract, aligned by the instruction's own check; every
            // x86-64-v2 host has the instruction. RBX is saved around, as LLVM reserves it.
            unsafe {
                std::arch::asm!(
                    "xchg rbx, {new_low}",
                    "lock cmpxchg16b [{at}]",
                    "sete {same}",
                    "mov rbx, {new_low}",
                    at = in(reg) at,
                    new_low = inout(reg) new as u64 => _,
                    same = out(reg_byte) same,
                    inout("rax") low,
                    inout("rdx") high,
                    in("rcx") (new >> 64) as u64,
                );
            }
            if same != 0 { Ok(()) } else { Err(u128::from(low) | u128::from(high) << 64) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _exclusive = split_lock();
            // SAFETY: as in `load`.
            let there = unsafe { Self::load(at) };
            if there != old {
                return Err(there);
            }
            // SAFETY: as in `load`.
            unsafe { Self::store(at, new) };
            Ok(())
        }
    }
    #[inline]
    fn from_bytes(bytes: &[u8; 16]) -> Self {
        u128::from_le_bytes(*bytes)
    }
    #[inline]
    fn to_bytes(self) -> [u8; 16] {
        self.to_le_bytes()
    }
}

/// Loads from a host address that the soft TLB or the page walk produced.
#[inline(always)]
pub(crate) fn load<T: Mem>(at: *const u8) -> T {
    // SAFETY: such addresses lie in the guest memory mapping that the processor keeps alive, and
    // the caller checked that the value does not leave the page.
    unsafe { T::load(at) }
}

/// Stores to a host address that the soft TLB or the page walk produced.
#[inline(always)]
pub(crate) fn store<T: Mem>(at: *mut u8, value: T) {
    // SAFETY: as in `load`.
    unsafe { T::store(at, value) }
}

/// Atomically replaces a value at a host address that the soft TLB or the page walk produced.
#[inline]
pub(crate) fn swap_if<T: Mem>(at: *mut u8, old: T, new: T) -> Result<(), T> {
    // SAFETY: as in `load`.
    unsafe { T::swap_if(at, old, new) }
}

/// Copies between two host addresses within their pages; ascending, byte by byte as far as the
/// guest can tell. Overlap is the caller's matter.
pub(crate) fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: both ranges lie within pages of the mapping, as the caller checked.
    unsafe { std::ptr::copy(from, to, len) }
}

/// Copies bytes out of the page at a host address.
pub(crate) fn copy_out(from: *const u8, bytes: &mut [u8]) {
    // SAFETY: the range lies within a page of the mapping, as the caller checked; `bytes` is ours.
    unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) }
}

/// Copies bytes from a host address to the end of its page, as many as fit. Returns those.
pub(crate) fn copy_to_page_end(from: *const u8, bytes: &mut [u8]) -> &[u8] {
    let room = (4096 - (from.addr() & 0xfff)).min(bytes.len());
    let bytes = &mut bytes[..room];
    copy_out(from, bytes);
    bytes
}

/// Fills at a host address within its page.
pub(crate) fn fill(at: *mut u8, pattern: &[u8], count: usize) {
    if let [byte] = *pattern {
        // SAFETY: the range lies within a page of the mapping, as the caller checked.
        unsafe { std::ptr::write_bytes(at, byte, count) };
        return;
    }
    for i in 0..count {
        // SAFETY: as above.
        unsafe {
            std::ptr::copy_nonoverlapping(
                pattern.as_ptr(),
                at.add(i * pattern.len()),
                pattern.len(),
            )
        };
    }
}

/// The page-state bytes of a guest memory, reached without a bounds check: it is done for every
/// store. The processor keeps the memory they belong to alive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct States(*const AtomicU8);

// SAFETY: the bytes behind the pointer are atomics in memory that outlives the processor.
unsafe impl Send for States {}

impl States {
    /// The states in this table.
    pub(crate) fn of(pages: &riad_memory::PageTable) -> Self {
        Self(if pages.is_empty() { std::ptr::null() } else { pages.state(0) })
    }

    /// Host address of the first.
    pub(crate) fn address(self) -> u64 {
        self.0.expose_provenance() as u64
    }

    /// The state of a page that the page walk found in RAM.
    #[inline(always)]
    pub(crate) fn at(&self, page: usize) -> &AtomicU8 {
        // SAFETY: `page` came from a host address within RAM, and there is one byte for each page.
        unsafe { &*self.0.add(page) }
    }
}

/// A host address `by` bytes further on, within the same page or mapping.
#[inline(always)]
pub(crate) fn offset(at: *mut u8, by: usize) -> *mut u8 {
    at.wrapping_add(by)
}
