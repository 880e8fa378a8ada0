//! Memory as instructions see it: effective addresses, segmentation, the soft TLB, the stack.
//!
//! The TLB is direct-mapped, one table for each *view*: what the current privilege may touch. Its
//! tags carry a generation, so that a flush is one addition, and going back to an address space
//! that was flushed away from (PCID) finds its entries again. The upper half of the address space has
//! a generation of its own: kernels map it globally, and then it is the same in every space.

use std::sync::atomic::Ordering;

use riad_memory::{Gpa, PageState};
use zerocopy::FromZeros;

use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::lockstep::Rehearsal;
use crate::mmu::{Access, Translation};
use crate::op::{Op, gpr, seg};
use crate::raw;
pub use crate::raw::Mem;
use crate::sys::mapping::Huge;

/// Entries of one view's table.
pub(crate) const ENTRIES: usize = 8192;
const PAGE: u64 = 0xfff;
/// Most pages that are flushed one by one before all are.
const MOST_FLUSHED: usize = 64;

/// One translation. Tags are page address | generation; a tag of 0 matches nothing.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, FromZeros)]
pub(crate) struct Entry {
    pub(crate) read: u64,
    pub(crate) write: u64,
    pub(crate) exec: u64,
    /// Host address minus linear address.
    pub(crate) addend: usize,
}

impl Entry {
    /// Host address of the byte at `address`, which the entry is for.
    #[inline(always)]
    pub(crate) fn host(&self, address: u64) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.addend.wrapping_add(address as usize))
    }
}

/// What the soft TLB knows, by the low bits of a page's number. It lies in one huge page: every look
/// at it is at another place.
#[repr(C)]
#[derive(Debug, FromZeros)]
pub(crate) struct Tables {
    pub(crate) views: [[Entry; ENTRIES]; 4],
    /// Tags of executable entries that were cut from large pages.
    large_exec: [u64; ENTRIES],
}

impl Tables {
    /// Where a view has what it knows of an address's page: perhaps of another one's.
    #[inline(always)]
    pub(crate) fn entry(&self, view: usize, address: u64) -> &Entry {
        &self.views[view][Tlb::slot(address)]
    }
}

/// The soft TLB.
pub struct Tlb {
    pub(crate) tables: Huge<Tables>,
    /// The current view.
    pub view: usize,
    /// Current generations of the lower and the upper half, 1 to 4095; part of every tag.
    pub(crate) generation: [u64; 2],
    /// Pages of the upper half are known that are not global.
    upper_private: bool,
    /// Last generation handed out, and how often they began anew.
    last_generation: u64,
    pub(crate) wraps: u64,
    /// Generations of address spaces that may be returned to: (PCID, CR3 base), generation.
    spaces: Vec<(u64, u64)>,
    /// For each half a range that covers all entries cut from large pages: INVLPG into it flushes
    /// all.
    large: [Option<(u64, u64)>; 2],
    /// Counts what makes copies of translations void, other than a change of [`view`](Self::view).
    pub(crate) changes: u64,
    /// Pages flushed one by one since somebody last emptied this.
    pub(crate) flushed: Vec<u64>,
    /// Host address of the first byte of RAM and of its page-state bytes.
    ram: usize,
    states: raw::States,
    /// What runs will be taken back: see `lockstep`. The tables are empty meanwhile.
    pub(crate) rehearsal: Option<Box<Rehearsal>>,
}

