//! A source of random numbers that gives the same ones again: xorshift64*.

/// The generator. Its whole state is one number, which is never 0.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator for this seed. Seeds that are close to each other give unrelated numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // SplitMix64's finaliser.
        let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ (z >> 31)) | 1)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A random byte.
    pub fn byte(&mut self) -> u8 {
        (self.bits() >> 56) as u8
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias does not matter here.
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// Yes, once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of them; `None` when there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// A number that breaks things more often than others do: near 0, near a power of two, near the
    /// largest, or any.
    pub fn edge(&mut self) -> u64 {
        let near = (self.below(5) as u64).wrapping_sub(2);
        match self.below(5) {
            0 => self.below(17) as u64,
            1 => (1u64 << self.below(64)).wrapping_add(near),
            2 => u64::MAX.wrapping_sub(self.below(17) as u64),
            3 => u64::from(u32::MAX).wrapping_add(near),
            _ => self.bits(),
        }
    }
}
