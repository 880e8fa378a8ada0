//! Vectors taken apart into lanes, and put together again.
//!
//! A vector is a `u128` whose lowest bits are lane 0, on every host. Loops over lanes lie behind a
//! call each ([`each`] is never inlined): within a larger function the compiler would keep the
//! vector in integer registers and pick lanes out by shifts, where a loop over memory becomes one
//! vector instruction.

use crate::softfloat::{Env, F32, F64};

/// An integer that vectors are made of.
pub(super) trait Lane: Copy {
    /// Replaces each lane of `a` by what `f` makes of it and the same lane of `b`.
    fn zip(a: &mut u128, b: &u128, f: impl Fn(Self, Self) -> Self);
}

/// All lanes of a vector, lane 0 first.
pub(super) trait Lanes: Copy {
    /// Takes a vector apart.
    fn split(vector: u128) -> Self;
    /// Puts a vector together.
    fn join(self) -> u128;
}

macro_rules! lanes {
    ($($lane:ty, $count:literal;)*) => {$(
        impl Lane for $lane {
            #[inline(always)]
            fn zip(a: &mut u128, b: &u128, f: impl Fn(Self, Self) -> Self) {
                // The order of lanes is the host's, which does not matter here.
                let a: &mut [$lane; $count] = zerocopy::transmute_mut!(a);
                let b: &[$lane; $count] = zerocopy::transmute_ref!(b);
                zip(a, b, f);
            }
        }
        impl Lanes for [$lane; $count] {
            #[inline(always)]
            fn split(vector: u128) -> Self {
                let lanes: Self = zerocopy::transmute!(vector.to_le());
                lanes.map(<$lane>::from_le)
            }
            #[inline(always)]
            fn join(self) -> u128 {
                u128::from_le(zerocopy::transmute!(self.map(<$lane>::to_le)))
            }
        }
    )*};
}

lanes! { u8, 16; i8, 16; u16, 8; i16, 8; u32, 4; i32, 4; u64, 2; i64, 2; }

#[inline(never)]
fn zip<T: Copy, const N: usize>(a: &mut [T; N], b: &[T; N], f: impl Fn(T, T) -> T) {
    for (a, &b) in a.iter_mut().zip(b) {
        *a = f(*a, b);
    }
}

/// Takes a vector apart.
#[inline(always)]
pub(super) fn split<T: Lanes>(vector: u128) -> T {
    T::split(vector)
}

/// Puts a vector together.
#[inline(always)]
pub(super) fn join<T: Lanes>(lanes: T) -> u128 {
    lanes.join()
}

/// Each lane of `a` with the same lane of `b`.
#[inline(always)]
pub(super) fn each<T: Lane>(mut a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128 {
    T::zip(&mut a, &b, f);
    a
}

/// Each lane of `b`.
#[inline(always)]
pub(super) fn map<T: Lane>(b: u128, f: impl Fn(T) -> T) -> u128 {
    each(b, b, |_, lane| f(lane))
}

/// The low 64 bits.
pub(super) const LOW_64: u128 = u64::MAX as u128;
/// The low 32 bits.
pub(super) const LOW_32: u128 = u32::MAX as u128;

/// `low` where `mask` is set, the rest from `rest`.
#[inline(always)]
pub(super) const fn merge(rest: u128, low: u128, mask: u128) -> u128 {
    rest & !mask | low & mask
}

/// A floating point operation on each of four singles.
#[inline(always)]
pub(super) fn ps(a: u128, b: u128, env: &mut Env, f: impl Fn(F32, F32, &mut Env) -> F32) -> u128 {
    let (a, b): ([u32; 4], [u32; 4]) = (split(a), split(b));
    join::<[u32; 4]>(std::array::from_fn(|i| f(F32(a[i]), F32(b[i]), env).0))
}

/// A floating point operation on each of two doubles.
#[inline(always)]
pub(super) fn pd(a: u128, b: u128, env: &mut Env, f: impl Fn(F64, F64, &mut Env) -> F64) -> u128 {
    let (a, b): ([u64; 2], [u64; 2]) = (split(a), split(b));
    join::<[u64; 2]>(std::array::from_fn(|i| f(F64(a[i]), F64(b[i]), env).0))
}

/// A floating point operation on the lowest single; the rest is that of `a`.
#[inline(always)]
pub(super) fn ss(a: u128, b: u128, env: &mut Env, f: impl Fn(F32, F32, &mut Env) -> F32) -> u128 {
    merge(a, f(F32(a as u32), F32(b as u32), env).0.into(), LOW_32)
}

/// A floating point operation on the lower double; the rest is that of `a`.
#[inline(always)]
pub(super) fn sd(a: u128, b: u128, env: &mut Env, f: impl Fn(F64, F64, &mut Env) -> F64) -> u128 {
    merge(a, f(F64(a as u64), F64(b as u64), env).0.into(), LOW_64)
}
