//! KVM, where there is any: Linux on x86-64.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod absent;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use absent::{KvmEngine, capabilities, is_there};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use present::{KvmEngine, capabilities, is_there};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "."]
mod present {
    mod bells;
    mod cpuid;
    mod dirty;
    mod engine;
    mod host;
    mod inject;
    mod kick;
    mod lapic;
    mod msr;
    mod rescue;
    mod routes;
    mod run_area;
    mod state;
    mod time;
    mod turns;
    mod vcpu;
    mod xsave;

    pub use engine::KvmEngine;
    pub use host::{capabilities, is_there};
}
