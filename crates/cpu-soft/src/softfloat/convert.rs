//! Conversions between formats, and to and from integers.
//!
//! Intel SDM volume 1, sections 4.8.4.2 (rounding to integers), 11.4.1.6 (SSE2 conversions), 8.3.3
//! (x87 loads and stores) and table 4-5 (the integer indefinite value).

use super::env::{Env, Flags, Rounding};
use super::format::{F80, Format, Kind, Unpacked};
use super::round::{Cut, cut, round_pack, special_operand};

/// Converts to another format, rounding if that one is narrower (CVTSS2SD, CVTSD2SS, FLD, FST).
pub fn convert<F: Format>(a: Unpacked, env: &mut Env) -> F {
    let a = a.operand(env);
    if let Some(result) = special_operand(a, env) {
        return result;
    }
    env.rounded_up = false;
    a.note_denormal(env);
    match a.kind {
        Kind::Zero => F::zero(a.sign),
        Kind::Infinity => F::infinity(a.sign),
        _ => round_pack(a.sign, a.exponent, (a.significand as u128) << 64, F::BITS, env),
    }
}

/// Widens a single or double from memory to a register (FLD m32, FLD m64). Always exact.
pub fn load(a: Unpacked, env: &mut Env) -> F80 {
    convert(a, env)
}

/// Narrows a register to a single or double for memory (FST m32, FST m64).
///
/// Unlike other conversions, a denormal register is not reported. `None` if an unmasked exception
/// forbids the store.
pub fn store<F: Format>(a: F80, env: &mut Env) -> Option<F> {
    let a = Unpacked { denormal: false, ..a.unpack() };
    let result = convert(a, env);
    let range = Flags::OVERFLOW | Flags::UNDERFLOW;
    if !env.flags.and(range).without(env.masks).is_empty() {
        // The operand stays in its register unrounded: nothing has been lost yet.
        env.flags = env.flags.without(Flags::PRECISION);
        env.rounded_up = false;
        return None;
    }
    if env.settle().fault_before { None } else { Some(result) }
}

/// Converts a signed integer (CVTSI2SS, CVTDQ2PS, FILD).
pub fn from_int<F: Format>(value: i64, env: &mut Env) -> F {
    env.rounded_up = false;
    if value == 0 {
        return F::zero(false);
    }
    let magnitude = value.unsigned_abs();
    let shift = magnitude.leading_zeros();
    let significand = ((magnitude << shift) as u128) << 64;
    round_pack(value < 0, 63 - shift as i32, significand, F::BITS, env)
}

/// A number rounded to an integer, as a sign and a magnitude.
pub(super) struct Integer {
    pub(super) sign: bool,
    /// The magnitude, or `None` if it is 2^127 or more, infinite, or no number.
    pub(super) magnitude: Option<u128>,
    pub(super) inexact: bool,
    pub(super) up: bool,
}

/// Rounds to an integer without reporting anything.
pub(super) fn to_integer(a: Unpacked, rounding: Rounding) -> Integer {
    let sign = a.sign;
    let exact = |magnitude| Integer { sign, magnitude, inexact: false, up: false };
    match a.kind {
        Kind::Zero => return exact(Some(0)),
        Kind::Finite if a.exponent <= 126 => {}
        _ => return exact(None),
    }
    let significand = (a.significand as u128) << 64;
    if a.exponent < -1 {
        // Less than one half: any such number rounds like one quarter.
        let Cut { up, .. } = cut(1 << 126, 0, sign, rounding);
        return Integer { sign, magnitude: Some(up as u128), inexact: true, up };
    }
    let integer_bits = (a.exponent + 1).unsigned_abs();
    let Cut { significand: kept, carry, inexact, up } =
        cut(significand, integer_bits, sign, rounding);
    let magnitude = if carry {
        1 << integer_bits
    } else if integer_bits == 0 {
        0
    } else {
        kept >> (128 - integer_bits)
    };
    Integer { sign, magnitude: Some(magnitude), inexact, up }
}

/// Converts to a signed integer of `bits` bits (16, 32 or 64), rounding as told.
///
/// What does not fit gives the integer indefinite, the most negative integer, and
/// invalid-operation. Pass [`Rounding::Zero`] for the truncating instructions and the
/// environment's own rounding for the others.
pub fn to_int(a: Unpacked, bits: u32, rounding: Rounding, env: &mut Env) -> i64 {
    let integer = to_integer(a.operand(env), rounding);
    let lowest = i64::MIN >> (64 - bits.clamp(1, 64));
    env.rounded_up = false;
    let limit = u128::from(lowest.unsigned_abs());
    let value = match integer.magnitude {
        Some(magnitude) if integer.sign && magnitude <= limit => (magnitude as i64).wrapping_neg(),
        Some(magnitude) if !integer.sign && magnitude < limit => magnitude as i64,
        _ => {
            env.raise(Flags::INVALID);
            return lowest;
        }
    };
    if integer.inexact {
        env.raise(Flags::PRECISION);
        env.rounded_up = integer.up;
    }
    value
}

/// Rounds to an integer that stays a floating point number (ROUNDSS and family, FRNDINT).
///
/// Neither reports denormals here nor, unless `report_inexact`, that the result was rounded:
/// FRNDINT's denormal report is the caller's.
pub fn round_to_integral<F: Format>(
    a: F,
    rounding: Rounding,
    report_inexact: bool,
    env: &mut Env,
) -> F {
    let unpacked = a.unpack().operand(env);
    if let Some(result) = special_operand(unpacked, env) {
        return result;
    }
    env.rounded_up = false;
    match unpacked.kind {
        Kind::Zero => return F::zero(unpacked.sign),
        Kind::Finite if unpacked.exponent < F::BITS as i32 - 1 => {}
        _ => return a,
    }
    let integer = to_integer(unpacked, rounding);
    let magnitude = integer.magnitude.unwrap_or(0);
    if integer.inexact && report_inexact {
        env.raise(Flags::PRECISION);
    }
    env.rounded_up = integer.up;
    if magnitude == 0 {
        return F::zero(unpacked.sign);
    }
    let shift = magnitude.leading_zeros();
    let exponent = 127 - shift as i32;
    let field = (exponent + F::MAX_EXPONENT) as u32;
    F::pack(unpacked.sign, field, ((magnitude << shift) >> 64) as u64)
}
