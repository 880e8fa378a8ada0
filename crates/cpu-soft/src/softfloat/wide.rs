//! Numbers with 128 significant bits, for what happens inside a transcendental function.
//!
//! The x87 promises its transcendental results to within one unit in the last place of 64 bits
//! (Intel SDM volume 1, section 8.3.10). Evaluating with twice as many bits leaves the rounding at
//! the end as the only error that shows. Operations here truncate: each is off by a few units in
//! the 128th bit at most.

use super::env::{Env, Flags};
use super::format::{F80, Format, Unpacked};
use super::round::{round_pack, shift_right_sticky};

/// `(-1)^sign * significand/2^127 * 2^exponent`, or zero when the significand is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wide {
    pub(super) sign: bool,
    pub(super) exponent: i32,
    /// Bit 127 is set unless this is zero.
    pub(super) significand: u128,
}

impl Wide {
    /// pi
    pub(super) const PI: Wide = Wide::constant(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
    /// pi/2
    pub(super) const HALF_PI: Wide = Wide { exponent: 0, ..Wide::PI };
    /// log2(e)
    pub(super) const LOG2_E: Wide = Wide::constant(0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88);
    /// ln(2)
    pub(super) const LN_2: Wide = Wide::constant(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
    /// log2(10)
    pub(super) const LOG2_10: Wide = Wide::constant(1, 0xd49a_784b_cd1b_8afe_492b_f6ff_4daf_db4c);
    /// log10(2)
    pub(super) const LOG10_2: Wide = Wide::constant(-2, 0x9a20_9a84_fbcf_f798_8f89_59ac_0b7c_9178);

    const fn constant(exponent: i32, significand: u128) -> Wide {
        Wide { sign: false, exponent, significand }
    }

    /// `(-1)^sign * value * 2^unit`.
    pub(super) const fn new(sign: bool, value: u128, unit: i32) -> Wide {
        if value == 0 {
            return Wide { sign, exponent: 0, significand: 0 };
        }
        let shift = value.leading_zeros();
        Wide { sign, exponent: unit + 127 - shift as i32, significand: value << shift }
    }

    pub(super) const fn integer(value: i32) -> Wide {
        Wide::new(value < 0, value.unsigned_abs() as u128, 0)
    }

    pub(super) const fn is_zero(self) -> bool {
        self.significand == 0
    }

    pub(super) const fn negated_if(self, negate: bool) -> Wide {
        Wide { sign: self.sign ^ negate, ..self }
    }

    pub(super) fn add(self, other: Wide) -> Wide {
        if self.is_zero() {
            return other;
        }
        if other.is_zero() {
            return self;
        }
        let key = |x: &Wide| (x.exponent, x.significand);
        let (large, small) = if key(&self) >= key(&other) { (self, other) } else { (other, self) };
        let distance = (large.exponent - small.exponent).unsigned_abs();
        if large.sign == small.sign {
            let left = large.significand >> 1;
            let right = shift_right_sticky(small.significand, distance.saturating_add(1));
            // Both are below 2^127.
            Wide::new(large.sign, left + right, large.exponent - 126)
        } else {
            let right = shift_right_sticky(small.significand, distance);
            Wide::new(large.sign, large.significand - right, large.exponent - 127)
        }
    }

    pub(super) fn mul(self, other: Wide) -> Wide {
        let product = mul_high(self.significand, other.significand);
        Wide::new(self.sign ^ other.sign, product, self.exponent + other.exponent - 126)
    }

    /// The quotient, which is zero when the divisor is.
    pub(super) fn div(self, other: Wide) -> Wide {
        if self.is_zero() || other.is_zero() {
            return Wide::new(false, 0, 0);
        }
        // Halving the dividend keeps it below the divisor.
        let quotient = div_fraction(self.significand >> 1, other.significand);
        Wide::new(self.sign ^ other.sign, quotient, self.exponent - other.exponent - 127)
    }

    /// The magnitude as a fixed point fraction in units of 2^-128; the magnitude must be below 1.
    pub(super) const fn fraction(self) -> u128 {
        let shift = (-1i32).saturating_sub(self.exponent);
        if shift < 0 || shift > 127 { 0 } else { self.significand >> shift }
    }

    /// Rounds to a register. The exact result is taken to lie strictly between what 128 bits can
    /// express, so the precision exception is always reported.
    pub(super) fn round(self, env: &mut Env) -> F80 {
        if self.is_zero() {
            return F80::zero(self.sign);
        }
        round_pack(self.sign, self.exponent, self.significand | 1, F80::BITS, env)
    }

    /// Rounds to a register a number that happens to be exact: the processor does not notice, and
    /// reports precision (and underflow, of a denormal) all the same.
    pub(super) fn round_exact(self, env: &mut Env) -> F80 {
        let result: F80 = round_pack(self.sign, self.exponent, self.significand, F80::BITS, env);
        env.raise(Flags::PRECISION);
        if result.sign_exponent & 0x7fff == 0 {
            env.raise(Flags::UNDERFLOW);
        }
        result
    }
}

impl From<Unpacked> for Wide {
    /// Widens a finite number; anything else has no meaning here.
    fn from(x: Unpacked) -> Wide {
        Wide::new(x.sign, x.significand as u128, x.exponent - 63)
    }
}

/// The high 128 bits of a product.
pub(super) const fn mul_high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0) = (a >> 64, a & LOW);
    let (b1, b0) = (b >> 64, b & LOW);
    let middle = a1 * b0 + ((a0 * b0) >> 64);
    let carry = a0 * b1 + (middle & LOW);
    a1 * b1 + (middle >> 64) + (carry >> 64)
}

