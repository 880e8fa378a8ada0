//! RFLAGS, with the status flags kept in a form that is cheap to produce.
//!
//! Most flags an instruction sets are never read. ZF, SF and PF are kept as the results they derive
//! from; CF, AF and OF, and everything that is not a status flag, as bits in their architectural
//! places.

use riad_cpu::x86::rflags::{AF, CF, DF, IF, OF, PF, SF, STATUS, ZF};

use crate::word::Word;

/// RFLAGS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// ZF is set when this is zero.
    pub zero: u64,
    /// SF is bit 63 of this; PF is the parity of its low byte.
    pub sign_parity: u64,
    /// All other flags in their architectural places; ZF, SF and PF are zero here.
    pub bits: u64,
}

impl Flags {
    /// From the architectural value.
    #[must_use]
    pub fn from_rflags(value: u64) -> Self {
        let mut flags = Self { zero: 0, sign_parity: 0, bits: value & !(ZF | SF | PF) };
        flags.set_zsp(value & ZF != 0, value & SF != 0, value & PF != 0);
        flags
    }

    /// The architectural value.
    #[must_use]
    pub fn rflags(&self) -> u64 {
        let mut value = self.bits;
        if self.zf() {
            value |= ZF;
        }
        if self.sf() {
            value |= SF;
        }
        if self.pf() {
            value |= PF;
        }
        value
    }

    /// Replaces the six status flags by those of an architectural value.
    pub fn set_status(&mut self, value: u64) {
        self.bits = self.bits & !STATUS | value & (CF | AF | OF);
        self.set_zsp(value & ZF != 0, value & SF != 0, value & PF != 0);
    }

    /// Sets ZF, SF and PF one by one.
    #[inline]
    pub fn set_zsp(&mut self, zf: bool, sf: bool, pf: bool) {
        self.zero = u64::from(!zf);
        self.sign_parity = u64::from(sf) << 63 | u64::from(!pf);
    }

    /// Carry.
    #[inline(always)]
    #[must_use]
    pub fn cf(&self) -> bool {
        self.bits & CF != 0
    }

    /// Parity of the low byte of the result.
    #[inline(always)]
    #[must_use]
    pub fn pf(&self) -> bool {
        (self.sign_parity as u8).count_ones() & 1 == 0
    }

    /// Auxiliary carry.
    #[inline(always)]
    #[must_use]
    pub fn af(&self) -> bool {
        self.bits & AF != 0
    }

    /// Zero.
    #[inline(always)]
    #[must_use]
    pub fn zf(&self) -> bool {
        self.zero == 0
    }

    /// Sign.
    #[inline(always)]
    #[must_use]
    pub fn sf(&self) -> bool {
        self.sign_parity >> 63 != 0
    }

    /// Overflow.
    #[inline(always)]
    #[must_use]
    pub fn of(&self) -> bool {
        self.bits & OF != 0
    }

    /// Direction of string instructions: downwards when set.
    #[inline(always)]
    #[must_use]
    pub fn df(&self) -> bool {
        self.bits & DF != 0
    }

    /// Interrupts enabled.
    #[inline(always)]
    #[must_use]
    pub fn interrupts(&self) -> bool {
        self.bits & IF != 0
    }

    /// Sets or clears a flag that is not ZF, SF or PF.
    #[inline(always)]
    pub fn put(&mut self, bit: u64, on: bool) {
        self.bits = self.bits & !bit | if on { bit } else { 0 };
    }

    /// Sets or clears ZF alone.
    #[inline(always)]
    pub fn put_zf(&mut self, on: bool) {
        self.zero = u64::from(!on);
    }

    /// ZF, SF and PF of a result.
    #[inline(always)]
    pub fn result<T: Word>(&mut self, result: T) {
        let wide = result.sx();
        self.zero = wide;
        self.sign_parity = wide;
    }

    /// Flags of AND, OR, XOR, TEST: CF, OF and AF clear (AF is undefined; the processor clears it).
    #[inline(always)]
    pub fn logic<T: Word>(&mut self, result: T) {
        self.result(result);
        self.bits &= !(CF | AF | OF);
    }

    /// Flags of `result = a + b + carry`, given the result.
    #[inline(always)]
    pub fn add<T: Word>(&mut self, a: T, b: T, result: T) {
        let (a, b, r) = (a.zx(), b.zx(), result.zx());
        let carries = (a & b) | ((a | b) & !r);
        self.carries::<T>(carries);
        self.result(result);
    }

    /// Flags of `result = a - b - borrow`, given the result.
    #[inline(always)]
    pub fn sub<T: Word>(&mut self, a: T, b: T, result: T) {
        let (a, b, r) = (a.zx(), b.zx(), result.zx());
        let borrows = (!a & b) | ((!a | b) & r);
        self.carries::<T>(borrows);
        self.result(result);
    }

    /// CF, AF and OF from the carries (or borrows) out of each bit.
    #[inline(always)]
    fn carries<T: Word>(&mut self, carries: u64) {
        let top = carries >> (T::BITS - 2);
        let cf = top >> 1 & 1;
        let of = (top ^ top >> 1) & 1;
        let af = carries >> 3 & 1;
        self.bits = self.bits & !(CF | AF | OF) | cf | af << 4 | of << 11;
    }

    /// A condition code, 0 to 15, as encoded in Jcc, SETcc and CMOVcc (SDM 1, appendix B).
    #[inline(always)]
    #[must_use]
    pub fn condition(&self, code: u8) -> bool {
        let met = match code >> 1 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() || self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        met != (code & 1 != 0)
    }
}
