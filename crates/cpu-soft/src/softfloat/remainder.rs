//! The x87's partial remainders: FPREM (truncating) and FPREM1 (IEEE).
//!
//! Intel SDM volume 2, FPREM and FPREM1. One step takes at most 63 off the difference of the
//! exponents; software repeats it while the remainder is incomplete.

use super::arith::note_denormals;
use super::env::Env;
use super::format::{F80, Format, Kind};
use super::round::{invalid, round_pack, special_operands};

/// What a partial remainder step gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// The remainder, and the low three bits of the quotient.
    Complete(F80, u8),
    /// What is left of the dividend: another step is needed (C2 set).
    Partial(F80),
    /// A NaN: there is no remainder, and no quotient.
    Nan(F80),
}

/// One step of `a rem b`, its quotient truncated (FPREM).
pub fn fprem(a: F80, b: F80, env: &mut Env) -> Remainder {
    step(a, b, false, env)
}

/// One step of `a rem b`, its quotient rounded to the nearest or even (FPREM1).
pub fn fprem1(a: F80, b: F80, env: &mut Env) -> Remainder {
    step(a, b, true, env)
}

fn step(a: F80, b: F80, nearest: bool, env: &mut Env) -> Remainder {
    let (x, y) = (a.unpack(), b.unpack());
    if let Some(result) = special_operands(x, y, env) {
        return Remainder::Nan(result);
    }
    if x.kind == Kind::Infinity || y.kind == Kind::Zero {
        return Remainder::Nan(invalid(env));
    }
    note_denormals(x, y, env);
    env.rounded_up = false;
    if x.kind == Kind::Zero {
        return Remainder::Complete(a, 0);
    }
    if y.kind == Kind::Infinity {
        return Remainder::Complete(a.normalized(), 0);
    }

    let distance = x.exponent - y.exponent;
    if distance < -1 || (distance < 0 && !nearest) {
        // Nothing to take off, but an unmasked underflow is still reported for a denormal.
        let significand = (x.significand as u128) << 64;
        let value = round_pack(x.sign, x.exponent, significand, F80::BITS, env);
        return Remainder::Complete(value, 0);
    }
    if distance >= 64 {
        // The exponents must come closer by 32 to 63; processors take what leaves a multiple of 32.
        let shift = distance as u32 & 31 | 32;
        let rest = ((x.significand as u128) << shift) % y.significand as u128;
        let exponent = y.exponent + distance - shift as i32;
        return Remainder::Partial(scaled(x.sign, exponent, rest, env));
    }

    let divisor = y.significand as u128;
    // Both in units of the divisor's last bit, or half of it if the dividend is the smaller.
    let (dividend, divisor, exponent) = if distance < 0 {
        (x.significand as u128, divisor << 1, x.exponent)
    } else {
        ((x.significand as u128) << distance, divisor, y.exponent)
    };
    let (mut quotient, mut rest) = (dividend / divisor, dividend % divisor);
    let mut sign = x.sign;
    if nearest && (rest << 1 > divisor || (rest << 1 == divisor && quotient & 1 != 0)) {
        quotient += 1;
        rest = divisor - rest;
        sign = !sign;
    }
    let value = if rest == 0 { F80::zero(x.sign) } else { scaled(sign, exponent, rest, env) };
    Remainder::Complete(value, (quotient & 7) as u8)
}

/// `rest` in units of the last bit of a significand with this exponent. Exact.
fn scaled(sign: bool, exponent: i32, rest: u128, env: &mut Env) -> F80 {
    if rest == 0 {
        return F80::zero(sign);
    }
    let shift = rest.leading_zeros();
    round_pack(sign, exponent + 64 - shift as i32, rest << shift, F80::BITS, env)
}
