//! Conversions between floating point formats, and to and from integers.
//!
//! Intel SDM volume 1, sections 10.4.3 and 11.4.1.6; table 4-5 for the integer indefinite, which
//! is what comes of a number that no integer can hold.
//!
//! The short cuts here are for numbers that the host's conversions treat as the guest's: normal,
//! in range, rounded to nearest or truncated. What they lose is still reported.

use iced_x86::Code;

use super::arith::Host;
use super::lanes::{LOW_32, LOW_64, join, merge, split};
use crate::op::{Exec, Op};
use crate::softfloat::{Env, F32, F64, Flags, Format, Rounding, convert, from_int, to_int};

/// The handler of a conversion, or `None`.
pub(super) fn select(code: Code, op: &Op) -> Option<Exec> {
    to_general(code, op).or_else(|| to_xmm(code, op))
}

/// To a signed integer of `BITS` bits, 32 or 64, toward zero or as MXCSR says.
#[inline(always)]
fn double_to_int<const BITS: u32, const TRUNCATE: bool>(b: F64, env: &mut Env) -> i64 {
    let rounding = if TRUNCATE { Rounding::Zero } else { env.rounding };
    // Below this, the integer fits however it is rounded.
    let limit = if BITS == 32 { 2_147_483_647.0 } else { 9_223_372_036_854_774_784.0 };
    let number = b.float();
    if b.is_plain() && number.abs() < limit {
        let rounded = match rounding {
            Rounding::Zero => number as i64,
            Rounding::Nearest => number.round_ties_even() as i64,
            _ => return to_int(b.unpack(), BITS, rounding, env),
        };
        // Exact: an integer that a double was rounded to is one that a double can hold.
        if rounded as f64 != number {
            env.raise(Flags::PRECISION);
        }
        return rounded;
    }
    to_int(b.unpack(), BITS, rounding, env)
}

/// To a signed integer of `BITS` bits, 32 or 64, toward zero or as MXCSR says.
#[inline(always)]
fn single_to_int<const BITS: u32, const TRUNCATE: bool>(b: F32, env: &mut Env) -> i64 {
    if b.is_plain() {
        return double_to_int::<BITS, TRUNCATE>(F64(f64::from(b.float()).to_bits()), env);
    }
    to_int(b.unpack(), BITS, if TRUNCATE { Rounding::Zero } else { env.rounding }, env)
}

/// An integer as the low bits of a general register, zero-extended.
#[inline(always)]
fn dword(value: i64) -> u128 {
    u128::from(value as u32)
}

#[inline(always)]
fn qword(value: i64) -> u128 {
    u128::from(value as u64)
}

table! {
    /// To integers in general registers.
    to_general -> into_general;
    Cvtss2si_r32_xmmm32: Low32 => |_, b, _, env| {
        dword(single_to_int::<32, false>(F32(b as u32), env))
    };
    Cvtss2si_r64_xmmm32: Low32 => |_, b, _, env| {
        qword(single_to_int::<64, false>(F32(b as u32), env))
    };
    Cvttss2si_r32_xmmm32: Low32 => |_, b, _, env| {
        dword(single_to_int::<32, true>(F32(b as u32), env))
    };
    Cvttss2si_r64_xmmm32: Low32 => |_, b, _, env| {
        qword(single_to_int::<64, true>(F32(b as u32), env))
    };
    Cvtsd2si_r32_xmmm64: Low64 => |_, b, _, env| {
        dword(double_to_int::<32, false>(F64(b as u64), env))
    };
    Cvtsd2si_r64_xmmm64: Low64 => |_, b, _, env| {
        qword(double_to_int::<64, false>(F64(b as u64), env))
    };
    Cvttsd2si_r32_xmmm64: Low64 => |_, b, _, env| {
        dword(double_to_int::<32, true>(F64(b as u64), env))
    };
    Cvttsd2si_r64_xmmm64: Low64 => |_, b, _, env| {
        qword(double_to_int::<64, true>(F64(b as u64), env))
    };
}

#[inline(always)]
fn widen(b: F32, env: &mut Env) -> F64 {
    if b.is_plain() {
        return F64(f64::from(b.float()).to_bits());
    }
    convert(b.unpack(), env)
}

