//! Every operation against the host's own processor, on random operands that favour the edges.
//!
//! `RIAD_ORACLE_CASES` multiplies the number of cases (default 1).

#[path = "oracle_sse_test.rs"]
mod sse;
#[path = "oracle_transcendental_test.rs"]
mod transcendental;
#[path = "oracle_x87_test.rs"]
mod x87;

use super::{F32, F64, F80};

/// How many cases to run, given the number for an ordinary test run.
fn cases(ordinary: u64) -> u64 {
    let factor = std::env::var("RIAD_ORACLE_CASES").ok().and_then(|text| text.parse().ok());
    ordinary.saturating_mul(factor.unwrap_or(1))
}

/// A source of random operands: SplitMix64, so that a failing case comes again.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// A significand of 64 bits: random, sparse, dense, or around a rounding point.
    fn significand(&mut self) -> u64 {
        let random = self.bits();
        let place = self.below(64) as u32;
        let wobble = self.below(5).wrapping_sub(2);
        match self.below(10) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << place,
            3 => (1u64 << place).wrapping_add(wobble),
            4 => random << place,
            5 => u64::MAX << place,
            6 => u64::MAX >> place,
            _ => random,
        }
    }

    /// An exponent field of `bits` bits.
    fn exponent(&mut self, bits: u32) -> u64 {
        let top = (1u64 << bits) - 1;
        let bias = top >> 1;
        let near = self.below(80);
        match self.below(16) {
            0 => 0,
            1 => top,
            2 => 1 + self.below(3),
            3 => top - 1 - self.below(3),
            4 => near.min(top),
            5 => top - near.min(top),
            6..12 => (bias + near).wrapping_sub(40).clamp(0, top),
            12 => (bias / 2 + near).wrapping_sub(40).min(top),
            13 => (bias / 2 * 3 + near).wrapping_sub(40).min(top),
            _ => self.below(top + 1),
        }
    }

    fn f32(&mut self) -> F32 {
        let sign = self.bits() as u32 & 1;
        let exponent = self.exponent(8) as u32;
        F32(sign << 31 | exponent << 23 | (self.significand() >> 41) as u32)
    }

    fn f64(&mut self) -> F64 {
        let sign = self.bits() & 1;
        F64(sign << 63 | self.exponent(11) << 52 | self.significand() >> 12)
    }

    /// A register, its integer bit nearly always as it should be.
    fn f80(&mut self) -> F80 {
        let sign = self.bits() as u16 & 1;
        let exponent = self.exponent(15) as u16;
        let integer_bit = match self.below(32) {
            0 => self.below(2),
            _ => (exponent != 0) as u64,
        };
        let significand = self.significand() >> 1 | integer_bit << 63;
        F80 { significand, sign_exponent: sign << 15 | exponent }
    }

    /// A second operand: often one that stands in some relation to the first.
    fn f80_after(&mut self, first: F80) -> F80 {
        let other = self.f80();
        let delta = self.below(140) as u16;
        match self.below(8) {
            0 => first,
            1 => first.negated(),
            2 | 3 => {
                let field = (first.sign_exponent & 0x7fff).wrapping_add(delta).wrapping_sub(70);
                let sign_exponent = other.sign_exponent & 0x8000 | field & 0x7fff;
                F80 { significand: other.significand | 1 << 63, sign_exponent }
            }
            4 => F80 { significand: first.significand, ..other },
            _ => other,
        }
    }

    fn f64_after(&mut self, first: F64) -> F64 {
        let other = self.f64();
        let delta = self.below(120);
        match self.below(6) {
            0 => F64(first.0 ^ (other.0 & 1 << 63)),
            1 => F64((first.0 ^ (other.0 & 0xff)) ^ (1 << 63)),
            2 => {
                F64((other.0 & !(0x7ff << 52))
                    | ((first.0 >> 52).wrapping_add(delta) & 0x7ff) << 52)
            }
            _ => other,
        }
    }

    fn f32_after(&mut self, first: F32) -> F32 {
        let other = self.f32();
        let delta = self.below(50) as u32;
        match self.below(6) {
            0 => F32(first.0 ^ (other.0 & 1 << 31)),
            1 => F32((first.0 ^ (other.0 & 0xf)) ^ (1 << 31)),
            2 => {
                F32((other.0 & !(0xff << 23)) | ((first.0 >> 23).wrapping_add(delta) & 0xff) << 23)
            }
            _ => other,
        }
    }
}
