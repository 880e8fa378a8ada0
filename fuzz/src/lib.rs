//! Hostile input, for everything that reads bytes of a guest, of a kernel file or of the network
//! (wall 5): nothing that arrives there may panic, abort, hang or grow the process without bound.
//!
//! A target is a plain function of bytes ([`Target::run`]), so that any fuzzer can drive it; the one
//! here needs nothing but a stable compiler. Its cases are made from a number ([`cases`]): by a
//! target's own generator, which knows what valid input looks like, and by mutation of its seeds. So
//! the pair of seed and number names a case, and a case that kills the process can be made again.
//!
//! `cargo xtask fuzz` runs it, in a build with overflow checks and debug assertions. Where to begin:
//! [`targets`], then one of them, such as `targets/agent.rs`.

pub mod cases;
pub mod input;
pub mod mutate;
pub mod random;
pub mod runner;
pub mod seeds;
pub mod targets;
mod worker;

pub use targets::Target;

#[cfg(test)]
#[path = "fuzz_test.rs"]
mod tests;
