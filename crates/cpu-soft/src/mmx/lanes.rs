//! A 64-bit vector taken apart into lanes, lane 0 lowest.

/// A vector of lanes of one kind.
pub(super) trait Lanes: Copy {
    /// One lane.
    type Lane: Copy;

    /// Takes a vector apart.
    fn split(vector: u64) -> Self;

    /// Puts a vector together.
    fn join(self) -> u64;

    /// Combines two vectors lane by lane.
    fn zip(a: Self, b: Self, f: impl Fn(Self::Lane, Self::Lane) -> Self::Lane) -> Self;
}

macro_rules! lanes {
    ($($lane:ty as $unsigned:ty, $count:literal;)*) => {$(
        impl Lanes for [$lane; $count] {
            type Lane = $lane;

            #[inline]
            fn split(vector: u64) -> Self {
                std::array::from_fn(|i| (vector >> (i as u32 * <$lane>::BITS)) as $lane)
            }

            #[inline]
            fn join(self) -> u64 {
                let place = |(i, &lane): (usize, &$lane)| {
                    u64::from(lane as $unsigned) << (i as u32 * <$lane>::BITS)
                };
                self.iter().enumerate().map(place).fold(0, |vector, lane| vector | lane)
            }

            #[inline]
            fn zip(a: Self, b: Self, f: impl Fn($lane, $lane) -> $lane) -> Self {
                std::array::from_fn(|i| f(a[i], b[i]))
            }
        }
    )*};
}

lanes! {
    u8 as u8, 8; i8 as u8, 8; u16 as u16, 4; i16 as u16, 4; u32 as u32, 2; i32 as u32, 2;
    u64 as u64, 1;
}

/// Combines two vectors lane by lane.
#[inline]
pub(super) fn each<L: Lanes>(a: u64, b: u64, f: impl Fn(L::Lane, L::Lane) -> L::Lane) -> u64 {
    L::zip(L::split(a), L::split(b), f).join()
}

/// Changes each lane.
#[inline]
pub(super) fn map<L: Lanes>(a: u64, f: impl Fn(L::Lane) -> L::Lane) -> u64 {
    each::<L>(a, a, |lane, _| f(lane))
}
