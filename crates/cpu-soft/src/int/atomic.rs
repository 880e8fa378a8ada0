//! XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B (SDM 2).

use iced_x86::Instruction;

use super::operand::{Memory, Reg, Target, is_memory};
use super::{Int, sized};
use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op, gpr};

fn exchange_registers<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let (a, b) = (cpu.get::<T>(op.reg[0]), cpu.get::<T>(op.reg[1]));
    cpu.set(op.reg[0], b);
    cpu.set(op.reg[1], a);
    Ok(())
}

fn exchange_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let new = cpu.get::<T>(op.reg[1]);
    let old = cpu.update(op, |_| new)?;
    cpu.set(op.reg[1], old);
    Ok(())
}

/// XCHG. With memory it locks, prefix or not.
pub(super) fn xchg(i: &Instruction, op: &mut Op) -> Option<Exec> {
    if is_memory(i, 1) {
        op.reg[1] = op.reg[0];
    }
    if op.has_memory() {
        op.prefix |= Op::LOCK;
        return sized!(op.size, T => Some(exchange_memory::<T>));
    }
    sized!(op.size, T => Some(exchange_registers::<T>))
}

fn exchange_add<T: Int, D: Target>(cpu: &mut Cpu, op: &Op) -> Done {
    let addend = cpu.get::<T>(op.reg[1]);
    let sum = |old: T| T::low(old.zx().wrapping_add(addend.zx()));
    let old = D::modify(cpu, op, sum)?;
    cpu.flags.add(old, addend, sum(old));
    if !op.has_memory() && op.reg[0] == op.reg[1] {
        // The sum is written last (SDM: "SRC := DEST; DEST := TEMP").
        return Ok(());
    }
    cpu.set(op.reg[1], old);
    Ok(())
}

/// XADD.
pub(super) fn xadd(i: &Instruction, op: &Op) -> Option<Exec> {
    sized!(op.size, T => Some(if is_memory(i, 0) {
        exchange_add::<T, Memory>
    } else {
        exchange_add::<T, Reg<0>>
    }))
}

/// Flags of the comparison, and the accumulator when it failed (only then: not even the upper half
/// of RAX is touched otherwise).
fn compared<T: Int>(cpu: &mut Cpu, accumulator: T, old: T) {
    let difference = T::low(accumulator.zx().wrapping_sub(old.zx()));
    cpu.flags.sub(accumulator, old, difference);
    if old != accumulator {
        cpu.set(gpr::RAX as u8, old);
    }
}

/// Memory is always written, with what was there when the comparison fails.
fn compare_exchange_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let accumulator = cpu.get::<T>(gpr::RAX as u8);
    let source = cpu.get::<T>(op.reg[1]);
    let old = cpu.update(op, |old| if old == accumulator { source } else { old })?;
    compared(cpu, accumulator, old);
    Ok(())
}

/// A register is only written when the comparison succeeds.
fn compare_exchange_register<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let accumulator = cpu.get::<T>(gpr::RAX as u8);
    let source = cpu.get::<T>(op.reg[1]);
    let old = cpu.get::<T>(op.reg[0]);
    compared(cpu, accumulator, old);
    if old == accumulator {
        cpu.set(op.reg[0], source);
    }
    Ok(())
}

/// CMPXCHG.
pub(super) fn cmpxchg(i: &Instruction, op: &Op) -> Option<Exec> {
    sized!(op.size, T => Some(if is_memory(i, 0) {
        compare_exchange_memory::<T>
    } else {
        compare_exchange_register::<T>
    }))
}

/// CMPXCHG8B.
pub(super) fn cmpxchg8b(cpu: &mut Cpu, op: &Op) -> Done {
    let expected = cpu.edx_eax();
    let new = cpu.regs[gpr::RBX] & 0xffff_ffff | cpu.regs[gpr::RCX] << 32;
    let old = cpu.update(op, |old: u64| if old == expected { new } else { old })?;
    cpu.flags.put_zf(old == expected);
    if old != expected {
        cpu.set_edx_eax(old);
    }
    Ok(())
}

/// CMPXCHG16B: its operand must be aligned, locked or not.
pub(super) fn cmpxchg16b(cpu: &mut Cpu, op: &Op) -> Done {
    let pair =
        |low: usize, high: usize| u128::from(cpu.regs[low]) | u128::from(cpu.regs[high]) << 64;
    let (expected, new) = (pair(gpr::RAX, gpr::RDX), pair(gpr::RBX, gpr::RCX));
    let address = cpu.linear(op, 16, true)?;
    if address & 15 != 0 {
        return Err(Fault::GP0);
    }
    let change = |old: u128| if old == expected { new } else { old };
    let old = cpu.modify(op.seg, address, op.locked(), change)?;
    cpu.flags.put_zf(old == expected);
    if old != expected {
        cpu.regs[gpr::RAX] = old as u64;
        cpu.regs[gpr::RDX] = (old >> 64) as u64;
    }
    Ok(())
}
