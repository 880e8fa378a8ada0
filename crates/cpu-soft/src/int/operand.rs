//! Kinds of operands, as types: handlers are generic over them.

use iced_x86::{Instruction, OpKind};

use super::Int;
use crate::cpu::{Cpu, Mode};
use crate::fault::Done;
use crate::op::{Op, seg};

/// Where a value comes from.
pub(super) trait Source {
    /// Reads it.
    fn read<T: Int>(cpu: &mut Cpu, op: &Op) -> Done<T>;
}

/// Where a value goes to.
pub(super) trait Target: Source {
    /// Writes it.
    fn write<T: Int>(cpu: &mut Cpu, op: &Op, value: T) -> Done;
    /// Reads, changes and writes it, atomically when the instruction is locked; gives the old value.
    fn modify<T: Int>(cpu: &mut Cpu, op: &Op, change: impl Fn(T) -> T) -> Done<T>;
}

/// Register operand `N`.
pub(super) struct Reg<const N: usize>;

impl<const N: usize> Source for Reg<N> {
    #[inline(always)]
    fn read<T: Int>(cpu: &mut Cpu, op: &Op) -> Done<T> {
        Ok(cpu.get(op.reg[N]))
    }
}

impl<const N: usize> Target for Reg<N> {
    #[inline(always)]
    fn write<T: Int>(cpu: &mut Cpu, op: &Op, value: T) -> Done {
        cpu.set(op.reg[N], value);
        Ok(())
    }

    #[inline(always)]
    fn modify<T: Int>(cpu: &mut Cpu, op: &Op, change: impl Fn(T) -> T) -> Done<T> {
        let old = cpu.get(op.reg[N]);
        cpu.set(op.reg[N], change(old));
        Ok(old)
    }
}

/// The immediate.
pub(super) struct Imm;

impl Source for Imm {
    #[inline(always)]
    fn read<T: Int>(_: &mut Cpu, op: &Op) -> Done<T> {
        Ok(T::low(op.imm))
    }
}

/// The memory operand.
pub(super) struct Memory;

impl Source for Memory {
    #[inline(always)]
    fn read<T: Int>(cpu: &mut Cpu, op: &Op) -> Done<T> {
        cpu.load(op)
    }
}

impl Target for Memory {
    #[inline(always)]
    fn write<T: Int>(cpu: &mut Cpu, op: &Op, value: T) -> Done {
        cpu.store(op, value)
    }

    #[inline(always)]
    fn modify<T: Int>(cpu: &mut Cpu, op: &Op, change: impl Fn(T) -> T) -> Done<T> {
        cpu.update(op, change)
    }
}

/// The memory operand where [`is_flat`] holds: its linear address is its effective address, with
/// nothing to mask or add.
pub(super) struct Flat;

impl Flat {
    #[inline(always)]
    pub(super) fn address(cpu: &Cpu, op: &Op) -> u64 {
        let index = cpu.regs[usize::from(op.index)] << (op.scale & 3);
        cpu.regs[usize::from(op.base)].wrapping_add(index).wrapping_add(op.disp)
    }
}

impl Source for Flat {
    #[inline(always)]
    fn read<T: Int>(cpu: &mut Cpu, op: &Op) -> Done<T> {
        cpu.read(op.seg, Self::address(cpu, op))
    }
}

impl Target for Flat {
    #[inline(always)]
    fn write<T: Int>(cpu: &mut Cpu, op: &Op, value: T) -> Done {
        cpu.write(op.seg, Self::address(cpu, op), value)
    }

    #[inline(always)]
    fn modify<T: Int>(cpu: &mut Cpu, op: &Op, change: impl Fn(T) -> T) -> Done<T> {
        cpu.modify(op.seg, Self::address(cpu, op), op.locked(), change)
    }
}

/// Whether the memory operand is a plain 64-bit address.
pub(super) fn is_flat(op: &Op, mode: Mode) -> bool {
    mode == Mode::Long && op.address == 8 && op.seg < seg::FS
}

/// Whether operand `n` is memory.
pub(super) fn is_memory(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Memory
}

/// Whether operand `n` is a register.
pub(super) fn is_register(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Register
}

/// The kinds of a two-operand instruction's operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    RegReg,
    RegImm,
    RegMemory,
    RegFlat,
    MemoryReg,
    MemoryImm,
    FlatReg,
    FlatImm,
}

/// Looks at the first two operands.
pub(super) fn shape(i: &Instruction, op: &Op, mode: Mode) -> Shape {
    let flat = is_flat(op, mode);
    if is_memory(i, 0) {
        match (is_register(i, 1), flat) {
            (true, true) => Shape::FlatReg,
            (true, false) => Shape::MemoryReg,
            (false, true) => Shape::FlatImm,
            (false, false) => Shape::MemoryImm,
        }
    } else if is_memory(i, 1) {
        if flat { Shape::RegFlat } else { Shape::RegMemory }
    } else if is_register(i, 1) {
        Shape::RegReg
    } else {
        Shape::RegImm
    }
}
