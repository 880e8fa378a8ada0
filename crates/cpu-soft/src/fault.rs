//! Exceptions on their way from a handler to delivery, in one register.

use std::num::NonZeroU64;

/// What every handler returns.
pub type Done<T = ()> = Result<T, Fault>;

/// An exception (SDM 3A, 6.3), packed: vector in the low byte, error code above it.
///
/// A fault leaves everything as it was before the instruction. CR2 of a page fault is kept in
/// [`Cpu::fault_address`](crate::cpu::Cpu::fault_address) until delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(NonZeroU64);

const VALID: u64 = 1 << 63;
const HAS_CODE: u64 = 1 << 62;
const SOFTWARE: u64 = 1 << 61;

#[expect(missing_docs, reason = "the exceptions' own names")]
impl Fault {
    pub const DE: Self = Self::plain(0);
    pub const DB: Self = Self::plain(1);
    pub const BP: Self = Self::plain(3);
    pub const OF: Self = Self::plain(4);
    pub const BR: Self = Self::plain(5);
    pub const UD: Self = Self::plain(6);
    pub const NM: Self = Self::plain(7);
    pub const MF: Self = Self::plain(16);
    /// #AC(0).
    pub const AC: Self = Self::with_code(17, 0);
    pub const XM: Self = Self::plain(19);
    /// #GP(0).
    pub const GP0: Self = Self::with_code(13, 0);
    /// #SS(0).
    pub const SS0: Self = Self::with_code(12, 0);
    /// No exception: what the instruction reaches for is not here but where the processor was lent
    /// from. See [`stand_in`](crate::stand_in).
    pub const ELSEWHERE: Self = Self::plain(0xff);

    const fn packed(value: u64) -> Self {
        match NonZeroU64::new(value | VALID) {
            Some(value) => Self(value),
            None => unreachable!(),
        }
    }

    /// An exception without an error code.
    #[must_use]
    pub const fn plain(vector: u8) -> Self {
        Self::packed(vector as u64)
    }

    /// An exception with an error code.
    #[must_use]
    pub const fn with_code(vector: u8, code: u16) -> Self {
        Self::packed(HAS_CODE | (code as u64) << 8 | vector as u64)
    }

    /// #TS with a selector as error code.
    #[must_use]
    pub const fn ts(selector: u16) -> Self {
        Self::with_code(10, selector & !3)
    }

    /// #NP with a selector as error code.
    #[must_use]
    pub const fn np(selector: u16) -> Self {
        Self::with_code(11, selector & !3)
    }

    /// #SS with a selector as error code.
    #[must_use]
    pub const fn ss(selector: u16) -> Self {
        Self::with_code(12, selector & !3)
    }

    /// #GP with a selector as error code.
    #[must_use]
    pub const fn gp(selector: u16) -> Self {
        Self::with_code(13, selector & !3)
    }

    /// #PF.
    #[must_use]
    pub const fn page(code: u16) -> Self {
        Self::with_code(14, code)
    }

    /// The same, raised by INT n, INT3 or INTO rather than by the processor.
    #[must_use]
    pub const fn software(vector: u8) -> Self {
        Self::packed(SOFTWARE | vector as u64)
    }

    /// Whether INT n, INT3 or INTO raised it: delivered as a trap, with gate privilege checks.
    #[must_use]
    pub const fn is_software(self) -> bool {
        self.0.get() & SOFTWARE != 0
    }

    /// The vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0.get() as u8
    }

    /// The error code, for exceptions that push one.
    #[must_use]
    pub const fn code(self) -> Option<u16> {
        if self.0.get() & HAS_CODE != 0 { Some((self.0.get() >> 8) as u16) } else { None }
    }
}
