//! The translator: 64-bit guest code becomes host code.
//!
//! The host speaks the guest's instruction set, so an instruction is translated into itself: the
//! registers are renamed, and a memory operand is replaced by its host address. Flags, vector and
//! locked instructions are then right by construction. What is left to do is to find host addresses
//! fast, to know when flags are needed, and to get from block to block.
//!
//! * [`class`] says what becomes of an instruction, [`emit`], [`item`], [`operand`], [`stack`] and [`system`] write it down,
//!   [`flags`] knows who needs the status flags.
//! * [`frame`] is what code has at hand; [`stubs`] the routines it shares.
//! * [`cache`] keeps blocks by physical address, so that they outlive context switches and are shared
//!   by processors.
//! * [`thread`] is one processor's side: the way in and out.
//! * [`calls`] is how calls, returns and indirect jumps find the block they lead to.
//! * [`samples`] finds the instructions that seldom stay in a page.
//! * [`sys`] is all that touches the host.
//!
//! What translated code does not know goes to the interpreter: in the middle of a block by a call,
//! and by leaving when it moves control. Leaving is possible at every instruction, with the state as
//! it was before it; only status flags that the block is known to overwrite before anyone reads them
//! may then have another value than the interpreter would give them.

pub(crate) mod asm;
pub(crate) mod cache;
mod calls;
pub(crate) mod class;
pub(crate) mod emit;
pub(crate) mod flags;
mod frame;
mod item;
mod operand;
mod samples;
mod stack;
mod stubs;
pub(crate) mod sys;
mod system;
pub(crate) mod thread;

pub use cache::CacheStats;
pub(crate) use frame::reason;

/// Whether this host can run translated code; otherwise all is interpreted.
#[must_use]
pub fn translates_here() -> bool {
    sys::available()
}
