//! What can go wrong with named machines.

use std::io;
use std::path::{Path, PathBuf};

use riad_network::switch::{MOST_MEMBERS, SwitchError};

use super::{DiskName, Machines, Name, NetName, State};

/// What can go wrong with named machines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The directory of machines could not be chosen.
    #[error(
        "no place for machines: neither RIAD_MACHINES, XDG_DATA_HOME nor HOME is set; set \
         RIAD_MACHINES to a directory with a few gigabytes free"
    )]
    NoDirectory,
    /// A name that no machine can have.
    #[error(
        "'{0}' cannot be the name of a machine: use lower-case letters, digits and '-', with a letter \
         or digit at both ends, at most {most} of them",
        most = Name::MOST
    )]
    BadName(String),
    /// There is no machine of that name.
    #[error(
        "there is no machine '{0}'; `riad ls` lists those that there are, `riad create {0}` makes it"
    )]
    NoSuchMachine(Name),
    /// The name is taken.
    #[error("there is a machine '{0}' already: choose another name, or `riad delete {0}` first")]
    Exists(Name),
    /// It would have to be stopped.
    #[error(
        "machine '{name}' is {state}, and can be {what} only when it is stopped: `riad stop {name}`"
    )]
    NotStopped {
        /// The machine.
        name: Name,
        /// What it is instead.
        state: State,
        /// What was to be done to it: `renamed`, ...
        what: &'static str,
    },
    /// It would have to run.
    #[error("machine '{name}' is {state}, not running: `riad start {name}` starts it")]
    NotRunning {
        /// The machine.
        name: Name,
        /// What it is instead.
        state: State,
    },
    /// It ended while something was done in it.
    #[error("machine '{name}' ended meanwhile, and is {state} now; `riad why {name}` tells more")]
    WentAway {
        /// The machine.
        name: Name,
        /// What it is now.
        state: State,
    },
    /// It may not be deleted.
    #[error("machine '{0}' is protected: `riad unprotect {0}` lets it be deleted")]
    Protected(Name),
    /// Something listens there already.
    #[error(
        "machine '{name}' has a forward at {at} already: `riad forward ls {name}` shows it, `riad forward rm \
         {name} {at}` removes it"
    )]
    ForwardExists {
        /// The machine.
        name: Name,
        /// Where it listens.
        at: String,
    },
    /// There is no such forward.
    #[error(
        "machine '{name}' has no forward '{word}': `riad forward ls {name}` shows those that it has"
    )]
    NoSuchForward {
        /// The machine.
        name: Name,
        /// What it was called.
        word: String,
    },
    /// A file was written by a newer Riad.
    #[error(
        "{} was written by a newer Riad (schema {found}; this one reads up to {known}): use that Riad, or \
         a newer one", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest schema that can be read.
        known: u32,
    },
    /// A file cannot be understood.
    #[error(
        "{} is damaged: {reason}; repair it with an editor, or delete the machine", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that no disk can have.
    #[error(
        "'{0}' cannot be the name of a disk: use lower-case letters, digits and '-', with a letter or \
         digit at both ends, at most {most} of them, and no 'riad-' at the beginning",
        most = DiskName::MOST
    )]
    BadDiskName(String),
    /// There is no disk of that name.
    #[error(
        "there is no disk '{0}'; `riad disk ls` lists those that there are, `riad disk create {0} \
         --size 10G` makes it"
    )]
    NoSuchDisk(DiskName),
    /// The name is taken.
    #[error("there is a disk '{0}' already: choose another name, or `riad disk rm {0}` first")]
    DiskExists(DiskName),
    /// Somebody has it.
    #[error("disk '{disk}' is attached to {to}: `riad disk detach {disk}` first")]
    DiskAttached {
        /// The disk.
        disk: DiskName,
        /// The machines that have it.
        to: String,
    },
    /// Several have it.
    #[error("disk '{disk}' is attached to {to}: say which, as in `riad disk detach {disk} NAME`")]
    DiskShared {
        /// The disk.
        disk: DiskName,
        /// The machines that have it.
        to: String,
    },
    /// A machine that runs and keeps it.
    #[error(
        "disk '{disk}' is detached from machine '{machine}' from its next start on, and it has it still: \
         {reason}; `riad disk detach {disk} {machine}` asks it again"
    )]
    DiskHeld {
        /// The disk.
        disk: DiskName,
        /// The machine.
        machine: Name,
        /// Why it does.
        reason: String,
    },
    /// Nobody has it, or another.
    #[error(
        "disk '{disk}' is not attached to {}; `riad disk ls` says what is",
        machine.as_ref().map_or("any machine".to_owned(), |name| format!("machine '{name}'"))
    )]
    DiskNotAttached {
        /// The disk.
        disk: DiskName,
        /// The machine, where one was named.
        machine: Option<Name>,
    },
    /// A machine with no room for another.
    #[error(
        "machine '{0}' has {most} disks attached, and can have no more: `riad disk detach` one",
        most = Machines::MOST_DISKS
    )]
    TooManyDisks(Name),
    /// A size that a disk cannot have.
    #[error("disk '{disk}' cannot have that size: {reason}")]
    DiskSize {
        /// The disk.
        disk: DiskName,
        /// Why not, and what to do.
        reason: String,
    },
    /// A machine's disk cannot be used.
    #[error(
        "disk '{disk}' cannot be used: {source}; `riad disk detach {disk} {machine}` has the machine \
         start without it"
    )]
    AttachedDisk {
        /// The disk.
        disk: String,
        /// The machine that it is attached to.
        machine: Name,
        /// Why not.
        source: Box<MachineError>,
    },
    /// A name that no network can have.
    #[error(
        "'{0}' cannot be the name of a network: use lower-case letters, digits and '-', with a letter or \
         digit at both ends, at most {most} of them",
        most = NetName::MOST
    )]
    BadNetName(String),
    /// There is no network of that name.
    #[error(
        "there is no network '{0}'; `riad net ls` lists those that there are, `riad net create {0}` \
         makes it"
    )]
    NoSuchNetwork(NetName),
    /// The name is taken.
    #[error("there is a network '{0}' already: choose another name, or `riad net rm {0}` first")]
    NetworkExists(NetName),
    /// Machines are on it.
    #[error(
        "network '{network}' has machines on it: {to}; `riad net detach {network} NAME` takes one off"
    )]
    NetworkAttached {
        /// The network.
        network: NetName,
        /// The machines on it.
        to: String,
    },
    /// A machine that was taken off it runs on it still.
    #[error(
        "a machine that was detached from network '{0}' runs on it still: `riad net info {0}` says which, \
         and `riad net detach {0} NAME` asks it again; it leaves when it is stopped, too"
    )]
    NetworkInUse(NetName),
    /// A network with no room for another.
    #[error(
        "network '{0}' has no address left, or has {MOST_MEMBERS} machines on it, and takes no more: \
         `riad net detach {0} NAME` one"
    )]
    NetworkFull(NetName),
    /// A machine that is on it already.
    #[error(
        "machine '{machine}' is on network '{network}' already; `riad net info {network}` says as what"
    )]
    OnNetwork {
        /// The network.
        network: NetName,
        /// The machine.
        machine: Name,
    },
    /// A machine that is not on it.
    #[error(
        "machine '{machine}' is not on network '{network}'; `riad net info {network}` says who is"
    )]
    NotOnNetwork {
        /// The network.
        network: NetName,
        /// The machine.
        machine: Name,
    },
    /// A machine that runs and keeps its card.
    #[error(
        "machine '{machine}' is off network '{network}' from its next start on, and runs on it still: \
         {reason}; `riad net detach {network} {machine}` asks it again"
    )]
    StillOnNetwork {
        /// The network.
        network: NetName,
        /// The machine.
        machine: Name,
        /// Why it does.
        reason: String,
    },
    /// A machine with no room for another.
    #[error(
        "machine '{0}' is on {most} networks, and can be on no more: `riad net detach` it from one",
        most = Machines::MOST_NETWORKS
    )]
    TooManyNetworks(Name),
    /// Addresses that a network cannot have.
    #[error("a network cannot have the addresses {subnet}: {reason}")]
    Subnet {
        /// Those that were asked for.
        subnet: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// An address that a machine cannot have.
    #[error("a machine cannot have the address {address} on network '{network}': {reason}")]
    Address {
        /// The network.
        network: NetName,
        /// The address.
        address: std::net::Ipv4Addr,
        /// Why not.
        reason: String,
    },
    /// A machine's network cannot be used.
    #[error(
        "network '{network}' cannot be used: {source}; `riad net detach {network} {machine}` has the \
         machine start without it"
    )]
    Attached {
        /// The network.
        network: String,
        /// The machine that is on it.
        machine: Name,
        /// Why not.
        source: Box<MachineError>,
    },
    /// A network's switch.
    #[error("network '{network}': {source}{}", switch_advice(source))]
    Switch {
        /// The network.
        network: NetName,
        /// What happened.
        source: SwitchError,
    },
    /// The image that a machine stands on is gone.
    #[error("the image that the machine stands on cannot be used: {0}")]
    Base(riad_image::Error),
    /// A provisioning script cannot be kept.
    #[error("provisioning script '{name}' cannot be kept: {reason}")]
    Script {
        /// What it was called.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] riad_disk::Error),
    /// The machine's process does not do what it was asked to, and says why.
    #[error("machine '{name}': {reason}")]
    Refused {
        /// Its name.
        name: Name,
        /// Why not.
        reason: String,
    },
    /// The machine's process did not answer as it should.
    #[error(
        "the process of machine '{name}' did not answer: {reason}; `riad why {name}` may tell more"
    )]
    Process {
        /// The machine.
        name: Name,
        /// What happened.
        reason: String,
    },
    /// The machine did not start.
    #[error("machine '{name}' did not start: {reason}")]
    NotStarted {
        /// The machine.
        name: Name,
        /// What its process said.
        reason: String,
        /// The console's last lines.
        console: crate::ConsoleTail,
    },
    /// The machine did not stop in time.
    #[error(
        "machine '{name}' did not stop within {seconds} seconds: look at `riad logs {name}`, or \
         `riad stop --force {name}`, which is like pulling its plug"
    )]
    NotStoppedInTime {
        /// The machine.
        name: Name,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A file system operation failed.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl MachineError {
    /// A failure of something that was done to a path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether a file is just not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }
}

/// What to do when a switch is not there.
fn switch_advice(error: &SwitchError) -> &'static str {
    match error {
        SwitchError::Gone => "; it does while a machine on the network runs: `riad start` one",
        _ => "",
    }
}

/// What to do about failures that something can be done about.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on that disk, or set RIAD_MACHINES to a directory on another"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; set RIAD_MACHINES to a directory that you may write to"
        }
        _ => "",
    }
}
