//! What a processor is, for every engine.
//!
//! * [`x86`]: the one table of x86-64 processor state (wall 2), the CPU model `riad-v1`, and the
//!   local APIC.
//! * [`Bus`]: what a processor sees outside of itself.
//! * [`Engine`] and [`Vcpu`]: what lends a machine its processors. `riad-cpu-soft` and
//!   `riad-cpu-kvm` implement them; nothing above this floor knows which one runs.
//!
//! Where to begin: `engine.rs`, then `x86/state.rs`.

mod bus;
mod engine;
mod exits;
pub mod x86;

pub use bus::{Bus, Nowhere};
pub use engine::{Engine, Error, Exit, Limit, Vcpu, VcpuConfig, VcpuHandle};
pub use exits::{ExitKind, Exits};
