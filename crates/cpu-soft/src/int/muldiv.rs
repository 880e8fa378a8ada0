//! MUL, IMUL, DIV, IDIV (SDM 2).
//!
//! Undefined flags: after a multiplication SF and PF are those of the low half, ZF and AF clear;
//! a division leaves all flags alone.

use iced_x86::Instruction;
use riad_cpu::x86::rflags::{AF, CF, OF};

use super::operand::{Imm, Memory, Reg, Source, is_memory};
use super::{Int, sized};
use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Exec, HIGH, Op, gpr};

const RAX: u8 = gpr::RAX as u8;
const RDX: u8 = gpr::RDX as u8;
const AH: u8 = HIGH | RAX;

/// A multiplication of two operands into a result twice as wide.
pub(super) trait Widening: 'static {
    /// Low half, high half, and whether the high half matters.
    fn multiply<T: Int>(a: T, b: T) -> (T, T, bool);
}

/// Unsigned.
pub(super) struct Mul;

impl Widening for Mul {
    #[inline(always)]
    fn multiply<T: Int>(a: T, b: T) -> (T, T, bool) {
        let product = u128::from(a.zx()) * u128::from(b.zx());
        let high = (product >> T::BITS) as u64;
        (T::low(product as u64), T::low(high), high != 0)
    }
}

/// Signed.
pub(super) struct Imul;

impl Widening for Imul {
    #[inline(always)]
    fn multiply<T: Int>(a: T, b: T) -> (T, T, bool) {
        let product = i128::from(a.sx() as i64) * i128::from(b.sx() as i64);
        let low = T::low(product as u64);
        (low, T::low((product >> T::BITS) as u64), product != i128::from(low.sx() as i64))
    }
}

fn set_flags<T: Int>(cpu: &mut Cpu, low: T, over: bool) {
    cpu.flags.sign_parity = low.sx();
    cpu.flags.put_zf(false);
    cpu.flags.bits = cpu.flags.bits & !(CF | OF | AF) | if over { CF | OF } else { 0 };
}

/// The accumulator times the operand.
fn accumulate<T: Int, O: Widening, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let b: T = S::read(cpu, op)?;
    let (low, high, over) = O::multiply(cpu.get::<T>(RAX), b);
    cpu.set(RAX, low);
    cpu.set(if T::BYTES == 1 { AH } else { RDX }, high);
    set_flags(cpu, low, over);
    Ok(())
}

/// MUL and one-operand IMUL.
pub(super) fn widening<O: Widening>(i: &Instruction, op: &Op) -> Option<Exec> {
    sized!(op.size, T => Some(if is_memory(i, 0) {
        accumulate::<T, O, Memory>
    } else {
        accumulate::<T, O, Reg<0>>
    }))
}

/// A times B into register 0.
fn truncate<T: Int, A: Source, B: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let (a, b): (T, T) = (A::read(cpu, op)?, B::read(cpu, op)?);
    let (low, _, over) = Imul::multiply(a, b);
    cpu.set(op.reg[0], low);
    set_flags(cpu, low, over);
    Ok(())
}

/// IMUL with one, two and three operands.
pub(super) fn imul(i: &Instruction, op: &Op) -> Option<Exec> {
    match i.op_count() {
        1 => widening::<Imul>(i, op),
        2 => sized!(op.size, T => Some(if is_memory(i, 1) {
            truncate::<T, Reg<0>, Memory>
        } else {
            truncate::<T, Reg<0>, Reg<1>>
        })),
        _ => sized!(op.size, T => Some(if is_memory(i, 1) {
            truncate::<T, Memory, Imm>
        } else {
            truncate::<T, Reg<1>, Imm>
        })),
    }
}

/// A division of a double-width dividend.
pub(super) trait Division: 'static {
    /// Quotient and remainder; `None` where the processor raises #DE.
    fn divide<T: Int>(high: T, low: T, divisor: T) -> Option<(T, T)>;
}

/// Unsigned.
pub(super) struct Div;

impl Division for Div {
    #[inline(always)]
    fn divide<T: Int>(high: T, low: T, divisor: T) -> Option<(T, T)> {
        let by = divisor.zx();
        if high.zx() >= by {
            // By zero, or a quotient that does not fit.
            return None;
        }
        if T::BYTES == 8 && high.zx() != 0 {
            let dividend = u128::from(high.zx()) << 64 | u128::from(low.zx());
            let by = u128::from(by);
            return Some((T::low((dividend / by) as u64), T::low((dividend % by) as u64)));
        }
        let dividend = if T::BYTES == 8 { low.zx() } else { high.zx() << T::BITS | low.zx() };
        Some((T::low(dividend.checked_div(by)?), T::low(dividend.checked_rem(by)?)))
    }
}

/// Signed.
pub(super) struct Idiv;

impl Division for Idiv {
    #[inline(always)]
    fn divide<T: Int>(high: T, low: T, divisor: T) -> Option<(T, T)> {
        let by = divisor.sx() as i64;
        let (quotient, remainder) =
            if T::BYTES == 8 && high.zx() != ((low.sx() as i64) >> 63) as u64 {
                let dividend = (u128::from(high.zx()) << 64 | u128::from(low.zx())) as i128;
                let by = i128::from(by);
                let quotient = i64::try_from(dividend.checked_div(by)?).ok()?;
                (quotient, dividend.checked_rem(by)? as i64)
            } else {
                let dividend = if T::BYTES == 8 {
                    low.zx() as i64
                } else {
                    ((high.sx() << T::BITS) | low.zx()) as i64
                };
                (dividend.checked_div(by)?, dividend.checked_rem(by)?)
            };
        let narrow = T::low(quotient as u64);
        (narrow.sx() as i64 == quotient).then(|| (narrow, T::low(remainder as u64)))
    }
}

fn divide<T: Int, O: Division, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let divisor: T = S::read(cpu, op)?;
    let high = if T::BYTES == 1 { AH } else { RDX };
    let result = O::divide(cpu.get::<T>(high), cpu.get::<T>(RAX), divisor);
    let (quotient, remainder) = result.ok_or(Fault::DE)?;
    cpu.set(RAX, quotient);
    cpu.set(high, remainder);
    Ok(())
}

/// DIV and IDIV.
pub(super) fn division<O: Division>(i: &Instruction, op: &Op) -> Option<Exec> {
    sized!(op.size, T => Some(if is_memory(i, 0) {
        divide::<T, O, Memory>
    } else {
        divide::<T, O, Reg<0>>
    }))
}