impl std::fmt::Debug for Tlb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tlb")
            .field("view", &self.view)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Tlb {
    /// View: CPL 3.
    pub const USER: usize = 0;
    /// View: supervisor, user pages out of bounds (SMAP).
    pub const GUARDED: usize = 1;
    /// View: supervisor.
    pub const SUPERVISOR: usize = 2;
    /// View: CPL 3 with alignment checks; its table stays empty, so every access goes the slow way.
    pub const CHECKED: usize = 3;

    /// An empty TLB for this memory.
    #[must_use]
    pub fn new(memory: &riad_memory::GuestMemory) -> Self {
        let first = memory.regions().first().map(|r| r.start).unwrap_or_default();
        let ram = memory.page(first).map_or(0, |page| page.host.addr());
        let states = raw::States::of(memory.pages());
        Self {
            tables: Huge::default(),
            view: Self::SUPERVISOR,
            generation: [1, 2],
            upper_private: false,
            last_generation: 2,
            wraps: 0,
            spaces: Vec::new(),
            large: [None; 2],
            changes: 0,
            flushed: Vec::new(),
            ram,
            states,
            rehearsal: None,
        }
    }

    /// Host address of the current view's table.
    pub(crate) fn table_address(&self) -> u64 {
        self.tables.views[self.view].as_ptr().expose_provenance() as u64
    }

    /// Host address of the first byte of RAM.
    pub(crate) fn ram_address(&self) -> u64 {
        self.ram as u64
    }

    /// Host address of the state of the first page.
    pub(crate) fn states_address(&self) -> u64 {
        self.states.address()
    }

    /// Host address of the tags of executable entries cut from large pages, by slot.
    pub(crate) fn large_address(&self) -> u64 {
        self.tables.large_exec.as_ptr().expose_provenance() as u64
    }

    /// Whether the executable page at `address`, which the TLB knows, is part of a large page.
    pub(crate) fn exec_is_large(&self, address: u64) -> bool {
        self.tables.large_exec[Self::slot(address)] == self.tag(address)
    }

    #[inline(always)]
    pub(crate) fn slot(address: u64) -> usize {
        (address >> 12) as usize & (ENTRIES - 1)
    }

    /// The current view's entry for an address's page: perhaps another one's.
    #[inline(always)]
    fn entry(&self, address: u64) -> &Entry {
        self.tables.entry(self.view, address)
    }

    fn next_generation(&mut self) -> u64 {
        self.changes += 1;
        if self.last_generation == PAGE {
            self.tables.zero();
            self.spaces.clear();
            self.large = [None; 2];
            self.wraps += 1;
            // The tables are empty: this is good for the upper half as well.
            self.generation[1] = 1;
            self.last_generation = 1;
        }
        self.last_generation += 1;
        self.last_generation
    }

    /// Forgets every translation of every address space.
    pub fn flush_all(&mut self) {
        self.spaces.clear();
        self.large = [None; 2];
        self.generation[0] = self.next_generation();
        self.generation[1] = self.next_generation();
        self.upper_private = false;
    }

    /// The tag of an address's page now.
    #[inline(always)]
    pub(crate) fn tag(&self, address: u64) -> u64 {
        address & !PAGE | self.generation[(address >> 63) as usize]
    }

    /// Forgets the upper half, when it has more than what all address spaces share.
    fn leave_space(&mut self) {
        if self.upper_private {
            self.generation[1] = self.next_generation();
            self.upper_private = false;
        }
    }

    /// Forgets every translation of address space `key`, which becomes the current one.
    pub fn flush_space(&mut self, key: u64) {
        self.leave_space();
        self.spaces.retain(|&(k, _)| k != key);
        self.generation[0] = self.next_generation();
        self.remember(key);
    }

    /// Forgets every translation of address space `key`, which is not the current one.
    pub fn forget_space(&mut self, key: u64) {
        self.spaces.retain(|&(k, _)| k != key);
    }

    /// Makes address space `key` current; its old translations are good again if they are still there.
    pub fn switch_space(&mut self, key: u64) {
        self.leave_space();
        match self.spaces.iter().find(|&&(k, _)| k == key) {
            Some(&(_, generation)) => {
                self.generation[0] = generation;
                self.changes += 1;
            }
            None => {
                self.generation[0] = self.next_generation();
                self.remember(key);
            }
        }
    }

    fn remember(&mut self, key: u64) {
        if self.spaces.len() >= 16 {
            self.spaces.remove(0);
        }
        self.spaces.push((key, self.generation[0]));
    }

    /// Forgets one page, in every address space and view.
    pub fn flush_page(&mut self, address: u64) {
        let large = self.large[(address >> 63) as usize];
        if large.is_some_and(|(first, last)| (first..=last).contains(&address)) {
            self.flush_all();
            return;
        }
        // What is checked each time is in no table.
        for table in &mut self.tables.views[..Self::CHECKED] {
            table[Self::slot(address)] = Entry::default();
        }
        self.changes += 1;
        if self.flushed.len() < MOST_FLUSHED {
            self.flushed.push(address);
        } else {
            // Nobody takes them: targets of jumps are told apart by generation.
            self.flushed.clear();
            self.flush_all();
        }
    }

    /// Host address of the executable byte at `address`, when the TLB knows it.
    #[inline(always)]
    #[must_use]
    pub(crate) fn exec(&self, address: u64) -> Option<*mut u8> {
        let entry = self.entry(address);
        (entry.exec == self.tag(address)).then(|| entry.host(address))
    }

    /// Host address of the byte at `address`, when the TLB knows that it may be written.
    #[inline]
    fn writable(&self, address: u64) -> Option<*mut u8> {
        let entry = self.entry(address);
        (entry.write == self.tag(address)).then(|| entry.host(address))
    }

    /// The page number within RAM of a host address.
    #[inline(always)]
    #[must_use]
    pub(crate) fn page_index(&self, host: *const u8) -> usize {
        host.addr().wrapping_sub(self.ram) >> 12
    }

    /// The page state byte of a host address.
    #[inline(always)]
    fn state(&self, host: *const u8) -> &std::sync::atomic::AtomicU8 {
        self.states.at(self.page_index(host))
    }

    fn insert(
        &mut self,
        view: usize,
        address: u64,
        t: &Translation,
        host: *mut u8,
        access: Access,
    ) {
        if view == Self::CHECKED {
            return;
        }
        let tag = self.tag(address);
        self.upper_private |= address >> 63 != 0 && !t.global;
        if t.large_mask != 0 {
            let (first, last) = (address & !t.large_mask, address | t.large_mask);
            let large = &mut self.large[(address >> 63) as usize];
            *large = Some(match *large {
                Some((f, l)) => (f.min(first), l.max(last)),
                None => (first, last),
            });
        }
        let addend = host.expose_provenance().wrapping_sub(address as usize);
        let Tables { views, large_exec } = &mut *self.tables;
        let entry = &mut views[view][Self::slot(address)];
        let same = entry.addend == addend
            && [entry.read, entry.write, entry.exec].iter().all(|&old| old == 0 || old == tag);
        if !same {
            *entry = Entry { addend, ..Entry::default() };
        }
        match access {
            Access::Execute => {
                entry.exec = tag;
                large_exec[Self::slot(address)] = if t.large_mask >= 0x1f_ffff { tag } else { 0 };
            }
            Access::Read => entry.read = tag,
            Access::Write => {
                entry.read = tag;
                entry.write = tag;
            }
        }
        if t.dirty_writable && access == Access::Read {
            entry.write = tag;
        }
    }
}

