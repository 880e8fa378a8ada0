//! The seven constants the x87 can load.
//!
//! Intel SDM volume 1, section 8.3.4: they are held with more than 64 bits inside the processor and
//! rounded as the RC field says, reporting nothing.

use super::env::Rounding;
use super::format::{F80, Format};
use super::round::{Cut, cut};
use super::wide::Wide;

/// A constant the x87 can load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    /// FLD1: 1.
    One,
    /// FLDL2T: log2(10).
    Log2Of10,
    /// FLDL2E: log2(e).
    Log2OfE,
    /// FLDPI: pi.
    Pi,
    /// FLDLG2: log10(2).
    Log10Of2,
    /// FLDLN2: ln(2).
    LnOf2,
    /// FLDZ: 0.
    Zero,
}

impl Constant {
    /// The constant, rounded.
    pub fn load(self, rounding: Rounding) -> F80 {
        let wide = match self {
            Constant::One => return F80::ONE,
            Constant::Zero => return F80::zero(false),
            Constant::Log2Of10 => Wide::LOG2_10,
            Constant::Log2OfE => Wide::LOG2_E,
            Constant::Pi => Wide::PI,
            Constant::Log10Of2 => Wide::LOG10_2,
            Constant::LnOf2 => Wide::LN_2,
        };
        // None is so close to a power of two that rounding could carry out.
        let Cut { significand, .. } = cut(wide.significand, F80::BITS, false, rounding);
        let field = (wide.exponent + F80::MAX_EXPONENT) as u32;
        F80::pack(false, field, (significand >> 64) as u64)
    }
}
