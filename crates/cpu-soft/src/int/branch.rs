//! Jcc, JMP, CALL, RET (near), LOOP, LOOPE, LOOPNE, JCXZ, JECXZ, JRCXZ (SDM 2).
//!
//! Handlers take the width of the instruction pointer, in bytes, as const parameter `W`: 8 in
//! 64-bit mode and nowhere else, otherwise the operand size, 2 or 4.

use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind};

use super::mov::{by_condition, condition};
use super::operand::{Memory, Reg, Source, is_memory};
use super::stack;
use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op, gpr, seg};
use crate::word::Word;

/// A target cut to the width of the instruction pointer; #GP(0) when it is not canonical or
/// beyond the code segment's limit.
#[inline(always)]
fn checked<const W: u8>(cpu: &Cpu, target: u64) -> Done<u64> {
    let (target, good) = match W {
        8 => (target, ((target << 16) as i64 >> 16) as u64 == target),
        4 => (target & u32::MASK, target & u32::MASK <= limit(cpu)),
        _ => (target & u16::MASK, target & u16::MASK <= limit(cpu)),
    };
    if good { Ok(target) } else { Err(Fault::GP0) }
}

#[inline(always)]
fn limit(cpu: &Cpu) -> u64 {
    u64::from(cpu.segs[usize::from(seg::CS)].limit)
}

/// Goes to the target at the distance in the immediate.
#[inline(always)]
fn relative<const W: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    let target = checked::<W>(cpu, cpu.rip().wrapping_add(op.imm))?;
    cpu.set_rip(target);
    Ok(())
}

/// The width of a relative branch.
fn width(i: &Instruction) -> u8 {
    match i.op_kind(0) {
        OpKind::NearBranch16 => 2,
        OpKind::NearBranch32 => 4,
        _ => 8,
    }
}

/// An instance for the branch's width.
macro_rules! by_width {
    ($width:expr, $W:ident => $handler:expr) => {
        match $width {
            2 => {
                const $W: u8 = 2;
                Some($handler as Exec)
            }
            4 => {
                const $W: u8 = 4;
                Some($handler as Exec)
            }
            8 => {
                const $W: u8 = 8;
                Some($handler as Exec)
            }
            _ => None,
        }
    };
}

fn jump_if<const C: u8, const W: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.flags.condition(C) { relative::<W>(cpu, op) } else { Ok(()) }
}

/// Jcc.
pub(super) fn jcc(i: &Instruction) -> Option<Exec> {
    if i.flow_control() != FlowControl::ConditionalBranch {
        return None;
    }
    let condition = condition(i)?;
    match width(i) {
        2 => by_condition!(condition, C => jump_if::<C, 2>),
        4 => by_condition!(condition, C => jump_if::<C, 4>),
        _ => by_condition!(condition, C => jump_if::<C, 8>),
    }
}

/// Reads an absolute target.
#[inline(always)]
fn absolute<const W: u8, S: Source>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    Ok(match W {
        2 => S::read::<u16>(cpu, op)?.zx(),
        4 => S::read::<u32>(cpu, op)?.zx(),
        _ => S::read::<u64>(cpu, op)?,
    })
}

fn jump_absolute<const W: u8, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let target = absolute::<W, S>(cpu, op)?;
    let target = checked::<W>(cpu, target)?;
    cpu.set_rip(target);
    Ok(())
}

/// JMP, near. Far jumps are the system family's.
pub(super) fn jmp(i: &Instruction, op: &Op) -> Option<Exec> {
    match i.flow_control() {
        FlowControl::UnconditionalBranch if is_near(i) => {
            by_width!(width(i), W => relative::<W>)
        }
        FlowControl::IndirectBranch if is_near_indirect(i) => {
            if is_memory(i, 0) {
                by_width!(op.size, W => jump_absolute::<W, Memory>)
            } else {
                by_width!(op.size, W => jump_absolute::<W, Reg<0>>)
            }
        }
        _ => None,
    }
}

fn is_near(i: &Instruction) -> bool {
    matches!(i.op_kind(0), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

fn is_near_indirect(i: &Instruction) -> bool {
    matches!(
        i.code(),
        Code::Jmp_rm16
            | Code::Jmp_rm32
            | Code::Jmp_rm64
            | Code::Call_rm16
            | Code::Call_rm32
            | Code::Call_rm64
    )
}

/// Pushes the return address and goes. A fault of the push comes before one of the target.
#[inline(always)]
fn enter<const W: u8>(cpu: &mut Cpu, target: Done<u64>) -> Done {
    let Ok(target) = target else {
        stack::check_push(cpu, u32::from(W))?;
        return target.map(drop);
    };
    let back = cpu.rip();
    match W {
        2 => stack::push_value::<u16, false>(cpu, back as u16)?,
        4 => stack::push_value::<u32, false>(cpu, back as u32)?,
        _ => stack::push_value::<u64, true>(cpu, back)?,
    }
    cpu.set_rip(target);
    Ok(())
}

fn call_relative<const W: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    let target = checked::<W>(cpu, cpu.rip().wrapping_add(op.imm));
    enter::<W>(cpu, target)
}

fn call_absolute<const W: u8, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let target = absolute::<W, S>(cpu, op)?;
    let target = checked::<W>(cpu, target);
    enter::<W>(cpu, target)
}

