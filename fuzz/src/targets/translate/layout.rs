//! What a case's code finds: memory, tables, handlers that go on elsewhere, registers.
//!
//! Every fault leads to a handler that clears the status flags it was given and goes on at the next
//! place of a list; after some of them it stops the machine. So a case's code runs on behind its
//! first fault, and handlers, SYSCALL and SYSRET make blocks of the system's.

use riad_cpu::x86::{DescriptorTable, Segment, Segments, VcpuState, cr0, cr4, efer, rflags};
use riad_memory::{Gpa, GuestMemory};

use crate::random::Random;

/// The port that ends a run.
pub(super) const STOP: u8 = 0xf4;
/// Faults until a run ends.
const FAULTS: u8 = 6;

/// Bytes of the first region of RAM, which begins at 0.
pub(super) const BASE: u64 = 0x1_4000;
/// Where the second begins, which has places for code.
pub(super) const SLOTS_AT: u64 = 0x20_0000;
/// Places for code: a page that is rewritten too often would be left to the interpreter.
pub(super) const SLOTS: u64 = 16;
/// Bytes of a place for code.
pub(super) const SLOT: u64 = 0x2000;

/// Where things are, linear and (but for code) physical.
pub(super) mod at {
    pub(in super::super) const TABLES: u64 = 0x1000;
    pub(in super::super) const IDT: u64 = 0x5000;
    pub(in super::super) const GDT: u64 = 0x6000;
    pub(in super::super) const TSS: u64 = 0x6800;
    pub(in super::super) const HANDLERS: u64 = 0x7000;
    /// Where handlers go on. They count in the four bytes at 0x8000.
    pub(in super::super) const LANDINGS: u64 = 0x8008;
    /// The top of the handlers' stack.
    pub(in super::super) const FRAME: u64 = 0x9000;
    /// What all handlers do, and what SYSCALL leads to.
    pub(in super::super) const HANDLER: u64 = 0x9000;
    pub(in super::super) const SYSCALL: u64 = 0x9800;
    /// Two pages that can be written.
    pub(in super::super) const CODE: u64 = 0xa000;
    /// Two that can be written and one that cannot; nothing before and behind.
    pub(in super::super) const DATA: u64 = 0xd000;
    pub(in super::super) const STACK: u64 = 0x1_1000;
    /// The last page of the first region, and behind it one that is not RAM.
    pub(in super::super) const EDGE: u64 = 0x1_4000;
    /// The code once more.
    pub(in super::super) const ALIAS: u64 = 0x1_6000;
    /// The second region as a large page.
    pub(in super::super) const LARGE: u64 = 0x20_0000;
    /// The last address below those that are not canonical, and the first above.
    pub(in super::super) const LOW_END: u64 = 0x7fff_ffff_ffff;
    pub(in super::super) const HIGH: u64 = 0xffff_8000_0000_0000;
}

/// Rights of a page: of the system's, to be written by it; of the user's to be read; to be written.
const SYSTEM: u64 = 3;
const READ: u64 = 5;
const WRITE: u64 = 7;
/// A large page.
const HUGE: u64 = 1 << 7;
/// Not to be executed.
const NX: u64 = 1 << 63;

/// Addresses that a translator must not take for the guest's: where the host has something.
#[derive(Debug, Clone, Default)]
pub(super) struct HostAddresses(pub(super) Vec<u64>);

/// How a case's machine begins.
pub(super) struct Start {
    /// The processor.
    pub(super) state: VcpuState,
    /// The first region of RAM, and the second.
    pub(super) base: Vec<u8>,
    pub(super) slots: Vec<u8>,
}

impl Start {
    /// Writes what is not there already: what is known of the code on a page stays known.
    pub(super) fn load(&self, memory: &GuestMemory) -> Option<()> {
        let mut page = [0; 0x1000];
        for (at, bytes) in [(0, &self.base), (SLOTS_AT, &self.slots)] {
            for (n, wanted) in (0u64..).zip(bytes.chunks(0x1000)) {
                let at = Gpa(at + n * 0x1000);
                memory.read(at, &mut page).ok()?;
                if page[..] != *wanted {
                    memory.write(at, wanted).ok()?;
                }
            }
        }
        Some(())
    }
}

/// What a case says of its beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choices {
    /// For registers and data.
    pub(super) seed: u64,
    /// How many registers hold addresses of nothing: 0 to 3.
    pub(super) wild: u8,
    /// The code runs by way of the large page.
    pub(super) large: bool,
}

