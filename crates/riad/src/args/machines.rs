//! The arguments of the verbs for named machines.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use riad_host::machines::{Boot, MachineUser, Name, NetName};
use riad_host::{ImageRef, Network, Publish, Size, invoker};
use riad_vmm::{CpuModel, EngineKind};

use super::{Conditions, Engines, Hardware, Networking, Sources, code_cache, cpus};

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

    #[command(flatten)]
    pub(crate) networking: Networking,

    /// A network that it is on besides, as `riad net create` makes them; may be given several times
    #[arg(long = "network", value_name = "NAME")]
    pub(crate) networks: Vec<NetName>,

    /// The size of its disk, such as 20G [default: the image's]
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<Size>,

    /// What starts first in it: auto (the image's own init, such as systemd) or agent (nothing else)
    #[arg(long, value_name = "INIT", default_value = "auto", value_parser = Boot::from_str)]
    pub(crate) boot: Boot,

    #[command(flatten)]
    pub(crate) fit: Fit,

    /// A script to run in it once, as root, when it has first started; may be given several times; `-`
    /// is standard input
    #[arg(long, value_name = "SCRIPT")]
    pub(crate) provision: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) sources: Sources,
}

/// Whom the guest is made to fit, at its first start.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who uses it")]
pub(crate) struct Fit {
    /// A user to add, who may use sudo without a password [default: your name; none if you are root]
    #[arg(long, value_name = "NAME", value_parser = MachineUser::from_str)]
    pub(crate) user: Option<MachineUser>,

    /// Add no user: commands are root's
    #[arg(long, conflicts_with = "user")]
    pub(crate) no_user: bool,

    /// A public key that may log in over ssh; may be given several times [default: ~/.ssh/*.pub]
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_key: Vec<PathBuf>,

    /// Let no key log in
    #[arg(long, conflicts_with = "ssh_key")]
    pub(crate) no_ssh_key: bool,

    /// The language of its programs, such as C.UTF-8 [default: yours, if it has that]
    #[arg(long, value_parser = invoker::parse_locale)]
    pub(crate) locale: Option<String>,

    /// Its time zone, such as Europe/Berlin [default: this computer's]
    #[arg(long, value_name = "ZONE", value_parser = invoker::parse_time_zone)]
    pub(crate) time_zone: Option<String>,
}

/// Start machines, and wait until commands can be run in them
///
/// At the first start the scripts of `riad create --provision` run, and what they say is shown. If
/// one fails, the machine goes on running, and the exit status is 125.
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

/// For verbs that take some machines: their names.
#[derive(Debug, Args)]
pub(crate) struct SomeArgs {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,
}

/// For verbs that make one machine of another.
#[derive(Debug, Args)]
pub(crate) struct TwoArgs {
    /// The machine's name
    pub(crate) name: Name,

    /// The new name
    pub(crate) new: Name,
}

/// Show what running machines use: processor time, memory, disks, file systems
///
/// Processor time and rates are those of one interval; counts begin with the guest's last start, and
/// those of the process (memory, its processor time) are of this computer's. What a guest says of
/// itself is left out when it does not answer.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad stats\n  riad stats dev --format json\n  riad stats --watch --interval 5"
)]
pub(crate) struct StatsArgs {
    /// Their names [default: all that run]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<Name>,

    /// Go on showing them, until interrupted: as JSON, a line each time
    #[arg(short, long)]
    pub(crate) watch: bool,

    /// Seconds from one look to the next, such as 0.5
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,
}

/// Watch running machines, as top(1) does processes
///
/// Keys: c, m, d and n sort by processor time, memory, disk and name; q leaves. Where standard output
/// is no terminal, or with --once, one table is written.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// What is first
    #[arg(long, value_enum, default_value_t = SortBy::Cpu)]
    pub(crate) sort: SortBy,

    /// Write one table and leave
    #[arg(long)]
    pub(crate) once: bool,

    /// Seconds from one look to the next, such as 0.5
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    pub(crate) interval: Duration,
}

/// What `top` sorts by; names go upwards, all else downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// Processor time
    Cpu,
    /// Memory of this computer's
    Memory,
    /// Bytes read and written a second
    Disk,
    /// Bytes received and sent a second: traffic
    Network,
    /// Name
    Name,
}

/// Seconds, with a fraction.
fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write a number of seconds, 0.1 to 3600".to_owned()),
    }
}

