//! Small kernels of every format, made by hand, and machines to load them into.

use riad_memory::GuestMemory;

use super::{BootMachine, BootParams, Entry, KernelImage};
use crate::pc::map::{AddressMap, E820Entry, MIB};

/// A machine's memory and map.
pub(super) struct TestMachine {
    pub(super) memory: GuestMemory,
    pub(super) e820: Vec<E820Entry>,
}

impl TestMachine {
    pub(super) fn new(mib: u64) -> Self {
        let map = AddressMap::new(mib * MIB).unwrap();
        Self { memory: GuestMemory::new(&map.runs()).unwrap(), e820: map.e820() }
    }

    pub(super) fn boot(&self) -> BootMachine<'_> {
        let rsdp = Some(crate::pc::map::FIRMWARE_TABLES);
        BootMachine { memory: &self.memory, e820: &self.e820, rsdp }
    }

    /// Parses and loads.
    pub(super) fn load(&self, file: &[u8], params: &BootParams<'_>) -> Entry {
        KernelImage::parse(file).unwrap().load(&self.boot(), params).unwrap()
    }

    pub(super) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        self.memory.read_vec(riad_memory::Gpa(at), len).unwrap()
    }

    pub(super) fn u32(&self, at: u32) -> u32 {
        self.memory.read_u32(riad_memory::Gpa(at.into())).unwrap()
    }

    pub(super) fn u64(&self, at: u32) -> u64 {
        self.memory.read_u64(riad_memory::Gpa(at.into())).unwrap()
    }

    /// The NUL-terminated string at `at`.
    pub(super) fn text(&self, at: u64) -> String {
        let bytes = self.bytes(at, 256);
        let len = bytes.iter().position(|&b| b == 0).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }
}

/// A 64-bit ELF file with one segment of `code` at `paddr`, `memsz` bytes in memory, linked
/// 0xffff_ffff_8000_0000 higher; with a PVH note when `pvh` names an entry point.
pub(super) fn elf64(paddr: u64, code: &[u8], memsz: u64, pvh: Option<u64>) -> Vec<u8> {
    const BASE: u64 = 0xffff_ffff_8000_0000;
    let note = pvh.map(|entry| {
        let mut note = Vec::new();
        for word in [4u32, 8, 18] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"Xen\0");
        note.extend(entry.to_le_bytes());
        note
    });
    let phnum = 1 + u16::from(note.is_some());
    let code_at = 64 + 56 * u64::from(phnum);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(2u16.to_le_bytes());
    file.extend(62u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for word in [BASE + paddr, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, phnum, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut phdr =
        |kind: u32, offset: u64, vaddr: u64, paddr: u64, filesz: u64, memsz: u64, align: u64| {
            file.extend(kind.to_le_bytes());
            file.extend(5u32.to_le_bytes());
            for word in [offset, vaddr, paddr, filesz, memsz, align] {
                file.extend(word.to_le_bytes());
            }
        };
    phdr(1, code_at, BASE + paddr, paddr, code.len() as u64, memsz, 4096);
    let note_at = code_at + code.len() as u64;
    if let Some(note) = &note {
        phdr(4, note_at, 0, 0, note.len() as u64, note.len() as u64, 4);
    }
    file.extend(code);
    file.extend(note.unwrap_or_default());
    file
}

/// A 32-bit ELF file with one segment of `code` at `paddr`, linked 0xc000_0000 higher.
pub(super) fn elf32(paddr: u32, code: &[u8], memsz: u32) -> Vec<u8> {
    const BASE: u32 = 0xc000_0000;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(2u16.to_le_bytes());
    file.extend(3u16.to_le_bytes());
    for word in [1u32, BASE + paddr + 4, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [52u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, 84, BASE + paddr, paddr, code.len() as u32, memsz, 5, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// A Multiboot header: magic, `flags`, checksum, `more`.
pub(super) fn multiboot_header(flags: u32, more: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    let checksum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    [magic, flags, checksum].iter().chain(more).flat_map(|w| w.to_le_bytes()).collect()
}

/// A bzImage of protocol 2.15 around `kernel`, whose payload is `payload`: (offset, length) in it.
pub(super) fn bzimage(kernel: &[u8], payload: (u32, u32)) -> Vec<u8> {
    let mut file = vec![0; 3 * 512];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[2]);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x238, &2047u32.to_le_bytes());
    put(0x248, &payload.0.to_le_bytes());
    put(0x24c, &payload.1.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x30_0000u32.to_le_bytes());
    file.extend(kernel);
    file
}

/// `data` as the Linux build compresses it with lz4.
pub(super) fn lz4_legacy(data: &[u8]) -> Vec<u8> {
    let mut out = 0x184c_2102u32.to_le_bytes().to_vec();
    for chunk in data.chunks(8 << 20) {
        let block = lz4_flex::block::compress(chunk);
        out.extend((block.len() as u32).to_le_bytes());
        out.extend(block);
    }
    out
}