/// The beginning of a case, whose code gets one of the places for it; `slots` is what lies in all of
/// them.
pub(super) fn start(
    choices: Choices,
    code: &[u8],
    slot: u64,
    mut slots: Vec<u8>,
    host: &HostAddresses,
) -> Start {
    let mut random = Random::new(choices.seed);
    let mut base = vec![0; BASE as usize];
    tables(&mut base, slot);
    system(&mut base);
    fill(&mut base, at::DATA, 0x3000, &mut random);
    fill(&mut base, at::STACK, 0x3000, &mut random);

    let code = &code[..code.len().min(0xf00)];
    let pages = &mut slots[(slot * SLOT) as usize..][..SLOT as usize];
    pages.fill(0xcc);
    // Mostly across two pages.
    let from = if random.one_in(4) {
        random.below(0x1000)
    } else {
        0x1000 - random.below(code.len().clamp(16, 0x200))
    };
    pages[from..from + code.len()].copy_from_slice(code);
    // It ends by showing its flags: PUSHFQ, UD2.
    pages[from + code.len()..from + code.len() + 3].copy_from_slice(&[0x9c, 0x0f, 0x0b]);
    let linear = if choices.large { at::LARGE + slot * SLOT } else { at::CODE };
    for n in 0..u64::from(FAULTS) {
        let to = linear + (from + random.below(code.len() + 1)) as u64;
        put(&mut base, at::LANDINGS + n * 8, &to.to_le_bytes());
    }

    let mut state = processor();
    for register in &mut state.gpr {
        *register = value(choices, linear, host, &mut random);
    }
    for register in &mut state.fpu.xmm {
        *register = u128::from(random.bits()) << 64 | u128::from(random.edge());
    }
    if random.below(8) >= usize::from(choices.wild) {
        state.gpr[4] = at::STACK + 0x1000 + random.below(16) as u64 * 8;
    }
    state.rip = linear + from as u64;
    state.rflags = rflags::ONE | random.bits() & rflags::STATUS;
    Start { state, base, slots }
}

