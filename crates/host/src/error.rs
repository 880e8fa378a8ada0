//! What can go wrong between a command line and a command's exit status, in sentences a user can
//! act on.

use std::io;
use std::path::PathBuf;

use riad_agent::client::ClientError;
use riad_vmm::Ending;

use crate::Stage;
use crate::copy::CopyError;
use crate::limits::PATIENCE;
use crate::machines::MachineError;
use crate::network::NetworkError;

/// The last lines of a machine's console, safe to show, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsoleTail(pub Vec<String>);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image could not be found, built or removed.
    #[error(transparent)]
    Image(#[from] riad_image::Error),
    /// An image could not be made, in a process apart.
    #[error("{sentence}")]
    Apart {
        /// What that process said.
        sentence: String,
        /// The last lines of the console of the machine that was to configure it, where they may tell more.
        console: Option<ConsoleTail>,
    },
    /// There is nothing of that name to remove.
    #[error("there is no image called '{0}'; `riad image ls` lists the images that there are")]
    NoSuchImage(String),
    /// An image cannot be written to a file.
    #[error("cannot write the image to {}: {source}", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that the machine starts with cannot be read.
    #[error("cannot read the {what} {}: {source}", path.display())]
    File {
        /// What it was to be.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel is none, or cannot be started so.
    #[error("cannot boot {kernel}: {source}")]
    Kernel {
        /// The kernel's file.
        kernel: String,
        /// What is wrong with it.
        source: riad_vmm::Error,
    },
    /// The machine cannot be built as asked.
    #[error(transparent)]
    Vm(riad_vmm::Error),
    /// The machine's network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// KVM was asked for, and the one here does not run programs.
    #[error(
        "this host's KVM ({0}) runs kernels and not the programs above them: SYSCALL does not take them to \
         their kernel there. Leave --engine out, or use --engine soft; `riad boot --engine kvm` runs kernels"
    )]
    NoPrograms(String),
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] riad_disk::Error),
    /// This build has no agent for the guest.
    #[error(
        "this riad was built without an agent for {arch} guests; it has them for {has}: use an \
         image of one of those, or another build of riad"
    )]
    NoAgent {
        /// The guest's architecture.
        arch: String,
        /// The architectures that there are agents for.
        has: String,
    },
    /// The host refused something the machine needs.
    #[error("the host refused {what}: {source}")]
    Host {
        /// What was asked of it.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The guest's kernel panicked.
    #[error("stage '{stage}': the guest's kernel panicked: {message}{}", panic_advice(message))]
    Panic {
        /// When.
        stage: Stage,
        /// The kernel's reason.
        message: String,
        /// The console's last lines.
        console: ConsoleTail,
    },
    /// The agent gave up.
    #[error("stage '{stage}': the agent in the guest gave up: {message}")]
    Fatal {
        /// When.
        stage: Stage,
        /// The agent's reason.
        message: String,
        /// The console's last lines.
        console: ConsoleTail,
    },
    /// The machine ended too early.
    #[error("stage '{stage}': {} before the stage was over", describe(ending))]
    Ended {
        /// When.
        stage: Stage,
        /// How.
        ending: Ending,
        /// The console's last lines.
        console: ConsoleTail,
    },
    /// A stage outlived its limit.
    #[error(
        "stage '{stage}' was not over after {limit} seconds; if this host is just slow or busy, \
         {PATIENCE}=3 in the environment triples the limits"
    )]
    Late {
        /// Which.
        stage: Stage,
        /// Its limit, seconds.
        limit: u64,
        /// The console's last lines.
        console: ConsoleTail,
    },
    /// The agent could not be talked to.
    #[error("stage '{stage}': {source}")]
    Agent {
        /// When.
        stage: Stage,
        /// What happened.
        source: ClientError,
        /// The console's last lines.
        console: ConsoleTail,
    },
    /// The agent could not be reached.
    #[error("stage '{stage}': cannot reach the agent in the guest: {source}")]
    Unreachable {
        /// When.
        stage: Stage,
        /// Why not.
        source: io::Error,
        /// The console's last lines.
        console: ConsoleTail,
    },
    /// The command was not started.
    #[error(transparent)]
    NotStarted(ClientError),
    /// The user gave the command up.
    #[error("the command was given up")]
    Aborted,
    /// Files could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A named machine.
    #[error(transparent)]
    Named(#[from] MachineError),
    /// The image's second stage failed.
    #[error("{reason}{}", words(lines))]
    SecondStage {
        /// What happened.
        reason: String,
        /// The last lines it wrote.
        lines: Vec<String>,
    },
}

impl Error {
    /// The exit status that riad ends with: 127 or 126 where a shell would give it for the command,
    /// 125 for what is no fault of the command.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotStarted(error) => error.exit_code(),
            _ => 125,
        }
    }

    /// The console's last lines, where they may tell more.
    #[must_use]
    pub fn console(&self) -> Option<&ConsoleTail> {
        match self {
            Self::Panic { console, .. }
            | Self::Fatal { console, .. }
            | Self::Ended { console, .. }
            | Self::Late { console, .. }
            | Self::Agent { console, .. }
            | Self::Unreachable { console, .. } => Some(console),
            Self::Named(MachineError::NotStarted { console, .. }) => Some(console),
            Self::Apart { console, .. } => console.as_ref(),
            _ => None,
        }
    }

    /// What the monitor refused, with the kernel named where it is the kernel's fault.
    pub(crate) fn vm(kernel: &str) -> impl FnOnce(riad_vmm::Error) -> Self {
        move |source| match source {
            riad_vmm::Error::Boot(_) => Self::Kernel { kernel: kernel.to_owned(), source },
            other => Self::Vm(other),
        }
    }
}

/// How a machine ended, as the start of a sentence.
pub(crate) fn describe(ending: &Ending) -> String {
    match ending {
        Ending::PowerOff => "the machine powered off".to_owned(),
        Ending::Reset => "the machine was reset by its guest".to_owned(),
        Ending::DebugExit(code) => format!("the guest ended the machine with status {code}"),
        Ending::TripleFault { cpu } => {
            format!(
                "processor {cpu} shut down (a triple fault: a fault that the guest could not handle)"
            )
        }
        Ending::Failed(reason) => format!("the machine's processor failed ({reason})"),
    }
}

/// What to do about panics that something can be done about.
fn panic_advice(message: &str) -> &'static str {
    let is_memory = ["deadlocked on memory", "Out of memory"].iter().any(|w| message.contains(w));
    let is_root = message.contains("Unable to mount root fs");
    match (is_memory, is_root) {
        (true, _) => "; give the machine more with --memory",
        (_, true) => "; the kernel did not find the agent: see --initrd and --append",
        _ => "",
    }
}

fn words(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}
