//! KVM, where there is any: Linux on x86-64.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod absent;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod cpuid;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod dirty;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod engine;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod exits;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod host;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod inject;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kick;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod lapic;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod msr;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod rescue;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod routes;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod run_area;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod state;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod time;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vcpu;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod xsave;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use absent::{KvmEngine, capabilities};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use engine::KvmEngine;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use host::capabilities;
