//! Linux bzImages (Linux `Documentation/arch/x86/boot.rst` and `zero-page.rst`).
//!
//! The file is real-mode setup code, which nobody needs here, then the protected-mode kernel:
//! a small program that decompresses the real kernel, an ELF file, and jumps to it. When that ELF
//! file can be had on the host and has a PVH entry, it is booted directly (see the
//! `kernel` module). Otherwise the protected-mode kernel is entered as a boot loader
//! would, through the 32-bit boot protocol, with the zero page (`struct boot_params`) in ESI.

use std::ops::Range;

use riad_memory::Gpa;

use super::loader::{Loader, address_32};
use super::pvh::Limits;
use super::{BootError, BootMachine, BootParams, Compression, Entry};
use crate::pc::map::HIGH_MEMORY;

/// Offsets in the file, and in `struct boot_params`, of the setup header's fields.
mod field {
    pub(super) const SETUP_SECTS: usize = 0x1f1;
    pub(super) const VID_MODE: usize = 0x1fa;
    pub(super) const BOOT_FLAG: usize = 0x1fe;
    /// The jump over the header: its second byte says where the header ends.
    pub(super) const JUMP: usize = 0x200;
    pub(super) const HEADER: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const TYPE_OF_LOADER: usize = 0x210;
    pub(super) const LOADFLAGS: usize = 0x211;
    pub(super) const CODE32_START: usize = 0x214;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21c;
    pub(super) const CMD_LINE_PTR: usize = 0x228;
    pub(super) const INITRD_ADDR_MAX: usize = 0x22c;
    pub(super) const KERNEL_ALIGNMENT: usize = 0x230;
    pub(super) const RELOCATABLE: usize = 0x234;
    pub(super) const CMDLINE_SIZE: usize = 0x238;
    pub(super) const PAYLOAD_OFFSET: usize = 0x248;
    pub(super) const PAYLOAD_LENGTH: usize = 0x24c;
    pub(super) const PREF_ADDRESS: usize = 0x258;
    pub(super) const INIT_SIZE: usize = 0x260;
}

/// Offsets of fields that are in `struct boot_params` only.
mod zero_page {
    pub(super) const ACPI_RSDP_ADDR: usize = 0x070;
    pub(super) const E820_ENTRIES: usize = 0x1e8;
    /// The room for the setup header ends here.
    pub(super) const HEADER_END: usize = 0x290;
    pub(super) const E820_TABLE: usize = 0x2d0;
    pub(super) const E820_MAX: usize = 128;
    pub(super) const SIZE: usize = 0x1000;
}

const HDRS: &[u8] = b"HdrS";
const SECTOR: usize = 512;
/// Bit of `loadflags`: the protected-mode kernel is to be at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// "Undefined" boot loader, of which the kernel asks nothing.
const LOADER_UNDEFINED: u8 = 0xff;
/// `vid_mode` "normal".
const VIDEO_NORMAL: u16 = 0xffff;
/// Limits of kernels that are too old to tell theirs.
const OLD_CMDLINE: usize = 255;
const OLD_INITRD_MAX: u32 = 0x37ff_ffff;
/// The longest command line any kernel is given, bytes; the header's own limit is hostile.
const CMDLINE_MAX: usize = 0xffff;

/// A bzImage, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BzImage {
    /// Boot protocol version, major in the high byte.
    version: u16,
    /// The setup header's bytes in the file.
    header: Range<usize>,
    /// The protected-mode kernel's bytes in the file.
    kernel: Range<usize>,
    /// The compressed kernel's bytes in the file.
    payload: Option<Range<usize>>,
    limits: Limits,
    relocatable: bool,
    alignment: u64,
    pref_address: u64,
    /// Memory the kernel needs from where it is loaded until it has read its memory map, bytes.
    init_size: u64,
}