impl Cpu {
    // --- addresses ---

    /// The effective address of the memory operand, within its segment.
    #[inline(always)]
    #[must_use]
    pub fn effective(&self, op: &Op) -> u64 {
        let sum = self.regs[usize::from(op.base)]
            .wrapping_add(self.regs[usize::from(op.index)] << op.scale)
            .wrapping_add(op.disp);
        match op.address {
            8 => sum,
            4 => sum & 0xffff_ffff,
            _ => sum & 0xffff,
        }
    }

    /// The linear address of the memory operand, for an access of `len` bytes.
    ///
    /// # Errors
    /// #GP(0) or #SS(0) when it is outside the segment, for a write also when that is read-only.
    #[inline(always)]
    pub fn linear(&self, op: &Op, len: u32, write: bool) -> Done<u64> {
        self.segmented(op.seg, self.effective(op), len, write)
    }

    /// The linear address of `offset` in segment `s`, for an access of `len` bytes.
    ///
    /// # Errors
    /// As for [`linear`](Self::linear).
    #[inline(always)]
    pub fn segmented(&self, s: u8, offset: u64, len: u32, write: bool) -> Done<u64> {
        // Code is never writable outside of 64-bit mode: the slow way knows.
        if self.flat && (s != seg::CS || self.mode == Mode::Long) {
            let base = if s >= seg::FS { self.segs[usize::from(s)].base } else { 0 };
            let linear = offset.wrapping_add(base);
            return Ok(if self.mode == Mode::Long { linear } else { linear & 0xffff_ffff });
        }
        self.segmented_slow(s, offset, len, write)
    }

