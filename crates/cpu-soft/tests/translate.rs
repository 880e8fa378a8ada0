//! The translator against the interpreter.
//!
//! Random programs of 64-bit code run in both tiers from the same state, to the end and to limits
//! that cut them anywhere; everything the guest could see must agree: all of the processor's state,
//! all of memory, what was read and written outside of it, and how many instructions it took. The
//! one exception: status flags that nobody reads any more may be forgotten, so they are compared
//! where a program reads them (every program ends with PUSHFQ), and not where it was cut.
//!
//! Directed tests of the same are small guests: `guests/hot.rs`, and all that stand beside it.
//!
//! * `RIAD_TRANSLATE_CASES=n` multiplies the number of programs (default 1: some seconds).
//! * `RIAD_TRANSLATE_SEED=n` starts from another seed; the one in use is printed.
//! * `RIAD_TRANSLATE_FROM=n` begins with that program of the seed.
//! * `RIAD_TRANSLATE_KEEP_GOING=1` reports every program that differs, not just the first.
//!
//! Where to begin: `translate/side.rs`, then `translate/generate.rs`.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[path = "translate/differential.rs"]
mod differential;
#[path = "translate/generate.rs"]
mod generate;
#[path = "translate/instruction.rs"]
mod instruction;
#[path = "translate/kinds.rs"]
mod kinds;
#[path = "translate/layout.rs"]
mod layout;
#[path = "translate/lockstep.rs"]
mod lockstep;
#[path = "translate/program.rs"]
mod program;
#[path = "oracle/random.rs"]
#[expect(dead_code, reason = "the oracle draws more kinds of values")]
mod random;
#[path = "oracle/select.rs"]
mod select;
#[path = "translate/side.rs"]
mod side;