impl BzImage {
    /// Whether `bytes` have a setup header.
    #[must_use]
    pub fn detect(bytes: &[u8]) -> bool {
        bytes.get(field::HEADER..).is_some_and(|b| b.starts_with(HDRS))
            && u16_at(bytes, field::BOOT_FLAG) == Some(0xaa55)
    }

    /// Reads and checks the setup header.
    ///
    /// # Errors
    /// When the file is cut short, or of a kernel too old for the 32-bit boot protocol.
    pub fn parse(bytes: &[u8]) -> Result<Self, BootError> {
        const SHORT: BootError = BootError::Damaged("its setup header is cut short");
        let u8_at = |at: usize| bytes.get(at).copied().ok_or(SHORT);
        let u32_at = |at: usize| u32_at(bytes, at).ok_or(SHORT);
        let version = u16_at(bytes, field::VERSION).ok_or(SHORT)?;
        if version < 0x0202 || u8_at(field::LOADFLAGS)? & LOADED_HIGH == 0 {
            return Err(BootError::Unsupported(
                "it is a zImage or uses a boot protocol older than 2.02 (Linux 2.4)",
            ));
        }
        let setup_sects = match usize::from(u8_at(field::SETUP_SECTS)?) {
            0 => 4,
            sectors => sectors,
        };
        let start = (setup_sects + 1) * SECTOR;
        if bytes.len() <= start {
            return Err(BootError::Damaged("the file ends before the protected-mode kernel"));
        }
        let header_end = field::HEADER + usize::from(u8_at(field::JUMP + 1)?);
        let header_end = header_end.min(zero_page::HEADER_END).min(bytes.len());
        let mut image = Self {
            version,
            header: field::SETUP_SECTS..header_end,
            kernel: start..bytes.len(),
            payload: None,
            limits: Limits { cmdline: OLD_CMDLINE, initrd_end: u64::from(OLD_INITRD_MAX) + 1 },
            relocatable: false,
            alignment: 1,
            pref_address: HIGH_MEMORY.0,
            init_size: (bytes.len() - start) as u64,
        };
        if version >= 0x0203 {
            image.limits.initrd_end = u64::from(u32_at(field::INITRD_ADDR_MAX)?) + 1;
        }
        if version >= 0x0205 {
            image.relocatable = u8_at(field::RELOCATABLE)? != 0;
            image.alignment = u64::from(u32_at(field::KERNEL_ALIGNMENT)?.max(1));
        }
        if version >= 0x0206 {
            image.limits.cmdline = (u32_at(field::CMDLINE_SIZE)? as usize).min(CMDLINE_MAX);
        }
        if version >= 0x0208 {
            let offset = u32_at(field::PAYLOAD_OFFSET)? as usize;
            let len = u32_at(field::PAYLOAD_LENGTH)? as usize;
            image.payload = payload(start, offset, len, bytes.len())?;
        }
        if version >= 0x020a {
            image.pref_address = u64_at(bytes, field::PREF_ADDRESS).ok_or(SHORT)?;
            image.init_size = u64::from(u32_at(field::INIT_SIZE)?).max(image.init_size);
        }
        Ok(image)
    }

    /// The kernel's limits.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Decompresses the kernel inside `bytes`, the file that was parsed. `None` when there is none,
    /// or it is compressed in a way only the kernel itself knows.
    pub(super) fn unpack(&self, bytes: &[u8]) -> Result<Option<Vec<u8>>, BootError> {
        let Some(payload) = self.payload.clone().and_then(|range| bytes.get(range)) else {
            return Ok(None);
        };
        let Some(compression) = Compression::detect(payload) else { return Ok(None) };
        let stream = match compression {
            // The size that ends a gzip stream is part of it. The others have it appended.
            Compression::Gzip => payload,
            _ => payload.split_last_chunk::<4>().map_or(payload, |(stream, _size)| stream),
        };
        compression.unpack(stream).map(Some)
    }