    #[cold]
    fn segmented_slow(&self, s: u8, offset: u64, len: u32, write: bool) -> Done<u64> {
        let segment = &self.segs[usize::from(s)];
        let fault = if s == seg::SS { Fault::SS0 } else { Fault::GP0 };
        if segment.unusable() {
            return Err(Fault::GP0);
        }
        if self.protected() && !self.v86() {
            // Code must be readable to be read, and is never writable; data must be writable.
            let readable = !segment.is_code() || segment.kind() & 2 != 0;
            let writable = !segment.is_code() && segment.kind() & 2 != 0;
            if (write && !writable) || (!write && !readable) {
                return Err(Fault::GP0);
            }
        }
        let last = offset + u64::from(len.max(1)) - 1;
        let limit = u64::from(segment.limit);
        let expand_down = !segment.is_code() && segment.kind() & 4 != 0;
        let inside = if expand_down {
            let top = if segment.big() { 0xffff_ffff } else { 0xffff };
            offset > limit && last <= top
        } else {
            last <= limit
        };
        if !inside {
            return Err(fault);
        }
        Ok(offset.wrapping_add(segment.base) & 0xffff_ffff)
    }

    // --- linear accesses ---

    /// Reads linear memory. `s` says which fault a non-canonical address gives.
    ///
    /// # Errors
    /// #PF, #GP(0), #SS(0), #AC(0).
    #[inline(always)]
    pub fn read<T: Mem>(&mut self, s: u8, address: u64) -> Done<T> {
        let wanted = self.tlb.tag(address.wrapping_add(T::SIZE as u64 - 1));
        let entry = self.tlb.entry(address);
        if entry.read == wanted {
            let host = entry.host(address);
            return Ok(raw::load(host));
        }
        self.read_slow(s, address)
    }

    /// Writes linear memory.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    #[inline(always)]
    pub fn write<T: Mem>(&mut self, s: u8, address: u64, value: T) -> Done {
        let wanted = self.tlb.tag(address.wrapping_add(T::SIZE as u64 - 1));
        let entry = self.tlb.entry(address);
        if entry.write == wanted {
            let host = entry.host(address);
            raw::store(host, value);
            self.wrote(host);
            return Ok(());
        }
        self.write_slow(s, address, value)
    }

    /// Tells the page table about a finished write; ends the block when code was overwritten.
    #[inline(always)]
    pub(crate) fn wrote(&mut self, host: *const u8) {
        if self.tlb.state(host).load(Ordering::Relaxed) != PageState::DIRTY {
            self.wrote_slow(host);
        }
    }

    #[cold]
    fn wrote_slow(&mut self, host: *const u8) {
        let state = self.tlb.state(host).load(Ordering::Relaxed);
        if let Some(rehearsal) = &mut self.tlb.rehearsal {
            rehearsal.overwrites_code |= state & PageState::CODE != 0;
            return;
        }
        if self.memory.pages().note_write(self.tlb.page_index(host)) {
            self.left = 0;
        }
    }

    /// Host address for an access of `len` bytes that does not leave its page, filling the TLB.
    /// `None` when there is no RAM: then the physical address is in the error position of `Ok`.
    pub(crate) fn host(
        &mut self,
        s: u8,
        address: u64,
        access: Access,
    ) -> Done<Result<*mut u8, Gpa>> {
        if self.tlb.rehearsal.is_some() {
            return self.rehearsed_host(s, address, access);
        }
        let view = self.tlb.view;
        let t = self.translate(s, address, access, view)?;
        Ok(match self.memory.page(t.gpa) {
            Some(page) => {
                let host = raw::offset(page.host, (address & PAGE) as usize);
                if !self.is_watched(address) {
                    self.tlb.insert(view, address, &t, host, access);
                }
                Ok(host)
            }
            None => Err(t.gpa),
        })
    }

    /// Host address of an executable byte, filling the TLB; `None` when it is not RAM.
    pub(crate) fn fetch_host(&mut self, address: u64, access: Access) -> Done<Option<*mut u8>> {
        Ok(self.host(seg::CS, address, access)?.ok())
    }

