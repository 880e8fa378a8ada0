//! PUSH, POP, PUSHA, POPA, ENTER, LEAVE (SDM 2).
//!
//! PUSH and POP of segment registers and of flags are the system family's.

use iced_x86::{Code, Instruction, OpKind};

use super::operand::{Flat, Imm, Memory, Reg, Source, Target, is_flat, is_memory};
use super::{Int, sized};
use crate::cpu::{Cpu, Mode};
use crate::fault::Done;
use crate::op::{Exec, Op, gpr, seg};

const RSP: u8 = gpr::RSP as u8;
const RBP: u8 = gpr::RBP as u8;

/// Pushes; `LONG` says that it is known to be 64-bit mode.
#[inline(always)]
pub(super) fn push_value<T: Int, const LONG: bool>(cpu: &mut Cpu, value: T) -> Done {
    if !LONG {
        return cpu.push(value);
    }
    let sp = cpu.regs[gpr::RSP].wrapping_sub(T::BYTES as u64);
    cpu.write(seg::SS, sp, value)?;
    cpu.regs[gpr::RSP] = sp;
    Ok(())
}

/// Faults exactly when a push of `size` bytes would.
#[cold]
pub(super) fn check_push(cpu: &mut Cpu, size: u32) -> Done {
    let sp = cpu.stack_mask(cpu.sp().wrapping_sub(u64::from(size)));
    let address = cpu.segmented(seg::SS, sp, size, true)?;
    cpu.check_write(seg::SS, address, size as usize)
}

#[inline(always)]
fn pop_value<T: Int, const LONG: bool>(cpu: &mut Cpu) -> Done<T> {
    if !LONG {
        return cpu.pop();
    }
    let sp = cpu.regs[gpr::RSP];
    let value = cpu.read(seg::SS, sp)?;
    cpu.regs[gpr::RSP] = sp.wrapping_add(T::BYTES as u64);
    Ok(value)
}

fn push_source<T: Int, const LONG: bool, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let value: T = S::read(cpu, op)?;
    push_value::<T, LONG>(cpu, value)
}

fn pop_register<T: Int, const LONG: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let value: T = pop_value::<T, LONG>(cpu)?;
    cpu.set(op.reg[0], value);
    Ok(())
}

/// The operand's address is computed with the stack pointer already incremented.
fn pop_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let before = cpu.regs[gpr::RSP];
    let value: T = cpu.pop()?;
    Memory::write(cpu, op, value).inspect_err(|_| cpu.regs[gpr::RSP] = before)
}

/// PUSH of a general register, memory or an immediate.
pub(super) fn push(i: &Instruction, op: &mut Op, mode: Mode) -> Option<Exec> {
    let kind = i.op_kind(0);
    if kind == OpKind::Register && !i.op0_register().is_gpr() {
        return None;
    }
    op.size = i.stack_pointer_increment().unsigned_abs() as u8;
    let long = mode == Mode::Long;
    sized!(op.size, T => Some(match (kind, long) {
        (OpKind::Register, true) => push_source::<T, true, Reg<0>>,
        (OpKind::Register, false) => push_source::<T, false, Reg<0>>,
        (OpKind::Memory, true) if is_flat(op, mode) => push_source::<T, true, Flat>,
        (OpKind::Memory, _) => push_source::<T, false, Memory>,
        (_, true) => push_source::<T, true, Imm>,
        (_, false) => push_source::<T, false, Imm>,
    }))
}

/// POP into a general register or memory.
pub(super) fn pop(i: &Instruction, op: &mut Op, mode: Mode) -> Option<Exec> {
    if !is_memory(i, 0) && !i.op0_register().is_gpr() {
        return None;
    }
    op.size = i.stack_pointer_increment().unsigned_abs() as u8;
    sized!(op.size, T => Some(match (is_memory(i, 0), mode == Mode::Long) {
        (true, _) => pop_memory::<T>,
        (false, true) => pop_register::<T, true>,
        (false, false) => pop_register::<T, false>,
    }))
}