    /// Loads it for the 32-bit boot protocol.
    pub(super) fn load(
        &self,
        bytes: &[u8],
        machine: &BootMachine<'_>,
        params: &BootParams<'_>,
    ) -> Result<Entry, BootError> {
        const CHANGED: BootError = BootError::Damaged("it is not the file that was read before");
        let header = bytes.get(self.header.clone()).ok_or(CHANGED)?;
        let kernel = bytes.get(self.kernel.clone()).ok_or(CHANGED)?;
        let mut loader = Loader::new(machine);
        let at = self.place(kernel, &mut loader)?;
        let cmdline = loader.cmdline(params.cmdline, self.limits.cmdline)?;
        let initrd = loader.initrd(params.modules, self.limits.initrd_end)?;

        let mut page = [0; zero_page::SIZE];
        page[self.header.clone()].copy_from_slice(header);
        page[field::TYPE_OF_LOADER] = LOADER_UNDEFINED;
        put(&mut page, field::VID_MODE, &VIDEO_NORMAL.to_le_bytes());
        put(&mut page, field::CODE32_START, &address_32(at)?.to_le_bytes());
        put(&mut page, field::CMD_LINE_PTR, &address_32(cmdline)?.to_le_bytes());
        if let Some(initrd) = initrd {
            // Both are below 4 GiB, where the RAM disk was placed.
            put(&mut page, field::RAMDISK_IMAGE, &address_32(initrd.start)?.to_le_bytes());
            put(&mut page, field::RAMDISK_SIZE, &(initrd.len as u32).to_le_bytes());
        }
        if let Some(rsdp) = machine.rsdp {
            put(&mut page, zero_page::ACPI_RSDP_ADDR, &rsdp.0.to_le_bytes());
        }
        let e820 = &machine.e820[..machine.e820.len().min(zero_page::E820_MAX)];
        page[zero_page::E820_ENTRIES] = e820.len() as u8;
        for (i, entry) in e820.iter().enumerate() {
            let at = zero_page::E820_TABLE + i * 20;
            put(&mut page, at, &entry.start.0.to_le_bytes());
            put(&mut page, at + 8, &entry.len.to_le_bytes());
            put(&mut page, at + 16, &(entry.kind as u32).to_le_bytes());
        }
        let page = loader.table(&page)?;
        Ok(Entry {
            eip: address_32(at)?,
            eax: 0,
            ebx: 0,
            esi: address_32(page)?,
            gdt: loader.gdt()?,
        })
    }

    /// Puts the protected-mode kernel where it prefers to be, or, when it may be moved and there
    /// is no room, as low as possible.
    fn place(&self, kernel: &[u8], loader: &mut Loader<'_>) -> Result<Gpa, BootError> {
        // What follows the file's bytes is claimed, but need not be zero: the kernel sees to that.
        match loader.reserve(self.pref_address, kernel, self.init_size) {
            Ok(()) => return Ok(Gpa(self.pref_address)),
            Err(BootError::NoRoom { .. } | BootError::BadAddress { .. }) if self.relocatable => {}
            Err(error) => return Err(error),
        }
        if !self.alignment.is_power_of_two() {
            return Err(BootError::Damaged("its alignment is not a power of two"));
        }
        let lowest = HIGH_MEMORY.0.next_multiple_of(self.alignment);
        loader.reserve(lowest, kernel, self.init_size)?;
        Ok(Gpa(lowest))
    }
}

/// The range of the payload in the file: `None` when the header says there is none.
fn payload(
    start: usize,
    offset: usize,
    len: usize,
    file: usize,
) -> Result<Option<Range<usize>>, BootError> {
    if offset == 0 || len == 0 {
        return Ok(None);
    }
    let first = start.checked_add(offset);
    let end = first.and_then(|first| first.checked_add(len));
    match (first, end) {
        (Some(first), Some(end)) if end <= file => Ok(Some(first..end)),
        _ => Err(BootError::Damaged("the file ends inside its compressed kernel")),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// Writes a field of the zero page; all offsets are constants inside it.
fn put(page: &mut [u8; zero_page::SIZE], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
#[path = "bzimage_test.rs"]
mod tests;