/// `dividend * 2^128 / divisor`, truncated, for a dividend below a divisor whose bit 127 is set.
fn div_fraction(dividend: u128, divisor: u128) -> u128 {
    let (high, rest) = div_digit(dividend, divisor);
    let (low, _) = div_digit(rest, divisor);
    high << 64 | low
}

/// One 64-bit digit of a long division: `dividend * 2^64` by `divisor`, and the rest.
fn div_digit(dividend: u128, divisor: u128) -> (u128, u128) {
    let (d1, d0) = (divisor >> 64, divisor & u64::MAX as u128);
    // Knuth's estimate, from the first digit of the divisor, is at most two too large.
    let mut digit = (dividend / d1).min(u64::MAX as u128);
    loop {
        // digit * divisor <= dividend << 64, compared by halves.
        let low = digit * d0;
        let high = digit * d1 + (low >> 64);
        let low = low & u64::MAX as u128;
        if high < dividend || (high == dividend && low == 0) {
            let rest = ((dividend - high) << 64).wrapping_sub(low);
            return (digit, rest);
        }
        digit -= 1;
    }
}

/// `1 + s*u/c[1] + s*u^2/c[2] + ...` in units of 2^-127, where `coefficients` holds the reciprocals
/// (the first is one, 2^127), `u` is a fraction in units of 2^-128, and `s` is -1 if `alternate`.
pub(super) fn series(coefficients: &[u128], u: u128, alternate: bool) -> u128 {
    coefficients.iter().rev().fold(0, |value, &coefficient| {
        let term = mul_high(value, u);
        if alternate { coefficient - term } else { coefficient + term }
    })
}

/// `1/(first + i*step)!` for each `i`, scaled by `first!`, in units of 2^-127.
pub(super) const fn inverse_factorials<const N: usize>(first: u32, step: u32) -> [u128; N] {
    let mut table = [0; N];
    let mut factorial = 1u128;
    let mut factor = first as u128;
    let mut i = 0;
    while i < N {
        table[i] = (1 << 127) / factorial;
        let mut j = 0;
        while j < step && i + 1 < N {
            factor += 1;
            factorial *= factor;
            j += 1;
        }
        i += 1;
    }
    table
}

/// `1/(2i + 1)` for each `i`, in units of 2^-127.
pub(super) const fn inverse_odds<const N: usize>() -> [u128; N] {
    let mut table = [0; N];
    let mut i = 0;
    while i < N {
        table[i] = (1 << 127) / (2 * i as u128 + 1);
        i += 1;
    }
    table
}
