//! The machines on this computer: what stands between one virtual machine ([`riad_vmm`]) and a
//! person with a command line.
//!
//! * [`Machine`] is the throw-away machine of `riad run`: [`Machine::start`] brings it from an image
//!   to an agent that answers, [`Machine::run`] runs a command in it.
//! * [`machines`] are the named machines of this user: a folder each. [`process`] is the process that
//!   each of them has while it runs, and the way to talk to it.
//! * [`network`] is what their network cards are plugged into.
//! * [`journal`] is the record of what happened to them.
//! * [`invoker`] is who runs Riad, whom new machines are made to fit.
//! * [`mod@copy`] moves files into a running machine and out of it.
//! * [`images`] finds, builds, lists and removes images. Building boots a machine of ours to run the
//!   packages' own scripts, in `configure.rs`.
//! * [`Kernel`] is the files that `riad boot` starts, where there is no agent.
//! * [`doctor`](mod@doctor) looks at the host and says what is missing.
//!
//! Every wait in here belongs to a [`Stage`], has a limit, and ends with an error that names the
//! stage and carries the console's last lines.
//!
//! # Walls
//!
//! * Nothing here prints, exits, or catches signals: progress goes to an [`Observer`], and what the
//!   user's terminal does is the command's business.
//! * What comes from a guest and is meant for people has passed [`printable`].
//!
//! Where to begin: `machine.rs`, then `boot.rs`, which both kinds of machines start with.

mod boot;
mod cmdline;
mod command;
mod configure;
pub mod copy;
pub mod doctor;
mod engine;
mod error;
pub mod images;
pub mod invoker;
pub mod journal;
mod jumps;
mod kernel;
mod limits;
mod machine;
pub mod machines;
pub mod network;
mod observed;
mod printable;
pub mod process;
mod room;
mod size;
mod stage;
mod timings;
mod watch;
mod watched;

pub use command::Command;
pub use error::{ConsoleTail, Error};
pub use images::{ImageOptions, ImageRef, Progress};
pub use kernel::{Kernel, open_disk, start_error};
pub use machine::{Machine, MachineOptions, Notice};
pub use network::{Network, NetworkError, NetworkStatus, Publish};
pub use printable::printable;
pub use riad_agent::client::{ControlEvent, ControlSender, ExitStatus, SessionIo, control};
pub use riad_agent::protocol::{FileSystem, Measures, TtyRequest};
pub use size::{Size, SizeError};
pub use stage::{Observer, Stage};
pub use timings::{StageTime, Timings};

/// The architecture of guests when nothing else is said, by Debian's name.
pub const DEFAULT_ARCH: &str = "amd64";

/// Processors that a machine gets when nothing is said: the host's, up to four.
#[must_use]
pub fn default_cpus() -> u32 {
    host_cpus().min(4)
}

/// The processors this process may use.
pub(crate) fn host_cpus() -> u32 {
    std::thread::available_parallelism()
        .map_or(1, |count| u32::try_from(count.get()).unwrap_or(riad_vmm::MAX_CPUS))
        .clamp(1, riad_vmm::MAX_CPUS)
}

/// Linux's name of an architecture, which agents go by, for Debian's.
pub(crate) fn linux_arch(debian: &str) -> &str {
    match debian {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        same => same,
    }
}
