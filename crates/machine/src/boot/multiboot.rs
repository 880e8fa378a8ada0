//! Multiboot kernels (Multiboot specification 0.6.96).
//!
//! A Multiboot kernel has a header in its first 8 KiB, and is a 32-bit ELF file or, when the header
//! says where it goes, anything at all. It is entered with a magic number in EAX and the
//! information structure in EBX.

use zerocopy::{Immutable, IntoBytes, little_endian as le};

use super::loader::{Loader, address_32};
use super::{BootError, BootMachine, BootParams, ElfImage, Entry};
use crate::pc::map::{E820Entry, E820Kind, HIGH_MEMORY, LOW_MEMORY_END};

const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What EAX tells the kernel.
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header lies within this many bytes of the file's beginning.
const SEARCH: usize = 8192;

/// Header flags: those a loader must understand are in the low half.
mod flag {
    /// Modules on page boundaries: always done.
    pub(super) const ALIGN_MODULES: u32 = 1 << 0;
    /// Memory information: always given.
    pub(super) const MEMORY_INFO: u32 = 1 << 1;
    /// A video mode is wanted.
    pub(super) const VIDEO_MODE: u32 = 1 << 2;
    /// The header says where the kernel goes (the "a.out kludge").
    pub(super) const ADDRESSES: u32 = 1 << 16;
    pub(super) const REQUIRED: u32 = 0xffff;
}

/// Which fields of the information structure are valid.
mod info_flag {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const CMDLINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const MMAP: u32 = 1 << 6;
    pub(super) const LOADER_NAME: u32 = 1 << 9;
}

/// The information structure up to the last field given.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Info {
    flags: le::U32,
    mem_lower: le::U32,
    mem_upper: le::U32,
    boot_device: le::U32,
    cmdline: le::U32,
    mods_count: le::U32,
    mods_addr: le::U32,
    syms: [le::U32; 4],
    mmap_length: le::U32,
    mmap_addr: le::U32,
    drives_length: le::U32,
    drives_addr: le::U32,
    config_table: le::U32,
    boot_loader_name: le::U32,
    apm_table: le::U32,
    vbe: [le::U32; 4],
    framebuffer: [le::U32; 7],
}

#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct ModuleEntry {
    start: le::U32,
    end: le::U32,
    string: le::U32,
    reserved: le::U32,
}

#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct MmapEntry {
    /// Bytes of the entry, without this field.
    size: le::U32,
    addr: le::U64,
    len: le::U64,
    kind: le::U32,
}

/// How the kernel's bytes are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    Elf(ElfImage),
    /// The "a.out kludge": one run of the file, then zeros.
    Flat {
        offset: usize,
        load: u32,
        load_end: u32,
        bss_end: u32,
        entry: u32,
    },
}

/// A Multiboot kernel, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultibootKernel {
    layout: Layout,
}

impl MultibootKernel {
    /// Offset of the Multiboot header.
    #[must_use]
    pub fn detect(bytes: &[u8]) -> Option<usize> {
        let searched = &bytes[..bytes.len().min(SEARCH)];
        searched.chunks_exact(4).enumerate().find_map(|(i, word)| {
            let header = bytes.get(i * 4..)?;
            let sum = words::<3>(header)?.into_iter().fold(0, u32::wrapping_add);
            (word == HEADER_MAGIC.to_le_bytes() && sum == 0).then_some(i * 4)
        })
    }

    /// Reads and checks the kernel whose header is at `offset`.
    ///
    /// # Errors
    /// When the file is damaged, is 64-bit ELF, or requires what is not offered.
    pub fn parse(bytes: &[u8], offset: usize) -> Result<Self, BootError> {
        const SHORT: BootError = BootError::Damaged("its Multiboot header is cut short");
        let header = bytes.get(offset..).ok_or(SHORT)?;
        let [_magic, flags, _checksum] = words(header).ok_or(SHORT)?;
        let known = flag::ALIGN_MODULES | flag::MEMORY_INFO | flag::VIDEO_MODE;
        if flags & flag::REQUIRED & !known != 0 {
            return Err(BootError::Unsupported(
                "its Multiboot header requires features that no loader knows",
            ));
        }
        if flags & flag::VIDEO_MODE != 0 {
            tracing::warn!("the kernel asks for a video mode; this machine has no display");
        }
        let layout = if flags & flag::ADDRESSES == 0 {
            if !ElfImage::detect(bytes) {
                return Err(BootError::Damaged("its Multiboot header gives no addresses"));
            }
            let elf = ElfImage::parse(bytes)?;
            if elf.is_64() {
                return Err(BootError::Unsupported(
                    "Multiboot starts 32-bit kernels, and this is a 64-bit ELF file: give it a \
                     PVH note, or make it 32-bit ELF (objcopy -O elf32-i386)",
                ));
            }
            Layout::Elf(elf)
        } else {
            let [.., header_addr, load, load_end, bss_end, entry] =
                words::<8>(header).ok_or(SHORT)?;
            Layout::flat(bytes, offset, header_addr, load, load_end, bss_end, entry)?
        };
        Ok(Self { layout })
    }

