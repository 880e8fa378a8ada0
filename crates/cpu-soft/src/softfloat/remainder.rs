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
pub struct Remainder {
    /// The remainder, or what is left of the dividend if the step did not complete it.
    pub value: F80,
    /// The low three bits of the quotient, or `None` if another step is needed (C2 set).
    pub quotient: Option<u8>,
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
    let complete = |value| Remainder { value, quotient: Some(0) };
    let (x, y) = (a.unpack(), b.unpack());
    if let Some(result) = special_operands(x, y, env) {
        return complete(result);
    }
    if x.kind == Kind::Infinity || y.kind == Kind::Zero {
        return complete(invalid(env));
    }
    note_denormals(x, y, env);
    env.rounded_up = false;
    if x.kind == Kind::Zero {
        return complete(a);
    }
    if y.kind == Kind::Infinity {
        return complete(normalized(a));
    }

    let distance = x.exponent - y.exponent;
    if distance < -1 || (distance < 0 && !nearest) {
        // Nothing to take off, but an unmasked underflow is still reported for a denormal.
        let significand = (x.significand as u128) << 64;
        return complete(round_pack(x.sign, x.exponent, significand, F80::BITS, env));
    }
    if distance >= 64 {
        // The exponents must come closer by 32 to 63; processors take what leaves a multiple of 32.
        let shift = distance as u32 & 31 | 32;
        let rest = ((x.significand as u128) << shift) % y.significand as u128;
        let value = scaled(x.sign, y.exponent + distance - shift as i32, rest, env);
        return Remainder { value, quotient: None };
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
    Remainder { value, quotient: Some((quotient & 7) as u8) }
}

/// `rest` in units of the last bit of a significand with this exponent. Exact.
fn scaled(sign: bool, exponent: i32, rest: u128, env: &mut Env) -> F80 {
    if rest == 0 {
        return F80::zero(sign);
    }
    let shift = rest.leading_zeros();
    round_pack(sign, exponent + 64 - shift as i32, rest << shift, F80::BITS, env)
}

/// The same number, a pseudo-denormal in its usual encoding.
fn normalized(a: F80) -> F80 {
    let hidden = a.sign_exponent & 0x7fff == 0 && a.significand >> 63 != 0;
    F80 { sign_exponent: a.sign_exponent | hidden as u16, ..a }
}
