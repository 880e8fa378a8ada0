//! Page tables, built in guest memory (SDM 3A, chapter 5).

use riad_memory::{Gpa, GuestMemory};

pub(crate) const P: u64 = 1;
pub(crate) const RW: u64 = 2;
pub(crate) const US: u64 = 4;
pub(crate) const A: u64 = 1 << 5;
pub(crate) const D: u64 = 1 << 6;
pub(crate) const PS: u64 = 1 << 7;
pub(crate) const G: u64 = 1 << 8;
pub(crate) const NX: u64 = 1 << 63;

const ADDRESS: u64 = 0xf_ffff_f000;

/// 4-level page tables.
pub(crate) struct Tables {
    memory: GuestMemory,
    /// Physical address of the top table.
    pub(crate) root: u64,
    next: u64,
}

impl Tables {
    /// Where tables lie.
    pub(crate) const FIRST: u64 = 0x20_0000;

    /// An empty top table.
    pub(crate) fn new(memory: GuestMemory) -> Self {
        Self { memory, root: Self::FIRST, next: Self::FIRST + 0x1000 }
    }

    /// A fresh table of zeroes.
    pub(crate) fn table(&mut self) -> u64 {
        let table = self.next;
        self.next += 0x1000;
        self.memory.fill(Gpa(table), 4096, 0).expect("RAM");
        table
    }

    fn read(&self, at: u64) -> u64 {
        self.memory.read_u64(Gpa(at)).expect("RAM")
    }

    fn write(&self, at: u64, value: u64) {
        self.memory.write_u64(Gpa(at), value).expect("RAM");
    }

    /// Physical address of the entry at `level` (1 is the last) for a linear address, in the tables
    /// at `root`; tables above are made as needed, and permit everything.
    pub(crate) fn entry_in(&mut self, root: u64, address: u64, level: u32) -> u64 {
        let mut table = root;
        for above in (level + 1..=4).rev() {
            let at = table + (address >> (3 + 9 * above) & 0x1ff) * 8;
            let mut entry = self.read(at);
            if entry & P == 0 {
                entry = self.table() | P | RW | US;
                self.write(at, entry);
            }
            table = entry & ADDRESS;
        }
        table + (address >> (3 + 9 * level) & 0x1ff) * 8
    }

    /// As [`entry_in`](Self::entry_in), in the machine's own tables.
    pub(crate) fn entry(&mut self, address: u64, level: u32) -> u64 {
        self.entry_in(self.root, address, level)
    }

    /// Maps 4 KiB.
    pub(crate) fn map(&mut self, address: u64, entry: u64) {
        let at = self.entry(address, 1);
        self.write(at, entry);
    }

    /// Maps 2 MiB (level 2) or 1 GiB (level 3).
    pub(crate) fn map_large(&mut self, address: u64, level: u32, entry: u64) {
        let at = self.entry(address, level);
        self.write(at, entry | PS);
    }

    /// The entry that maps 4 KiB.
    pub(crate) fn leaf(&mut self, address: u64) -> u64 {
        let at = self.entry(address, 1);
        self.read(at)
    }
}
