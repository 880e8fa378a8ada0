//! The PVH boot protocol (Xen `docs/misc/pvh.pandoc`, `xen/include/public/arch-x86/hvm/start_info.h`).
//!
//! EBX points to `hvm_start_info`, which points to the command line, the modules, the memory map
//! and the ACPI root pointer.

use zerocopy::{Immutable, IntoBytes, little_endian as le};

use super::loader::{Loader, address_32};
use super::{BootError, BootMachine, BootParams, ElfImage, Entry};
use crate::pc::map::E820Entry;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;

/// `struct hvm_start_info`, version 1.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct StartInfo {
    magic: le::U32,
    version: le::U32,
    flags: le::U32,
    nr_modules: le::U32,
    modlist_paddr: le::U64,
    cmdline_paddr: le::U64,
    rsdp_paddr: le::U64,
    memmap_paddr: le::U64,
    memmap_entries: le::U32,
    reserved: le::U32,
}

/// `struct hvm_modlist_entry`.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct ModlistEntry {
    paddr: le::U64,
    size: le::U64,
    cmdline_paddr: le::U64,
    reserved: le::U64,
}

/// `struct hvm_memmap_table_entry`.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct MemmapEntry {
    addr: le::U64,
    size: le::U64,
    kind: le::U32,
    reserved: le::U32,
}

impl From<&E820Entry> for MemmapEntry {
    fn from(entry: &E820Entry) -> Self {
        Self {
            addr: entry.start.0.into(),
            size: entry.len.into(),
            kind: (entry.kind as u32).into(),
            reserved: 0.into(),
        }
    }
}

/// What a kernel can take, known when it came out of a bzImage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Longest command line, bytes, without the NUL.
    pub(super) cmdline: usize,
    /// The address that the initial RAM disk must end by.
    pub(super) initrd_end: u64,
}

impl Default for Limits {
    /// Of a bare ELF kernel nothing is known: a page of command line, and all of 32 bits.
    fn default() -> Self {
        Self { cmdline: 4095, initrd_end: 1 << 32 }
    }
}

/// An ELF kernel with a PVH entry point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PvhKernel {
    elf: ElfImage,
    entry: u32,
    limits: Limits,
}

impl PvhKernel {
    /// `elf` as a PVH kernel, or `None` when it has no PVH note.
    pub(super) fn new(elf: ElfImage, limits: Limits) -> Option<Self> {
        let entry = elf.pvh_entry()?;
        Some(Self { elf, entry, limits })
    }

    pub(super) fn load(
        &self,
        bytes: &[u8],
        machine: &BootMachine<'_>,
        params: &BootParams<'_>,
    ) -> Result<Entry, BootError> {
        let mut loader = Loader::new(machine);
        self.elf.load(bytes, &mut loader)?;
        let cmdline = loader.cmdline(params.cmdline, self.limits.cmdline)?;
        let initrd = loader.initrd(params.modules, self.limits.initrd_end)?;

        let modlist = initrd.map(|initrd| ModlistEntry {
            paddr: initrd.start.0.into(),
            size: initrd.len.into(),
            cmdline_paddr: 0.into(),
            reserved: 0.into(),
        });
        let modlist_at = match &modlist {
            Some(entry) => loader.table(entry.as_bytes())?.0,
            None => 0,
        };
        let memmap: Vec<MemmapEntry> = machine.e820.iter().map(MemmapEntry::from).collect();
        let info = StartInfo {
            magic: MAGIC.into(),
            version: 1.into(),
            flags: 0.into(),
            nr_modules: u32::from(modlist.is_some()).into(),
            modlist_paddr: modlist_at.into(),
            cmdline_paddr: cmdline.0.into(),
            rsdp_paddr: machine.rsdp.map_or(0, |rsdp| rsdp.0).into(),
            memmap_paddr: loader.table(memmap.as_bytes())?.0.into(),
            memmap_entries: (memmap.len() as u32).into(),
            reserved: 0.into(),
        };
        let info = loader.table(info.as_bytes())?;
        Ok(Entry { eip: self.entry, eax: 0, ebx: address_32(info)?, esi: 0, gdt: loader.gdt()? })
    }
}

#[cfg(test)]
#[path = "pvh_test.rs"]
mod tests;
