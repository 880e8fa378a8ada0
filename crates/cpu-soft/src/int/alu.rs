//! ADD, ADC, SUB, SBB, AND, OR, XOR, CMP, TEST, INC, DEC, NEG, NOT (SDM 2).

use iced_x86::Instruction;
use riad_cpu::x86::rflags::CF;

use super::operand::{Flat, Imm, Memory, Reg, Shape, Source, Target, is_memory, shape};
use super::{Int, sized};
use crate::cpu::{Cpu, Mode};
use crate::fault::Done;
use crate::flags::Flags;
use crate::op::{Exec, Op};

/// An operation on two values.
pub(super) trait Binary: 'static {
    /// The result; `carry` is CF before.
    fn compute<T: Int>(a: T, b: T, carry: bool) -> T;
    /// The flags of that result.
    fn flags<T: Int>(flags: &mut Flags, a: T, b: T, result: T);
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident: |$a:ident, $b:ident, $c:ident| $result:expr,
        |$f:ident, $r:ident| $flags:expr;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl Binary for $name {
            #[inline(always)]
            fn compute<T: Int>($a: T, $b: T, $c: bool) -> T {
                let ($a, $b, _) = ($a.zx(), $b.zx(), $c);
                T::low($result)
            }

            #[inline(always)]
            fn flags<T: Int>($f: &mut Flags, $a: T, $b: T, $r: T) {
                let _ = ($a, $b);
                $flags
            }
        }
    )*};
}

operations! {
    /// `a + b`.
    Add: |a, b, c| a.wrapping_add(b), |f, r| f.add(a, b, r);
    /// `a + b + CF`.
    Adc: |a, b, c| a.wrapping_add(b).wrapping_add(u64::from(c)), |f, r| f.add(a, b, r);
    /// `a - b`.
    Sub: |a, b, c| a.wrapping_sub(b), |f, r| f.sub(a, b, r);
    /// `a - b - CF`.
    Sbb: |a, b, c| a.wrapping_sub(b).wrapping_sub(u64::from(c)), |f, r| f.sub(a, b, r);
    /// `a & b`.
    And: |a, b, c| a & b, |f, r| f.logic(r);
    /// `a | b`.
    Or: |a, b, c| a | b, |f, r| f.logic(r);
    /// `a ^ b`.
    Xor: |a, b, c| a ^ b, |f, r| f.logic(r);
}

/// `O` of both operands into the first.
fn into_first<T: Int, O: Binary, D: Target, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let b: T = S::read(cpu, op)?;
    let carry = cpu.flags.cf();
    let a = D::modify(cpu, op, |a| O::compute(a, b, carry))?;
    O::flags(&mut cpu.flags, a, b, O::compute(a, b, carry));
    Ok(())
}

/// `O` of both operands for its flags alone.
fn flags_only<T: Int, O: Binary, A: Source, B: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let b: T = B::read(cpu, op)?;
    let a: T = A::read(cpu, op)?;
    O::flags(&mut cpu.flags, a, b, O::compute(a, b, false));
    Ok(())
}

/// `XOR r, r` and `SUB r, r`: zero, whatever was there.
fn clear<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.set(op.reg[0], T::low(0));
    cpu.flags.logic(T::low(0));
    Ok(())
}

/// `TEST r, r`: flags of one register.
fn examine<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = cpu.get::<T>(op.reg[0]);
    cpu.flags.logic(value);
    Ok(())
}

/// The handler of an instruction that writes its first operand.
pub(super) fn binary<O: Binary>(i: &Instruction, op: &Op, mode: Mode) -> Option<Exec> {
    let shape = shape(i, op, mode);
    let clears = matches!(i.mnemonic(), iced_x86::Mnemonic::Xor | iced_x86::Mnemonic::Sub);
    if clears && shape == Shape::RegReg && op.reg[0] == op.reg[1] {
        return sized!(op.size, T => Some(clear::<T>));
    }
    sized!(op.size, T => Some(match shape {
        Shape::RegReg => into_first::<T, O, Reg<0>, Reg<1>>,
        Shape::RegImm => into_first::<T, O, Reg<0>, Imm>,
        Shape::RegMemory => into_first::<T, O, Reg<0>, Memory>,
        Shape::RegFlat => into_first::<T, O, Reg<0>, Flat>,
        Shape::MemoryReg => into_first::<T, O, Memory, Reg<1>>,
        Shape::MemoryImm => into_first::<T, O, Memory, Imm>,
        Shape::FlatReg => into_first::<T, O, Flat, Reg<1>>,
        Shape::FlatImm => into_first::<T, O, Flat, Imm>,
    }))
}

