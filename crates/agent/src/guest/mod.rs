//! The program inside the guest.
//!
//! One thread, one `poll(2)` loop ([`server`]), asleep whenever nothing happens. As process 1 of a
//! `riad run` machine it first makes a system out of a bare kernel ([`init`]); in other machines it
//! is a service. A session ([`session`]) is one connection and one command ([`process`]).
//!
//! What is unsafe (fork, signals, vsock addresses, interface flags) stands in [`sys`].

pub(crate) mod boot_options;
pub(crate) mod endpoint;
pub(crate) mod event_link;
pub(crate) mod init;
pub(crate) mod journal;
pub(crate) mod launch;
pub(crate) mod measure;
pub(crate) mod modules;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod pipes;
pub(crate) mod process;
pub(crate) mod reaper;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod shutdown;
pub(crate) mod sys;
pub(crate) mod users;

/// Nanoseconds since the kernel started, suspended time included.
pub(crate) fn boot_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
