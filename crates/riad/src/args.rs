//! The arguments.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use riad_host::images::ImageOptions;
use riad_host::{ImageRef, Network, Publish, Size, SizeError};
use riad_vmm::{CpuModel, EngineKind, MAX_CPUS, VmConfig};

use crate::report::{Failure, OWN_FAILURE};

mod disks;
mod machines;
mod rules;
pub(crate) use disks::{
    DiskAttachArgs, DiskCreateArgs, DiskDetachArgs, DiskResizeArgs, DiskRmArgs, DiskVerb,
};
pub(crate) use machines::{
    CpArgs, CreateArgs, DeleteArgs, EventsArgs, ExecArgs, Fit, ForwardVerb, LogsArgs, LsArgs,
    OneArgs, ProvisionArgs, SetArgs, ShellArgs, SomeArgs, SortBy, StartArgs, StatsArgs, StopArgs,
    TopArgs, TwoArgs, WaitArgs,
};

pub(crate) use rules::{RuleArgs, rule};

/// Real operating systems in virtual machines: one binary, no root, no daemon.
#[derive(Debug, Parser)]
#[command(name = "riad", version, max_term_width = 100, propagate_version = true)]
// Of an option that is there twice, the last counts: for aliases and scripts.
#[command(args_override_self = true)]
#[command(
    after_help = "`riad run debian` and `riad shell` are where to begin; `riad doctor` says what this computer lacks."
)]
pub(crate) struct Cli {
    /// Say more about what Riad does (-vv: still more); RIAD_LOG takes finer directives
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// How lists and tables are written
    #[arg(long, global = true, value_enum)]
    pub(crate) format: Option<Format>,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// How lists and tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
    /// For programs, and for people who read along
    Yaml,
}

/// Shells that can complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What a shell asks.
#[derive(Debug, Args)]
pub(crate) struct CompleteArgs {
    /// The line, up to where the cursor is
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) line: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(RunArgs),
    Create(CreateArgs),
    Start(StartArgs),
    Stop(StopArgs),
    Restart(StopArgs),
    Delete(DeleteArgs),
    Ls(LsArgs),
    Info(OneArgs),
    Stats(StatsArgs),
    Top(TopArgs),
    Events(EventsArgs),
    Exec(ExecArgs),
    Shell(ShellArgs),
    Cp(CpArgs),
    Console(OneArgs),
    Logs(LogsArgs),
    Wait(WaitArgs),
    /// Show the addresses that a machine has on its network, a line each
    ///
    /// On the network `user` they are the machine's alone, and no way to it from this computer: that is
    /// what `riad forward` is for.
    Ip(OneArgs),
    /// Write what ssh needs to reach a running machine: ssh, scp, rsync and editors then do
    ///
    /// The machine's port 22 is forwarded if it is not yet. An ssh server in it is the image's business.
    #[command(after_help = "Example:\n  riad ssh-config dev >>~/.ssh/config\n  ssh dev")]
    SshConfig(OneArgs),
    /// Forwards: what of a machine can be reached from this computer
    #[command(subcommand)]
    Forward(ForwardVerb),
    Why(OneArgs),
    Set(SetArgs),
    /// Keep machines from being deleted
    Protect(SomeArgs),
    /// Let machines be deleted again
    Unprotect(SomeArgs),
    /// Give a stopped machine another name
    Rename(TwoArgs),
    /// Copy a stopped machine under another name
    Clone(TwoArgs),
    Provision(ProvisionArgs),
    Boot(BootArgs),
    /// Disks: what is attached to machines, and outlives them
    #[command(subcommand)]
    Disk(DiskVerb),
    /// Networks: between machines, whom they reach, what is captured, and how they misbehave
    #[command(subcommand)]
    Net(crate::net::NetVerb),
    /// Images: what machines are made from
    #[command(subcommand)]
    Image(ImageVerb),
    /// Look at this computer, and say what Riad lacks and what to do about it
    ///
    /// The exit status is 1 if something will not work.
    Doctor,
    /// Write completions for a shell
    #[command(
        after_help = "For bash: riad completion bash >~/.local/share/bash-completion/completions/riad\nFor zsh:  riad completion zsh >~/.zfunc/_riad, with ~/.zfunc in fpath\nFor fish: riad completion fish >~/.config/fish/completions/riad.fish"
    )]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Say what the last word of a line could become
    #[command(hide = true)]
    Complete(CompleteArgs),
    /// Be the process of a machine; news of its start go to standard input
    #[command(hide = true)]
    Vm {
        /// The machine's folder
        folder: PathBuf,
    },
    /// Be the switch of a network; its socket is standard input
    #[command(hide = true)]
    Switch {
        /// The network's directory
        directory: PathBuf,
    },
    /// Be the process that makes an image: what is wanted comes from standard input
    #[command(hide = true)]
    MakeImage {
        /// The process that wants it
        parent: u32,
    },
    /// Remove what an interrupted build has left
    #[command(hide = true)]
    Sweep {
        /// The status to exit with
        #[arg(long, default_value_t = 0)]
        status: u8,
    },
}

