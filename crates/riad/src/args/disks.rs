//! The arguments of `riad disk`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use riad_host::Size;
use riad_host::machines::{DiskName, Name};

#[derive(Debug, Subcommand)]
pub(crate) enum DiskVerb {
    Create(DiskCreateArgs),
    /// List the disks that there are, and what they are attached to
    Ls,
    /// Say what a disk is
    Info {
        /// Its name
        disk: DiskName,
    },
    Resize(DiskResizeArgs),
    Attach(DiskAttachArgs),
    Detach(DiskDetachArgs),
    Rm(DiskRmArgs),
}

/// Make a disk that can be attached to machines, and outlives them
///
/// It is empty, and takes only the space of what is written to it; or it is a copy of a raw disk or of a
/// qcow2 image.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad disk create data --size 20G\n  riad disk attach data dev\n  riad restart dev\n  riad exec -u root dev -- sh -c 'mkfs.ext4 /dev/disk/by-id/virtio-data && mount /dev/disk/by-id/virtio-data /srv'"
)]
pub(crate) struct DiskCreateArgs {
    /// Its name, which its guest sees too: at most 20 lower-case letters, digits and '-'
    pub(crate) disk: DiskName,

    /// Its size, such as 20G [default: that of what is copied]
    #[arg(long, required_unless_present = "from")]
    pub(crate) size: Option<Size>,

    /// Copy this file: a raw disk, or a qcow2 image
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
}

/// Make a disk larger, also while a machine runs with it
///
/// What is on it is left as it is: the guest makes its partitions and file systems larger (`resize2fs`).
#[derive(Debug, Args)]
pub(crate) struct DiskResizeArgs {
    /// Its name
    pub(crate) disk: DiskName,

    /// Its new size, such as 40G
    pub(crate) size: Size,
}

/// Attach a disk to a machine: at once if it runs, and from its next start on
///
/// In the guest it is /dev/disk/by-id/virtio-DISK, and the first one attached is /dev/vdb. A machine that
/// is attached to has it alone; with --read-only, several may.
#[derive(Debug, Args)]
pub(crate) struct DiskAttachArgs {
    /// The disk's name
    pub(crate) disk: DiskName,

    /// The machine's name
    pub(crate) name: Name,

    /// The machine only reads it
    #[arg(long)]
    pub(crate) read_only: bool,
}

/// Detach a disk from a machine: at once if it runs and does not use it, and from its next start on
#[derive(Debug, Args)]
pub(crate) struct DiskDetachArgs {
    /// The disk's name
    pub(crate) disk: DiskName,

    /// The machine's name [default: the one that has it]
    pub(crate) name: Option<Name>,
}

/// Remove disks, with everything on them
#[derive(Debug, Args)]
pub(crate) struct DiskRmArgs {
    /// Their names
    #[arg(required = true, value_name = "DISK")]
    pub(crate) disks: Vec<DiskName>,

    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}
