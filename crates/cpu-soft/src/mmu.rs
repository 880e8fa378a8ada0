//! Paging (Intel SDM 3A, chapter 4): the walk from linear to physical addresses.

use std::sync::atomic::{AtomicU32, AtomicU64};

use riad_cpu::x86::model::PHYSICAL_BITS;
use riad_cpu::x86::{cr0, cr4, efer};
use riad_memory::Gpa;

use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::mem::Tlb;
use crate::op::seg;
use crate::raw;

/// Why memory is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A data read.
    Read,
    /// A data write, or a read-modify-write.
    Write,
    /// An instruction fetch.
    Execute,
}

/// Where a linear address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The physical address of the byte.
    pub gpa: Gpa,
    /// Writes are allowed too and would set no dirty bit.
    pub dirty_writable: bool,
    /// Offset bits of the page beyond 4 KiB's, 0 for a 4 KiB page.
    pub large_mask: u64,
    /// The page is in every address space.
    pub global: bool,
}

const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const G: u64 = 1 << 8;
const NX: u64 = 1 << 63;

/// Physical-address bits of an 8-byte entry.
const ADDRESS: u64 = (1 << PHYSICAL_BITS) - 0x1000;
/// Physical-address bits this processor does not have.
const BEYOND: u64 = (1 << 52) - (1 << PHYSICAL_BITS);

/// Reserved bits of a page-directory-pointer entry of PAE paging (SDM 3A, table 4-8).
const POINTER_RESERVED: u64 = !((1 << PHYSICAL_BITS) - 1) | 0x1e6;

/// One level of the walk, remembered to set its accessed bit.
#[derive(Debug, Clone, Copy)]
struct Step {
    host: *mut u8,
    page: usize,
    entry: u64,
    wide: bool,
}

/// What the levels add up to.
struct Walk {
    steps: [Option<Step>; 4],
    count: usize,
    writable: bool,
    user: bool,
    no_execute: bool,
    /// The last entry's G bit.
    global: bool,
}

impl Cpu {
    /// Whether `address` is canonical: bits 63 to 47 all the same.
    #[inline]
    #[must_use]
    pub fn canonical(address: u64) -> bool {
        (address as i64) << 16 >> 16 == address as i64
    }

    /// Translates a linear address as the given TLB view may use it, setting accessed and dirty bits.
    ///
    /// # Errors
    /// #PF (its address goes to [`Cpu::fault_address`]); #GP(0), or #SS(0) for the stack segment,
    /// when the address is not canonical.
    pub fn translate(
        &mut self,
        s: u8,
        address: u64,
        access: Access,
        view: usize,
    ) -> Done<Translation> {
        if self.mode == Mode::Long && !Self::canonical(address) {
            return Err(if s == seg::SS { Fault::SS0 } else { Fault::GP0 });
        }
        if self.control.cr0 & cr0::PG == 0 {
            return Ok(Translation {
                gpa: Gpa(address & 0xffff_ffff),
                dirty_writable: true,
                large_mask: 0,
                global: false,
            });
        }
        loop {
            match self.walk(address, access, view)? {
                Some(translation) => return Ok(translation),
                // Another processor changed an entry meanwhile: look again.
                None => continue,
            }
        }
    }

    fn page_fault(
        &mut self,
        address: u64,
        access: Access,
        view: usize,
        present: bool,
        reserved: bool,
    ) -> Fault {
        self.fault_address = address;
        let user = matches!(view, Tlb::USER | Tlb::CHECKED);
        let no_execute = self.control.efer & efer::NXE != 0 && self.control.cr4 & cr4::PAE != 0;
        let execute_known = no_execute || self.control.cr4 & cr4::SMEP != 0;
        let code = u16::from(present)
            | u16::from(access == Access::Write) << 1
            | u16::from(user) << 2
            | u16::from(reserved) << 3
            | u16::from(access == Access::Execute && execute_known) << 4;
        Fault::page(code)
    }

