//! ELF kernels: which bytes go where in guest memory (ELF specification 1.2, book I).
//!
//! Segments are loaded at their *physical* addresses, since kernels are entered with paging off.

use std::ops::Range;

use elf::abi::{EM_386, EM_X86_64, PT_LOAD, PT_NOTE, SHT_NOTE};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::{Note, NoteAny};
use elf::{ElfBytes, ParseError};

use super::BootError;
use super::loader::Loader;

/// The note that names a kernel's PVH entry point (Xen `xen/include/public/elfnote.h`).
const XEN_ELFNOTE_PHYS32_ENTRY: u64 = 18;

/// A segment to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    /// Its bytes in the file.
    file: Range<usize>,
    /// Where they go.
    paddr: u64,
    /// Where the kernel thinks they are.
    vaddr: u64,
    /// Bytes in memory: those of the file, then zeros.
    memsz: u64,
}

/// An x86 ELF file, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElfImage {
    segments: Vec<Segment>,
    entry: u64,
    is_64: bool,
    pvh_entry: Option<u32>,
}

impl ElfImage {
    /// Whether `bytes` begin as an ELF file does.
    #[must_use]
    pub fn detect(bytes: &[u8]) -> bool {
        bytes.starts_with(b"\x7fELF")
    }

    /// Reads and checks the program headers and notes.
    ///
    /// # Errors
    /// When the file is damaged, for another processor, or has nothing to load.
    pub fn parse(bytes: &[u8]) -> Result<Self, BootError> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(bytes)?;
        let machine = file.ehdr.e_machine;
        if machine != EM_386 && machine != EM_X86_64 {
            return Err(BootError::WrongMachine(machine));
        }
        let headers = file.segments().ok_or(BootError::Damaged("it has no program headers"))?;
        let mut segments = Vec::new();
        for header in headers.iter().filter(|h| h.p_type == PT_LOAD && h.p_memsz > 0) {
            file.segment_data(&header)?;
            if header.p_filesz > header.p_memsz {
                return Err(BootError::Damaged("a segment is larger in the file than in memory"));
            }
            let in_range = header.p_paddr.checked_add(header.p_memsz).is_some();
            let (start, len) = (usize::try_from(header.p_offset), usize::try_from(header.p_filesz));
            let (Ok(start), Ok(len), true) = (start, len, in_range) else {
                return Err(BootError::Damaged("a segment is out of the address range"));
            };
            segments.push(Segment {
                file: start..start.saturating_add(len),
                paddr: header.p_paddr,
                vaddr: header.p_vaddr,
                memsz: header.p_memsz,
            });
        }
        if segments.is_empty() {
            return Err(BootError::Damaged("it has no segments to load"));
        }
        Ok(Self {
            segments,
            entry: file.ehdr.e_entry,
            is_64: file.ehdr.class == Class::ELF64,
            pvh_entry: pvh_entry(&file)?,
        })
    }

    /// Whether it is a 64-bit ELF file.
    #[must_use]
    pub fn is_64(&self) -> bool {
        self.is_64
    }

    /// The PVH entry point, from the file's Xen note.
    #[must_use]
    pub fn pvh_entry(&self) -> Option<u32> {
        self.pvh_entry
    }

    /// The entry point as a physical address. Kernels that are linked high give a virtual one.
    #[must_use]
    pub fn physical_entry(&self) -> Option<u32> {
        let within =
            |s: &&Segment| (s.vaddr..s.vaddr.saturating_add(s.memsz)).contains(&self.entry);
        let physical = match self.segments.iter().find(within) {
            Some(s) => s.paddr.checked_add(self.entry - s.vaddr)?,
            None => self.entry,
        };
        u32::try_from(physical).ok()
    }

    /// The address after the last byte of the loaded kernel.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.iter().map(|s| s.paddr.saturating_add(s.memsz)).max().unwrap_or(0)
    }

    /// Puts the segments of `bytes`, the file that was parsed, into memory.
    pub(super) fn load(&self, bytes: &[u8], loader: &mut Loader<'_>) -> Result<(), BootError> {
        for segment in &self.segments {
            let data = bytes
                .get(segment.file.clone())
                .ok_or(BootError::Damaged("a segment is not in the file"))?;
            loader.kernel(segment.paddr, data, segment.memsz)?;
        }
        Ok(())
    }
}

/// Finds the PVH entry point in the notes: of segments, and of sections for files whose notes are
/// in no segment.
fn pvh_entry(file: &ElfBytes<'_, LittleEndian>) -> Result<Option<u32>, ParseError> {
    for header in file.segments().into_iter().flatten().filter(|h| h.p_type == PT_NOTE) {
        // A note of a kind we do not care for may be damaged, or aligned in a way of its own.
        let Ok(mut notes) = file.segment_data_as_notes(&header) else { continue };
        if let Some(entry) = notes.find_map(entry_of) {
            return Ok(Some(entry));
        }
    }
    for header in file.section_headers().into_iter().flatten().filter(|h| h.sh_type == SHT_NOTE) {
        let Ok(mut notes) = file.section_data_as_notes(&header) else { continue };
        if let Some(entry) = notes.find_map(entry_of) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn entry_of(note: Note<'_>) -> Option<u32> {
    let Note::Unknown(NoteAny { n_type: XEN_ELFNOTE_PHYS32_ENTRY, name: b"Xen\0", desc }) = note
    else {
        return None;
    };
    if let Ok(entry) = <[u8; 4]>::try_from(desc) {
        return Some(u32::from_le_bytes(entry));
    }
    u32::try_from(u64::from_le_bytes(desc.try_into().ok()?)).ok()
}

#[cfg(test)]
#[path = "elf_test.rs"]
mod tests;
