//! ROL, ROR, RCL, RCR, SHL, SHR, SAR, SHLD, SHRD (SDM 2).
//!
//! The count is taken modulo 32, or 64 for 64-bit operands. A count of zero changes nothing, but a
//! 32-bit destination's upper half is cleared all the same.
//!
//! OF is defined for counts of 1 only. For other counts Intel's processors set it as the first of
//! the single steps would; ROL and ROR of a register by an
//! immediate leave it alone.

use iced_x86::{Instruction, OpKind};
use riad_cpu::x86::rflags::{AF, CF, OF};

use super::operand::{Memory, Reg, Target, is_memory};
use super::{Int, sized};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::flags::Flags;
use crate::op::{Exec, Op, gpr};

/// A shift or rotation of one operand.
pub(super) trait Shift: 'static {
    /// Whether OF stays when a register is rotated by an immediate other than 1.
    const ROTATES: bool = false;
    /// The result and its flags. `count` is masked, and not zero.
    fn apply<T: Int>(value: T, count: u32, flags: &mut Flags) -> T;
}

/// The most significant bit.
#[inline(always)]
fn top<T: Int>(value: T) -> bool {
    value.zx() & T::SIGN != 0
}

#[inline(always)]
fn set_carry_overflow(flags: &mut Flags, carry: bool, overflow: bool) {
    let carry = if carry { CF } else { 0 };
    let overflow = if overflow { OF } else { 0 };
    flags.bits = flags.bits & !(CF | OF) | carry | overflow;
}

/// Flags of shifts: AF, undefined, is cleared.
#[inline(always)]
fn shifted<T: Int>(flags: &mut Flags, result: T, carry: bool, overflow: bool) {
    set_carry_overflow(flags, carry, overflow);
    flags.bits &= !AF;
    flags.result(result);
}

/// Whether the two most significant bits differ: OF of one step to the left.
#[inline(always)]
fn left_overflow<T: Int>(value: T) -> bool {
    (value.zx() ^ value.zx() << 1) & T::SIGN != 0
}

/// Left.
pub(super) struct Shl;

impl Shift for Shl {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, flags: &mut Flags) -> T {
        let last = value.zx() << (count - 1);
        let result = T::low(last << 1);
        shifted(flags, result, last & T::SIGN != 0, left_overflow(value));
        result
    }
}

/// Right, zeros in.
pub(super) struct Shr;

impl Shift for Shr {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, flags: &mut Flags) -> T {
        let last = value.zx() >> (count - 1);
        let result = T::low(last >> 1);
        shifted(flags, result, last & 1 != 0, top(value));
        result
    }
}

/// Right, signs in.
pub(super) struct Sar;

impl Shift for Sar {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, flags: &mut Flags) -> T {
        let last = value.sx() as i64 >> (count - 1);
        let result = T::low((last >> 1) as u64);
        shifted(flags, result, last & 1 != 0, false);
        result
    }
}

/// Rotate left; only CF and OF change.
pub(super) struct Rol;

impl Shift for Rol {
    const ROTATES: bool = true;

    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, flags: &mut Flags) -> T {
        let (by, bits) = (count % T::BITS, value.zx());
        let result = if by == 0 { bits } else { bits << by | bits >> (T::BITS - by) };
        set_carry_overflow(flags, result & 1 != 0, left_overflow(value));
        T::low(result)
    }
}

/// Rotate right.
pub(super) struct Ror;

impl Shift for Ror {
    const ROTATES: bool = true;

    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, flags: &mut Flags) -> T {
        let (by, bits) = (count % T::BITS, value.zx());
        let result = if by == 0 { bits } else { bits >> by | bits << (T::BITS - by) };
        let result = T::low(result);
        set_carry_overflow(flags, top(result), top(value) != (bits & 1 != 0));
        result
    }
}

/// The value below CF, to be turned as one.
#[inline(always)]
fn ring<T: Int>(value: T, flags: &Flags) -> u128 {
    u128::from(flags.cf()) << T::BITS | u128::from(value.zx())
}

/// Rotate left through CF. A whole turn changes no flag.
pub(super) struct Rcl;

impl Shift for Rcl {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, flags: &mut Flags) -> T {
        let by = count % (T::BITS + 1);
        if by == 0 {
            return value;
        }
        let ring = ring(value, flags);
        let turned = ring << by | ring >> (T::BITS + 1 - by);
        set_carry_overflow(flags, turned >> T::BITS & 1 != 0, left_overflow(value));
        T::low(turned as u64)
    }
}

/// Rotate right through CF.
pub(super) struct Rcr;

impl Shift for Rcr {
    #[inline(always)]
    fn apply<T: Int>(value: T, count: u32, flags: &mut Flags) -> T {
        let by = count % (T::BITS + 1);
        if by == 0 {
            return value;
        }
        let ring = ring(value, flags);
        let turned = ring >> by | ring << (T::BITS + 1 - by);
        set_carry_overflow(flags, turned >> T::BITS & 1 != 0, top(value) != flags.cf());
        T::low(turned as u64)
    }
}

#[inline(always)]
fn mask<T: Int>(count: u32) -> u32 {
    count & if T::BYTES == 8 { 63 } else { 31 }
}

