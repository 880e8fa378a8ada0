//! `run.json`: a machine's last start, and how it goes or went. Written by the machine's process.

use serde::{Deserialize, Serialize};

use super::files::Versioned;

/// A machine's last start. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Version of the format.
    pub schema: u32,
    /// The number of its process. Whether that is alive, only the lock `alive` tells.
    pub pid: u32,
    /// What runs it: the engine's name, never `auto`.
    pub engine: String,
    /// Processors that it runs with.
    pub cpus: u32,
    /// Bytes of memory that it runs with.
    pub memory: u64,
    /// When the process began, milliseconds since the Unix epoch.
    pub began: u64,
    /// How many times the guest restarted itself since.
    #[serde(default)]
    pub reboots: u32,
    /// Where it is.
    pub phase: Phase,
    /// The stage of the start that it is in, or was in when it failed.
    pub stage: String,
    /// The stages that are over, in order.
    pub stages: Vec<StageMark>,
    /// The init system's own word once it has said it: `running`, `degraded`, ...; `none` when the
    /// agent is all the init that there is.
    #[serde(default)]
    pub system: Option<String>,
    /// The disks that it runs with besides its own, by name, in order.
    #[serde(default)]
    pub disks: Vec<String>,
    /// What the host's kernel confines the process by: see `riad_confine`.
    #[serde(default)]
    pub confined: Vec<String>,
    /// What did not go as it should, and is no reason to be off.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What the guest waits for, and what to do, in a sentence; as when its disk's file system is full.
    #[serde(default)]
    pub waits: Option<String>,
    /// How it ended, when it has.
    #[serde(default)]
    pub ended: Option<Ended>,
}

/// How long a stage of a start took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageMark {
    /// Which.
    pub stage: String,
    /// Milliseconds.
    pub ms: f64,
}

/// Where a machine's process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It boots; the agent does not answer yet.
    Starting,
    /// The agent answers.
    Running,
    /// It was told to stop.
    Stopping,
    /// It is over.
    Ended,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, milliseconds since the Unix epoch.
    pub at: u64,
    /// How.
    pub how: How,
    /// One sentence.
    pub message: String,
    /// The console's last lines, where they may tell more.
    #[serde(default)]
    pub console: Vec<String>,
}

/// The ways in which a run can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The guest powered off.
    PoweredOff,
    /// `riad stop --force`.
    Forced,
    /// Something went wrong.
    Failed,
}

impl RunState {
    /// The schema that is written.
    pub const SCHEMA: u32 = 1;
}

impl Versioned for RunState {
    const SCHEMA: u32 = RunState::SCHEMA;
}
