//! What the one who builds a software processor may choose.

/// How far instructions are turned into host code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tier {
    /// Every instruction is interpreted: the truth, and what other hosts have.
    Interpreter,
    /// 64-bit code becomes host code on hosts that can run it; the rest is interpreted.
    #[default]
    Translator,
    /// As [`Translator`](Self::Translator), but every translated block runs in both tiers from the
    /// same state, and the processor stops at the first difference. Slow; for one processor.
    Lockstep,
}

/// Bytes of translated code kept when nothing else is asked for.
pub const DEFAULT_CODE_CACHE: usize = 64 << 20;
/// The least that works: a few long blocks.
pub const LEAST_CODE_CACHE: usize = 1 << 20;
/// The most: code finds code by 32-bit distances.
pub const MOST_CODE_CACHE: usize = 1 << 30;

/// How a machine's software processors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The highest tier used.
    pub tier: Tier,
    /// Bytes of translated code that the processors of a machine share, from [`LEAST_CODE_CACHE`]
    /// to [`MOST_CODE_CACHE`]; other values are moved into that range.
    pub code_cache: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { tier: Tier::default(), code_cache: DEFAULT_CODE_CACHE }
    }
}
