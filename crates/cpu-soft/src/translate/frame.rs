//! What translated code has at hand: one [`Frame`] for each processor, at the host's stack pointer.
//!
//! Guest registers live in host registers while translated code runs. RAX and RCX are scratch, RSP
//! points to the frame (the stack for calls and signals is below it), and three guest registers
//! that compilers use least live in the frame.

use std::cell::Cell;
use std::mem::offset_of;
use std::sync::atomic::AtomicU32;

use riad_cpu::x86::{Msrs, Segment};

use super::asm::host::{R8, R9, R10, R11, R12, R13, R14, R15, RBP, RBX, RDI, RDX, RSI};
use crate::cpu::Cpu;
use crate::flags::Flags;
use crate::op::gpr;

/// No host register: the guest register lives in the frame.
pub(crate) const IN_FRAME: u8 = 0xff;

/// Where each guest register lives.
pub(crate) const HOME: [u8; 16] =
    [RBX, RBP, RDX, R10, R15, R11, RSI, RDI, R8, R9, IN_FRAME, IN_FRAME, R12, R13, R14, IN_FRAME];

/// Slots of operands relative to RIP, and of those without a base register.
const SLOTS_OF_RIP: usize = 8;
const FIRST_OF_RIP: usize = 16;
const FIRST_OF_FS: usize = FIRST_OF_RIP + SLOTS_OF_RIP;
/// Where the host's address of a page of guest memory is remembered, in a bank: for the base
/// registers, for code and plain addresses, for FS and GS, and for who asks the TLB each time.
pub(crate) const SLOTS: usize = FIRST_OF_FS + 3;
/// Supervisors have a bank of slots, and users have one.
pub(crate) const BANKS: usize = 2;

/// Number of a slot: its place among all of both banks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotNumber(usize);

impl SlotNumber {
    /// The slot of a base register.
    pub(crate) const fn of_base(user: bool, base: u8) -> Self {
        Self::in_bank(user, base as usize)
    }

    /// The stack pointer's slot.
    pub(crate) const fn of_stack(user: bool) -> Self {
        Self::of_base(user, gpr::RSP as u8)
    }

    /// The slot of operands relative to RIP, for pages told by any number.
    pub(crate) const fn of_rip(user: bool, place: u32) -> Self {
        Self::in_bank(user, FIRST_OF_RIP + place as usize % SLOTS_OF_RIP)
    }

    /// The slot of operands in FS (4) or GS (5).
    pub(crate) const fn of_segment(user: bool, segment: u8) -> Self {
        Self::in_bank(user, FIRST_OF_FS + (segment & 1) as usize)
    }

    /// The slot of operands that seldom stay in a page: what it has is good for one instruction.
    pub(crate) const fn of_scattered(user: bool) -> Self {
        Self::in_bank(user, SLOTS - 1)
    }

    const fn in_bank(user: bool, number: usize) -> Self {
        Self(user as usize * SLOTS + number)
    }

    /// Offset of a field of the slot in the frame.
    pub(crate) const fn field(self, field: usize) -> usize {
        offset_of!(Frame, slots) + self.0 * size_of::<Slot>() + field
    }

    /// The slot that begins at an offset in the frame.
    pub(crate) const fn at(offset: u32) -> usize {
        (offset as usize).wrapping_sub(offset_of!(Frame, slots)) / size_of::<Slot>()
            % (SLOTS * BANKS)
    }
}

/// Look-ups that find a page in the TLB, which a slot lacked, between two samples of who asks.
pub(crate) const SAMPLE: u32 = 1024;

/// One remembered page. A tag is the linear address of a page; with a tag that no guest address has
/// stands an addend that leads to the sink, so that no address at all leads out of guest memory.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    /// The page that may be read.
    pub(crate) read_tag: u64,
    /// Host address minus linear address, for reads.
    pub(crate) read_addend: u64,
    /// The page that may be written.
    pub(crate) write_tag: u64,
    /// Host address minus linear address, for writes.
    pub(crate) write_addend: u64,
    /// Host address of the page's state (`riad_memory::PageState`), for writes.
    pub(crate) state: u64,
}

