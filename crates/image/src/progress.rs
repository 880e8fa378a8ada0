//! Progress: a build takes a while, and whoever waits is told what for.

use serde::{Deserialize, Serialize};

/// The stages of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Another process is building the same image; this one waits for it.
    Waiting,
    /// Release files and package indexes are fetched and verified.
    Indexes,
    /// Packages are chosen.
    Resolve,
    /// Packages are downloaded. Counted in bytes.
    Download,
    /// Packages are unpacked.
    Unpack,
    /// The root file system is written. Counted in bytes.
    FileSystem,
    /// Packages are configured inside a virtual machine.
    Configure,
    /// The image is put into the store.
    Store,
}

impl Stage {
    /// A word for the stage, for a progress line.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Indexes => "indexes",
            Self::Resolve => "resolving",
            Self::Download => "downloading",
            Self::Unpack => "unpacking",
            Self::FileSystem => "file system",
            Self::Configure => "configuring",
            Self::Store => "storing",
        }
    }

    /// Whether `done` and `total` count bytes rather than things.
    #[must_use]
    pub fn counts_bytes(self) -> bool {
        matches!(self, Self::Download | Self::FileSystem)
    }
}

/// One thing that happened during a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The stage it belongs to.
    pub stage: Stage,
    /// How much of the stage is done; see [`Stage::counts_bytes`] for the unit.
    pub done: u64,
    /// How much there is to do; 0 when that is not known.
    pub total: u64,
    /// What is being worked on, or the warning.
    pub message: String,
    /// True when the user should see this even without a progress bar.
    pub warning: bool,
}

impl Progress {
    /// A step of a stage.
    #[must_use]
    pub fn step(stage: Stage, done: u64, total: u64, message: impl Into<String>) -> Self {
        Self { stage, done, total, message: message.into(), warning: false }
    }

    /// Something that went wrong without stopping the build.
    #[must_use]
    pub fn warning(stage: Stage, message: impl Into<String>) -> Self {
        Self { stage, done: 0, total: 0, message: message.into(), warning: true }
    }
}