/// Run a command in a fresh machine that is thrown away afterwards
///
/// The machine is made from IMAGE, which is built first if it is missing. Nothing that is written in
/// the machine is kept.
///
/// Without a CMD, a login shell runs. If standard input and standard output are both terminals, CMD
/// gets a terminal too, with job control and the window's size; otherwise its standard streams are
/// pipes, and Ctrl-C interrupts CMD (three times in a row, riad itself).
///
/// The exit status is CMD's; 128 + n if signal n ended it; 127 if there is no such command, 126 if
/// it cannot be executed, and 125 if riad itself failed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad run debian\n  riad run debian -- uname -a\n  echo 2+2 | riad run debian -- bc\n  riad run --cpus 4 --memory 2G debian:trixie -- make -j4"
)]
pub(crate) struct RunArgs {
    /// The image: debian, debian:RELEASE, or the name of one that was built
    pub(crate) image: ImageRef,

    #[command(flatten)]
    pub(crate) hardware: Hardware,

    #[command(flatten)]
    pub(crate) networking: Networking,

    #[command(flatten)]
    pub(crate) conditions: Conditions,

    /// Show the machine's serial console on standard error
    #[arg(long)]
    pub(crate) console: bool,

    /// Say afterwards where the time went, on standard error
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true)]
    pub(crate) timings: Option<Option<Format>>,

    /// Boot this kernel instead of the image's
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// Use this initial RAM disk, which needs the agent in it, instead of the image's
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,

    /// Add to the kernel's command line
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub(crate) append: Option<String>,

    #[command(flatten)]
    pub(crate) sources: Sources,

    /// The command and its arguments, after `--`
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// What CMD finds when it runs.
#[derive(Debug, Args)]
pub(crate) struct Conditions {
    /// Set a variable for CMD; without a value, to what it is here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<OsString>,

    /// Where CMD runs, in the machine [default: the user's home]
    #[arg(short, long, value_name = "DIRECTORY")]
    pub(crate) workdir: Option<OsString>,

    /// Who runs CMD: name, uid, name:group or uid:gid [default: the machine's user, or root]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
}

/// The machine's hardware.
#[derive(Debug, Args)]
pub(crate) struct Hardware {
    /// Processors, 1 to 8 [default: this computer's, at most 4]
    #[arg(long, value_name = "N", value_parser = cpus)]
    pub(crate) cpus: Option<u32>,

    /// Memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) memory: Size,

    /// What runs the guest
    #[arg(long, value_name = "ENGINE", default_value = "auto", value_parser = Engines)]
    pub(crate) engine: EngineKind,

    /// Whose features the processors show: riad-v1, the same on every computer, or host, this one's
    /// own, for which it takes --engine kvm; what is saved is tied to it then
    #[arg(long, value_name = "MODEL", default_value = "riad-v1", value_parser = CpuModel::from_str)]
    pub(crate) cpu: CpuModel,

    /// Memory for translated code, 1M to 1G, besides the guest's own; `soft` uses it
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = code_cache)]
    pub(crate) code_cache: Size,
}