fn put(base: &mut [u8], at: u64, bytes: &[u8]) {
    base[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
}

fn fill(base: &mut [u8], at: u64, len: usize, random: &mut Random) {
    for eight in base[at as usize..at as usize + len].chunks_exact_mut(8) {
        eight.copy_from_slice(&random.bits().to_le_bytes());
    }
}

/// Page tables. All of it lies at the bottom, and once more at the top and below the hole of what is
/// not canonical.
fn tables(base: &mut [u8], slot: u64) {
    let [pml4, pdpt, pd, pt] = [0, 1, 2, 3].map(|level| at::TABLES + level * 0x1000);
    let mut entry = |table: u64, index: u64, value: u64| {
        put(base, table + index * 8, &value.to_le_bytes());
    };
    for (table, next) in [(pml4, pdpt), (pdpt, pd), (pd, pt)] {
        for index in [0, 511] {
            entry(table, index, next | WRITE);
        }
    }
    for index in [255, 256] {
        entry(pml4, index, pdpt | WRITE);
    }
    entry(pd, at::LARGE >> 21, SLOTS_AT | WRITE | HUGE);
    let code = SLOTS_AT + slot * SLOT;
    for page in 1..0x20 {
        let linear = page << 12;
        let value = match linear {
            at::TABLES => 0,
            at::IDT => linear | 1,
            at::GDT..at::FRAME | at::HANDLER => linear | SYSTEM,
            at::CODE | 0xb000 => (code + (linear - at::CODE)) | WRITE,
            at::DATA | 0xe000 => linear | WRITE,
            0xf000 => linear | READ,
            at::STACK..at::EDGE => linear | WRITE | NX,
            at::EDGE => (BASE - 0x1000) | WRITE,
            0x1_5000 => BASE | WRITE,
            at::ALIAS | 0x1_7000 => (code + (linear - at::ALIAS)) | WRITE,
            // More bits than the processor has.
            0x1_8000 => 1 << 51 | WRITE,
            // The end of the addresses that exist.
            0x1_9000 => 0xf_ffff_f000 | WRITE,
            _ => 0,
        };
        entry(pt, page, value);
    }
    entry(pt, 511, (at::DATA + 0x1000) | WRITE);
}

/// Descriptors, gates and handlers.
fn system(base: &mut [u8]) {
    for vector in 0..256 {
        let to = at::HANDLERS + vector * 16;
        let gate = to & 0xffff | 0x08 << 16 | 1 << 32 | 0x8e << 40;
        put(base, at::IDT + vector * 16, &gate.to_le_bytes());
        let has_code = matches!(vector, 8 | 10..=14 | 17);
        // PUSH 0 where there is no error code; JMP.
        let push: &[u8] = if has_code { &[] } else { &[0x6a, 0] };
        let distance = (at::HANDLER - (to + push.len() as u64 + 5)) as u32;
        put(base, to, &[push, &[0xe9], &distance.to_le_bytes()].concat());
    }
    let descriptors = [
        0x00af_9b00_0000_ffff_u64,
        0x00cf_9300_0000_ffff,
        0,
        0,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
    ];
    for (n, descriptor) in (1u64..).zip(descriptors) {
        put(base, at::GDT + n * 8, &descriptor.to_le_bytes());
    }
    put(base, at::TSS + 36, &at::FRAME.to_le_bytes());
    put(base, at::TSS + 0x66, &[0xff, 0xff]);
    let handler: &[&[u8]] = &[
        &[0x48, 0x83, 0xc4, 8],                                // ADD RSP, 8
        &[0x48, 0x81, 0x64, 0x24, 16, 0x2a, 0xf6, 0xff, 0xff], // AND [RSP+16], not STATUS, TF
        &[0x50],                                               // PUSH RAX
        &[0x8b, 0x04, 0x25, 0x00, 0x80, 0, 0],                 // MOV EAX, [COUNT]
        &[0xff, 0x04, 0x25, 0x00, 0x80, 0, 0],                 // INC [COUNT]
        &[0x83, 0xf8, FAULTS],                                 // CMP EAX, FAULTS
        &[0x73, 16],                                           // JAE stop
        &[0x48, 0x8b, 0x04, 0xc5, 0x08, 0x80, 0, 0],           // MOV RAX, [RAX*8 + LANDINGS]
        &[0x48, 0x89, 0x44, 0x24, 8],                          // MOV [RSP+8], RAX
        &[0x58],                                               // POP RAX
        &[0x48, 0xcf],                                         // IRETQ
        &[0xe6, STOP, 0xf4, 0xeb, 0xfd],                       // OUT STOP, AL; HLT; JMP
    ];
    put(base, at::HANDLER, &handler.concat());
    // AND R11, not STATUS, TF; SYSRETQ.
    put(base, at::SYSCALL, &[0x49, 0x81, 0xe3, 0x2a, 0xf6, 0xff, 0xff, 0x48, 0x0f, 0x07]);
}

/// A processor that runs a user's code.
fn processor() -> VcpuState {
    let data = Segment { selector: 0x2b, base: 0, limit: u32::MAX, rights: 0xc0f3 };
    let mut state = VcpuState::flat_protected(0, 0);
    state.segments = Segments {
        es: data,
        cs: Segment { selector: 0x33, rights: 0xa0fb, ..data },
        ss: data,
        ds: data,
        fs: Segment { base: at::DATA, ..data },
        gs: Segment { base: at::DATA + 0x1800, ..data },
        ldtr: Segment { rights: Segment::UNUSABLE, ..Segment::default() },
        tr: Segment { selector: 0x40, base: at::TSS, limit: 0x67, rights: 0x8b },
    };
    state.gdtr = DescriptorTable { base: at::GDT, limit: 0xff };
    state.idtr = DescriptorTable { base: at::IDT, limit: 0xfff };
    state.control.cr0 = cr0::PE | cr0::PG | cr0::ET | cr0::NE | cr0::MP | cr0::WP;
    state.control.cr3 = at::TABLES;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::FSGSBASE;
    state.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
    state.msrs.star = 0x0020_0008 << 32;
    state.msrs.lstar = at::SYSCALL;
    state.msrs.sfmask = rflags::TF | rflags::IF | rflags::DF;
    state
}

/// What a register holds: mostly an address at which something is, and often the end of a page.
fn value(choices: Choices, code: u64, host: &HostAddresses, random: &mut Random) -> u64 {
    if random.below(8) < usize::from(choices.wild) {
        return wild(host, random);
    }
    let near = random.below(64) as u64;
    match random.below(12) {
        0 => random.edge(),
        1 | 2 => near,
        3 | 4 => at::DATA + random.below(0x3000) as u64,
        5 | 6 => at::DATA + 0x1000 - near,
        7 => at::EDGE + 0x1000 - near,
        8 => code + random.below(SLOT as usize) as u64,
        9 => at::ALIAS + random.below(SLOT as usize) as u64,
        10 => at::STACK + random.below(0x2000) as u64,
        _ => at::DATA + 0x2000 - near,
    }
}

/// An address at which the guest mostly has nothing: where the host has something, beside what is
/// canonical, where addresses wrap, or any.
fn wild(host: &HostAddresses, random: &mut Random) -> u64 {
    let near = (random.below(128) as u64).wrapping_sub(64);
    match random.below(8) {
        0 | 1 => random.pick(&host.0).copied().unwrap_or_default().wrapping_add(near),
        2 => at::LOW_END.wrapping_add(near),
        3 => at::HIGH.wrapping_add(near),
        4 => near,
        5 => (1 << random.below(64)) + (near & 63),
        6 => u64::from(u32::MAX).wrapping_add(near),
        _ => random.bits(),
    }
}
