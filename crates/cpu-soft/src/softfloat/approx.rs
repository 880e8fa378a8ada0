//! The approximations of RCPPS and RSQRTPS.
//!
//! Intel SDM volume 2, RCPPS and RSQRTPS: the relative error is at most 1.5 * 2^-12, nothing is
//! reported, denormals count as zeros and tiny results become zeros. Within that bound processors
//! differ; these results are those of Intel's: one over the middle of the interval that the leading
//! 11 bits of the fraction (10 bits and the exponent's parity) name, rounded to 13 places.

use super::format::{F32, Format, Kind};

/// An approximation of `1/a`.
pub fn rcp(a: F32) -> F32 {
    let x = a.unpack();
    match x.kind {
        Kind::Zero => return F32::infinity(x.sign),
        Kind::Finite if x.denormal => return F32::infinity(x.sign),
        Kind::Infinity => return F32::zero(x.sign),
        Kind::Finite => {}
        _ => return F32::quieted(x),
    }
    let index = (x.significand << 1) >> 53;
    let middle = 4097 + 2 * index;
    // 2^13 / (middle / 2^12), in [2^12, 2^13).
    let reciprocal = ((1 << 26) / middle).div_ceil(2);
    pack(x.sign, -x.exponent - 1, reciprocal)
}

/// An approximation of `1/sqrt(a)`.
pub fn rsqrt(a: F32) -> F32 {
    let x = a.unpack();
    match x.kind {
        Kind::Zero => return F32::infinity(x.sign),
        Kind::Finite if x.denormal => return F32::infinity(x.sign),
        Kind::Infinity if !x.sign => return F32::zero(false),
        Kind::Finite if !x.sign => {}
        Kind::Finite | Kind::Infinity => return F32::default_nan(),
        _ => return F32::quieted(x),
    }
    let odd = x.exponent.rem_euclid(2) as u32;
    let index = (x.significand << 1) >> 54;
    let middle = (2049 + 2 * index) << odd;
    // 2^13 / sqrt(middle / 2^11), in [2^12, 2^13).
    let root = ((1u64 << 39) / middle).isqrt().div_ceil(2);
    pack(false, -x.exponent.div_euclid(2) - 1, root)
}

/// A number with 13 significant bits; zero if it is tiny.
fn pack(sign: bool, exponent: i32, bits: u64) -> F32 {
    if exponent < F32::MIN_EXPONENT {
        return F32::zero(sign);
    }
    F32::pack(sign, (exponent + F32::MAX_EXPONENT) as u32, bits << 51)
}
