//! The x87's packed decimal integers: eighteen digits and a sign in ten bytes (FBLD, FBSTP).
//!
//! Intel SDM volume 1, section 4.7 (BCD and packed BCD integers).

use super::convert::{from_int, to_integer};
use super::env::{Env, Flags};
use super::format::{F80, Format};

/// The packed decimal indefinite, FFFFC000000000000000h.
const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;
/// One more than the largest magnitude of eighteen digits.
const LIMIT: u128 = 1_000_000_000_000_000_000;

/// Reads a packed decimal from the low 80 bits of `bits` (FBLD). Always exact.
///
/// A digit above nine, which the manual leaves undefined, counts as its value.
pub fn from_bcd(bits: u128, env: &mut Env) -> F80 {
    let magnitude =
        (0..18).rev().fold(0i64, |value, digit| value * 10 + (bits >> (4 * digit) & 0xf) as i64);
    let value: F80 = from_int(magnitude, env);
    if bits >> 79 & 1 != 0 { value.negated() } else { value }
}

/// Rounds to an integer and writes it as packed decimal (FBSTP), in the low 80 bits.
pub fn to_bcd(a: F80, env: &mut Env) -> u128 {
    let integer = to_integer(a.unpack(), env.rounding);
    env.rounded_up = false;
    let mut rest = match integer.magnitude {
        Some(magnitude) if magnitude < LIMIT => magnitude as u64,
        _ => {
            env.raise(Flags::INVALID);
            return INDEFINITE;
        }
    };
    if integer.inexact {
        env.raise(Flags::PRECISION);
        env.rounded_up = integer.up;
    }
    let mut bits = (integer.sign as u128) << 79;
    for digit in 0..18 {
        bits |= u128::from(rest % 10) << (4 * digit);
        rest /= 10;
    }
    bits
}
