//! y log2(x) and y log2(x + 1) (FYL2X, FYL2XP1).
//!
//! Intel SDM volume 2, FYL2X and FYL2XP1, with their tables of special operands. For m near one,
//! log2(m) = 2 log2(e) z (1 + z^2/3 + z^4/5 + ...) with z = (m - 1)/(m + 1).

use super::arith::note_denormals;
use super::env::{Env, Flags};
use super::format::{F80, Format, Kind, Unpacked};
use super::round::{invalid, special_operands};
use super::wide::{Wide, inverse_odds, series};

const COEFFICIENTS: [u128; 24] = inverse_odds();
/// The significand of sqrt(2), the bits past the 64th cut off.
const SQRT_2: u64 = 0xb504_f333_f9de_6484;

/// `y * log2(x)` (FYL2X: `x` is ST0 and `y` is ST1).
pub fn fyl2x(x: F80, y: F80, env: &mut Env) -> F80 {
    let (a, b) = (x.unpack(), y.unpack());
    if let Some(result) = special_operands(a, b, env) {
        return result;
    }
    let is_one = a.kind == Kind::Finite && a.exponent == 0 && a.significand == 1 << 63;
    match (a.kind, b.kind) {
        (Kind::Finite | Kind::Infinity, _) if a.sign => return invalid(env),
        (Kind::Zero, Kind::Zero) | (Kind::Infinity, Kind::Zero) => return invalid(env),
        (_, Kind::Infinity) if is_one => return invalid(env),
        _ => {}
    }
    env.rounded_up = false;
    if a.kind == Kind::Zero {
        if b.kind == Kind::Finite {
            env.raise(Flags::ZERO_DIVIDE);
        }
        return F80::infinity(!b.sign);
    }
    note_denormals(a, b, env);
    let below_one = a.kind == Kind::Finite && a.exponent < 0;
    match (a.kind, b.kind) {
        (Kind::Infinity, _) => F80::infinity(b.sign),
        (_, Kind::Infinity) => F80::infinity(b.sign ^ below_one),
        (_, Kind::Zero) => F80::zero(b.sign ^ below_one),
        _ if is_one => F80::zero(b.sign),
        _ => times_log2(a, b, env),
    }
}

/// `b * log2(a)` for positive finite `a` other than one and finite `b` other than zero.
fn times_log2(a: Unpacked, b: Unpacked, env: &mut Env) -> F80 {
    // a = m * 2^power with m in [1/sqrt(2), sqrt(2)).
    let halve = a.significand > SQRT_2;
    let power = Wide::integer(a.exponent + halve as i32);
    if a.significand == 1 << 63 {
        return power.mul(Wide::from(b)).round_exact(env);
    }
    let m = Wide::new(false, a.significand as u128, -63 - halve as i32);
    let one = Wide::new(false, 1, 0);
    let z = m.add(one.negated_if(true)).div(m.add(one));
    power.add(log2_of_ratio(z)).mul(Wide::from(b)).round(env)
}

/// `y * log2(x + 1)` (FYL2XP1: `x` is ST0 and `y` is ST1).
///
/// The manual defines it for |x| below 1 - sqrt(2)/2. Processors go on computing the same function
/// beyond, and give `x` itself where it does not exist.
pub fn fyl2xp1(x: F80, y: F80, env: &mut Env) -> F80 {
    let (a, b) = (x.unpack(), y.unpack());
    if let Some(result) = special_operands(a, b, env) {
        return result;
    }
    match (a.kind, b.kind) {
        (Kind::Infinity, _) if a.sign => return invalid(env),
        (Kind::Zero, Kind::Infinity) | (Kind::Infinity, Kind::Zero) => return invalid(env),
        _ => {}
    }
    note_denormals(a, b, env);
    env.rounded_up = false;
    let sign = a.sign ^ b.sign;
    match (a.kind, b.kind) {
        (Kind::Infinity, _) | (_, Kind::Infinity) => return F80::infinity(sign),
        (Kind::Zero, _) | (_, Kind::Zero) => return F80::zero(sign),
        _ if a.exponent >= 0 && a.sign => {
            env.raise(Flags::PRECISION);
            return x;
        }
        _ => {}
    }
    let x = Wide::from(a);
    let logarithm = if a.exponent < -1 {
        log2_of_ratio(x.div(x.add(Wide::integer(2))))
    } else {
        // Outside the defined domain: split x + 1 as FYL2X does.
        let one = Wide::integer(1);
        let sum = x.add(one);
        let m = Wide { exponent: 0, ..sum };
        let z = m.add(one.negated_if(true)).div(m.add(one));
        Wide::integer(sum.exponent).add(log2_of_ratio(z))
    };
    logarithm.mul(Wide::from(b)).round(env)
}

/// `log2((1 + z)/(1 - z))`, for |z| up to 1/3.
fn log2_of_ratio(z: Wide) -> Wide {
    let sum = series(&COEFFICIENTS, z.mul(z).fraction(), false);
    let z = if z.is_zero() { z } else { Wide { exponent: z.exponent + 1, ..z } };
    z.mul(Wide::LOG2_E).mul(Wide::new(false, sum, -127))
}