    /// Reads instruction bytes that lie in one page.
    pub(crate) fn fetch_bytes(&mut self, address: u64, bytes: &mut [u8]) -> Done {
        match self.host(seg::CS, address, Access::Execute)? {
            Ok(host) => {
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = raw::load(raw::offset(host, i));
                }
            }
            Err(gpa) => self.io_read(gpa, bytes)?,
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn read_slow<T: Mem>(&mut self, s: u8, address: u64) -> Done<T> {
        self.check_alignment(address, T::SIZE)?;
        self.watch(address, T::SIZE, false);
        if (address & PAGE) as usize + T::SIZE <= 4096 {
            return match self.host(s, address, Access::Read)? {
                Ok(host) => Ok(raw::load(host)),
                Err(gpa) => {
                    let mut bytes = [0; 16];
                    self.io_read(gpa, &mut bytes[..T::SIZE])?;
                    Ok(T::from_bytes(&bytes))
                }
            };
        }
        self.check_end(s, address, T::SIZE)?;
        let mut bytes = [0; 16];
        self.read_bytes(s, address, &mut bytes[..T::SIZE])?;
        Ok(T::from_bytes(&bytes))
    }

    #[cold]
    #[inline(never)]
    fn write_slow<T: Mem>(&mut self, s: u8, address: u64, value: T) -> Done {
        self.check_alignment(address, T::SIZE)?;
        self.watch(address, T::SIZE, true);
        if (address & PAGE) as usize + T::SIZE <= 4096 {
            match self.host(s, address, Access::Write)? {
                Ok(host) => {
                    raw::store(host, value);
                    self.wrote(host);
                }
                Err(gpa) => self.io_write(gpa, &value.to_bytes()[..T::SIZE])?,
            }
            return Ok(());
        }
        self.check_end(s, address, T::SIZE)?;
        self.write_bytes(s, address, &value.to_bytes()[..T::SIZE])
    }

    /// Looks for data breakpoints; watched pages are kept out of the TLB, so that every access to
    /// them comes by here.
    fn watch(&mut self, address: u64, len: usize, write: bool) {
        if self.debug.dr7 & 0xff != 0 {
            self.data_breakpoint(address, len, write);
        }
    }

    /// Whether the page of `address` holds a data breakpoint.
    fn is_watched(&self, address: u64) -> bool {
        let dr7 = self.debug.dr7;
        dr7 & 0xff != 0
            && (0..4).any(|n| {
                dr7 >> (n * 2) & 3 != 0
                    && dr7 >> (16 + n * 4) & 3 != 0
                    && (self.debug.address[n] ^ address) & !PAGE == 0
            })
    }

    /// An operand whose end is not canonical faults for that, whatever its start would do.
    fn check_end(&self, s: u8, address: u64, size: usize) -> Done {
        if self.mode == Mode::Long && !Self::canonical(address.wrapping_add(size as u64 - 1)) {
            return Err(if s == seg::SS { Fault::SS0 } else { Fault::GP0 });
        }
        Ok(())
    }

    fn check_alignment(&self, address: u64, size: usize) -> Done {
        if self.tlb.view == Tlb::CHECKED && size <= 8 && !address.is_multiple_of(size as u64) {
            return Err(Fault::AC);
        }
        Ok(())
    }

    /// Reads any number of bytes (at most two pages' worth) from linear memory.
    ///
    /// # Errors
    /// As for [`read`](Self::read); then `bytes` is partly filled.
    pub fn read_bytes(&mut self, s: u8, address: u64, bytes: &mut [u8]) -> Done {
        self.watch(address, bytes.len(), false);
        let mut done = 0;
        while done < bytes.len() {
            let at = self.after(address, done as u64);
            let here = (bytes.len() - done).min(4096 - (at & PAGE) as usize);
            let part = &mut bytes[done..done + here];
            match self.host(s, at, Access::Read)? {
                Ok(host) => {
                    for (i, byte) in part.iter_mut().enumerate() {
                        *byte = raw::load(raw::offset(host, i));
                    }
                }
                Err(gpa) => self.io_read(gpa, part)?,
            }
            done += here;
        }
        Ok(())
    }

    /// Writes any number of bytes to linear memory. Both pages are checked before the first byte.
    ///
    /// # Errors
    /// As for [`read`](Self::read); then nothing was written.
    pub fn write_bytes(&mut self, s: u8, address: u64, bytes: &[u8]) -> Done {
        self.watch(address, bytes.len(), true);
        self.check_write(s, address, bytes.len())?;
        let mut done = 0;
        while done < bytes.len() {
            let at = self.after(address, done as u64);
            let here = (bytes.len() - done).min(4096 - (at & PAGE) as usize);
            let part = &bytes[done..done + here];
            match self.host(s, at, Access::Write)? {
                Ok(host) => {
                    for (i, &byte) in part.iter().enumerate() {
                        raw::store(raw::offset(host, i), byte);
                    }
                    self.wrote(host);
                }
                Err(gpa) => self.io_write(gpa, part)?,
            }
            done += here;
        }
        Ok(())
    }

    /// Faults exactly when a write of `len` bytes (1 to 4096) at `address` would.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn check_write(&mut self, s: u8, address: u64, len: usize) -> Done {
        if len == 0 {
            return Ok(());
        }
        let last = self.after(address, len as u64 - 1);
        let _ = self.host(s, address, Access::Write)?;
        if (last ^ address) & !PAGE != 0 {
            let _ = self.host(s, last & !PAGE, Access::Write)?;
        }
        Ok(())
    }