/// An indirect jump's target: where the block at a linear address begins. Small, because programs
/// have thousands that they use all the time.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Linear address, salted with the address space and privilege.
    pub(crate) key: u64,
    /// Host address of the block's entry.
    pub(crate) host: u64,
}

/// Entries of the table of indirect jumps; a power of two. Bits 3 to 16 of an address tell its place:
/// targets close to each other share the host's cache lines.
pub(crate) const TARGETS: usize = 1 << 14;
/// The bits that tell the place.
pub(crate) const TARGET_BITS: u32 = (TARGETS as u32 - 1) << 3;
/// Log2 of what they are multiplied by to get an offset.
pub(crate) const TARGET_SCALE: u8 = 1;
const _: () = assert!(8 << TARGET_SCALE == size_of::<Target>());

/// The bits of an address that salts leave alone.
pub(crate) const SALT_BITS: u64 = TARGET_BITS as u64 | 7;

/// Place of a linear address, salted or not, among the [`TARGETS`].
pub(crate) const fn target_place(address: u64) -> usize {
    (address >> 3) as usize & (TARGETS - 1)
}

/// A block that this processor has used: what it is known by ([`Key`](super::cache::Key), with
/// [`USED_MARK`]), and the host address of its entry.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) key: u64,
    pub(crate) host: u64,
}

/// Tells the key of a block from no key.
pub(crate) const USED_MARK: u64 = 1 << 63;
/// Log2 of the number of [`Used`] blocks that are remembered.
pub(crate) const USED_BITS: u32 = 15;
/// What spreads their places.
pub(crate) const USED_SPREAD: u32 = 0x9e37_79b1;

/// Place of a block among the [`Used`] ones, by its key.
pub(crate) const fn used_place(key: u64) -> usize {
    ((key >> 8) as u32).wrapping_mul(USED_SPREAD) as usize >> (32 - USED_BITS)
}

/// Marks of pages that may have [`Target`]s, by their low bits.
pub(crate) const PAGE_MARKS: usize = 4096;

/// What translated code finds at `[rsp]`. The fields used most come first: they are reached by a
/// displacement of one byte.
#[repr(C, align(64))]
pub(crate) struct Frame {
    /// Not 0 when the processor shall come out and look around.
    pub(crate) attention: AtomicU32,
    /// Not 0 unless the guest's XMM registers and MXCSR are in the host's. Next to `attention`: code
    /// that uses them looks at both at once.
    pub(crate) xmm_missing: Cell<u32>,
    /// Linear address of the page that holds the running code.
    pub(crate) base: Cell<u64>,
    /// Status flags, when not in the host's flags: OF in bit 0, the others in bits 8 to 15.
    pub(crate) flags: Cell<u64>,
    /// R10, R11 and R15 of the guest.
    pub(crate) registers: [Cell<u64>; 3],
    /// The processor.
    pub(crate) cpu: Cell<u64>,
    /// Base of FS, then of GS.
    pub(crate) segment_bases: [Cell<u64>; 2],
    /// What keys of [`Target`]s are salted with, in the lower and the upper half of the address
    /// space. The low bits, by which a target is found, are 0; see [`SALT_BITS`].
    pub(crate) salt: [Cell<u64>; 2],
    /// The TLB's current table, and the generations in its tags.
    pub(crate) table: Cell<u64>,
    pub(crate) generation: [Cell<u64>; 2],
    /// Instructions that may still run, in code that counts.
    pub(crate) budget: Cell<i64>,
    /// What shared routines put aside.
    pub(crate) spare: Cell<u64>,
    pub(crate) spare_target: Cell<u64>,
    pub(crate) spare_call: Cell<u64>,
    /// The site of the call or return that is under way.
    pub(crate) call_site: Cell<u32>,
    /// What a block puts aside while it looks up memory.
    pub(crate) kept: [Cell<u64>; 2],
    /// Why translated code was left, and where it stood: see `Site`.
    pub(crate) site: Cell<u32>,
    pub(crate) reason: Cell<u32>,
    /// Look-ups to the next sample.
    pub(crate) misses: Cell<u32>,
    pub(crate) slots: [Cell<Slot>; SLOTS * BANKS],
    /// Host address of what a link that is to be made needs (`LinkData`).
    pub(crate) link: Cell<u64>,
    /// The host's stack pointer, MXCSR.
    pub(crate) host_stack: Cell<u64>,
    pub(crate) host_mxcsr: Cell<u32>,
    /// Start of RAM and of the states of its pages.
    pub(crate) ram: Cell<u64>,
    pub(crate) states: Cell<u64>,
    /// Bits of the kind of code ([`Kind`](super::emit::Kind)) in the lower and the upper half, with
    /// [`USED_MARK`].
    pub(crate) kinds: [Cell<u64>; 2],
    /// What the TLB knows of large pages.
    pub(crate) large: Cell<u64>,
    pub(crate) page_marks: [Cell<u8>; PAGE_MARKS],
    pub(crate) targets: [Cell<Target>; TARGETS],
    /// Blocks by their place in RAM, which translated code asks for targets it does not know.
    pub(crate) used: [Cell<Used>; 1 << USED_BITS],
}