#[inline(always)]
fn shift<T: Int, O: Shift, D: Target>(cpu: &mut Cpu, op: &Op, count: u32) -> Done {
    let before = cpu.flags;
    let old = D::modify::<T>(cpu, op, |old| {
        if count == 0 { old } else { O::apply(old, count, &mut before.clone()) }
    })?;
    if count != 0 {
        O::apply(old, count, &mut cpu.flags);
    }
    Ok(())
}

/// By an immediate, which is masked already and not zero.
fn by_constant<T: Int, O: Shift, D: Target>(cpu: &mut Cpu, op: &Op) -> Done {
    let count = mask::<T>(op.imm as u32).max(1);
    let overflow = cpu.flags.of();
    shift::<T, O, D>(cpu, op, count)?;
    if O::ROTATES && count != 1 && !op.has_memory() {
        cpu.flags.put(OF, overflow);
    }
    Ok(())
}

/// By CL.
fn by_variable<T: Int, O: Shift, D: Target>(cpu: &mut Cpu, op: &Op) -> Done {
    let count = mask::<T>(cpu.regs[gpr::RCX] as u32);
    shift::<T, O, D>(cpu, op, count)
}

fn by_nothing<T: Int, D: Target>(cpu: &mut Cpu, op: &Op) -> Done {
    D::modify::<T>(cpu, op, |old| old).map(drop)
}

/// Shifts and rotations of one operand.
pub(super) fn single<O: Shift>(i: &Instruction, op: &mut Op) -> Option<Exec> {
    let memory = is_memory(i, 0);
    if i.op_kind(1) == OpKind::Register {
        return sized!(op.size, T => Some(if memory {
            by_variable::<T, O, Memory>
        } else {
            by_variable::<T, O, Reg<0>>
        }));
    }
    sized!(op.size, T => {
        op.imm = u64::from(mask::<T>(op.imm as u32));
        Some(match (memory, op.imm) {
            (true, 0) => by_nothing::<T, Memory>,
            (false, 0) => by_nothing::<T, Reg<0>>,
            (true, _) => by_constant::<T, O, Memory>,
            (false, _) => by_constant::<T, O, Reg<0>>,
        })
    })
}

/// A shift that takes bits in from a second operand.
pub(super) trait DoubleShift: 'static {
    /// The result, CF and OF. `count` is masked, and not zero. Counts above the width exist for 16-bit
    /// operands only and are undefined; the bits then come in as if the destination followed.
    fn apply<T: Int>(value: T, fill: T, count: u32) -> (T, bool, bool);
}

/// Left.
pub(super) struct Shld;

impl DoubleShift for Shld {
    #[inline(always)]
    fn apply<T: Int>(value: T, fill: T, count: u32) -> (T, bool, bool) {
        let overflow = left_overflow(value);
        if T::BYTES == 2 {
            // destination:source:destination, 48 bits.
            let ring = value.zx() << 32 | fill.zx() << 16 | value.zx();
            let result = T::low(ring << count >> 32);
            return (result, ring >> (48 - count) & 1 != 0, overflow);
        }
        let (value, fill) = (value.zx(), fill.zx());
        let result = value << count | fill >> (T::BITS - count);
        (T::low(result), value >> (T::BITS - count) & 1 != 0, overflow)
    }
}

/// Right.
pub(super) struct Shrd;

impl DoubleShift for Shrd {
    #[inline(always)]
    fn apply<T: Int>(value: T, fill: T, count: u32) -> (T, bool, bool) {
        let overflow = top(value) != (fill.zx() & 1 != 0);
        if T::BYTES == 2 {
            let ring = value.zx() << 32 | fill.zx() << 16 | value.zx();
            return (T::low(ring >> count), ring >> (count - 1) & 1 != 0, overflow);
        }
        let (value, fill) = (value.zx(), fill.zx());
        let result = value >> count | fill << (T::BITS - count);
        (T::low(result), value >> (count - 1) & 1 != 0, overflow)
    }
}

fn shift_double<T: Int, O: DoubleShift, D: Target>(cpu: &mut Cpu, op: &Op) -> Done {
    let by = if op.reg[2] == gpr::RCX as u8 { cpu.regs[gpr::RCX] } else { op.imm };
    let count = mask::<T>(by as u32);
    let fill = cpu.get::<T>(op.reg[1]);
    if count == 0 {
        return by_nothing::<T, D>(cpu, op);
    }
    let old = D::modify::<T>(cpu, op, |old| O::apply(old, fill, count).0)?;
    let (result, carry, overflow) = O::apply(old, fill, count);
    shifted(&mut cpu.flags, result, carry, overflow);
    Ok(())
}

/// SHLD and SHRD.
pub(super) fn double<O: DoubleShift>(i: &Instruction, op: &mut Op) -> Option<Exec> {
    // reg[2] says where the count is.
    op.reg[2] = if i.op_kind(2) == OpKind::Register { gpr::RCX as u8 } else { 0 };
    sized!(op.size, T => Some(if is_memory(i, 0) {
        shift_double::<T, O, Memory>
    } else {
        shift_double::<T, O, Reg<0>>
    }))
}