/// The machine's network.
#[derive(Debug, Args)]
pub(crate) struct Networking {
    /// What its network card is plugged into: user, none, tap=NAME or bridge=NAME
    ///
    /// user is a network of the machine's own, which needs no rights. It reaches the world, and neither
    /// this computer's own services nor clouds' metadata; ",host=PORT" opens a port of this computer's
    /// loopback as host.riad.internal, ",allow=RULE", ",deny=RULE" and ",default=deny" say what --allow,
    /// --deny and --net-default say too. tap and bridge are of this computer; ",ip=ADDRESS/PREFIX",
    /// ",gateway=ADDRESS" and ",dns=ADDRESS" set the machine's card up.
    #[arg(long = "net", value_name = "NETWORK", default_value = "user", value_parser = Network::from_str)]
    net: Network,

    #[command(flatten)]
    rules: RuleArgs,

    /// Reach a port of the machine from here, as in 8080:80, udp:5353:53, tcp:0.0.0.0:8080:80 or
    /// unix:/PATH:80; may be given several times
    #[arg(short, long, value_name = "FORWARD", value_parser = Publish::from_str)]
    pub(crate) publish: Vec<Publish>,
}

impl Networking {
    /// The network, with the rules that were given for it.
    pub(crate) fn network(self) -> Result<(Network, Vec<Publish>), Failure> {
        let Self { net, rules, publish } = self;
        Ok((rules.of(net)?, publish))
    }
}

/// Where the packages of an image come from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Building the image")]
pub(crate) struct Sources {
    /// The Debian mirror [default: RIAD_DEBIAN_MIRROR, or what this computer's apt uses]
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,

    /// The keyring that the mirror's signatures are checked with [default: Debian's]
    #[arg(long, value_name = "FILE")]
    pub(crate) keyring: Option<PathBuf>,

    /// Do not check signatures: whoever controls the network controls the image
    #[arg(long, conflicts_with = "keyring")]
    pub(crate) insecure_no_verify: bool,
}

impl Sources {
    /// An image from these sources.
    pub(crate) fn options(self, reference: ImageRef) -> ImageOptions {
        let Self { mirror, keyring, insecure_no_verify } = self;
        ImageOptions { mirror, keyring, insecure_no_verify, ..ImageOptions::new(reference) }
    }
}

/// Boot a kernel, with its serial console on the terminal
///
/// Boots what QEMU's -kernel boots: a Linux bzImage, an ELF file with a PVH note, a Multiboot
/// kernel. Standard input is typed on the first serial port. On a terminal, Ctrl-A x ends the
/// machine, and Ctrl-A Ctrl-A types one Ctrl-A.
///
/// The exit status is 0 when the guest powers off or resets, (value << 1) | 1 when it writes a value
/// to port 0xf4 (QEMU's isa-debug-exit), and 125 when riad or the machine failed.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  riad boot --kernel vmlinuz --initrd initrd.img --append 'console=ttyS0'"
)]
pub(crate) struct BootArgs {
    /// The kernel
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: PathBuf,

    /// An initial RAM disk or Multiboot module; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Vec<PathBuf>,

    /// The kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) append: String,

    /// A raw disk image; may be given several times. With ",ro" at its end, read-only
    #[arg(long, value_name = "FILE[,ro]")]
    pub(crate) disk: Vec<OsString>,

    #[command(flatten)]
    pub(crate) hardware: Hardware,

    /// What its network card is plugged into: none (there is no card), user, tap=NAME or bridge=NAME
    ///
    /// As for `riad run`; the guest asks for its address by DHCP or router advertisements.
    #[arg(long = "net", value_name = "NETWORK", default_value = "none", value_parser = Network::from_str)]
    pub(crate) net: Network,

    /// Leave out the debug exit port
    #[arg(long)]
    pub(crate) no_debug_exit: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// Build an image; or find that the one there is up to date
    Build(BuildArgs),
    /// List the images that there are
    Ls,
    /// Say what an image is
    Info {
        /// Its name, or id as `riad image ls` shows it
        name: String,
    },
    Import(ImportArgs),
    /// Write an image's root file system to a file: a raw disk with ext4 on it
    Export {
        /// Its name, or id as `riad image ls` shows it
        name: String,
        /// The file, which must not be there
        file: PathBuf,
    },
    Prune(PruneArgs),
    /// Remove images, by name or id
    Rm {
        /// Their names, or ids as `riad image ls` shows them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Make an image of a disk or an archive that is there already
///
/// FILE is a disk with an ext4 root file system, with partitions or without, raw or a qcow2 image; or a tar
/// archive of a root file system, also compressed (gzip, xz, zstd), as `docker export` writes it.
///
/// The machine is started with the newest kernel in it (/boot/vmlinuz-VERSION, with
/// /lib/modules/VERSION), or with the one that is given; in place of its initial RAM disk there is riad's
/// agent, with the modules that lead to the root. Where there is no kernel in it, the image debian's is
/// taken: modules of that are not in the image, but for those that it is started with.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad image import disk.qcow2 --name mine\n  docker export box | gzip >box.tar.gz && riad image import box.tar.gz --name box"
)]
pub(crate) struct ImportArgs {
    /// The disk or archive
    pub(crate) file: PathBuf,

