//! The short cut of the SSE instructions: the host's IEEE arithmetic where it cannot differ.
//!
//! Rust's `f32` and `f64` round to nearest on every host. When MXCSR asks for just that, has
//! DAZ and FTZ off, masks the precision exception and has its flag set already, then an operation
//! on zeros and normal numbers whose result is normal can report nothing new, and the host's result
//! is the guest's. Everything else, NaNs first of all, takes the soft core.

use super::arith;
use super::env::Env;
use super::format::{F32, F64, Format};

macro_rules! fast_operations {
    ($format:ident, $bits:ty, $float:ty, $shift:expr,
     $add:ident, $sub:ident, $mul:ident, $div:ident, $sqrt:ident) => {
        impl $format {
            /// Whether this is zero or a normal number.
            #[inline]
            fn is_plain(self) -> bool {
                self.is_normal() || self.is_zero()
            }

            #[inline]
            fn is_zero(self) -> bool {
                self.0 << 1 == 0
            }

            #[inline]
            fn is_normal(self) -> bool {
                let field = (self.0 << 1) >> ($shift + 1);
                field.wrapping_sub(1) < $format::SPECIAL as $bits - 1
            }

            /// Whether this, as a result, was neither tiny before rounding nor too large: the
            /// smallest normal exponent is left to the soft core, which knows where it came from.
            #[inline]
            fn is_safe_result(self) -> bool {
                let field = (self.0 << 1) >> ($shift + 1);
                field.wrapping_sub(2) < $format::SPECIAL as $bits - 2
            }
        }

        #[doc = concat!("`a + b` for [`", stringify!($format), "`].")]
        #[inline]
        pub fn $add(a: $format, b: $format, env: &mut Env) -> $format {
            if env.native && a.is_plain() && b.is_plain() {
                let sum = <$float>::from_bits(a.0) + <$float>::from_bits(b.0);
                let result = $format(sum.to_bits());
                if result.is_safe_result() || result.is_zero() {
                    return result;
                }
            }
            arith::add(a.unpack(), b.unpack(), env)
        }

        #[doc = concat!("`a - b` for [`", stringify!($format), "`].")]
        #[inline]
        pub fn $sub(a: $format, b: $format, env: &mut Env) -> $format {
            if env.native && a.is_plain() && b.is_plain() {
                let difference = <$float>::from_bits(a.0) - <$float>::from_bits(b.0);
                let result = $format(difference.to_bits());
                if result.is_safe_result() || result.is_zero() {
                    return result;
                }
            }
            arith::sub(a.unpack(), b.unpack(), env)
        }

        #[doc = concat!("`a * b` for [`", stringify!($format), "`].")]
        #[inline]
        pub fn $mul(a: $format, b: $format, env: &mut Env) -> $format {
            if env.native && a.is_plain() && b.is_plain() {
                let product = <$float>::from_bits(a.0) * <$float>::from_bits(b.0);
                let result = $format(product.to_bits());
                if result.is_safe_result() || a.is_zero() || b.is_zero() {
                    return result;
                }
            }
            arith::mul(a.unpack(), b.unpack(), env)
        }

        #[doc = concat!("`a / b` for [`", stringify!($format), "`].")]
        #[inline]
        pub fn $div(a: $format, b: $format, env: &mut Env) -> $format {
            if env.native && a.is_plain() && b.is_normal() {
                let quotient = <$float>::from_bits(a.0) / <$float>::from_bits(b.0);
                let result = $format(quotient.to_bits());
                if result.is_safe_result() || a.is_zero() {
                    return result;
                }
            }
            arith::div(a.unpack(), b.unpack(), env)
        }

        #[doc = concat!("The square root of a [`", stringify!($format), "`].")]
        #[inline]
        pub fn $sqrt(a: $format, env: &mut Env) -> $format {
            let negative = a.0 >> ($format::BITS + $format::SPECIAL.trailing_ones() - 1) != 0;
            if env.native && a.is_normal() && !negative {
                return $format(<$float>::from_bits(a.0).sqrt().to_bits());
            }
            arith::sqrt(a.unpack(), env)
        }
    };
}

fast_operations!(F32, u32, f32, 23, add_f32, sub_f32, mul_f32, div_f32, sqrt_f32);
fast_operations!(F64, u64, f64, 52, add_f64, sub_f64, mul_f64, div_f64, sqrt_f64);
