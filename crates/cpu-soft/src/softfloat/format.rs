//! The three binary formats, and the unpacked form that all work is done on.
//!
//! Intel SDM volume 1, section 4.2.2 (floating point data types), 4.8.3 (classes of values) and
//! 8.2.2 (x87 encodings that are no longer supported, and pseudo-denormals).

use super::env::{Env, Flags};

/// What a floating point datum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Plus or minus zero.
    Zero,
    /// A finite number other than zero, denormal or not.
    Finite,
    /// Plus or minus infinity.
    Infinity,
    /// A NaN that raises nothing in arithmetic.
    QuietNan,
    /// A NaN that raises invalid-operation in arithmetic.
    SignalingNan,
    /// An x87 encoding that the processor refuses: unnormal, pseudo-infinity, pseudo-NaN.
    Unsupported,
}

/// A datum taken apart: `(-1)^sign * significand/2^63 * 2^exponent` when it is finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// What it is.
    pub kind: Kind,
    /// Whether the sign bit is set.
    pub sign: bool,
    /// Whether it was encoded as a denormal (or pseudo-denormal).
    pub denormal: bool,
    /// The unbiased exponent of a finite number.
    pub exponent: i32,
    /// The significand, its integer bit at bit 63; of a NaN, the payload with bit 62 the quiet bit.
    pub significand: u64,
}

/// The bit that makes a NaN quiet, in [`Unpacked::significand`].
pub(super) const QUIET: u64 = 1 << 62;

impl Unpacked {
    /// A zero with this sign.
    #[inline]
    pub const fn zero(sign: bool) -> Unpacked {
        Unpacked { kind: Kind::Zero, sign, denormal: false, exponent: 0, significand: 0 }
    }

    /// An infinity with this sign.
    #[inline]
    pub const fn infinity(sign: bool) -> Unpacked {
        let significand = 1 << 63;
        Unpacked { kind: Kind::Infinity, sign, denormal: false, exponent: 0, significand }
    }

    /// Whether this is a NaN of either kind.
    #[inline]
    pub const fn is_nan(&self) -> bool {
        matches!(self.kind, Kind::QuietNan | Kind::SignalingNan)
    }

    /// The same datum with its sign flipped.
    #[inline]
    pub const fn negated(self) -> Unpacked {
        Unpacked { sign: !self.sign, ..self }
    }

    /// The datum as an operand: a denormal counts as zero under DAZ.
    #[inline]
    pub(super) const fn operand(self, env: &Env) -> Unpacked {
        if self.denormal && env.daz { Unpacked::zero(self.sign) } else { self }
    }

    /// Builds a finite number or zero from a significand that need not be normalized.
    const fn from_parts(sign: bool, denormal: bool, exponent: i32, significand: u64) -> Unpacked {
        if significand == 0 {
            return Unpacked::zero(sign);
        }
        let shift = significand.leading_zeros();
        Unpacked {
            kind: Kind::Finite,
            sign,
            denormal,
            exponent: exponent - shift as i32,
            significand: significand << shift,
        }
    }

    /// Builds an infinity or NaN from a fraction whose quiet bit is bit 62.
    const fn from_special(sign: bool, fraction: u64) -> Unpacked {
        if fraction == 0 {
            return Unpacked::infinity(sign);
        }
        let kind = if fraction & QUIET != 0 { Kind::QuietNan } else { Kind::SignalingNan };
        Unpacked { kind, sign, denormal: false, exponent: 0, significand: fraction | 1 << 63 }
    }

    /// Reports a denormal operand.
    #[inline]
    pub(super) fn note_denormal(&self, env: &mut Env) {
        if self.denormal {
            env.raise(Flags::DENORMAL);
        }
    }
}

/// One of the three formats: [`F32`], [`F64`], [`F80`].
pub trait Format: Copy + PartialEq + Eq + std::fmt::Debug + Into<Unpacked> {
    /// Bits of the significand, its integer bit included.
    const BITS: u32;
    /// The largest exponent of a finite number, which is also the bias.
    const MAX_EXPONENT: i32;
    /// The smallest exponent of a normal number.
    const MIN_EXPONENT: i32 = 1 - Self::MAX_EXPONENT;
    /// The exponent field of infinities and NaNs.
    const SPECIAL: u32 = 2 * Self::MAX_EXPONENT as u32 + 1;

    /// Puts a datum together from its sign, its exponent field, and its significand with the
    /// integer bit at bit 63 (clear in denormals and zeros).
    fn pack(sign: bool, exponent_field: u32, significand: u64) -> Self;

    /// The bits that arithmetic rounds to: those of the format, or fewer under x87 precision
    /// control.
    fn arithmetic_bits(env: &Env) -> u32;

    /// Takes the datum apart.
    #[inline]
    fn unpack(self) -> Unpacked {
        self.into()
    }

    /// A zero with this sign.
    #[inline]
    fn zero(sign: bool) -> Self {
        Self::pack(sign, 0, 0)
    }

    /// An infinity with this sign.
    #[inline]
    fn infinity(sign: bool) -> Self {
        Self::pack(sign, Self::SPECIAL, 1 << 63)
    }

    /// The NaN that invalid operations give: quiet, negative, payload zero.
    #[inline]
    fn default_nan() -> Self {
        Self::pack(true, Self::SPECIAL, 3 << 62)
    }

    /// The quiet NaN with the payload of `nan`, cut to this format.
    #[inline]
    fn quieted(nan: Unpacked) -> Self {
        Self::pack(nan.sign, Self::SPECIAL, nan.significand | QUIET)
    }
}

