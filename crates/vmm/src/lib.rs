//! One virtual machine in one process.
//!
//! [`Vm::start`] builds a machine from its [`VmConfig`] and runs it: a thread for each processor,
//! one for timed devices, and those the devices bring. The caller hears of its end by
//! [`Vm::wait`], talks to the guest through [`Vm::vsock`], plugs devices in and
//! out through [`Vm::devices`], and reads its console through the
//! [`Console`] it gave.
//!
//! Where to begin: `config.rs`, then `vm.rs`. `snapshot.rs` is what a machine's state looks like
//! outside of it.

mod config;
mod console;
mod cpu_model;
mod devices;
mod engine;
mod error;
mod functions;
mod host_memory;
mod measure;
mod meter;
mod snapshot;
mod sys;
mod vm;

pub use config::{Disks, EngineKind, Guest, VmConfig};
pub use console::{Console, ConsoleLine};
pub use cpu_model::CpuModel;
pub use devices::Devices;
pub use engine::choose as choose_engine;
pub use error::Error;
pub use measure::{Measured, Speed, measured};
pub use meter::{Meter, Reading};
pub use riad_devices::virtio::blk::{BlkCounts, BlkHandle};
pub use riad_devices::virtio::net::{NetCounters, NetHandle};
pub use riad_devices::virtio::vsock::VsockHandle;
pub use snapshot::{Snapshot, SnapshotError};
pub use vm::{Ending, Keyboard, Vm};

/// The context id a guest has on its vsock (virtio 1.3, 5.10.4); the host is 2.
pub const GUEST_CID: u64 = 3;

/// Processors a machine may have.
pub const MAX_CPUS: u32 = 8;