    /// `None` when an entry changed under the walk.
    fn walk(&mut self, address: u64, access: Access, view: usize) -> Done<Option<Translation>> {
        let long = self.long_active();
        let pae = self.control.cr4 & cr4::PAE != 0;
        let mut walk = Walk {
            steps: [None; 4],
            count: 0,
            writable: true,
            user: true,
            no_execute: false,
            global: false,
        };
        let (base, mask) = if long || pae {
            self.walk_wide(address, access, view, long, &mut walk)?
        } else {
            self.walk_narrow(address, access, view, &mut walk)?
        };
        self.check(address, access, view, &walk)?;
        Ok(self.mark(access, &walk).map(|dirty| Translation {
            gpa: Gpa(base & !mask | address & mask),
            dirty_writable: dirty && self.may_write(view, &walk),
            large_mask: if mask > 0xfff { mask } else { 0 },
            global: walk.global && self.control.cr4 & cr4::PGE != 0,
        }))
    }

    /// 4-level and PAE paging: 8-byte entries. Returns the page's base and offset mask.
    fn walk_wide(
        &mut self,
        address: u64,
        access: Access,
        view: usize,
        long: bool,
        walk: &mut Walk,
    ) -> Done<(u64, u64)> {
        let nxe = self.control.efer & efer::NXE != 0;
        let mut reserved = BEYOND | if nxe { 0 } else { NX };
        let (mut table, mut level) = if long {
            (self.control.cr3 & ADDRESS, 4)
        } else {
            (self.control.cr3 & 0xffff_ffe0, 3)
        };
        if !long {
            // PDPTEs have neither permissions nor an accessed bit (SDM 3A, 4.4.1).
            let entry = self.entry64(table + (address >> 30 & 3) * 8).1;
            if entry & P == 0 {
                return Err(self.page_fault(address, access, view, false, false));
            }
            if entry & POINTER_RESERVED != 0 {
                return Err(self.page_fault(address, access, view, true, true));
            }
            reserved |= 0x7ff << 52;
            table = entry & ADDRESS;
            level = 2;
        }
        loop {
            let index = address >> (9 * level) & 0xff8;
            let (place, entry) = self.entry64(table + index);
            if entry & P == 0 {
                return Err(self.page_fault(address, access, view, false, false));
            }
            let leaf = level == 1 || (entry & PS != 0 && level <= 3);
            let mask = (1u64 << (3 + 9 * level)) - 1;
            let must_be_zero = reserved
                | if level == 4 { PS } else { 0 }
                | if leaf && level > 1 { mask & !0x1fff } else { 0 };
            if entry & must_be_zero != 0 {
                return Err(self.page_fault(address, access, view, true, true));
            }
            walk.add(place, entry, true);
            if leaf {
                return Ok((entry & ADDRESS & !mask, mask));
            }
            table = entry & ADDRESS;
            level -= 1;
        }
    }

    /// Whether the page-directory-pointer entries of PAE paging at `cr3` can be loaded: those that
    /// are present have no reserved bit set (SDM 3A, 4.4.1).
    pub(crate) fn pointers_are_good(&self, cr3: u64) -> bool {
        let table = cr3 & 0xffff_ffe0;
        (0..4).all(|n| {
            let entry = self.entry64(table + n * 8).1;
            entry & P == 0 || entry & POINTER_RESERVED == 0
        })
    }

    /// 32-bit paging: 4-byte entries.
    fn walk_narrow(
        &mut self,
        address: u64,
        access: Access,
        view: usize,
        walk: &mut Walk,
    ) -> Done<(u64, u64)> {
        let directory = self.control.cr3 & 0xffff_f000;
        let (place, entry) = self.entry32(directory + (address >> 20 & 0xffc));
        if entry & P == 0 {
            return Err(self.page_fault(address, access, view, false, false));
        }
        walk.add(place, entry, false);
        if entry & PS != 0 && self.control.cr4 & cr4::PSE != 0 {
            if entry & 1 << 21 != 0 {
                return Err(self.page_fault(address, access, view, true, true));
            }
            return Ok((entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32, 0x3f_ffff));
        }
        let (place, entry) = self.entry32((entry & 0xffff_f000) + (address >> 10 & 0xffc));
        if entry & P == 0 {
            return Err(self.page_fault(address, access, view, false, false));
        }
        walk.add(place, entry, false);
        Ok((entry & 0xffff_f000, 0xfff))
    }

