//! Comparisons: of packed integers, of floating point lanes by predicate, and into RFLAGS.
//!
//! Intel SDM volume 1, sections 10.4.2, 11.4.1.3, 12.10.13 (PTEST); volume 2, CMPPS (table 3-1 for
//! the predicates) and COMISS.

use iced_x86::Code;
use riad_cpu::x86::rflags::{CF, PF, ZF};

use super::arith::Host;
use super::lanes::{each, pd, ps, sd, ss};
use crate::op::{Exec, Op};
use crate::softfloat::{Env, F32, F64, Relation, compare};

/// The handler of a comparison, or `None`.
pub(super) fn select(code: Code, op: &Op) -> Option<Exec> {
    integers(code, op).or_else(|| lanes(code, op)).or_else(|| flags(code, op))
}

table! {
    /// Integers: all ones where it holds.
    integers -> into_xmm;
    Pcmpeqb_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i8, y| -i8::from(x == y));
    Pcmpeqw_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i16, y| -i16::from(x == y));
    Pcmpeqd_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i32, y| -i32::from(x == y));
    Pcmpeqq_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i64, y| -i64::from(x == y));
    Pcmpgtb_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i8, y| -i8::from(x > y));
    Pcmpgtw_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i16, y| -i16::from(x > y));
    Pcmpgtd_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i32, y| -i32::from(x > y));
    Pcmpgtq_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i64, y| -i64::from(x > y));
}

/// How two numbers stand to each other.
#[inline(always)]
fn relation<F: Host>(a: F, b: F, signaling: bool, env: &mut Env) -> Relation {
    if a.is_plain() && b.is_plain() {
        let (a, b) = (a.float(), b.float());
        return if a < b {
            Relation::Less
        } else if a > b {
            Relation::Greater
        } else {
            Relation::Equal
        };
    }
    compare(a.unpack(), b.unpack(), signaling, env)
}

/// Whether a predicate holds: EQ, LT, LE, UNORD by bits 0 to 1, the contrary if bit 2 is set.
/// LT, LE and their contraries raise invalid-operation on quiet NaNs too.
#[inline(always)]
fn holds<F: Host>(a: F, b: F, predicate: u8, env: &mut Env) -> bool {
    let basic = predicate & 3;
    let relation = relation(a, b, matches!(basic, 1 | 2), env);
    let met = match basic {
        0 => relation == Relation::Equal,
        1 => relation == Relation::Less,
        2 => matches!(relation, Relation::Less | Relation::Equal),
        _ => relation == Relation::Unordered,
    };
    met != (predicate & 4 != 0)
}

#[inline(always)]
fn single_mask(predicate: u8) -> impl Fn(F32, F32, &mut Env) -> F32 {
    move |a, b, env| F32(if holds(a, b, predicate, env) { u32::MAX } else { 0 })
}

#[inline(always)]
fn double_mask(predicate: u8) -> impl Fn(F64, F64, &mut Env) -> F64 {
    move |a, b, env| F64(if holds(a, b, predicate, env) { u64::MAX } else { 0 })
}

table! {
    /// Floating point lanes: all ones where the predicate holds.
    lanes -> into_xmm;
    Cmpps_xmm_xmmm128_imm8: Aligned => |a, b, imm, env| ps(a, b, env, single_mask(imm));
    Cmppd_xmm_xmmm128_imm8: Aligned => |a, b, imm, env| pd(a, b, env, double_mask(imm));
    Cmpss_xmm_xmmm32_imm8: Low32 => |a, b, imm, env| ss(a, b, env, single_mask(imm));
    Cmpsd_xmm_xmmm64_imm8: Low64 => |a, b, imm, env| sd(a, b, env, double_mask(imm));
}

/// The flags COMISS sets.
#[inline(always)]
fn status<F: Host>(a: F, b: F, signaling: bool, env: &mut Env) -> u128 {
    u128::from(match relation(a, b, signaling, env) {
        Relation::Greater => 0,
        Relation::Less => CF,
        Relation::Equal => ZF,
        Relation::Unordered => ZF | PF | CF,
    })
}

/// ZF: no bit in common. CF: no bit of `b` outside `a`.
#[inline(always)]
fn ptest(a: u128, b: u128) -> u128 {
    u128::from(if a & b == 0 { ZF } else { 0 } | if !a & b == 0 { CF } else { 0 })
}

table! {
    /// Into RFLAGS; flags not named are cleared.
    flags -> into_flags;
    Comiss_xmm_xmmm32: Low32 => |a, b, _, env| status(F32(a as u32), F32(b as u32), true, env);
    Comisd_xmm_xmmm64: Low64 => |a, b, _, env| status(F64(a as u64), F64(b as u64), true, env);
    Ucomiss_xmm_xmmm32: Low32 => |a, b, _, env| status(F32(a as u32), F32(b as u32), false, env);
    Ucomisd_xmm_xmmm64: Low64 => |a, b, _, env| status(F64(a as u64), F64(b as u64), false, env);
    Ptest_xmm_xmmm128: Aligned => |a, b| ptest(a, b);
}
