//! A run that is taken back: memory through the TLB as it is, with a log of what is written.

use riad_memory::Gpa;

use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::mem::{Entry, Tables, Tlb};
use crate::mmu::Access;
use crate::raw;
use crate::sys::mapping::Huge;

/// No instruction of a block writes more bytes at once.
const WIDEST: usize = 16;

/// Bytes that an instruction was about to write, and perhaps some behind them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub(super) host: usize,
    len: usize,
    /// It is an entry of a page table, to mark the page as accessed or dirty.
    pub(super) walk: bool,
    /// Before and after the instruction.
    old: u128,
    pub(super) new: u128,
}

impl Write {
    fn at(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.host)
    }

    pub(super) fn load(&self) -> u128 {
        if self.len == WIDEST {
            return raw::load(self.at());
        }
        let mut bytes = [0; WIDEST];
        raw::copy_out(self.at(), &mut bytes[..self.len]);
        u128::from_le_bytes(bytes)
    }

    /// Puts back what was there, where it changed: what lies beside it may be a device's.
    pub(super) fn undo(&self) {
        let changed = (self.old ^ self.new).to_le_bytes();
        for (i, (byte, changed)) in self.old.to_le_bytes().into_iter().zip(changed).enumerate() {
            if changed != 0 {
                raw::store(raw::offset(self.at(), i), byte);
            }
        }
    }

    /// Lays the bytes of a later write over these, when they are the same memory.
    pub(super) fn overlay(&self, content: u128, later: &Self) -> u128 {
        if later.host.abs_diff(self.host) >= WIDEST {
            return content;
        }
        let (mut bytes, new) = (content.to_le_bytes(), later.new.to_le_bytes());
        for (i, byte) in bytes[..self.len].iter_mut().enumerate() {
            if let Some(n) = (self.host + i).checked_sub(later.host)
                && n < later.len
            {
                *byte = new[n];
            }
        }
        u128::from_le_bytes(bytes)
    }
}

/// What makes a rehearsal of a run: while the TLB has this, its tables are empty, so that every
/// access comes by [`Cpu::rehearsed_host`].
#[derive(Default)]
pub(crate) struct Rehearsal {
    /// The TLB's own tables.
    tables: Huge<Tables>,
    /// What walks found that the tables do not know.
    walked: Vec<Entry>,
    pub(super) writes: Vec<Write>,
    /// The block may not be what it was.
    pub(crate) overwrites_code: bool,
}

impl Rehearsal {
    /// Forgets the last one.
    pub(super) fn begin(&mut self) {
        self.walked.clear();
        self.writes.clear();
        self.overwrites_code = false;
    }

    /// Tells that an entry of a page table of this size is written next, by a walk.
    pub(crate) fn note_walk(&mut self, host: *mut u8, size: usize) {
        self.note(host, size, true);
    }

    /// Tells that up to [`WIDEST`] bytes at `host` may be written next; `room` of them are there.
    fn note(&mut self, host: *mut u8, room: usize, walk: bool) {
        let len = room.min(WIDEST);
        let mut write = Write { host: host.expose_provenance(), len, walk, old: 0, new: 0 };
        write.old = write.load();
        write.new = write.old;
        self.writes.push(write);
    }
}

impl Tlb {
    pub(super) fn begin_rehearsal(&mut self, mut rehearsal: Box<Rehearsal>) {
        std::mem::swap(&mut self.tables, &mut rehearsal.tables);
        self.rehearsal = Some(rehearsal);
    }

    pub(super) fn end_rehearsal(&mut self) -> Option<Box<Rehearsal>> {
        let mut rehearsal = self.rehearsal.take()?;
        std::mem::swap(&mut self.tables, &mut rehearsal.tables);
        Some(rehearsal)
    }
}

impl Cpu {
    /// [`host`](Self::host) in a rehearsal: what is not RAM ends it, and what the TLB would learn is
    /// forgotten after it.
    #[cold]
    pub(crate) fn rehearsed_host(
        &mut self,
        s: u8,
        address: u64,
        access: Access,
    ) -> Done<Result<*mut u8, Gpa>> {
        let view = self.tlb.view;
        let tag = self.tlb.tag(address);
        let write = access == Access::Write;
        let known = self.tlb.rehearsal.as_ref().and_then(|rehearsal| {
            let entry = rehearsal.tables.entry(view, address);
            let good = |entry: &&Entry| tag == if write { entry.write } else { entry.read };
            std::iter::once(entry).chain(&rehearsal.walked).find(good).copied()
        });
        let entry = match known {
            Some(entry) => entry,
            None => {
                let t = self.translate(s, address, access, view)?;
                let Some(page) = self.memory.page(t.gpa) else { return Err(Fault::GP0) };
                let host = raw::offset(page.host, (address & 0xfff) as usize);
                Entry {
                    read: tag,
                    write: if write || t.dirty_writable { tag } else { 0 },
                    exec: 0,
                    addend: host.expose_provenance().wrapping_sub(address as usize),
                }
            }
        };
        let host = entry.host(address);
        if let Some(rehearsal) = &mut self.tlb.rehearsal {
            if known.is_none() {
                rehearsal.walked.push(entry);
            }
            if write {
                rehearsal.note(host, 4096 - (address & 0xfff) as usize, false);
            }
        }
        Ok(Ok(host))
    }
}
