//! Add, subtract, multiply, divide and square root.
//!
//! Operands come unpacked, so that the x87 can mix a register with a single or double from memory
//! without losing sight of what the operand was (a signaling NaN, a denormal). The type of the
//! result names the format to round to.

use super::env::{Env, Flags, Rounding};
use super::format::{Format, Kind, Unpacked};
use super::round::{invalid, round_pack, shift_right_sticky, special_operand, special_operands};

/// `a + b`.
pub fn add<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F {
    sum(a, b, false, env)
}

/// `a - b`.
pub fn sub<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F {
    sum(a, b, true, env)
}

fn sum<F: Format>(a: Unpacked, b: Unpacked, subtract: bool, env: &mut Env) -> F {
    let a = a.operand(env);
    let b = b.operand(env);
    if let Some(result) = special_operands(a, b, env) {
        return result;
    }
    let b = Unpacked { sign: b.sign ^ subtract, ..b };
    match (a.kind, b.kind) {
        (Kind::Infinity, Kind::Infinity) if a.sign != b.sign => return invalid(env),
        _ => {}
    }
    note_denormals(a, b, env);
    env.rounded_up = false;
    match (a.kind, b.kind) {
        (Kind::Infinity, _) => F::infinity(a.sign),
        (_, Kind::Infinity) => F::infinity(b.sign),
        (Kind::Zero, Kind::Zero) if a.sign == b.sign => F::zero(a.sign),
        (Kind::Zero, Kind::Zero) => F::zero(env.rounding == Rounding::Down),
        (Kind::Zero, _) => finish(b.sign, b.exponent, (b.significand as u128) << 64, env),
        (_, Kind::Zero) => finish(a.sign, a.exponent, (a.significand as u128) << 64, env),
        _ => sum_finite(a, b, env),
    }
}

fn sum_finite<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F {
    let key = |x: &Unpacked| (x.exponent, x.significand);
    let (large, small) = if key(&a) >= key(&b) { (a, b) } else { (b, a) };
    // Bit 127 is left free for the carry.
    let left = (large.significand as u128) << 63;
    let distance = (large.exponent - small.exponent).unsigned_abs();
    let right = shift_right_sticky((small.significand as u128) << 63, distance);
    let total = if large.sign == small.sign { left + right } else { left - right };
    if total == 0 {
        return F::zero(env.rounding == Rounding::Down);
    }
    let shift = total.leading_zeros();
    finish(large.sign, large.exponent + 1 - shift as i32, total << shift, env)
}

/// `a * b`.
pub fn mul<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F {
    let a = a.operand(env);
    let b = b.operand(env);
    if let Some(result) = special_operands(a, b, env) {
        return result;
    }
    let sign = a.sign ^ b.sign;
    if matches!((a.kind, b.kind), (Kind::Infinity, Kind::Zero) | (Kind::Zero, Kind::Infinity)) {
        return invalid(env);
    }
    note_denormals(a, b, env);
    env.rounded_up = false;
    if a.kind == Kind::Infinity || b.kind == Kind::Infinity {
        return F::infinity(sign);
    }
    if a.kind == Kind::Zero || b.kind == Kind::Zero {
        return F::zero(sign);
    }
    let product = a.significand as u128 * b.significand as u128;
    let shift = product.leading_zeros();
    finish(sign, a.exponent + b.exponent + 1 - shift as i32, product << shift, env)
}

/// `a / b`.
pub fn div<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F {
    let a = a.operand(env);
    let b = b.operand(env);
    if let Some(result) = special_operands(a, b, env) {
        return result;
    }
    let sign = a.sign ^ b.sign;
    if matches!((a.kind, b.kind), (Kind::Infinity, Kind::Infinity) | (Kind::Zero, Kind::Zero)) {
        return invalid(env);
    }
    env.rounded_up = false;
    if a.kind == Kind::Finite && b.kind == Kind::Zero {
        env.raise(Flags::ZERO_DIVIDE);
        return F::infinity(sign);
    }
    note_denormals(a, b, env);
    if a.kind == Kind::Infinity {
        return F::infinity(sign);
    }
    if a.kind == Kind::Zero || b.kind == Kind::Infinity {
        return F::zero(sign);
    }
    let divisor = b.significand as u128;
    let dividend = (a.significand as u128) << 63;
    let (high, rest) = (dividend / divisor, (dividend % divisor) << 64);
    let (low, rest) = (rest / divisor, rest % divisor);
    // Two 64-bit digits of quotient, scaled so that one is 2^127; its first bit is bit 127 or 126.
    let quotient = high << 64 | low;
    let shift = quotient.leading_zeros();
    let significand = quotient << shift | (rest != 0) as u128;
    finish(sign, a.exponent - b.exponent - shift as i32, significand, env)
}

/// The square root of `a`.
pub fn sqrt<F: Format>(a: Unpacked, env: &mut Env) -> F {
    let a = a.operand(env);
    if let Some(result) = special_operand(a, env) {
        return result;
    }
    env.rounded_up = false;
    if a.kind == Kind::Zero {
        return F::zero(a.sign);
    }
    if a.sign {
        return invalid(env);
    }
    a.note_denormal(env);
    if a.kind == Kind::Infinity {
        return F::infinity(false);
    }
    // The radicand is 2^126 times a number in [1, 4), so the root has exactly 64 bits.
    let odd = a.exponent.rem_euclid(2) as u32;
    let radicand = (a.significand as u128) << (63 + odd);
    let root = radicand.isqrt();
    let rest = radicand - root * root;
    // (root + 1/2)^2 = root^2 + root + 1/4 is never an integer: no tie is possible.
    let half = ((rest > root) as u128) << 63;
    let significand = root << 64 | half | (rest != 0) as u128;
    finish(false, a.exponent.div_euclid(2), significand, env)
}

/// Reports a denormal among two operands.
#[inline]
pub(super) fn note_denormals(a: Unpacked, b: Unpacked, env: &mut Env) {
    a.note_denormal(env);
    b.note_denormal(env);
}

#[inline]
fn finish<F: Format>(sign: bool, exponent: i32, significand: u128, env: &mut Env) -> F {
    let bits = F::arithmetic_bits(env);
    round_pack(sign, exponent, significand, bits, env)
}