    /// What the image is to be called
    #[arg(long)]
    pub(crate) name: String,

    /// The image whose kernel it is started with [default: its own, or debian's]
    #[arg(long, value_name = "IMAGE", conflicts_with = "kernel")]
    pub(crate) kernel_of: Option<String>,

    /// The kernel it is started with, whose modules are in its /lib/modules
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// The size of the file system that an archive is written to [default: 8G]
    #[arg(long)]
    pub(crate) size: Option<Size>,
}

/// Remove images that no name stands for, and downloads that builds have left
///
/// Machines keep the images that they stand on.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove the images that have names, too
    #[arg(long)]
    pub(crate) all: bool,

    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// What to build: debian, or debian:RELEASE
    pub(crate) image: ImageRef,

    /// Packages to install besides the usual ones
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) include: Vec<String>,

    /// A name of its own, to be used in place of `debian`
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// The size of the root file system, which takes only what is in it [default: 8G]
    #[arg(long)]
    pub(crate) size: Option<Size>,

    /// What runs the guest that configures the packages
    #[arg(long, value_name = "ENGINE", default_value = "auto", value_parser = Engines)]
    pub(crate) engine: EngineKind,

    #[command(flatten)]
    pub(crate) sources: Sources,
}

pub(super) fn cpus(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count) if (1..=MAX_CPUS).contains(&count) => Ok(count),
        _ => Err(format!("a machine has 1 to {MAX_CPUS} processors")),
    }
}

pub(super) fn code_cache(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error: SizeError| error.to_string())?;
    if VmConfig::CODE_CACHE.contains(&size.0) {
        return Ok(size);
    }
    let (least, most) = VmConfig::CODE_CACHE.into_inner();
    Err(format!("translated code is kept in {} to {}", Size(least), Size(most)))
}

/// Reads an engine's name, and knows them all for help and completion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Engines;

impl TypedValueParser for Engines {
    type Value = EngineKind;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<EngineKind, clap::Error> {
        // As any other value that is refused, with advice of its own.
        EngineKind::from_str.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(EngineKind::ALL.into_iter().map(|engine| {
            PossibleValue::new(engine.name())
                .help(engine.summary())
                .hide(engine.is_for_developers())
        })))
    }
}

/// Reads the arguments. On failure says why, and gives the status to exit with.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        if is_help {
            // A reader that has seen enough is no failure.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        match advice(&error) {
            Some(advice) => eprintln!("riad: {advice}"),
            None => {
                let text = error.render().to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                // A value that is refused comes with its own advice.
                let is_value = error.kind() == ErrorKind::ValueValidation;
                let shown = if is_value { text.lines().next().unwrap_or(text) } else { text };
                eprintln!("riad: {}", shown.trim_end());
            }
        }
        ExitCode::from(OWN_FAILURE)
    })
}

/// For mistakes of which more can be said than clap says.
fn advice(error: &clap::Error) -> Option<String> {
    let ErrorKind::UnknownArgument = error.kind() else { return None };
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    let mut args = std::env::args_os().skip(1);
    // `riad run debian ls` is what other programs take.
    let verb = args.find(|arg| ["run", "exec"].iter().any(|verb| arg == verb))?;
    (!word.starts_with('-')).then(|| {
        let example = if verb == "run" { "riad run debian" } else { "riad exec NAME" };
        format!("'{word}' is no argument of riad's: put `--` before the command, as in `{example} -- {word}`")
    })
}

#[cfg(test)]
#[path = "args_test.rs"]
mod tests;
