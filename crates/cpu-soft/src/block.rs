//! Decoded blocks, kept by guest-physical address and mode.

use crate::cpu::Mode;
use crate::op::Op;

/// Slots of the cache; a power of two.
const SLOTS: usize = 32768;

/// A run of decoded instructions in one page.
#[derive(Debug)]
pub struct Block {
    /// Byte offset in RAM of the first instruction.
    at: u64,
    mode: Mode,
    /// The page's code generation when its bytes were read.
    generation: u32,
    /// The instructions.
    pub ops: Vec<Op>,
}

/// Blocks of one processor, direct-mapped.
pub struct BlockCache {
    slots: Vec<Option<Box<Block>>>,
}

impl Default for BlockCache {
    fn default() -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(SLOTS).collect() }
    }
}

impl BlockCache {
    #[inline(always)]
    fn slot(at: u64) -> usize {
        (at ^ at >> 15) as usize & (SLOTS - 1)
    }

    /// The block at byte `at` of RAM, when there is one that is not stale.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, at: u64, mode: Mode, generation: u32) -> Option<&Block> {
        self.slots[Self::slot(at)]
            .as_deref()
            .filter(|block| block.at == at && block.mode == mode && block.generation == generation)
    }

    /// Keeps a block, in place of whatever was in its slot.
    pub fn insert(&mut self, at: u64, mode: Mode, generation: u32, ops: Vec<Op>) {
        self.slots[Self::slot(at)] = Some(Box::new(Block { at, mode, generation, ops }));
    }
}