    fn entry64(&self, at: u64) -> (Option<(*mut u8, usize)>, u64) {
        match self.memory.page(Gpa(at)) {
            Some(page) => {
                let host = raw::offset(page.host, (at & 0xff8) as usize);
                (Some((host, page.index)), raw::load::<u64>(host))
            }
            None => (None, u64::MAX),
        }
    }

    fn entry32(&self, at: u64) -> (Option<(*mut u8, usize)>, u64) {
        match self.memory.page(Gpa(at)) {
            Some(page) => {
                let host = raw::offset(page.host, (at & 0xffc) as usize);
                (Some((host, page.index)), u64::from(raw::load::<u32>(host)))
            }
            None => (None, 0),
        }
    }

    fn may_write(&self, view: usize, walk: &Walk) -> bool {
        let user_access = matches!(view, Tlb::USER | Tlb::CHECKED);
        walk.writable || (!user_access && self.control.cr0 & cr0::WP == 0)
    }

    /// Access rights (SDM 3A, 4.6).
    fn check(&mut self, address: u64, access: Access, view: usize, walk: &Walk) -> Done {
        let user_access = matches!(view, Tlb::USER | Tlb::CHECKED);
        let allowed = if user_access && !walk.user {
            false
        } else {
            match access {
                Access::Execute => {
                    let smep = !user_access && walk.user && self.control.cr4 & cr4::SMEP != 0;
                    !walk.no_execute && !smep
                }
                _ if view == Tlb::GUARDED && walk.user => false,
                Access::Read => true,
                Access::Write => self.may_write(view, walk),
            }
        };
        if allowed { Ok(()) } else { Err(self.page_fault(address, access, view, true, false)) }
    }

    /// Sets accessed bits, and the leaf's dirty bit for a write. Returns whether the leaf is dirty
    /// now; `None` when an entry changed since it was read.
    fn mark(&mut self, access: Access, walk: &Walk) -> Option<bool> {
        let mut dirty = false;
        for (n, step) in walk.steps[..walk.count].iter().enumerate() {
            let Some(step) = step else { continue };
            let leaf = n + 1 == walk.count;
            let wanted = step.entry | A | if leaf && access == Access::Write { D } else { 0 };
            dirty = wanted & D != 0;
            if wanted != step.entry {
                if let Some(rehearsal) = &mut self.tlb.rehearsal {
                    rehearsal.note_walk(step.host, if step.wide { 8 } else { 4 });
                }
                let changed = if step.wide {
                    raw::swap_if::<u64>(step.host, step.entry, wanted).is_err()
                } else {
                    raw::swap_if::<u32>(step.host, step.entry as u32, wanted as u32).is_err()
                };
                if changed {
                    return None;
                }
                if self.tlb.rehearsal.is_none() {
                    self.memory.pages().note_write(step.page);
                }
            }
        }
        Some(dirty)
    }
}

impl Walk {
    fn add(&mut self, place: Option<(*mut u8, usize)>, entry: u64, wide: bool) {
        self.steps[self.count] = place.map(|(host, page)| Step { host, page, entry, wide });
        self.count += 1;
        self.writable &= entry & RW != 0;
        self.user &= entry & US != 0;
        self.global = entry & G != 0;
        self.no_execute |= wide && entry & NX != 0;
    }
}

// Entries are changed with the atomics of these widths.
const _: () = assert!(size_of::<AtomicU64>() == 8 && size_of::<AtomicU32>() == 4);
