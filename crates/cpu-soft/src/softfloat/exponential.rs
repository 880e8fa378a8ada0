//! 2^x - 1 (F2XM1).
//!
//! Intel SDM volume 2, F2XM1. With t = x ln 2, 2^x - 1 = t (1 + t/2! + t^2/3! + ...).

use super::env::{Env, Flags};
use super::format::{F80, Format, Kind};
use super::round::special_operand;
use super::wide::{Wide, inverse_factorials, series};

const COEFFICIENTS: [u128; 31] = inverse_factorials(1, 1);

/// `2^a - 1` for `a` in [-1, 1]. Beyond, where the manual leaves the result undefined, `a` itself as
/// processors give it; except for minus infinity, which gives -1.
pub fn f2xm1(a: F80, env: &mut Env) -> F80 {
    let x = a.unpack();
    if let Some(result) = special_operand(x, env) {
        return result;
    }
    env.rounded_up = false;
    match x.kind {
        Kind::Zero => return a,
        Kind::Infinity => return if x.sign { F80::ONE.negated() } else { a },
        _ => x.note_denormal(env),
    }
    if x.exponent >= 0 {
        if x.exponent == 0 && x.significand == 1 << 63 {
            // The two ends are exact, 1 and -1/2, which the processor does not notice.
            env.raise(Flags::PRECISION);
            let half = F80 { sign_exponent: 0xbffe, ..F80::ONE };
            return if x.sign { half } else { F80::ONE };
        }
        env.raise(Flags::PRECISION);
        return a;
    }
    let t = Wide::from(x).mul(Wide::LN_2);
    let sum = series(&COEFFICIENTS, t.fraction(), t.sign);
    t.mul(Wide::new(false, sum, -127)).round(env)
}
