//! Taking exponents off and putting them on: FXTRACT and FSCALE.
//!
//! Intel SDM volume 2, FSCALE and FXTRACT, with their tables of special operands.

use super::arith::note_denormals;
use super::convert::{from_int, to_integer};
use super::env::{Env, Flags, Rounding};
use super::format::{F80, Format, Kind};
use super::round::{invalid, round_pack, special_operand, special_operands};

/// Far beyond what any exponent can be changed by with a finite result, even a wrapped one.
const SCALE_LIMIT: i32 = 0x1_0000;

/// `a * 2^trunc(scale)` (FSCALE).
pub fn fscale(a: F80, scale: F80, env: &mut Env) -> F80 {
    let (x, y) = (a.unpack(), scale.unpack());
    if let Some(result) = special_operands(x, y, env) {
        return result;
    }
    env.rounded_up = false;
    match (x.kind, y.kind, y.sign) {
        (Kind::Zero, Kind::Infinity, false) | (Kind::Infinity, Kind::Infinity, true) => {
            return invalid(env);
        }
        _ => note_denormals(x, y, env),
    }
    match (x.kind, y.kind) {
        (_, Kind::Infinity) if y.sign => F80::zero(x.sign),
        (_, Kind::Infinity) => F80::infinity(x.sign),
        (Kind::Zero | Kind::Infinity, _) => a,
        (_, Kind::Zero) => a.normalized(),
        _ => {
            let integer = to_integer(y, Rounding::Zero).magnitude;
            let magnitude = integer.and_then(|m| i32::try_from(m).ok()).unwrap_or(SCALE_LIMIT);
            let magnitude = magnitude.min(SCALE_LIMIT);
            let shift = if y.sign { -magnitude } else { magnitude };
            round_pack(x.sign, x.exponent + shift, (x.significand as u128) << 64, F80::BITS, env)
        }
    }
}

/// Splits into an exponent and a significand in [1, 2) (FXTRACT), in this order.
pub fn fxtract(a: F80, env: &mut Env) -> (F80, F80) {
    let x = a.unpack();
    if let Some(result) = special_operand(x, env) {
        return (result, result);
    }
    env.rounded_up = false;
    match x.kind {
        Kind::Zero => {
            env.raise(Flags::ZERO_DIVIDE);
            (F80::infinity(true), a)
        }
        Kind::Infinity => (F80::infinity(false), a),
        _ => {
            x.note_denormal(env);
            let exponent = from_int(i64::from(x.exponent), env);
            (exponent, F80::pack(x.sign, F80::MAX_EXPONENT as u32, x.significand))
        }
    }
}