    pub(super) fn load(
        &self,
        bytes: &[u8],
        machine: &BootMachine<'_>,
        params: &BootParams<'_>,
    ) -> Result<Entry, BootError> {
        let mut loader = Loader::new(machine);
        let (entry, end) = self.layout.load(bytes, &mut loader)?;
        // GRUB gives the file's name first, and kernels skip it.
        let cmdline = format!("{} {}", params.kernel_name, params.cmdline);
        let cmdline = loader.cmdline(cmdline.trim_end(), CMDLINE_MAX)?;
        let mut modules = Vec::with_capacity(params.modules.len());
        let after = end.max(HIGH_MEMORY.0);
        for module in params.modules {
            let start = address_32(loader.module(module.data, after)?)?;
            let string = address_32(loader.cmdline(module.args, CMDLINE_MAX)?)?;
            modules.push(ModuleEntry {
                start: start.into(),
                // It ends below 4 GiB, where modules are placed.
                end: start.wrapping_add(module.data.len() as u32).into(),
                string: string.into(),
                reserved: 0.into(),
            });
        }
        let mmap: Vec<MmapEntry> = machine.e820.iter().map(MmapEntry::from).collect();
        let info = Info {
            flags: (info_flag::MEMORY
                | info_flag::CMDLINE
                | info_flag::MODULES
                | info_flag::MMAP
                | info_flag::LOADER_NAME)
                .into(),
            mem_lower: ((LOW_MEMORY_END / 1024) as u32).into(),
            mem_upper: mem_upper(machine.e820).into(),
            boot_device: 0.into(),
            cmdline: address_32(cmdline)?.into(),
            mods_count: (modules.len() as u32).into(),
            mods_addr: address_32(loader.table(modules.as_bytes())?)?.into(),
            syms: [0.into(); 4],
            mmap_length: (size_of_val(mmap.as_slice()) as u32).into(),
            mmap_addr: address_32(loader.table(mmap.as_bytes())?)?.into(),
            drives_length: 0.into(),
            drives_addr: 0.into(),
            config_table: 0.into(),
            boot_loader_name: address_32(loader.table(b"riad\0")?)?.into(),
            apm_table: 0.into(),
            vbe: [0.into(); 4],
            framebuffer: [0.into(); 7],
        };
        let info = loader.table(info.as_bytes())?;
        let gdt = loader.gdt()?;
        Ok(Entry { eip: entry, eax: LOADER_MAGIC, ebx: address_32(info)?, esi: 0, gdt })
    }
}

/// The longest command line and module string, bytes.
const CMDLINE_MAX: usize = 4095;

impl Layout {
    fn flat(
        bytes: &[u8],
        offset: usize,
        header_addr: u32,
        load: u32,
        load_end: u32,
        bss_end: u32,
        entry: u32,
    ) -> Result<Self, BootError> {
        const BAD: BootError = BootError::Damaged("the addresses in its Multiboot header clash");
        // The header is `before` bytes after the first byte that is loaded.
        let before = header_addr.checked_sub(load).ok_or(BAD)? as usize;
        let offset = offset.checked_sub(before).ok_or(BAD)?;
        let load_end = match load_end {
            // Zero means: to the end of the file.
            0 => u32::try_from(bytes.len() - offset).ok().and_then(|len| load.checked_add(len)),
            end => Some(end),
        };
        let load_end = load_end.ok_or(BAD)?;
        let len = load_end.checked_sub(load).ok_or(BAD)? as usize;
        if bytes.len() - offset < len {
            return Err(BootError::Damaged("the file ends before what its Multiboot header loads"));
        }
        let bss_end = bss_end.max(load_end);
        Ok(Self::Flat { offset, load, load_end, bss_end, entry })
    }

    /// Returns the entry point and the address after the kernel.
    fn load(&self, bytes: &[u8], loader: &mut Loader<'_>) -> Result<(u32, u64), BootError> {
        match *self {
            Self::Elf(ref elf) => {
                elf.load(bytes, loader)?;
                let entry = elf.physical_entry();
                let entry = entry.ok_or(BootError::Damaged("its entry point is above 4 GiB"))?;
                Ok((entry, elf.end()))
            }
            Self::Flat { offset, load, load_end, bss_end, entry } => {
                let len = (load_end - load) as usize;
                let data = bytes.get(offset..).and_then(|b| b.get(..len));
                let data = data.ok_or(BootError::Damaged("it is not the file read before"))?;
                loader.kernel(u64::from(load), data, u64::from(bss_end - load))?;
                Ok((entry, u64::from(bss_end)))
            }
        }
    }
}

impl From<&E820Entry> for MmapEntry {
    fn from(entry: &E820Entry) -> Self {
        Self {
            size: (size_of::<Self>() as u32 - 4).into(),
            addr: entry.start.0.into(),
            len: entry.len.into(),
            kind: (entry.kind as u32).into(),
        }
    }
}

/// KiB of RAM from 1 MiB up to the first hole.
fn mem_upper(e820: &[E820Entry]) -> u32 {
    let above = e820.iter().find(|e| e.kind == E820Kind::Ram && e.start == HIGH_MEMORY);
    above.map_or(0, |e| u32::try_from(e.len / 1024).unwrap_or(u32::MAX))
}

/// The first `N` little-endian words of `bytes`.
fn words<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let mut out = [0; N];
    let bytes = bytes.get(..N * 4)?;
    for (word, chunk) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(chunk.try_into().ok()?);
    }
    Some(out)
}

/// A module as named on the command line: `FILE ARGS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleSpec<'a> {
    /// The file to read.
    pub path: &'a str,
    /// The whole of it, path and arguments: what the kernel is told.
    pub args: &'a str,
}

impl<'a> ModuleSpec<'a> {
    /// Splits what QEMU takes as `-initrd` for Multiboot kernels: modules separated by commas, each
    /// a path and, after a space, arguments. Neither can have a comma in it.
    pub fn split(list: &'a str) -> impl Iterator<Item = Self> {
        list.split(',')
            .map(str::trim_start)
            .filter(|s| !s.is_empty())
            .map(|args| Self { path: args.split_once(' ').map_or(args, |(path, _)| path), args })
    }
}

#[cfg(test)]
#[path = "multiboot_test.rs"]
mod tests;
