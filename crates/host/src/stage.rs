//! The stages from a command line to a command's first word.

use std::fmt;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Progress;

/// A stage of a machine's life, in order. What a person waits for, what a limit is set to, and what an
/// error names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The process starts and reads its arguments.
    Start,
    /// The image is found, or built.
    Image,
    /// The machine is built and the kernel put into its memory.
    Machine,
    /// The kernel runs, until it starts its first program.
    Kernel,
    /// The agent loads drivers, and finds and mounts the root file system.
    Userland,
    /// The agent introduces itself.
    Agent,
    /// A named machine's guest is made to fit its user: at its first start.
    Setup,
    /// A named machine is in use.
    Running,
    /// The user's command runs.
    Command,
    /// The machine is taken apart.
    Teardown,
}

impl Stage {
    /// The stage's name, as it is in messages and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Image => "image",
            Self::Machine => "machine",
            Self::Kernel => "kernel",
            Self::Userland => "userland",
            Self::Agent => "agent",
            Self::Setup => "setup",
            Self::Running => "running",
            Self::Command => "command",
            Self::Teardown => "teardown",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Hears how far things are.
pub trait Observer {
    /// A stage begins.
    fn stage(&mut self, stage: Stage);
    /// Something happened in the building of an image.
    fn image(&mut self, progress: &Progress);
    /// The program that makes images in a process of its own, given [`make_for`]'s arguments by the
    /// words that it has already; `None` where this process is to make them.
    ///
    /// [`make_for`]: crate::images::make_for
    fn builder(&self) -> Option<Command> {
        None
    }
    /// That process has begun, and has this number; or, with none, it is over.
    fn builds(&mut self, _process: Option<u32>) {}
    /// The process is about to give up what its machine does not need, which `then` does, once. An
    /// observer that has threads of its own ends them before, and may start them again afterwards:
    /// what they do then is confined too.
    fn alone(&mut self, then: &mut dyn FnMut()) {
        then();
    }
}