/// Show what happened to machines: what was made, started, changed, stopped, and by whom
///
/// The record is bounded: what is oldest goes first. As JSON (--format json), an entry is a line.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad events\n  riad events dev --since 1h\n  riad events --follow --format json"
)]
pub(crate) struct EventsArgs {
    /// The machine's name, also of one that is deleted [default: all machines]
    pub(crate) name: Option<Name>,

    /// Go on showing what happens, until interrupted; what happened before is shown with --since
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Only what happened since: 90s, 10m, 2h or 3d ago, or a time in UTC (2026-11-28T18:24:12Z)
    #[arg(long, value_name = "TIME", value_parser = riad_host::journal::since)]
    pub(crate) since: Option<u64>,
}

/// Run a command in a running machine
///
/// If standard input and standard output are both terminals, CMD gets a terminal too; otherwise its
/// standard streams are pipes. The exit status is CMD's; 128 + n if signal n ended it; 127 if there is
/// no such command, 126 if it cannot be executed, and 125 if riad itself failed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad exec dev -- make -C project\n  riad exec -u root dev -- apt-get update\n  tar c . | riad exec -u root dev -- tar x -C /srv"
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

/// Run provisioning scripts in a running machine, as root
///
/// Without a SCRIPT, all of the machine's run again, in their order; otherwise these are added to the
/// machine's, in place of those of the same names, and run. What they say is shown, and kept: `riad logs --provision`. If one fails, those
/// behind it do not run, and the exit status is 125. A script goes on when riad is interrupted.
#[derive(Debug, Args)]
pub(crate) struct ProvisionArgs {
    /// The machine's name
    pub(crate) name: Name,

    /// Files with scripts; `-` is standard input
    #[arg(value_name = "SCRIPT")]
    pub(crate) scripts: Vec<PathBuf>,
}

/// Copy files and directories into a running machine, or out of it
///
/// One side is NAME:PATH, in a machine; a relative PATH begins in the user's home. `-` is standard
/// input or output. Directories are copied with what is in them; permissions and times are kept, and
/// who the files belong to is not: they are the user's in the machine, and yours here. As with cp(1),
/// what is copied to a directory that is there goes into it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad cp project dev:\n  riad cp dev:/var/log/dpkg.log .\n  riad cp -u root - dev:/etc/motd <motd"
)]
pub(crate) struct CpArgs {
    /// Whose files they are in the machine: a user [default: the machine's user, or root]
    #[arg(short, long)]
    pub(crate) user: Option<String>,

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

    /// Show what its provisioning scripts said instead
    #[arg(long, conflicts_with_all = ["follow", "process"])]
    pub(crate) provision: bool,
}

/// Wait until something is true of a machine
///
/// CONDITION is `running` (it has been started), `agent` (commands can be run in it), `system` (its
/// init system has brought everything up), `stopped`, `file:PATH` (there is such a file in it), `ip`
/// (it has an address), `port:N` (something in it takes TCP connections at that port, and not from
/// itself alone), or `ssh` (the same as port:22).
/// The exit status is 0 when it is true, and 124 when the time is over.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The machine's name
    pub(crate) name: Name,

    /// What to wait for: running, agent, system, stopped, file:PATH, ip, port:N or ssh
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

    /// What its network card is plugged into: user, none, tap=NAME or bridge=NAME
    #[arg(long, value_name = "NETWORK", value_parser = Network::from_str)]
    pub(crate) net: Option<Network>,

    /// Whether it is kept from being deleted: on or off
    #[arg(long, value_name = "on|off", value_parser = on_or_off, action = ArgAction::Set)]
    pub(crate) protect: Option<bool>,

    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ForwardVerb {
    /// Forward to a machine: at once if it runs, and from its next start on
    ///
    /// FORWARD is PORT:GUEST-PORT or ADDRESS:PORT:GUEST-PORT, with tcp: or udp: before it if wanted, or
    /// unix:/PATH:GUEST-PORT. Without an ADDRESS it is this computer alone that gets in; PORT 0 takes one
    /// that is free.
    #[command(after_help = "Example:\n  riad forward add web tcp:8080:80")]
    Add {
        /// The machine's name
        name: Name,
        /// What comes in where, and goes to which port of the machine's
        #[arg(required = true, value_name = "FORWARD", value_parser = Publish::from_str)]
        forwards: Vec<Publish>,
    },
    /// Forward no more; connections that were made go on
    Rm {
        /// The machine's name
        name: Name,
        /// A forward, or where it listens, as in tcp:8080
        #[arg(required = true, value_name = "FORWARD")]
        forwards: Vec<String>,
    },
    /// List a machine's forwards
    Ls {
        /// The machine's name
        name: Name,
    },
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