/// The handler of CMP and TEST.
pub(super) fn compare<O: Binary>(i: &Instruction, op: &Op, mode: Mode) -> Option<Exec> {
    let shape = shape(i, op, mode);
    let test = i.mnemonic() == iced_x86::Mnemonic::Test;
    if test && shape == Shape::RegReg && op.reg[0] == op.reg[1] {
        return sized!(op.size, T => Some(examine::<T>));
    }
    sized!(op.size, T => Some(match shape {
        Shape::RegReg => flags_only::<T, O, Reg<0>, Reg<1>>,
        Shape::RegImm => flags_only::<T, O, Reg<0>, Imm>,
        Shape::RegMemory => flags_only::<T, O, Reg<0>, Memory>,
        Shape::RegFlat => flags_only::<T, O, Reg<0>, Flat>,
        Shape::MemoryReg => flags_only::<T, O, Memory, Reg<1>>,
        Shape::MemoryImm => flags_only::<T, O, Memory, Imm>,
        Shape::FlatReg => flags_only::<T, O, Flat, Reg<1>>,
        Shape::FlatImm => flags_only::<T, O, Flat, Imm>,
    }))
}

/// An operation on one value.
pub(super) trait Unary: 'static {
    /// The result.
    fn compute<T: Int>(a: T) -> T;
    /// The flags of that result.
    fn flags<T: Int>(flags: &mut Flags, a: T, result: T);
}

/// `a + 1`, CF unchanged.
pub(super) struct Inc;

impl Unary for Inc {
    #[inline(always)]
    fn compute<T: Int>(a: T) -> T {
        T::low(a.zx().wrapping_add(1))
    }

    #[inline(always)]
    fn flags<T: Int>(flags: &mut Flags, a: T, result: T) {
        let carry = flags.bits & CF;
        flags.add(a, T::low(1), result);
        flags.bits = flags.bits & !CF | carry;
    }
}

/// `a - 1`, CF unchanged.
pub(super) struct Dec;

impl Unary for Dec {
    #[inline(always)]
    fn compute<T: Int>(a: T) -> T {
        T::low(a.zx().wrapping_sub(1))
    }

    #[inline(always)]
    fn flags<T: Int>(flags: &mut Flags, a: T, result: T) {
        let carry = flags.bits & CF;
        flags.sub(a, T::low(1), result);
        flags.bits = flags.bits & !CF | carry;
    }
}

/// `0 - a`.
pub(super) struct Neg;

impl Unary for Neg {
    #[inline(always)]
    fn compute<T: Int>(a: T) -> T {
        T::low(a.zx().wrapping_neg())
    }

    #[inline(always)]
    fn flags<T: Int>(flags: &mut Flags, a: T, result: T) {
        flags.sub(T::low(0), a, result);
    }
}

/// `!a`, no flags.
pub(super) struct Not;

impl Unary for Not {
    #[inline(always)]
    fn compute<T: Int>(a: T) -> T {
        T::low(!a.zx())
    }

    #[inline(always)]
    fn flags<T: Int>(_: &mut Flags, _: T, _: T) {}
}

fn in_place<T: Int, O: Unary, D: Target>(cpu: &mut Cpu, op: &Op) -> Done {
    let old = D::modify::<T>(cpu, op, O::compute)?;
    O::flags(&mut cpu.flags, old, O::compute(old));
    Ok(())
}

/// The handler of an instruction with one operand.
pub(super) fn unary<O: Unary>(i: &Instruction, op: &Op) -> Option<Exec> {
    sized!(op.size, T => Some(if is_memory(i, 0) {
        in_place::<T, O, Memory>
    } else {
        in_place::<T, O, Reg<0>>
    }))
}
