//! The arguments of the verbs for named machines.

use std::ffi::OsString;
use std::str::FromStr;

use clap::{ArgAction, Args};
use riad_host::machines::{Boot, Name};
use riad_host::{ImageRef, Size};
use riad_vmm::{CpuModel, EngineKind};

use super::{Conditions, Engines, Hardware, Sources, code_cache, cpus};

/// Make a machine that lives on, from an image
///
/// The machine shares the blocks of its image, so that it is made in an instant and takes only the
/// space of what it writes. It is off until `riad start`. The image is built first if it is missing.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  riad create dev --image debian --cpus 2 --memory 2G --disk 20G\n  riad start dev\n  riad shell dev"
)]
pub(crate) struct CreateArgs {
    /// Its name, which is its host name: lower-case letters, digits and '-'
    pub(crate) name: Name,

    /// The image: debian, debian:RELEASE, or the name of one that was built
    #[arg(long, default_value = "debian")]
    pub(crate) image: ImageRef,

    #[command(flatten)]
    pub(crate) hardware: Hardware,

    /// The size of its disk, such as 20G [default: the image's]
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<Size>,

    /// What starts first in it: auto (the image's own init, such as systemd) or agent (nothing else)
    #[arg(long, value_name = "INIT", default_value = "auto", value_parser = Boot::from_str)]
    pub(crate) boot: Boot,

    #[command(flatten)]
    pub(crate) sources: Sources,
}

/// Start machines, and wait until commands can be run in them
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,
}

/// Stop machines, in an orderly way: services end, file systems are written
///
/// What is not off in time stays on, and the exit status is 125.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,

    /// Pull the plug: what the guest has not written to its disk is lost
    #[arg(short, long)]
    pub(crate) force: bool,

    /// How long each may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    pub(crate) timeout: u64,
}

/// Delete machines, with everything that is on their disks
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,

    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,

    /// Pull the plug of those that run
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// List the machines
///
/// As JSON or YAML (--format), a list of what `riad info` gives for one.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only the names, a line each
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Only those of which this is true: state, image, engine or name, and a value
    #[arg(long, value_name = "KEY=VALUE", value_parser = filter)]
    pub(crate) filter: Vec<(String, String)>,
}

/// For verbs that take a machine: its name.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// The machine's name
    pub(crate) name: Name,
}

/// For verbs that make one machine of another.
#[derive(Debug, Args)]
pub(crate) struct TwoArgs {
    /// The machine's name
    pub(crate) name: Name,

    /// The new name
    pub(crate) new: Name,
}

/// Run a command in a running machine
///
/// If standard input and standard output are both terminals, CMD gets a terminal too; otherwise its
/// standard streams are pipes. The exit status is CMD's; 128 + n if signal n ended it; 127 if there is
/// no such command, 126 if it cannot be executed, and 125 if riad itself failed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad exec dev -- make -C /root/project\n  tar c . | riad exec dev -- tar x -C /srv"
)]
pub(crate) struct ExecArgs {
    /// The machine's name
    pub(crate) name: Name,

    #[command(flatten)]
    pub(crate) conditions: Conditions,

    /// Do not wait for CMD: it runs on without standard streams
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Enter a machine: a login shell, or a command, in it
///
/// The machine is started if it is off. Without a NAME it is the machine `default`, which is made
/// from debian if it is not there.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// The machine's name
    #[arg(default_value = "default")]
    pub(crate) name: Name,

    #[command(flatten)]
    pub(crate) conditions: Conditions,

    /// A command to run in place of the shell, after `--`
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Copy files and directories into a running machine, or out of it
///
/// One side is NAME:PATH, in a machine; a relative PATH begins in root's home. `-` is standard input
/// or output. Directories are copied with what is in them; permissions and times are kept, and who
/// the files belong to is not: they are root's in the machine, and yours here. As with cp(1), what is
/// copied to a directory that is there goes into it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad cp project dev:/root\n  riad cp dev:/var/log/dpkg.log .\n  riad cp - dev:/etc/motd <motd"
)]
pub(crate) struct CpArgs {
    /// What to copy, and where to: all but the last are copied to the last
    #[arg(required = true, num_args = 2.., value_name = "PATH")]
    pub(crate) paths: Vec<OsString>,
}

/// Show what a machine has written to its console since its last start
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The machine's name
    pub(crate) name: Name,

    /// Go on showing what is written, until the machine is off
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Show what the machine's process on this computer said instead
    #[arg(long, conflicts_with = "follow")]
    pub(crate) process: bool,
}

/// Wait until something is true of a machine
///
/// CONDITION is `running` (it has been started), `agent` (commands can be run in it), `system` (its
/// init system has brought everything up), `stopped`, or `file:PATH` (there is such a file in it).
/// The exit status is 0 when it is true, and 124 when the time is over.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The machine's name
    pub(crate) name: Name,

    /// What to wait for: running, agent, system, stopped or file:PATH
    #[arg(value_parser = crate::wait::Condition::from_str)]
    pub(crate) condition: crate::wait::Condition,

    /// How long, in seconds [default: for ever]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
}

/// Change what a machine is
///
/// Says of each change when it counts: now, or from the next start on.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The machine's name
    pub(crate) name: Name,

    /// Processors, 1 to 8
    #[arg(long, value_name = "N", value_parser = cpus)]
    pub(crate) cpus: Option<u32>,

    /// Memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,

    /// The size of its disk, which can only grow
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<Size>,

    /// What runs it
    #[arg(long, value_name = "ENGINE", value_parser = Engines)]
    pub(crate) engine: Option<EngineKind>,

    /// Whose features its processors show: riad-v1 or host
    #[arg(long, value_name = "MODEL", value_parser = CpuModel::from_str)]
    pub(crate) cpu: Option<CpuModel>,

    /// Memory for translated code, 1M to 1G
    #[arg(long, value_name = "SIZE", value_parser = code_cache)]
    pub(crate) code_cache: Option<Size>,

    /// What starts first in it: auto or agent
    #[arg(long, value_name = "INIT", value_parser = Boot::from_str)]
    pub(crate) boot: Option<Boot>,

    /// Whether it is kept from being deleted: on or off
    #[arg(long, value_name = "on|off", value_parser = on_or_off, action = ArgAction::Set)]
    pub(crate) protect: Option<bool>,

    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

fn on_or_off(word: &str) -> Result<bool, String> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

/// The keys that `ls --filter` knows.
const KEYS: [&str; 4] = ["state", "image", "engine", "name"];

fn filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if KEYS.contains(&key) => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("write KEY=VALUE, where KEY is one of {}", KEYS.join(", "))),
    }
}
