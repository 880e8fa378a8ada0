//! The environment of a floating point instruction: what it is told and what it reports.
//!
//! Intel SDM volume 1, sections 8.1.3 to 8.1.5 (x87 status and control words), 10.2.3 (MXCSR) and
//! 4.9 (exceptions and their priorities).

use std::ops::{BitOr, BitOrAssign};

/// A set of floating point exceptions, laid out as in the x87 status word and in MXCSR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No exception.
    pub const NONE: Flags = Flags(0);
    /// IE: invalid operation.
    pub const INVALID: Flags = Flags(0x01);
    /// DE: an operand was denormal.
    pub const DENORMAL: Flags = Flags(0x02);
    /// ZE: a finite number was divided by zero.
    pub const ZERO_DIVIDE: Flags = Flags(0x04);
    /// OE: the result is too large for its format.
    pub const OVERFLOW: Flags = Flags(0x08);
    /// UE: the result is too small for its format.
    pub const UNDERFLOW: Flags = Flags(0x10);
    /// PE: the result was rounded.
    pub const PRECISION: Flags = Flags(0x20);
    /// All six exceptions.
    pub const ALL: Flags = Flags(0x3f);
    /// The exceptions found before a result is computed (SDM volume 1, section 4.9.2).
    pub const BEFORE: Flags = Flags(0x07);

    /// Builds a set from the low six bits of `bits`; the others are ignored.
    #[inline]
    pub const fn from_bits(bits: u8) -> Flags {
        Flags(bits & 0x3f)
    }

    /// The set as the low six bits of a status word or of MXCSR.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether this set holds every exception of `other`.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The exceptions of this set that are also in `other`.
    #[inline]
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }

    /// The exceptions of this set that are not in `other`.
    #[inline]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

/// The rounding mode: the RC field of the x87 control word and of MXCSR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest value, ties to the even one.
    #[default]
    Nearest,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// Toward zero.
    Zero,
}

impl Rounding {
    /// Reads a two-bit RC field; higher bits are ignored.
    #[inline]
    pub const fn from_bits(bits: u32) -> Rounding {
        match bits & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Down,
            2 => Rounding::Up,
            _ => Rounding::Zero,
        }
    }
}

/// The precision that x87 add, subtract, multiply, divide and square root round to: the PC field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits.
    Single,
    /// 53 bits.
    Double,
    /// 64 bits. Also chosen by the reserved encoding 01b.
    #[default]
    Extended,
}

impl Precision {
    /// Reads a two-bit PC field; higher bits are ignored.
    #[inline]
    pub const fn from_bits(bits: u32) -> Precision {
        match bits & 3 {
            0 => Precision::Single,
            2 => Precision::Double,
            _ => Precision::Extended,
        }
    }

    /// The number of bits in a significand of this precision.
    #[inline]
    pub const fn significand_bits(self) -> u32 {
        match self {
            Precision::Single => 24,
            Precision::Double => 53,
            Precision::Extended => 64,
        }
    }
}

/// What an instruction's floating point work came to, from [`Env::settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Exceptions to add to the status word or MXCSR.
    pub flags: Flags,
    /// An unmasked exception was found before computing: no result may be written.
    pub fault_before: bool,
    /// An unmasked exception of any kind was found.
    pub fault: bool,
}

/// What one floating point instruction is told, and what it has reported so far.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// The rounding mode.
    pub rounding: Rounding,
    /// The precision of x87 arithmetic; of no effect on [`F32`](super::F32) and
    /// [`F64`](super::F64) results.
    pub precision: Precision,
    /// The exceptions that are masked.
    pub masks: Flags,
    /// Denormal operands count as zeros (MXCSR.DAZ).
    pub daz: bool,
    /// Tiny results become zeros while underflow is masked (MXCSR.FTZ).
    pub ftz: bool,
    /// Whether the x87's rules hold: the NaN with the larger significand wins, and unmasked
    /// overflow and underflow give a result with a wrapped exponent.
    pub x87: bool,
    /// Exceptions reported so far.
    pub flags: Flags,
    /// Whether the last result was rounded away from zero (the x87's C1).
    pub rounded_up: bool,
    /// Whether a result computed by the host's IEEE arithmetic would be this environment's too.
    pub(super) native: bool,
}

impl Env {
    /// The environment of an SSE instruction under this MXCSR.
    #[inline]
    pub const fn sse(mxcsr: u32) -> Env {
        // DAZ, RC and FTZ off, PM on, PE already set: nothing an inexact result could change.
        const NATIVE_FIELDS: u32 = 0x0040 | 0x6000 | 0x8000 | 0x1000 | 0x0020;
        const NATIVE_VALUE: u32 = 0x1000 | 0x0020;
        Env {
            rounding: Rounding::from_bits(mxcsr >> 13),
            precision: Precision::Extended,
            masks: Flags::from_bits((mxcsr >> 7) as u8),
            daz: mxcsr & 0x0040 != 0,
            ftz: mxcsr & 0x8000 != 0,
            x87: false,
            flags: Flags::NONE,
            rounded_up: false,
            native: mxcsr & NATIVE_FIELDS == NATIVE_VALUE,
        }
    }

    /// The environment of an x87 instruction under this control word.
    #[inline]
    pub const fn x87(control: u16) -> Env {
        Env {
            rounding: Rounding::from_bits(control as u32 >> 10),
            precision: Precision::from_bits(control as u32 >> 8),
            masks: Flags::from_bits(control as u8),
            daz: false,
            ftz: false,
            x87: true,
            flags: Flags::NONE,
            rounded_up: false,
            native: false,
        }
    }

    /// Whether every exception in `flags` is masked.
    #[inline]
    pub const fn masked(&self, flags: Flags) -> bool {
        self.masks.contains(flags)
    }

    /// Adds to the exceptions reported.
    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.flags |= flags;
    }

    /// The flags to report and whether to fault, once all elements are done.
    ///
    /// An unmasked invalid, denormal or divide-by-zero exception stops the instruction before it
    /// computes, so the exceptions of results it would have had are not reported.
    #[inline]
    pub const fn settle(&self) -> Settled {
        let unmasked = self.flags.without(self.masks);
        let fault_before = !unmasked.and(Flags::BEFORE).is_empty();
        let flags = if fault_before { self.flags.and(Flags::BEFORE) } else { self.flags };
        Settled { flags, fault_before, fault: !unmasked.is_empty() }
    }
}