#[inline(always)]
fn narrow(b: F64, env: &mut Env) -> F32 {
    if b.is_plain() && env.rounding == Rounding::Nearest {
        let number = b.float();
        let narrowed = number as f32;
        // The smallest normal number may have been tiny before it was rounded.
        if narrowed.is_normal() && narrowed.abs() > f32::MIN_POSITIVE || number == 0.0 {
            if f64::from(narrowed) != number {
                env.raise(Flags::PRECISION);
            }
            return F32(narrowed.to_bits());
        }
    }
    convert(b.unpack(), env)
}

/// A 32-bit integer, exactly.
#[inline(always)]
fn dword_to_double(value: u32) -> F64 {
    F64(f64::from(value as i32).to_bits())
}

#[inline(always)]
fn qword_to_double(value: u64, env: &mut Env) -> F64 {
    let value = value as i64;
    if value.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS {
        return F64((value as f64).to_bits());
    }
    from_int(value, env)
}

#[inline(always)]
fn int_to_single(value: i64, env: &mut Env) -> F32 {
    if value.unsigned_abs() <= 1 << f32::MANTISSA_DIGITS {
        return F32((value as f32).to_bits());
    }
    from_int(value, env)
}

/// Four singles to four integers.
#[inline(always)]
fn singles_to_ints<const TRUNCATE: bool>(b: u128, env: &mut Env) -> u128 {
    let b: [u32; 4] = split(b);
    join(b.map(|bits| single_to_int::<32, TRUNCATE>(F32(bits), env) as u32))
}

/// Two doubles to two integers; the upper half is cleared.
#[inline(always)]
fn doubles_to_ints<const TRUNCATE: bool>(b: u128, env: &mut Env) -> u128 {
    let low = double_to_int::<32, TRUNCATE>(F64(b as u64), env);
    let high = double_to_int::<32, TRUNCATE>(F64((b >> 64) as u64), env);
    dword(low) | dword(high) << 32
}

table! {
    /// Into XMM registers.
    to_xmm -> into_xmm;
    Cvtsi2ss_xmm_rm32: General32 => |a, b, _, env| {
        merge(a, int_to_single(i64::from(b as i32), env).0.into(), LOW_32)
    };
    Cvtsi2ss_xmm_rm64: General64 => |a, b, _, env| {
        merge(a, int_to_single(b as i64, env).0.into(), LOW_32)
    };
    Cvtsi2sd_xmm_rm32: General32 => |a, b| merge(a, dword_to_double(b as u32).0.into(), LOW_64);
    Cvtsi2sd_xmm_rm64: General64 => |a, b, _, env| {
        merge(a, qword_to_double(b as u64, env).0.into(), LOW_64)
    };
    Cvtss2sd_xmm_xmmm32: Low32 => |a, b, _, env| {
        merge(a, widen(F32(b as u32), env).0.into(), LOW_64)
    };
    Cvtsd2ss_xmm_xmmm64: Low64 => |a, b, _, env| {
        merge(a, narrow(F64(b as u64), env).0.into(), LOW_32)
    };
    Cvtps2pd_xmm_xmmm64: Low64 => |_, b, _, env| {
        let low = widen(F32(b as u32), env);
        join([low.0, widen(F32((b >> 32) as u32), env).0])
    };
    Cvtpd2ps_xmm_xmmm128: Aligned => |_, b, _, env| {
        let low = narrow(F64(b as u64), env);
        join([low.0, narrow(F64((b >> 64) as u64), env).0, 0, 0])
    };
    Cvtdq2pd_xmm_xmmm64: Low64 => |_, b| {
        join([dword_to_double(b as u32).0, dword_to_double((b >> 32) as u32).0])
    };
    Cvtdq2ps_xmm_xmmm128: Aligned => |_, b, _, env| {
        let b: [i32; 4] = split(b);
        join(b.map(|value| int_to_single(value.into(), env).0))
    };
    Cvtps2dq_xmm_xmmm128: Aligned => |_, b, _, env| singles_to_ints::<false>(b, env);
    Cvttps2dq_xmm_xmmm128: Aligned => |_, b, _, env| singles_to_ints::<true>(b, env);
    Cvtpd2dq_xmm_xmmm128: Aligned => |_, b, _, env| doubles_to_ints::<false>(b, env);
    Cvttpd2dq_xmm_xmmm128: Aligned => |_, b, _, env| doubles_to_ints::<true>(b, env);
}
