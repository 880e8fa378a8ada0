//! Placement: which parts of RAM are free while a kernel is being loaded.

use riad_memory::{Gpa, PAGE_SIZE};

use super::BootError;
use crate::pc::map::{E820Entry, E820Kind, HIGH_MEMORY, LOW_MEMORY_END, MIB, PCI_MMIO32};

/// Where small tables start. Below are the vectors and data of a BIOS, the place where boot
/// sectors go, and where small kernels like to start their other processors.
const SMALL_TABLES: u64 = 0x9000;

/// The last address, plus one, that 32-bit protocols can name.
const FOUR_GIB: u64 = 1 << 32;

/// Free and taken memory.
#[derive(Debug)]
pub(super) struct Placer {
    /// Usable RAM, in address order: (first, after the last).
    ram: Vec<(u64, u64)>,
    /// What is taken of it, in no order.
    taken: Vec<(u64, u64)>,
    /// Bytes of RAM of the machine, for messages.
    have: u64,
}

impl Placer {
    /// All RAM of `e820` is free. `have` is the machine's memory in bytes, for messages.
    pub(super) fn new(e820: &[E820Entry], have: u64) -> Self {
        let ram = e820.iter().filter(|e| e.kind == E820Kind::Ram);
        Self { ram: ram.map(|e| (e.start.0, e.end().0)).collect(), taken: Vec::new(), have }
    }

    /// The address after the last byte of RAM below 4 GiB.
    fn low_end(&self) -> u64 {
        self.ram.iter().map(|r| r.1).filter(|&end| end <= FOUR_GIB).max().unwrap_or(0)
    }

    fn no_room(&self, what: &'static str, need: u64) -> BootError {
        BootError::NoRoom { what, need: need.div_ceil(MIB), have: self.have / MIB }
    }

    /// Takes an exact range.
    pub(super) fn claim(
        &mut self,
        what: &'static str,
        start: u64,
        len: u64,
    ) -> Result<(), BootError> {
        let Some(end) = start.checked_add(len) else {
            return Err(BootError::BadAddress { start: Gpa(start), end: Gpa(u64::MAX) });
        };
        if !self.ram.iter().any(|r| r.0 <= start && end <= r.1) {
            // The part of RAM that would be longer in a larger machine is the one to grow.
            let grows = start >= HIGH_MEMORY.0 && end > self.low_end() && end <= PCI_MMIO32.0;
            return Err(if grows {
                self.no_room(what, end)
            } else {
                BootError::BadAddress { start: Gpa(start), end: Gpa(end) }
            });
        }
        if self.taken.iter().any(|t| start < t.1 && t.0 < end) {
            return Err(BootError::BadAddress { start: Gpa(start), end: Gpa(end) });
        }
        self.taken.push((start, end));
        Ok(())
    }

    /// Takes the lowest free range from `from` on that ends by `limit`; `align` is a power of two.
    fn lowest(&mut self, len: u64, align: u64, from: u64, limit: u64) -> Option<Gpa> {
        // A range that is lowest begins where RAM or `from` begins, or where something taken ends.
        let starts = self.ram.iter().map(|r| r.0).chain(self.taken.iter().map(|t| t.1));
        let mut starts: Vec<u64> = starts
            .chain([from])
            .filter_map(|s| s.max(from).checked_next_multiple_of(align))
            .collect();
        starts.sort_unstable();
        self.first_free(starts.into_iter(), len, limit)
    }

    /// Takes the highest free range that ends by `limit`; `align` is a power of two.
    fn highest(&mut self, len: u64, align: u64, from: u64, limit: u64) -> Option<Gpa> {
        let ends = self.ram.iter().map(|r| r.1).chain(self.taken.iter().map(|t| t.0));
        let mut starts: Vec<u64> = ends
            .chain([limit])
            .filter_map(|e| e.min(limit).checked_sub(len))
            .map(|s| s & !(align - 1))
            .filter(|&s| s >= from)
            .collect();
        starts.sort_unstable();
        self.first_free(starts.into_iter().rev(), len, limit)
    }

    fn first_free(
        &mut self,
        starts: impl Iterator<Item = u64>,
        len: u64,
        limit: u64,
    ) -> Option<Gpa> {
        for start in starts {
            let Some(end) = start.checked_add(len).filter(|&end| end <= limit) else { continue };
            let ram = self.ram.iter().any(|r| r.0 <= start && end <= r.1);
            if ram && !self.taken.iter().any(|t| start < t.1 && t.0 < end) {
                self.taken.push((start, end));
                return Some(Gpa(start));
            }
        }
        None
    }

    /// Takes room for a small table, in conventional memory if it fits, else anywhere below 4 GiB.
    pub(super) fn table(&mut self, what: &'static str, len: usize) -> Result<Gpa, BootError> {
        let len = (len as u64).max(1);
        self.lowest(len, 16, SMALL_TABLES, LOW_MEMORY_END)
            .or_else(|| self.lowest(len, 16, HIGH_MEMORY.0, FOUR_GIB))
            .ok_or_else(|| self.no_room(what, self.low_end().saturating_add(len)))
    }

    /// Takes whole pages as high as possible, below `limit` and below 4 GiB.
    pub(super) fn high(
        &mut self,
        what: &'static str,
        len: u64,
        limit: u64,
    ) -> Result<Gpa, BootError> {
        self.highest(len, PAGE_SIZE, HIGH_MEMORY.0, limit.min(FOUR_GIB))
            .ok_or_else(|| self.no_room(what, self.after_taken().saturating_add(len)))
    }

    /// Takes whole pages as low as possible from `from` on.
    pub(super) fn above(
        &mut self,
        what: &'static str,
        len: u64,
        from: u64,
    ) -> Result<Gpa, BootError> {
        self.lowest(len, PAGE_SIZE, from, FOUR_GIB)
            .ok_or_else(|| self.no_room(what, from.max(self.after_taken()).saturating_add(len)))
    }

    /// The address after everything taken above 1 MiB: where what does not fit would have to go.
    fn after_taken(&self) -> u64 {
        let ends = self.taken.iter().map(|t| t.1).filter(|&end| end <= FOUR_GIB);
        ends.max().unwrap_or(0).max(HIGH_MEMORY.0).next_multiple_of(PAGE_SIZE)
    }
}

#[cfg(test)]
#[path = "place_test.rs"]
mod tests;