/// Writes below the top of the stack without moving it; `depth` in bytes.
fn poke<T: Int>(cpu: &mut Cpu, depth: u64, value: T) -> Done {
    let sp = cpu.stack_mask(cpu.sp().wrapping_sub(depth));
    let address = cpu.segmented(seg::SS, sp, T::BYTES as u32, true)?;
    cpu.write(seg::SS, address, value)
}

fn push_all<T: Int>(cpu: &mut Cpu, _: &Op) -> Done {
    let size = T::BYTES as u64;
    for reg in 0..8 {
        let value = cpu.get::<T>(reg);
        poke(cpu, size * (u64::from(reg) + 1), value)?;
    }
    cpu.set_sp(cpu.sp().wrapping_sub(size * 8));
    Ok(())
}

fn pop_all<T: Int>(cpu: &mut Cpu, _: &Op) -> Done {
    let size = T::BYTES as u64;
    let mut values = [T::low(0); 8];
    for (n, value) in values.iter_mut().enumerate() {
        *value = cpu.peek(size * n as u64)?;
    }
    for (reg, &value) in (0..8).rev().zip(&values) {
        if reg != RSP {
            cpu.set(reg, value);
        }
    }
    cpu.set_sp(cpu.sp().wrapping_add(size * 8));
    Ok(())
}

/// PUSHA, PUSHAD, POPA, POPAD.
pub(super) fn all(i: &Instruction) -> Option<Exec> {
    Some(match i.code() {
        Code::Pushaw => push_all::<u16>,
        Code::Pushad => push_all::<u32>,
        Code::Popaw => pop_all::<u16>,
        Code::Popad => pop_all::<u32>,
        _ => return None,
    })
}

/// A stack frame with `level` (modulo 32) pointers to outer frames.
fn make_frame<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let size = T::BYTES as u64;
    let level = op.imm >> 32 & 31;
    let room = op.imm & 0xffff;
    let outer = cpu.regs[gpr::RBP];
    poke(cpu, size, T::low(outer))?;
    let frame = cpu.stack_mask(cpu.sp().wrapping_sub(size));
    let mut depth = size;
    for n in 1..level {
        let at = cpu.stack_mask(outer.wrapping_sub(size * n));
        let address = cpu.segmented(seg::SS, at, T::BYTES as u32, false)?;
        let pointer: T = cpu.read(seg::SS, address)?;
        depth += size;
        poke(cpu, depth, pointer)?;
    }
    if level > 0 {
        depth += size;
        poke(cpu, depth, T::low(frame))?;
    }
    depth += room;
    // The new top of the stack must be writable.
    let top = cpu.stack_mask(cpu.sp().wrapping_sub(depth));
    let address = cpu.segmented(seg::SS, top, T::BYTES as u32, true)?;
    cpu.check_write(seg::SS, address, T::BYTES)?;
    cpu.set(RBP, T::low(frame));
    cpu.set_sp(top);
    Ok(())
}

/// ENTER.
pub(super) fn enter(i: &Instruction) -> Option<Exec> {
    Some(match i.code() {
        Code::Enterw_imm16_imm8 => make_frame::<u16>,
        Code::Enterd_imm16_imm8 => make_frame::<u32>,
        Code::Enterq_imm16_imm8 => make_frame::<u64>,
        _ => return None,
    })
}

fn drop_frame<T: Int>(cpu: &mut Cpu, _: &Op) -> Done {
    let frame = cpu.stack_mask(cpu.regs[gpr::RBP]);
    let address = cpu.segmented(seg::SS, frame, T::BYTES as u32, false)?;
    let outer: T = cpu.read(seg::SS, address)?;
    cpu.set_sp(frame.wrapping_add(T::BYTES as u64));
    cpu.set(RBP, outer);
    Ok(())
}

/// LEAVE.
pub(super) fn leave(i: &Instruction) -> Option<Exec> {
    Some(match i.code() {
        Code::Leavew => drop_frame::<u16>,
        Code::Leaved => drop_frame::<u32>,
        Code::Leaveq => drop_frame::<u64>,
        _ => return None,
    })
}
