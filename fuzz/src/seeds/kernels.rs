//! Kernels of every format, small.

use super::archive::gzip;

/// A little-endian file being written.
#[derive(Debug, Default)]
struct File(Vec<u8>);

impl File {
    fn halves(mut self, halves: &[u16]) -> Self {
        halves.iter().for_each(|half| self.0.extend(half.to_le_bytes()));
        self
    }

    fn words(mut self, words: &[u32]) -> Self {
        words.iter().for_each(|word| self.0.extend(word.to_le_bytes()));
        self
    }

    fn longs(mut self, longs: &[u64]) -> Self {
        longs.iter().for_each(|long| self.0.extend(long.to_le_bytes()));
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// A 64-bit ELF file with a segment of code at 16 MiB and a PVH note (Xen `docs/misc/pvh.pandoc`).
#[must_use]
pub fn pvh() -> Vec<u8> {
    let note = File::default().words(&[4, 8, 18]).bytes(b"Xen\0").longs(&[0x100_0000]).0;
    let (code, code_at) = (b"\xf4kernel!", 64 + 2 * 56);
    File::default()
        .bytes(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")
        .halves(&[2, 62])
        .words(&[1])
        .longs(&[0xffff_ffff_8100_0000, 64, 0])
        .words(&[0])
        .halves(&[64, 56, 2, 0, 0, 0])
        // Segment: type, flags, offset, virtual, physical, size in file, in memory, alignment.
        .words(&[1, 5])
        .longs(&[code_at, 0xffff_ffff_8100_0000, 0x100_0000, 8, 0x1000, 4096])
        .words(&[4, 4])
        .longs(&[code_at + 8, 0, 0, note.len() as u64, note.len() as u64, 4])
        .bytes(code)
        .bytes(&note)
        .0
}

/// A 32-bit ELF file with a Multiboot header.
#[must_use]
pub fn multiboot_elf() -> Vec<u8> {
    let header = multiboot_header(3, &[]);
    File::default()
        .bytes(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0")
        .halves(&[2, 3])
        .words(&[1, 0x10_0000, 52, 0, 0])
        .halves(&[52, 32, 1, 0, 0, 0])
        .words(&[1, 84, 0x10_0000, 0x10_0000, header.len() as u32, 0x1000, 5, 4096])
        .bytes(&header)
        .0
}

/// A Multiboot header (Multiboot 0.6.96, 3.1): magic, `flags`, checksum, `more`.
#[must_use]
pub fn multiboot_header(flags: u32, more: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    File::default()
        .words(&[magic, flags, 0u32.wrapping_sub(magic.wrapping_add(flags))])
        .words(more)
        .0
}

/// A bzImage (Linux `Documentation/arch/x86/boot.rst`, protocol 2.15) with `payload` in it.
#[must_use]
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 3 * 512];
    let mut put = |at: usize, bytes: &[u8]| {
        file.iter_mut().skip(at).zip(bytes).for_each(|(slot, byte)| *slot = *byte);
    };
    put(0x1f1, &[2]);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x238, &2047u32.to_le_bytes());
    put(0x248, &16u32.to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x30_0000u32.to_le_bytes());
    file.extend([0x90; 16]);
    file.extend(payload);
    file
}

/// LZ4 as the Linux build writes it.
#[must_use]
pub fn lz4(bytes: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(bytes);
    File::default().words(&[0x184c_2102, block.len() as u32]).bytes(&block).0
}

/// One kernel of each kind.
#[must_use]
pub fn all() -> Vec<Vec<u8>> {
    let sized = |mut bytes: Vec<u8>| {
        // The Linux build puts the unpacked size after the stream.
        bytes.extend((pvh().len() as u32).to_le_bytes());
        bytes
    };
    vec![
        pvh(),
        multiboot_elf(),
        multiboot_header(1 << 16, &[0x10_0000, 0x10_0000, 0, 0, 0x10_0020]),
        bzimage(b""),
        bzimage(&gzip(&pvh())),
        bzimage(&sized(lz4(&pvh()))),
        bzimage(&sized(zstd::encode_all(&pvh()[..], 1).unwrap_or_default())),
        gzip(&pvh()),
        zstd::encode_all(&pvh()[..], 1).unwrap_or_default(),
    ]
}

/// A kernel module: an object file with a `.modinfo` section.
#[must_use]
pub fn module() -> Vec<u8> {
    let info = b"license=GPL\0depends=a,b\0softdep=pre: c\0name=x\0";
    let names = b"\0.modinfo\0.shstrtab\0";
    let (info_at, names_at) = (64u64, 64 + info.len() as u64);
    let table = names_at + names.len() as u64;
    let section = |file: File, name: u32, at: u64, len: u64| {
        file.words(&[name, 1]).longs(&[0, 0, at, len]).words(&[0, 0]).longs(&[1, 0])
    };
    let file = File::default()
        .bytes(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")
        .halves(&[1, 62])
        .words(&[1])
        .longs(&[0, 0, table])
        .words(&[0])
        .halves(&[64, 0, 0, 64, 3, 2])
        .bytes(info)
        .bytes(names);
    let file = section(file, 0, 0, 0);
    let file = section(file, 1, info_at, info.len() as u64);
    section(file, 10, names_at, names.len() as u64).0
}
