//! The software processor.
//!
//! Tier 1 is a complete x86-64 interpreter, the truth that every later tier is held against. Tier 2,
//! [`translate`], turns 64-bit code into host code where the host can run it; what it does not know
//! it leaves to the interpreter. [`lockstep`] runs each block in both and compares.
//!
//! How an instruction runs:
//!
//! 1. [`decode`](mod@decode) turns guest bytes into [`Op`](op::Op)s: `iced-x86` decodes, `lower` fills
//!    in operands and picks a handler from the family's `select` (`int`, `sse`, `x87`, `system`, ...).
//! 2. [`block`] keeps runs of ops, keyed by guest-physical address and mode. A block is stale when
//!    its page was written to since ([`riad_memory::PageTable`]).
//! 3. [`run`] executes blocks, of either tier, and looks at interrupts, timers and requests between
//!    them. Translated code does not look at the clock: the [`timekeeper`] calls it out.
//! 4. Handlers work on [`Cpu`](cpu::Cpu): registers, lazy [`flags`], and memory through the soft
//!    TLB in [`mem`], which is filled by the page walk in [`mmu`].
//!
//! A handler either completes its instruction or returns a [`Fault`](fault::Fault) having changed
//! nothing the guest can see: that is the rule that keeps state precise, and what lets another tier
//! hand any instruction to the interpreter, or take over from it, at any instruction boundary.
//!
//! Where to begin: `op.rs`, `cpu.rs`, then one family such as `int/`.

mod accesses;
pub mod apic;
pub mod block;
pub mod cpu;
pub mod decode;
pub mod engine;
pub mod fault;
pub mod flags;
pub mod int;
mod lockstep;
pub mod lower;
pub mod mem;
pub mod mmu;
pub mod mmx;
pub mod op;
pub mod options;
mod raw;
pub mod run;
pub mod softfloat;
pub mod sse;
pub mod stand_in;
mod sys;
pub mod system;
pub mod timekeeper;
pub mod translate;
pub mod word;
pub mod x87;
pub mod xstate;

pub use engine::{SoftEngine, SoftVcpu};
pub use options::{Options, Tier};
pub use translate::translates_here;
