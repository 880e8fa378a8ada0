//! Small guests of our own with known answers: what the processor does between and around
//! instructions. Every test is named after the rule it holds, and cites where the rule is written:
//! "SDM" is the Intel 64 and IA-32 Architectures Software Developer's Manual.
//!
//! All of them run in every tier; `cargo test translator::` picks one.
//!
//! Where to begin: `guests/machine.rs`, then `guests/paging.rs`.
#![expect(clippy::duplicate_mod, reason = "the same guests, once for each tier")]

#[path = "guests"]
mod interpreter {
    /// How these guests run.
    const TIER: riad_cpu_soft::Tier = riad_cpu_soft::Tier::Interpreter;
    #[path = "every.rs"]
    mod guests;
}

#[path = "guests"]
mod translator {
    /// How these guests run.
    const TIER: riad_cpu_soft::Tier = riad_cpu_soft::Tier::Translator;
    #[path = "every.rs"]
    mod guests;
}

#[path = "guests"]
mod lockstep {
    /// How these guests run; those of two processors are translated and not compared.
    const TIER: riad_cpu_soft::Tier = riad_cpu_soft::Tier::Lockstep;
    #[path = "every.rs"]
    mod guests;
}