    /// Host address of `len` bytes of RAM at a linear address, for bulk operations: `None` when
    /// they leave the page or are not RAM. After writing, tell [`wrote`](Self::wrote).
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub(crate) fn bulk(
        &mut self,
        s: u8,
        address: u64,
        len: usize,
        write: bool,
    ) -> Done<Option<*mut u8>> {
        let empty = self.tlb.view == Tlb::CHECKED || self.tlb.rehearsal.is_some();
        if (address & PAGE) as usize + len > 4096 || empty {
            return Ok(None);
        }
        let access = if write { Access::Write } else { Access::Read };
        let entry = self.tlb.entry(address);
        let tag = if write { entry.write } else { entry.read };
        if tag == self.tlb.tag(address) {
            return Ok(Some(entry.host(address)));
        }
        if self.is_watched(address) {
            return Ok(None);
        }
        Ok(self.host(s, address, access)?.ok())
    }

    /// The linear address `by` bytes on. Outside of 64-bit mode 4 GiB wrap to 0, but not in tables
    /// that a 64-bit kernel keeps above, which compatibility mode uses too.
    #[inline]
    fn after(&self, address: u64, by: u64) -> u64 {
        let next = address.wrapping_add(by);
        if self.mode == Mode::Long || address >> 32 != 0 { next } else { next & 0xffff_ffff }
    }

    /// Reads and modifies memory in one go: atomically when `lock`. Returns the old value.
    ///
    /// # Errors
    /// As for [`write`](Self::write); then nothing was written.
    #[inline(always)]
    pub fn modify<T: Mem>(
        &mut self,
        s: u8,
        address: u64,
        lock: bool,
        change: impl Fn(T) -> T,
    ) -> Done<T> {
        let wanted = self.tlb.tag(address.wrapping_add(T::SIZE as u64 - 1));
        let entry = self.tlb.entry(address);
        if !lock && entry.write == wanted {
            let host = entry.host(address);
            let old = raw::load(host);
            raw::store(host, change(old));
            self.wrote(host);
            return Ok(old);
        }
        self.modify_slow(s, address, lock, change)
    }

    #[inline(never)]
    fn modify_slow<T: Mem>(
        &mut self,
        s: u8,
        address: u64,
        lock: bool,
        change: impl Fn(T) -> T,
    ) -> Done<T> {
        self.check_alignment(address, T::SIZE)?;
        self.watch(address, T::SIZE, true);
        if (address & PAGE) as usize + T::SIZE <= 4096 {
            let known = self.tlb.writable(address);
            let host = match known {
                Some(host) => Ok(host),
                None => self.host(s, address, Access::Write)?,
            };
            match host {
                Ok(host) => {
                    let mut old: T = raw::load(host);
                    if lock {
                        while let Err(now) = raw::swap_if(host, old, change(old)) {
                            old = now;
                        }
                    } else {
                        raw::store(host, change(old));
                    }
                    self.wrote(host);
                    Ok(old)
                }
                Err(gpa) => {
                    let mut bytes = [0; 16];
                    self.io_read(gpa, &mut bytes[..T::SIZE])?;
                    let old = T::from_bytes(&bytes);
                    self.io_write(gpa, &change(old).to_bytes()[..T::SIZE])?;
                    Ok(old)
                }
            }
        } else {
            // Across pages: checked first, so that nothing is half done.
            self.check_end(s, address, T::SIZE)?;
            self.check_write(s, address, T::SIZE)?;
            let _exclusive = lock.then(raw::split_lock);
            let mut bytes = [0; 16];
            self.read_bytes(s, address, &mut bytes[..T::SIZE])?;
            let old = T::from_bytes(&bytes);
            self.write_bytes(s, address, &change(old).to_bytes()[..T::SIZE])?;
            Ok(old)
        }
    }

    // --- operands ---