/// CALL, near.
pub(super) fn call(i: &Instruction, op: &Op) -> Option<Exec> {
    if is_near(i) {
        by_width!(width(i), W => call_relative::<W>)
    } else if !is_near_indirect(i) {
        None
    } else if is_memory(i, 0) {
        by_width!(op.size, W => call_absolute::<W, Memory>)
    } else {
        by_width!(op.size, W => call_absolute::<W, Reg<0>>)
    }
}

/// Pops the return address, and drops `imm` bytes more.
fn return_near<const W: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    let target = match W {
        2 => cpu.peek::<u16>(0)?.zx(),
        4 => cpu.peek::<u32>(0)?.zx(),
        _ => cpu.read(seg::SS, cpu.regs[gpr::RSP])?,
    };
    let target = checked::<W>(cpu, target)?;
    let drop = op.imm.wrapping_add(u64::from(W));
    if W == 8 {
        cpu.regs[gpr::RSP] = cpu.regs[gpr::RSP].wrapping_add(drop);
    } else {
        cpu.set_sp(cpu.sp().wrapping_add(drop));
    }
    cpu.set_rip(target);
    Ok(())
}

/// RET, near.
pub(super) fn ret(i: &Instruction) -> Option<Exec> {
    Some(match i.code() {
        Code::Retnw | Code::Retnw_imm16 => return_near::<2>,
        Code::Retnd | Code::Retnd_imm16 => return_near::<4>,
        Code::Retnq | Code::Retnq_imm16 => return_near::<8>,
        _ => return None,
    })
}

/// What a counted branch asks of ZF.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    Zero,
    NotZero,
}

/// Decrements the counter, without flags, and goes unless it is zero (or ZF is not as wanted).
#[inline(always)]
fn count<const W: u8>(cpu: &mut Cpu, op: &Op, wants: Wants) -> Done {
    let left = counter(cpu, op).wrapping_sub(1);
    let left = cut(op, left);
    let go = left != 0
        && match wants {
            Wants::Nothing => true,
            Wants::Zero => cpu.flags.zf(),
            Wants::NotZero => !cpu.flags.zf(),
        };
    if go {
        relative::<W>(cpu, op)?;
    }
    match op.address {
        8 => cpu.set(gpr::RCX as u8, left),
        4 => cpu.set(gpr::RCX as u8, left as u32),
        _ => cpu.set(gpr::RCX as u8, left as u16),
    }
    Ok(())
}

#[inline(always)]
fn cut(op: &Op, value: u64) -> u64 {
    match op.address {
        8 => value,
        4 => value & u32::MASK,
        _ => value & u16::MASK,
    }
}

#[inline(always)]
fn counter(cpu: &Cpu, op: &Op) -> u64 {
    cut(op, cpu.regs[gpr::RCX])
}

fn loop_any<const W: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    count::<W>(cpu, op, Wants::Nothing)
}

fn loop_equal<const W: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    count::<W>(cpu, op, Wants::Zero)
}

fn loop_not_equal<const W: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    count::<W>(cpu, op, Wants::NotZero)
}

fn jump_if_zero<const W: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    if counter(cpu, op) == 0 { relative::<W>(cpu, op) } else { Ok(()) }
}

/// LOOP, LOOPE, LOOPNE, JCXZ, JECXZ, JRCXZ: `op.address` becomes the width of the counter.
pub(super) fn counted(i: &Instruction, op: &mut Op) -> Option<Exec> {
    use Code as C;
    op.address = match i.code() {
        C::Loop_rel8_16_CX
        | C::Loop_rel8_32_CX
        | C::Loope_rel8_16_CX
        | C::Loope_rel8_32_CX
        | C::Loopne_rel8_16_CX
        | C::Loopne_rel8_32_CX
        | C::Jcxz_rel8_16
        | C::Jcxz_rel8_32 => 2,
        C::Loop_rel8_16_ECX
        | C::Loop_rel8_32_ECX
        | C::Loop_rel8_64_ECX
        | C::Loope_rel8_16_ECX
        | C::Loope_rel8_32_ECX
        | C::Loope_rel8_64_ECX
        | C::Loopne_rel8_16_ECX
        | C::Loopne_rel8_32_ECX
        | C::Loopne_rel8_64_ECX
        | C::Jecxz_rel8_16
        | C::Jecxz_rel8_32
        | C::Jecxz_rel8_64 => 4,
        _ => 8,
    };
    match i.mnemonic() {
        Mnemonic::Loop => by_width!(width(i), W => loop_any::<W>),
        Mnemonic::Loope => by_width!(width(i), W => loop_equal::<W>),
        Mnemonic::Loopne => by_width!(width(i), W => loop_not_equal::<W>),
        _ => by_width!(width(i), W => jump_if_zero::<W>),
    }
}
