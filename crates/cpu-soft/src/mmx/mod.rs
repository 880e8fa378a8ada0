//! MMX: integers packed in the x87's registers.
//!
//! Intel SDM volume 1, chapter 9; sections 10.4.4 and 12.6 for what SSE and SSSE3 added. MM0 to MM7
//! are the significands of the physical x87 registers. Every MMX instruction but EMMS makes all of
//! them valid and moves TOP to 0, and one that writes a register sets its sign and exponent to ones
//! (9.5.1): [`enter`] and [`set`].
//!
//! Begin with `packed.rs`: most instructions are a line in its table.

mod lanes;
#[cfg(test)]
mod mmx_test;
mod moves;
mod packed;

use iced_x86::Instruction;
use riad_cpu::x86::{F80, cr0};

use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op};

/// ES in the x87 status word: an unmasked exception waits.
const PENDING: u16 = 1 << 7;
/// TOP in the x87 status word.
const TOP: u16 = 7 << 11;

/// The handler of an MMX instruction, or `None` when it is another family's.
#[must_use]
pub fn select(i: &Instruction, op: &mut Op) -> Option<Exec> {
    packed::select(i.code(), op).or_else(|| moves::select(i.code(), op))
}

/// What every MMX instruction checks before anything else (SDM volume 3A, 12.1 and 12.4).
///
/// # Errors
/// #UD, #NM or #MF.
#[inline]
fn ready(cpu: &Cpu) -> Done {
    if cpu.control.cr0 & cr0::EM != 0 {
        return Err(Fault::UD);
    }
    if cpu.control.cr0 & cr0::TS != 0 {
        return Err(Fault::NM);
    }
    if cpu.fpu.fsw & PENDING != 0 {
        return Err(Fault::MF);
    }
    Ok(())
}

/// The transition from x87 to MMX: all registers valid, TOP 0. It comes after everything that can
/// fault.
#[inline]
fn enter(cpu: &mut Cpu) {
    cpu.fpu.ftw = 0xff;
    cpu.fpu.fsw &= !TOP;
}

/// The value of an MMX register.
#[inline]
fn get(cpu: &Cpu, register: u8) -> u64 {
    cpu.fpu.registers[usize::from(register & 7)].significand
}

/// Enters MMX and writes a register.
#[inline]
fn set(cpu: &mut Cpu, register: u8, value: u64) {
    enter(cpu);
    cpu.fpu.registers[usize::from(register & 7)] =
        F80 { significand: value, sign_exponent: 0xffff };
}

/// Operand 1: an MMX register, or 8 bytes of memory.
#[inline]
fn source<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    if MEMORY { cpu.load(op) } else { Ok(get(cpu, op.reg[1])) }
}