pub(crate) const ATTENTION: usize = offset_of!(Frame, attention);
pub(crate) const XMM_MISSING: usize = offset_of!(Frame, xmm_missing);
pub(crate) const BASE: usize = offset_of!(Frame, base);
pub(crate) const FLAGS: usize = offset_of!(Frame, flags);
pub(crate) const CPU: usize = offset_of!(Frame, cpu);
pub(crate) const TABLE: usize = offset_of!(Frame, table);
pub(crate) const BUDGET: usize = offset_of!(Frame, budget);
pub(crate) const SPARE: usize = offset_of!(Frame, spare);
pub(crate) const SPARE_TARGET: usize = offset_of!(Frame, spare_target);
pub(crate) const CALL_SITE: usize = offset_of!(Frame, call_site);
pub(crate) const SPARE_CALL: usize = offset_of!(Frame, spare_call);
pub(crate) const KEPT: usize = offset_of!(Frame, kept);
pub(crate) const SITE: usize = offset_of!(Frame, site);
pub(crate) const REASON: usize = offset_of!(Frame, reason);
pub(crate) const MISSES: usize = offset_of!(Frame, misses);
pub(crate) const LINK: usize = offset_of!(Frame, link);
pub(crate) const HOST_STACK: usize = offset_of!(Frame, host_stack);
pub(crate) const HOST_MXCSR: usize = offset_of!(Frame, host_mxcsr);
pub(crate) const RAM: usize = offset_of!(Frame, ram);
pub(crate) const STATES: usize = offset_of!(Frame, states);
pub(crate) const KINDS: usize = offset_of!(Frame, kinds);
pub(crate) const USED: usize = offset_of!(Frame, used);
pub(crate) const LARGE: usize = offset_of!(Frame, large);
pub(crate) const PAGE_MARK: usize = offset_of!(Frame, page_marks);
pub(crate) const TARGET_TABLE: usize = offset_of!(Frame, targets);

/// Offset of the salt of a half.
pub(crate) const fn salt(upper: bool) -> usize {
    offset_of!(Frame, salt) + 8 * upper as usize
}

/// Offset of the generation of a half.
pub(crate) const fn generation(upper: bool) -> usize {
    offset_of!(Frame, generation) + 8 * upper as usize
}

/// Offset of the base of FS (4) or GS (5).
pub(crate) const fn segment_base(segment: u8) -> usize {
    offset_of!(Frame, segment_bases) + 8 * (segment as usize - 4)
}

/// Offset of a guest register that lives in the frame: 10, 11 or 15.
pub(crate) const fn register(guest: u8) -> usize {
    let place = match guest {
        10 => 0,
        11 => 1,
        _ => 2,
    };
    offset_of!(Frame, registers) + 8 * place
}

/// Offset of a guest register in [`Cpu`].
pub(crate) const fn cpu_register(guest: u8) -> usize {
    offset_of!(Cpu, regs) + 8 * guest as usize
}

