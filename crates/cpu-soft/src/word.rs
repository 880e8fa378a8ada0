//! Operand widths: what the integer handlers are generic over.

use std::fmt::Debug;

/// An unsigned integer of 1 to 8 bytes.
pub trait Word: Copy + Eq + Debug + Send + Sync + 'static {
    /// Bytes.
    const BYTES: usize;
    /// Bits.
    const BITS: u32;
    /// The value with all bits set, zero-extended.
    const MASK: u64;
    /// The sign bit, zero-extended.
    const SIGN: u64;
    /// The low bits of a 64-bit value.
    fn low(value: u64) -> Self;
    /// Zero-extends.
    fn zx(self) -> u64;
    /// Sign-extends.
    fn sx(self) -> u64;
}

macro_rules! word {
    ($($t:ty, $s:ty;)*) => {$(
        impl Word for $t {
            const BYTES: usize = size_of::<$t>();
            const BITS: u32 = <$t>::BITS;
            const MASK: u64 = <$t>::MAX as u64;
            const SIGN: u64 = 1 << (<$t>::BITS - 1);
            #[inline(always)]
            fn low(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn zx(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sx(self) -> u64 {
                self as $s as i64 as u64
            }
        }
    )*};
}

word! { u8, i8; u16, i16; u32, i32; u64, i64; }
