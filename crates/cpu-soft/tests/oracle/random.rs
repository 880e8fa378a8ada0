//! Random values that favour the edges.

/// SplitMix64: small, and the same everywhere, so that a failing case comes again.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// From a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An integer: random, small, a power of two, or around the sign boundary of some width.
    pub(crate) fn integer(&mut self) -> u64 {
        let random = self.bits();
        let place = self.below(64) as u32;
        let wobble = self.below(5).wrapping_sub(2);
        match self.below(12) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => 1u64 << place,
            4 => (1u64 << place).wrapping_add(wobble),
            5 => u64::MAX << place,
            6 => self.pick(&[0x7f, 0x7fff, 0x7fff_ffff, i64::MAX as u64]).wrapping_add(wobble),
            7 => self.below(64),
            8 => wobble,
            9 => random & 0x0101_0101_0101_0101u64.wrapping_mul(0x7f + (random >> 56 & 1)),
            _ => random,
        }
    }

    /// Bits of a floating-point number with `fraction` bits of fraction and `exponent` of exponent.
    pub(crate) fn float(&mut self, exponent: u32, fraction: u32) -> u64 {
        let top = (1u64 << exponent) - 1;
        let bias = top >> 1;
        let field = match self.below(12) {
            0 => 0,
            1 => top,
            2 => 1,
            3 => top - 1,
            4..8 => bias + self.below(70) - 35,
            _ => self.below(top + 1),
        };
        let all = (1u64 << fraction) - 1;
        let value = match self.below(6) {
            0 => 0,
            1 => all,
            2 => 1u64 << self.below(u64::from(fraction)),
            3 => all << self.below(u64::from(fraction)) & all,
            _ => self.bits() & all,
        };
        self.below(2) << (exponent + fraction) | field << fraction | value
    }

    /// Eight bytes of data: an integer, a double or two singles.
    pub(crate) fn data(&mut self) -> u64 {
        match self.below(4) {
            0 => self.float(11, 52),
            1 => self.float(8, 23) | self.float(8, 23) << 32,
            _ => self.integer(),
        }
    }

    /// Sixteen bytes of data.
    pub(crate) fn vector(&mut self) -> u128 {
        u128::from(self.data()) | u128::from(self.data()) << 64
    }

    /// An 80-bit number: sign and exponent, significand. Unsupported encodings are among them.
    pub(crate) fn extended(&mut self) -> (u16, u64) {
        let field = match self.below(12) {
            0 => 0,
            1 => 0x7fff,
            2 => 1,
            3 => 0x7ffe,
            4..10 => 0x3fff + self.below(140) as u16 - 70,
            _ => self.below(0x8000) as u16,
        };
        let mut significand = match self.below(6) {
            0 => 1 << 63,
            1 => u64::MAX,
            2 => 1 << 63 | 1u64 << self.below(63),
            3 => u64::MAX << self.below(64),
            _ => self.bits() | 1 << 63,
        };
        if field == 0 && !self.once_in(4) {
            significand &= !(1 << 63);
        }
        if self.once_in(16) {
            significand = self.integer();
        }
        (field | (self.below(2) as u16) << 15, significand)
    }

    /// Fills with random bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for cell in bytes.chunks_mut(8) {
            let bits = self.bits().to_le_bytes();
            cell.copy_from_slice(&bits[..cell.len()]);
        }
    }
}
