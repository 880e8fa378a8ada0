//! x87 instructions (Intel SDM volume 1, chapter 8; volume 2 for each).
//!
//! Arithmetic is [`softfloat`](crate::softfloat)'s; here are the register stack, the status word,
//! and when an exception is raised, which is late: an unmasked one sets ES in the status word, and
//! the next *waiting* instruction, x87 or MMX, raises #MF. Processors of the era of IRQ 13 differ;
//! with CR0.NE clear we raise #MF all the same, as no machine of ours wires FERR#.
//!
//! A handler's shape: [`begin`] (#NM, #MF), then memory operands (#PF and its like), then the
//! environment's work, then [`complete`] (status word and instruction pointers), and, unless that
//! says to stop, the registers.
//!
//! Begin with `stack.rs`, then `arith.rs`.

mod arith;
mod compare;
mod control;
mod environment;
mod function;
mod load;
mod operand;
mod stack;
#[cfg(test)]
pub(crate) mod x87_test;

use iced_x86::{Code, Instruction};
use riad_cpu::x86::cr0;

use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op};
use crate::softfloat::{Env, F80, Flags, Format};

use stack::{C1, STACK_FAULT, SUMMARY, Stack};
pub(crate) use stack::{CONTROL_MASK, refresh_summary};

/// The handler of an x87 instruction, or `None` when it is another family's.
#[must_use]
pub fn select(i: &Instruction, op: &mut Op, mode: Mode) -> Option<Exec> {
    let code = i.code();
    if !is_x87(code) {
        return None;
    }
    arith::select(code)
        .or_else(|| compare::select(code, op))
        .or_else(|| load::select(code, op))
        .or_else(|| function::select(code))
        .or_else(|| control::select(code))
        .or_else(|| environment::select(code, mode))
}

/// A quick look at whether the code can be ours at all: opcodes D8 to DF, and 9B.
fn is_x87(code: Code) -> bool {
    let (first, last) = (Code::Fadd_m32fp as usize, Code::Fcomip_st0_sti as usize);
    (first..=last).contains(&(code as usize)) || code == Code::Wait
}

/// What every waiting instruction checks first, and the environment it works in.
///
/// # Errors
/// #NM when the x87 is switched away or absent; #MF when an exception is pending.
#[inline]
fn begin(cpu: &Cpu) -> Done<Env> {
    available(cpu)?;
    if cpu.fpu.fsw & SUMMARY != 0 {
        return Err(Fault::MF);
    }
    Ok(Env::x87(cpu.fpu.fcw))
}

/// What the non-waiting control instructions check (SDM volume 3A, table 2-2).
#[inline]
fn available(cpu: &Cpu) -> Done {
    if cpu.control.cr0 & (cr0::EM | cr0::TS) != 0 {
        return Err(Fault::NM);
    }
    Ok(())
}

/// Reports an instruction's exceptions and C1, and remembers the instruction. Gives whether its
/// results may be written: not after an unmasked exception found before computing.
#[inline]
fn complete(cpu: &mut Cpu, op: &Op, env: &Env) -> bool {
    note_pointers(cpu, op);
    if env.flags.is_empty() {
        let c1 = if env.rounded_up { C1 } else { 0 };
        cpu.fpu.fsw = cpu.fpu.fsw & !C1 | c1;
        return true;
    }
    let settled = env.settle();
    let c1 = if env.rounded_up && !settled.fault_before { C1 } else { 0 };
    cpu.fpu.fsw = cpu.fpu.fsw & !C1 | c1 | u16::from(settled.flags.bits());
    if settled.fault {
        cpu.fpu.fsw |= SUMMARY | stack::BUSY;
        note_opcode(cpu);
    }
    !settled.fault_before
}

/// Reports a stack fault: overflow if `overflow`, else underflow (SDM volume 1, 8.5.1.1). Gives
/// whether the masked response, the default NaN, is to be written.
#[cold]
fn stack_fault(cpu: &mut Cpu, op: &Op, overflow: bool) -> bool {
    let mut env = Env::x87(cpu.fpu.fcw);
    env.raise(Flags::INVALID);
    let masked = complete(cpu, op, &env);
    cpu.fpu.fsw |= STACK_FAULT | if overflow { C1 } else { 0 };
    masked
}

/// Remembers the last instruction that was no control instruction, and its memory operand. CS and
/// DS are not remembered: CPUID tells so.
#[inline]
fn note_pointers(cpu: &mut Cpu, op: &Op) {
    cpu.fpu.fip = cpu.this_rip;
    if op.has_memory() {
        cpu.fpu.fdp = cpu.effective(op);
    }
}

/// Remembers the opcode of an instruction with an unmasked exception, from its bytes in memory: it
/// is kept for no other (SDM volume 1, 8.1.9.1).
#[cold]
fn note_opcode(cpu: &mut Cpu) {
    let base = cpu.segs[1].base;
    let start = cpu.this_rip.wrapping_add(if cpu.long() { 0 } else { base });
    let mut bytes = [0u8; 15];
    let mut known = 0;
    for byte in &mut bytes {
        match cpu.read::<u8>(crate::op::seg::CS, start.wrapping_add(known as u64)) {
            Ok(value) => *byte = value,
            Err(_) => break,
        }
        known += 1;
    }
    let escape = bytes[..known].windows(2).find(|pair| pair[0] & 0xf8 == 0xd8);
    if let Some(&[escape, modrm]) = escape {
        cpu.fpu.fop = u16::from(escape & 7) << 8 | u16::from(modrm);
    }
}

/// The default NaN, which masked invalid operations give.
fn indefinite() -> F80 {
    F80::default_nan()
}

/// Writes a result that needs no more checks to ST(`i`).
#[inline]
fn put(cpu: &mut Cpu, i: u8, value: F80) {
    cpu.fpu.put(i, value);
}

/// Whether any of these flags is reported without being masked.
fn unmasked(env: &Env, flags: Flags) -> bool {
    !env.flags.and(flags).without(env.masks).is_empty()
}