    /// Reads the memory operand.
    ///
    /// # Errors
    /// #PF, #GP(0), #SS(0), #AC(0).
    #[inline(always)]
    pub fn load<T: Mem>(&mut self, op: &Op) -> Done<T> {
        let address = self.linear(op, T::SIZE as u32, false)?;
        self.read(op.seg, address)
    }

    /// Writes the memory operand.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    #[inline(always)]
    pub fn store<T: Mem>(&mut self, op: &Op, value: T) -> Done {
        let address = self.linear(op, T::SIZE as u32, true)?;
        self.write(op.seg, address, value)
    }

    /// Reads and modifies the memory operand, atomically when the instruction is locked.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    #[inline(always)]
    pub fn update<T: Mem>(&mut self, op: &Op, change: impl Fn(T) -> T) -> Done<T> {
        let address = self.linear(op, T::SIZE as u32, true)?;
        self.modify(op.seg, address, op.locked(), change)
    }

    /// Reads a 16-byte memory operand that must be aligned (#GP(0) otherwise).
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    #[inline(always)]
    pub fn load_aligned(&mut self, op: &Op) -> Done<u128> {
        let address = self.linear(op, 16, false)?;
        if address & 15 != 0 {
            return Err(Fault::GP0);
        }
        self.read(op.seg, address)
    }

    /// Writes a 16-byte memory operand that must be aligned (#GP(0) otherwise).
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    #[inline(always)]
    pub fn store_aligned(&mut self, op: &Op, value: u128) -> Done {
        let address = self.linear(op, 16, true)?;
        if address & 15 != 0 {
            return Err(Fault::GP0);
        }
        self.write(op.seg, address, value)
    }

    // --- the stack ---

    /// RSP, ESP or SP, by the stack's width.
    #[inline(always)]
    #[must_use]
    pub fn sp(&self) -> u64 {
        match self.stack_width() {
            8 => self.regs[gpr::RSP],
            4 => self.regs[gpr::RSP] & 0xffff_ffff,
            _ => self.regs[gpr::RSP] & 0xffff,
        }
    }

    /// Sets RSP, ESP or SP, by the stack's width.
    #[inline(always)]
    pub fn set_sp(&mut self, value: u64) {
        match self.stack_width() {
            8 => self.regs[gpr::RSP] = value,
            4 => self.regs[gpr::RSP] = value & 0xffff_ffff,
            _ => self.regs[gpr::RSP] = self.regs[gpr::RSP] & !0xffff | value & 0xffff,
        }
    }

    /// `value` cut to the stack's width.
    #[inline(always)]
    #[must_use]
    pub fn stack_mask(&self, value: u64) -> u64 {
        match self.stack_width() {
            8 => value,
            4 => value & 0xffff_ffff,
            _ => value & 0xffff,
        }
    }

    /// Pushes.
    ///
    /// # Errors
    /// #PF, #SS(0), #AC(0); then nothing was pushed.
    #[inline(always)]
    pub fn push<T: Mem>(&mut self, value: T) -> Done {
        let sp = self.stack_mask(self.sp().wrapping_sub(T::SIZE as u64));
        let address = self.segmented(seg::SS, sp, T::SIZE as u32, true)?;
        self.write(seg::SS, address, value)?;
        self.set_sp(sp);
        Ok(())
    }

    /// Reads `depth` bytes above the top of the stack without popping.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    #[inline(always)]
    pub fn peek<T: Mem>(&mut self, depth: u64) -> Done<T> {
        let sp = self.stack_mask(self.sp().wrapping_add(depth));
        let address = self.segmented(seg::SS, sp, T::SIZE as u32, false)?;
        self.read(seg::SS, address)
    }

    /// Pops.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    #[inline(always)]
    pub fn pop<T: Mem>(&mut self) -> Done<T> {
        let value = self.peek(0)?;
        self.set_sp(self.sp().wrapping_add(T::SIZE as u64));
        Ok(value)
    }

    /// Runs `body` with supervisor rights, as implicit accesses to descriptor tables and task
    /// states have, whatever CPL is.
    pub fn as_supervisor<R>(&mut self, body: impl FnOnce(&mut Self) -> R) -> R {
        let view = self.tlb.view;
        let smap = self.control.cr4 & riad_cpu::x86::cr4::SMAP != 0;
        self.tlb.view = if smap { Tlb::GUARDED } else { Tlb::SUPERVISOR };
        let result = body(self);
        self.tlb.view = view;
        result
    }
}
