//! A decoded instruction, ready to run.

use iced_x86::Code;

use crate::cpu::Cpu;
use crate::fault::Done;
use crate::lower::undefined;

/// Runs one instruction: completes it, or faults having changed nothing the guest can see.
///
/// When a handler is called, RIP already is the address of the *next* instruction.
pub type Exec = fn(&mut Cpu, &Op) -> Done;

/// Index of the register that always reads as zero: an absent base or index.
pub const ZERO: u8 = 16;
/// Index of RIP among the registers.
pub const RIP: u8 = 17;
/// Bit of an 8-bit register number: bits 8 to 15 of register 0 to 3 (AH, CH, DH, BH).
pub const HIGH: u8 = 0x20;

/// Indices of segment registers, as encoded in instructions.
#[expect(missing_docs, reason = "the registers' own names")]
pub mod seg {
    pub const ES: u8 = 0;
    pub const CS: u8 = 1;
    pub const SS: u8 = 2;
    pub const DS: u8 = 3;
    pub const FS: u8 = 4;
    pub const GS: u8 = 5;
}

/// Indices of general-purpose registers.
#[expect(missing_docs, reason = "the registers' own names")]
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
}

/// A decoded instruction. It does not depend on the address it lies at: branch targets and
/// RIP-relative operands are relative to the next instruction.
#[derive(Clone, Copy)]
pub struct Op {
    /// What it does.
    pub exec: Exec,
    /// The immediate, sign-extended as the instruction defines; the distance of a near branch from
    /// the next instruction; offset (low) and selector (bits 32 and up) of a far pointer; ENTER has
    /// its level in bits 32 and up.
    pub imm: u64,
    /// Displacement of the memory operand, sign-extended.
    pub disp: u64,
    /// Base register of the memory operand: 0 to 15, [`ZERO`] or [`RIP`].
    pub base: u8,
    /// Index register: 0 to 15 or [`ZERO`].
    pub index: u8,
    /// Log2 of the index's scale.
    pub scale: u8,
    /// Segment of the memory operand, see [`seg`].
    pub seg: u8,
    /// Width of the effective address in bytes: 2, 4 or 8. Also the width of the counter of string
    /// instructions and of LOOP and JCXZ.
    pub address: u8,
    /// Register number of operand 0, 1, 2 where that operand is a register of any kind; 8-bit
    /// registers may carry [`HIGH`].
    pub reg: [u8; 3],
    /// Operand size in bytes (of the memory operand, or of operand 0).
    pub size: u8,
    /// Length of the instruction in bytes.
    pub len: u8,
    /// Bits [`LOCK`](Self::LOCK), [`REP`](Self::REP), ...
    pub prefix: u8,
    /// What `iced-x86` calls it.
    pub code: Code,
}

impl Op {
    /// A LOCK prefix (or XCHG with memory, which locks by itself).
    pub const LOCK: u8 = 1;
    /// F3.
    pub const REP: u8 = 2;
    /// F2.
    pub const REPNE: u8 = 4;
    /// The instruction has a memory operand.
    pub const MEM: u8 = 8;

    /// One without operands, which does not exist: #UD.
    pub(crate) const NONE: Self = Self {
        exec: undefined,
        imm: 0,
        disp: 0,
        base: ZERO,
        index: ZERO,
        scale: 0,
        seg: seg::DS,
        address: 8,
        reg: [0; 3],
        size: 0,
        len: 0,
        prefix: 0,
        code: Code::INVALID,
    };

    /// Whether it has a memory operand.
    #[inline(always)]
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.prefix & Self::MEM != 0
    }

    /// Whether it is locked.
    #[inline(always)]
    #[must_use]
    pub fn locked(&self) -> bool {
        self.prefix & Self::LOCK != 0
    }
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} ({} bytes)", self.code, self.len)
    }
}
