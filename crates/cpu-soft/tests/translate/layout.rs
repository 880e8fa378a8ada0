//! Where everything lies, and how a run begins: tables, handlers and the pages that programs use.

use riad_cpu::x86::{DescriptorTable, Segment, Segments, VcpuState, cr0, cr4, efer, rflags};

/// Bytes of guest memory.
pub(crate) const RAM: usize = 0x1_4000;
/// The port that ends a run.
pub(crate) const STOP: u8 = 0xf4;

/// Linear addresses. Code: three pages.
pub(crate) const CODE: u64 = 0x4001_0000;
/// The same pages once more, writable.
pub(crate) const ALIAS: u64 = 0x400c_0000;
/// Pages of code.
pub(crate) const CODE_PAGES: u64 = 3;
/// Data: two pages that can be written, one that cannot, a gap, one for level 0 alone, one that is
/// no memory, a gap.
pub(crate) const DATA: u64 = 0x4004_0000;
/// Two pages of stack, between gaps.
pub(crate) const STACK: u64 = 0x4008_0000;
/// Tables, handlers and their stack, for level 0 alone.
const SYSTEM: u64 = 0x4010_0000;
/// Where the FS and GS segments begin.
pub(crate) const FS: u64 = DATA + 0x800;
pub(crate) const GS: u64 = 0x6004_0000;

/// Guest-physical addresses.
const TABLES: u64 = 0x1000;
pub(crate) const CODE_AT: [u64; 3] = [0x9000, 0xb000, 0xa000];
pub(crate) const DATA_AT: [u64; 3] = [0xd000, 0xc000, 0xf000];
const SUPERVISOR_AT: u64 = 0xe000;
/// No memory is there.
pub(crate) const DEVICE_AT: u64 = 0x10_0000;
pub(crate) const STACK_AT: [u64; 2] = [0x12000, 0x10000];
const SYSTEM_AT: u64 = 0x5000;

/// Where exception handlers find their frames, and the flags in it.
pub(crate) const FRAME_FLAGS_AT: usize = SYSTEM_AT as usize + 0x4000 - 24;
/// Where each handler is, 16 bytes apart by vector.
pub(crate) const HANDLERS: u64 = SYSTEM + 0x2000;

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const NX: u64 = 1 << 63;

/// All of memory at the beginning, but for the data's and the code's contents.
pub(crate) struct Image(pub(crate) Vec<u8>);

impl Image {
    /// Tables and handlers. `writable` says whether code can be written where it runs.
    pub(crate) fn new(writable: bool) -> Self {
        let mut image = Self(vec![0; RAM]);
        for level in 0..3 {
            let index = CODE >> (39 - 9 * level) & 0x1ff;
            image.set(TABLES + level * 0x1000 + index * 8, TABLES + (level + 1) * 0x1000 + 7);
        }
        for (n, page) in CODE_AT.into_iter().enumerate() {
            let at = n as u64 * 0x1000;
            image.map(CODE + at, page | P | US | if writable { RW } else { 0 });
            image.map(ALIAS + at, page | P | US | RW);
        }
        for (n, page) in DATA_AT.into_iter().enumerate() {
            let rights = if n == 2 { P | US } else { P | US | RW };
            image.map(DATA + n as u64 * 0x1000, page | rights | NX);
        }
        image.map(DATA + 0x4000, SUPERVISOR_AT | P | RW | NX);
        image.map(DATA + 0x5000, DEVICE_AT | P | US | RW | NX);
        for (n, page) in STACK_AT.into_iter().enumerate() {
            image.map(STACK + n as u64 * 0x1000, page | P | US | RW | NX);
        }
        for page in (0..0x4000).step_by(0x1000) {
            image.map(SYSTEM + page, (SYSTEM_AT + page) | P | RW);
        }
        image.system();
        image
    }

    /// Interrupt table, descriptors, task state, handlers: four pages.
    fn system(&mut self) {
        for vector in 0..256 {
            let to = HANDLERS + vector * 16;
            let access = if matches!(vector, 3 | 4 | 0x80) { 0xee } else { 0x8e };
            let gate =
                to & 0xffff | 0x08 << 16 | 1 << 32 | access << 40 | (to >> 16 & 0xffff) << 48;
            self.set(SYSTEM_AT + vector * 16, gate);
            self.set(SYSTEM_AT + vector * 16 + 8, to >> 32);
            self.put(SYSTEM_AT + 0x2000 + vector * 16, &[0xe6, STOP, 0xf4, 0xeb, 0xfd]);
        }
        let descriptors = [
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0,
            0,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
        ];
        for (n, entry) in descriptors.into_iter().enumerate() {
            self.set(SYSTEM_AT + 0x1000 + n as u64 * 8, entry);
        }
        // RSP0 and IST 1 of the task state; no I/O permission map.
        self.set(SYSTEM_AT + 0x1800 + 4, SYSTEM + 0x4000);
        self.set(SYSTEM_AT + 0x1800 + 36, SYSTEM + 0x4000);
        self.set(SYSTEM_AT + 0x1800 + 0x60, 0xffff << 48);
    }

    /// Maps 4 KiB.
    pub(crate) fn map(&mut self, address: u64, entry: u64) {
        self.set(TABLES + 0x3000 + (address >> 12 & 0x1ff) * 8, entry);
    }

    /// Writes eight bytes at a physical address.
    pub(crate) fn set(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    /// Writes at a physical address.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes code, from the first code page's linear address on.
    pub(crate) fn code(&mut self, bytes: &[u8]) {
        for (page, part) in CODE_AT.into_iter().zip(bytes.chunks(0x1000)) {
            self.put(page, part);
        }
    }
}

/// A processor in 64-bit mode, about to run code at level 3 or 0. General registers are zero.
pub(crate) fn state(user: bool, rip: u64) -> VcpuState {
    let flat = |selector, rights| Segment { selector, base: 0, limit: u32::MAX, rights };
    let (code, data) = if user {
        (flat(0x33, 0xa0fb), flat(0x2b, 0xc0f3))
    } else {
        (flat(0x08, 0xa09b), flat(0x10, 0xc093))
    };
    let mut state = VcpuState::flat_protected(0, 0);
    state.segments = Segments {
        es: data,
        cs: code,
        ss: data,
        ds: data,
        fs: Segment { base: FS, ..data },
        gs: Segment { base: GS, ..data },
        ldtr: Segment { rights: Segment::UNUSABLE, ..Segment::default() },
        tr: Segment { selector: 0x40, base: SYSTEM + 0x1800, limit: 0x67, rights: 0x8b },
    };
    state.gdtr = DescriptorTable { base: SYSTEM + 0x1000, limit: 0x3f };
    state.idtr = DescriptorTable { base: SYSTEM, limit: 0xfff };
    state.control.cr0 = cr0::PE | cr0::PG | cr0::ET | cr0::NE | cr0::MP | cr0::WP;
    state.control.cr3 = TABLES;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::FSGSBASE;
    state.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
    state.rip = rip;
    state.rflags = rflags::ONE;
    state.gpr[4] = STACK + 0x1000;
    state
}
