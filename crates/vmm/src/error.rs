//! What can go wrong with a machine.

use riad_devices::virtio::blk::WrongDisk;
use riad_machine::boot::BootError;
use riad_machine::pc::PcError;
use riad_machine::pc::map::MapError;

/// What can go wrong with a machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A number of processors no machine has.
    #[error("{0} processors: a machine has 1 to {max}", max = crate::MAX_CPUS)]
    Cpus(u32),
    /// The host's own processor was asked for, from an engine that is none.
    #[error(
        "--cpu host is this computer's own processor, which engine kvm alone lends, and the machine \
         would run on engine {0}: add --engine kvm, or leave --cpu out"
    )]
    CpuModel(crate::EngineKind),
    /// A snapshot of the host's own processor, on another.
    #[error(
        "the machine was saved with --cpu host, and this computer's processor, or what its kernel lends \
         of it, is another: restore it where it was saved; machines that move are made without --cpu"
    )]
    OtherHost,
    /// More memory than the host has.
    #[error(
        "{wanted} MiB of memory are more than this computer has ({has} MiB with its swap space): give \
         the machine less with --memory"
    )]
    HostMemory {
        /// MiB that were asked for.
        wanted: u64,
        /// MiB that there are.
        has: u64,
    },
    /// A number of disks no machine has.
    #[error("{0} disks are more than a machine takes; it takes {1}")]
    Disks(usize, usize),
    /// A number of network cards no machine has.
    #[error("{0} network cards are more than a machine takes; it takes {1}")]
    Cables(usize, usize),
    /// A saved network card with nowhere to go.
    #[error(
        "the saved machine has {0} network cards, and was given fewer networks: give it one for each to \
         restore it"
    )]
    NoCable(usize),
    /// No room for one more while the machine runs.
    #[error(
        "the machine has no free slot for another {0}: detach one first, or restart it, if others were detached that count from its next start on"
    )]
    NoSlot(&'static str),
    /// Nothing that could be unplugged.
    #[error("the machine has no such {0}")]
    NoDevice(&'static str),
    /// The guest keeps what is to be unplugged.
    #[error(
        "the guest did not let the {what} go within {seconds} s: see what uses it there (`riad console`), and try again; a machine that restarts is without it"
    )]
    Held {
        /// What it keeps.
        what: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// There is no machine any more.
    #[error("the machine has ended meanwhile")]
    Ended,
    /// The memory cannot be laid out.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The kernel cannot be started.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The board cannot be built.
    #[error(transparent)]
    Board(#[from] PcError),
    /// The host has no memory for the guest.
    #[error(transparent)]
    Memory(#[from] riad_memory::Error),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] riad_cpu::Error),
    /// A restored machine was given another disk than it had.
    #[error(transparent)]
    Disk(#[from] WrongDisk),
    /// Counting instructions is for machines with one processor.
    #[error(
        "a machine with {0} processors cannot run for a number of instructions; use 1 processor"
    )]
    CannotCount(usize),
    /// The host refused a thread.
    #[error("the host could not start a thread for the machine: {0}")]
    Thread(#[source] std::io::Error),
}