/// Offsets in [`Cpu`] of the privilege level, of flags other than status flags, of whether an
/// interrupt is held back, and of what SWAPGS swaps.
pub(crate) const CPU_CPL: usize = offset_of!(Cpu, cpl);
pub(crate) const CPU_FLAGS: usize = offset_of!(Cpu, flags) + offset_of!(Flags, bits);
pub(crate) const CPU_HELD: usize = offset_of!(Cpu, interrupts_held);
pub(crate) const CPU_GS_BASE: usize =
    offset_of!(Cpu, segs) + 5 * size_of::<Segment>() + offset_of!(Segment, base);
pub(crate) const CPU_KERNEL_GS_BASE: usize =
    offset_of!(Cpu, msrs) + offset_of!(Msrs, kernel_gs_base);

/// Offset of XMM0 in [`Cpu`].
pub(crate) const CPU_XMM: usize = offset_of!(Cpu, fpu) + offset_of!(riad_cpu::x86::Fpu, xmm);
/// Offset of MXCSR in [`Cpu`].
pub(crate) const CPU_MXCSR: usize = offset_of!(Cpu, fpu) + offset_of!(riad_cpu::x86::Fpu, mxcsr);

/// Where in a block an instruction stands: its offset in its page, how many of the block's
/// instructions come before it, and how many the block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site(pub(crate) u32);

impl Site {
    /// No place to leave from.
    pub(crate) const STAY: Self = Self(u32::MAX);
    /// The site is the one in [`Frame::call_site`].
    pub(crate) const OF_CALL: Self = Self(u32::MAX);

    pub(crate) fn new(offset: u32, before: u32, count: u32) -> Self {
        Self(offset & 0x1fff | before << 13 | count << 21)
    }

    /// Offset in the page; 4096 is the start of the next.
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.0 & 0x1fff)
    }

    /// Instructions of the block before it.
    pub(crate) fn before(self) -> u32 {
        self.0 >> 13 & 0xff
    }

    /// Instructions of the block that were not run.
    pub(crate) fn left(self) -> u64 {
        u64::from((self.0 >> 21).saturating_sub(self.before()))
    }
}

/// What stands in the code for a link that is not made yet: the site it leads to, the page of RAM
/// that is in, and how far before this data the distance to patch stands; its lowest bit says that
/// the flags are in the frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkData {
    #[expect(dead_code, reason = "translated code reads it")]
    pub(crate) site: u32,
    pub(crate) page: u32,
    pub(crate) place: u32,
}

impl LinkData {
    /// Bytes in the code, and of the call before it.
    pub(crate) const BYTES: usize = 12;
    pub(crate) const CALL: u32 = 5;
}

/// Why translated code was left.
pub(crate) mod reason {
    /// The attention flag, or a block that is not good any more: go on at the site.
    pub(crate) const ATTENTION: u32 = 0;
    /// The instruction at the site is for the interpreter.
    pub(crate) const INTERPRET: u32 = 1;
    /// The block at the site is to be linked in at [`Frame::link`](super::Frame::link).
    pub(crate) const LINK: u32 = 2;
    /// An interpreted instruction moved RIP, or something it changed ends the block.
    pub(crate) const MOVED: u32 = 3;
    /// An interpreted instruction faulted.
    pub(crate) const FAULT: u32 = 4;
    /// The budget does not cover the block at the site.
    pub(crate) const BUDGET: u32 = 5;
    /// Go on at the site, whose block has run (code was overwritten).
    pub(crate) const DONE: u32 = 6;
    /// The branch at the site leads to [`Frame::spare`](super::Frame::spare), which is not known.
    /// Nothing has been done yet but looking.
    pub(crate) const JUMP: u32 = 7;
    /// The same for a call, which has pushed its return address.
    pub(crate) const CALL: u32 = 8;
    /// The same for a return, which has not moved the stack pointer; by how much is in
    /// [`Frame::spare_target`](super::Frame::spare_target).
    pub(crate) const RETURN: u32 = 9;
    /// The instruction at the site looked up memory, as many did shortly before: a sample.
    pub(crate) const SAMPLE: u32 = 10;
    /// How many there are.
    pub(crate) const COUNT: u32 = 11;
    /// Not one to leave for: what an interpreted instruction moved RIP to is known, and translated
    /// code goes on at [`Frame::spare`](super::Frame::spare).
    pub(crate) const GO: u32 = 1 << 31;
}