/// Single precision, as its 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F32(pub u32);

/// Double precision, as its 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F64(pub u64);

/// Double extended precision: what an x87 register holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F80 {
    /// The significand with its explicit integer bit: bits 63 to 0.
    pub significand: u64,
    /// The sign at bit 15 and the exponent field below it: bits 79 to 64.
    pub sign_exponent: u16,
}

impl F80 {
    /// Plus one.
    pub const ONE: F80 = F80 { significand: 1 << 63, sign_exponent: 0x3fff };

    /// Reads the ten bytes of the memory form from the low 80 bits of `bits`.
    #[inline]
    pub const fn from_bits(bits: u128) -> F80 {
        F80 { significand: bits as u64, sign_exponent: (bits >> 64) as u16 }
    }

    /// The ten bytes of the memory form, in the low 80 bits.
    #[inline]
    pub const fn to_bits(self) -> u128 {
        self.significand as u128 | (self.sign_exponent as u128) << 64
    }

    /// The same number, a pseudo-denormal in its usual encoding.
    #[inline]
    pub(super) const fn normalized(self) -> F80 {
        let hidden = self.sign_exponent & 0x7fff == 0 && self.significand >> 63 != 0;
        F80 { sign_exponent: self.sign_exponent | hidden as u16, ..self }
    }

    /// Whether the sign bit is set.
    #[inline]
    pub const fn sign(self) -> bool {
        self.sign_exponent & 0x8000 != 0
    }

    /// The same with its sign flipped (FCHS), whatever it encodes.
    #[inline]
    pub const fn negated(self) -> F80 {
        F80 { sign_exponent: self.sign_exponent ^ 0x8000, ..self }
    }

    /// The same with its sign cleared (FABS), whatever it encodes.
    #[inline]
    pub const fn absolute(self) -> F80 {
        F80 { sign_exponent: self.sign_exponent & 0x7fff, ..self }
    }
}

impl From<F32> for Unpacked {
    #[inline]
    fn from(F32(bits): F32) -> Unpacked {
        let sign = bits >> 31 != 0;
        let field = bits >> 23 & 0xff;
        let fraction = (bits as u64 & 0x7f_ffff) << 40;
        match field {
            0 => Unpacked::from_parts(sign, true, F32::MIN_EXPONENT, fraction),
            0xff => Unpacked::from_special(sign, fraction),
            _ => Unpacked {
                kind: Kind::Finite,
                sign,
                denormal: false,
                exponent: field as i32 - F32::MAX_EXPONENT,
                significand: fraction | 1 << 63,
            },
        }
    }
}

impl From<F64> for Unpacked {
    #[inline]
    fn from(F64(bits): F64) -> Unpacked {
        let sign = bits >> 63 != 0;
        let field = bits >> 52 & 0x7ff;
        let fraction = (bits & 0xf_ffff_ffff_ffff) << 11;
        match field {
            0 => Unpacked::from_parts(sign, true, F64::MIN_EXPONENT, fraction),
            0x7ff => Unpacked::from_special(sign, fraction),
            _ => Unpacked {
                kind: Kind::Finite,
                sign,
                denormal: false,
                exponent: field as i32 - F64::MAX_EXPONENT,
                significand: fraction | 1 << 63,
            },
        }
    }
}

impl From<F80> for Unpacked {
    #[inline]
    fn from(value: F80) -> Unpacked {
        let sign = value.sign();
        let field = value.sign_exponent & 0x7fff;
        let significand = value.significand;
        let integer_bit = significand >> 63 != 0;
        match (field, integer_bit) {
            (0, _) => Unpacked::from_parts(sign, true, F80::MIN_EXPONENT, significand),
            (_, false) => Unpacked {
                kind: Kind::Unsupported,
                sign,
                denormal: false,
                exponent: 0,
                significand,
            },
            (0x7fff, true) => Unpacked::from_special(sign, significand & !(1 << 63)),
            (_, true) => Unpacked {
                kind: Kind::Finite,
                sign,
                denormal: false,
                exponent: i32::from(field) - F80::MAX_EXPONENT,
                significand,
            },
        }
    }
}

impl Format for F32 {
    const BITS: u32 = 24;
    const MAX_EXPONENT: i32 = 127;

    #[inline]
    fn pack(sign: bool, exponent_field: u32, significand: u64) -> F32 {
        let fraction = (significand >> 40) as u32 & 0x7f_ffff;
        F32((sign as u32) << 31 | exponent_field << 23 | fraction)
    }

    #[inline]
    fn arithmetic_bits(_: &Env) -> u32 {
        F32::BITS
    }
}

impl Format for F64 {
    const BITS: u32 = 53;
    const MAX_EXPONENT: i32 = 1023;

    #[inline]
    fn pack(sign: bool, exponent_field: u32, significand: u64) -> F64 {
        let fraction = significand >> 11 & 0xf_ffff_ffff_ffff;
        F64((sign as u64) << 63 | (exponent_field as u64) << 52 | fraction)
    }

    #[inline]
    fn arithmetic_bits(_: &Env) -> u32 {
        F64::BITS
    }
}

impl Format for F80 {
    const BITS: u32 = 64;
    const MAX_EXPONENT: i32 = 16383;

    #[inline]
    fn pack(sign: bool, exponent_field: u32, significand: u64) -> F80 {
        F80 { significand, sign_exponent: (sign as u16) << 15 | exponent_field as u16 & 0x7fff }
    }

    #[inline]
    fn arithmetic_bits(env: &Env) -> u32 {
        env.precision.significand_bits()
    }
}
