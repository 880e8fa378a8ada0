//! Decoded blocks, kept by guest-physical address and mode.
//!
//! What the loop reads for every block is laid out for the host's caches: a slot holds all that a
//! look-up compares, and the ops of blocks decoded one after the other lie one after the other. The
//! ops are never freed one by one: when their store is full, everything is forgotten at once.

use crate::cpu::Mode;
use crate::op::Op;

/// Slots of the cache; a power of two.
const SLOTS: usize = 1 << 16;
/// Ops that are kept: 10 MiB of them.
const OPS: usize = 1 << 18;

/// Where a block's ops are.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Byte offset in RAM of the first instruction.
    at: u64,
    /// The page's code generation when its bytes were read.
    generation: u32,
    /// The block's first op.
    first: u32,
    mode: Mode,
    /// Number of ops; 0 in an empty slot.
    len: u8,
}

const EMPTY: Slot = Slot { at: 0, generation: 0, first: 0, mode: Mode::Real, len: 0 };

/// Blocks of one processor, direct-mapped.
pub struct BlockCache {
    slots: Box<[Slot]>,
    ops: Vec<Op>,
    /// Slots that were filled since all were empty.
    filled: Vec<u16>,
}

impl Default for BlockCache {
    fn default() -> Self {
        Self { slots: vec![EMPTY; SLOTS].into_boxed_slice(), ops: Vec::new(), filled: Vec::new() }
    }
}

impl BlockCache {
    #[inline(always)]
    fn slot(at: u64) -> usize {
        (at ^ at >> 16) as usize & (SLOTS - 1)
    }

    /// The ops of the block at byte `at` of RAM, when there is one that is not stale.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, at: u64, mode: Mode, generation: u32) -> Option<&[Op]> {
        let slot = &self.slots[Self::slot(at)];
        if slot.at != at || slot.generation != generation || slot.mode != mode || slot.len == 0 {
            return None;
        }
        let first = slot.first as usize;
        self.ops.get(first..first + usize::from(slot.len))
    }

    /// Forgets all blocks, in a time that goes with their number.
    pub fn forget(&mut self) {
        for slot in self.filled.drain(..) {
            self.slots[usize::from(slot)] = EMPTY;
        }
        self.ops.clear();
    }

    /// Keeps a block of 1 to 255 ops, in place of whatever was in its slot, and returns it.
    pub fn insert(&mut self, at: u64, mode: Mode, generation: u32, ops: &[Op]) -> &[Op] {
        if self.ops.len() + ops.len() > OPS {
            self.forget();
        }
        let (first, len) = (self.ops.len(), ops.len().min(usize::from(u8::MAX)));
        self.ops.extend_from_slice(&ops[..len]);
        let slot = Self::slot(at);
        self.filled.push(slot as u16);
        self.slots[slot] = Slot { at, generation, first: first as u32, mode, len: len as u8 };
        &self.ops[first..]
    }
}
