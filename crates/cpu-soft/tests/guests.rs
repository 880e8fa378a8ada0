//! Small guests of our own with known answers: what the processor does between and around
//! instructions. Every test is named after the rule it holds, and cites where the rule is written:
//! "SDM" is the Intel 64 and IA-32 Architectures Software Developer's Manual.
//!
//! Where to begin: `guests/machine.rs`, then `guests/paging.rs`.

#[path = "guests/calls.rs"]
mod calls;
#[path = "guests/debug.rs"]
mod debug;
#[path = "guests/exceptions.rs"]
mod exceptions;
#[path = "guests/identity.rs"]
mod identity;
#[path = "guests/interrupts.rs"]
mod interrupts;
#[path = "guests/locks.rs"]
mod locks;
#[path = "guests/machine.rs"]
mod machine;
#[path = "guests/modes.rs"]
mod modes;
#[path = "guests/paging.rs"]
mod paging;
#[path = "guests/segments.rs"]
mod segments;
#[path = "guests/self_modifying.rs"]
mod self_modifying;
#[path = "guests/state.rs"]
mod state;
#[path = "guests/tables.rs"]
mod tables;
#[path = "guests/tlb.rs"]
mod tlb;
#[path = "guests/v86.rs"]
mod v86;
