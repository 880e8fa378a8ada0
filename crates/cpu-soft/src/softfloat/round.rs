//! Rounding, overflow and underflow: the one place where an exact result becomes a datum.
//!
//! Intel SDM volume 1, sections 4.8.4 (rounding), 4.9.1.4 (overflow), 4.9.1.5 (underflow) and
//! 8.5.4 and 8.5.5 (the x87's wrapped exponents).

use super::env::{Env, Flags, Rounding};
use super::format::{Format, Unpacked};

/// What an unmasked x87 overflow takes off the exponent, and an unmasked underflow adds to it.
const WRAP: i32 = 24576;

/// Shifts right, keeping in bit 0 whether any bit that fell off was set.
#[inline]
pub(super) const fn shift_right_sticky(value: u128, shift: u32) -> u128 {
    match shift {
        0 => value,
        1..128 => value >> shift | (value << (128 - shift) != 0) as u128,
        _ => (value != 0) as u128,
    }
}

/// A significand cut to some number of bits.
pub(super) struct Cut {
    /// The bits kept, in place; all others are clear.
    pub(super) significand: u128,
    /// Rounding up overflowed bit 127: `significand` is 0 and stands for 2^128.
    pub(super) carry: bool,
    /// Bits that were set have been lost.
    pub(super) inexact: bool,
    /// The magnitude grew.
    pub(super) up: bool,
}

/// Rounds to the top `keep` bits (0 to 127) of `significand`.
#[inline]
pub(super) const fn cut(significand: u128, keep: u32, sign: bool, rounding: Rounding) -> Cut {
    let half = 1u128 << (127 - keep);
    let mask = half | (half - 1);
    let rest = significand & mask;
    let base = significand & !mask;
    // With `keep` 0 the unit is 2^128, of which `base` has none: it is even.
    let unit = mask.wrapping_add(1);
    let up = match rounding {
        Rounding::Nearest => rest > half || (rest == half && base & unit != 0),
        Rounding::Down => sign && rest != 0,
        Rounding::Up => !sign && rest != 0,
        Rounding::Zero => false,
    };
    let (significand, carry) = if !up {
        (base, false)
    } else if unit == 0 {
        (0, true)
    } else {
        base.overflowing_add(unit)
    };
    Cut { significand, carry, inexact: rest != 0, up }
}

/// Rounds `(-1)^sign * significand/2^127 * 2^exponent` to `bits` bits and packs it.
///
/// Bit 127 of `significand` must be set; bit 0 stands for all lower bits of the exact result.
pub(super) fn round_pack<F: Format>(
    sign: bool,
    exponent: i32,
    significand: u128,
    bits: u32,
    env: &mut Env,
) -> F {
    let Cut { significand: kept, carry, inexact, up } = cut(significand, bits, sign, env.rounding);
    let (mut rounded_exponent, kept) =
        if carry { (exponent + 1, 1 << 127) } else { (exponent, kept) };

    if rounded_exponent < F::MIN_EXPONENT {
        if env.masked(Flags::UNDERFLOW) {
            return denormalize(sign, exponent, significand, bits, env);
        }
        env.raise(Flags::UNDERFLOW);
        rounded_exponent += WRAP;
        if rounded_exponent < F::MIN_EXPONENT {
            env.raise(Flags::PRECISION);
            env.rounded_up = false;
            return F::zero(sign);
        }
    } else if rounded_exponent > F::MAX_EXPONENT {
        env.raise(Flags::OVERFLOW);
        if env.masked(Flags::OVERFLOW) {
            env.raise(Flags::PRECISION);
            return overflow(sign, bits, env);
        }
        rounded_exponent -= WRAP;
        if rounded_exponent > F::MAX_EXPONENT {
            env.raise(Flags::PRECISION);
            env.rounded_up = true;
            return F::infinity(sign);
        }
    }

    if inexact {
        env.raise(Flags::PRECISION);
    }
    env.rounded_up = up;
    let field = (rounded_exponent + F::MAX_EXPONENT) as u32;
    F::pack(sign, field, (kept >> 64) as u64)
}

/// The result of a masked underflow: a denormal, a zero, or the smallest normal number.
#[cold]
fn denormalize<F: Format>(
    sign: bool,
    exponent: i32,
    significand: u128,
    bits: u32,
    env: &mut Env,
) -> F {
    if env.ftz {
        env.raise(Flags::UNDERFLOW | Flags::PRECISION);
        env.rounded_up = false;
        return F::zero(sign);
    }
    let shift = F::MIN_EXPONENT.saturating_sub(exponent).unsigned_abs();
    let shifted = shift_right_sticky(significand, shift);
    let Cut { significand: kept, inexact, up, .. } = cut(shifted, bits, sign, env.rounding);
    if inexact {
        env.raise(Flags::UNDERFLOW | Flags::PRECISION);
    }
    env.rounded_up = up;
    F::pack(sign, (kept >> 127) as u32, (kept >> 64) as u64)
}

/// The result of a masked overflow: an infinity or the largest finite number.
#[cold]
fn overflow<F: Format>(sign: bool, bits: u32, env: &mut Env) -> F {
    let to_infinity = match env.rounding {
        Rounding::Nearest => true,
        Rounding::Down => sign,
        Rounding::Up => !sign,
        Rounding::Zero => false,
    };
    env.rounded_up = to_infinity;
    if to_infinity {
        F::infinity(sign)
    } else {
        F::pack(sign, F::SPECIAL - 1, u64::MAX << (64 - bits))
    }
}

/// The default NaN, with invalid-operation raised.
#[cold]
pub(super) fn invalid<F: Format>(env: &mut Env) -> F {
    env.raise(Flags::INVALID);
    env.rounded_up = false;
    F::default_nan()
}

/// The result of an operation with a NaN or an unsupported operand among its two, if there is one.
///
/// SDM volume 1, table 4-7: SSE takes the first operand that is a NaN. The x87 prefers a quiet NaN
/// to a signaling one, and else the larger significand, and else the positive one.
#[inline]
pub(super) fn special_operands<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> Option<F> {
    use super::format::Kind::{Finite, Infinity, Zero};
    let plain = |x: &Unpacked| matches!(x.kind, Zero | Finite | Infinity);
    if plain(&a) && plain(&b) { None } else { Some(propagate(a, b, env)) }
}

/// The same for an operation with one operand.
#[inline]
pub(super) fn special_operand<F: Format>(a: Unpacked, env: &mut Env) -> Option<F> {
    special_operands(a, Unpacked::zero(false), env)
}

#[cold]
fn propagate<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F {
    use super::format::{Kind, QUIET};
    if a.kind == Kind::Unsupported || b.kind == Kind::Unsupported {
        return invalid(env);
    }
    env.rounded_up = false;
    if a.kind == Kind::SignalingNan || b.kind == Kind::SignalingNan {
        env.raise(Flags::INVALID);
    }
    let first = match (a.is_nan(), b.is_nan()) {
        (true, true) if env.x87 => match (a.kind, b.kind) {
            (Kind::SignalingNan, Kind::QuietNan) => false,
            (Kind::QuietNan, Kind::SignalingNan) => true,
            _ => {
                let (left, right) = (a.significand | QUIET, b.significand | QUIET);
                left > right || (left == right && !a.sign)
            }
        },
        (a_is_nan, _) => a_is_nan,
    };
    F::quieted(if first { a } else { b })
}
