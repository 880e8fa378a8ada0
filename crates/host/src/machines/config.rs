//! `machine.json`: what a machine is.

use std::fmt;
use std::str::FromStr;

use riad_vmm::{CpuModel, EngineKind};
use serde::{Deserialize, Serialize};

use super::files::Versioned;
use super::{AttachedDisk, AttachedNetwork, GuestSetup};
use crate::network::{Network, Publish};

/// What a machine is. Fields are only ever added, with a default for files that lack them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Version of the format.
    pub schema: u32,
    /// 32 hexadecimal digits that no other machine has; the guest's machine id (machine-id(5)).
    pub id: String,
    /// When it was made, seconds since the Unix epoch.
    pub created: u64,
    /// The image it stands on.
    pub image: MachineImage,
    /// Processors, from the next start on.
    pub cpus: u32,
    /// Bytes of memory, from the next start on.
    pub memory: u64,
    /// Bytes of its disk.
    pub disk: u64,
    /// What runs it.
    pub engine: EngineKind,
    /// Whose features its processors show.
    #[serde(default)]
    pub cpu: CpuModel,
    /// Bytes of translated code that a software engine keeps.
    pub code_cache: u64,
    /// What its process 1 is.
    #[serde(default)]
    pub boot: Boot,
    /// What its network card is plugged into. Machines that were made before there were any have one
    /// from their next start on.
    #[serde(default)]
    pub network: Network,
    /// What of it can be reached from here.
    #[serde(default)]
    pub publish: Vec<Publish>,
    /// Whether it may not be deleted.
    #[serde(default)]
    pub protected: bool,
    /// What its guest is made to fit, at its next start.
    #[serde(default)]
    pub guest: GuestSetup,
    /// Disks that are attached to it, in the order in which its guest finds them behind its own.
    #[serde(default)]
    pub disks: Vec<AttachedDisk>,
    /// Named networks that it is on, in the order of its further network cards.
    #[serde(default)]
    pub networks: Vec<AttachedNetwork>,
}

/// The image that a machine stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineImage {
    /// The directory that it has below `.images`.
    pub id: String,
    /// What it was built as, for people.
    pub name: String,
}

/// What a machine's process 1 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// The image's own init, such as systemd, if it has one; else the agent.
    #[default]
    Auto,
    /// Riad's agent: nothing of the image is started, and the machine is ready soonest.
    Agent,
}

impl Boot {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Auto, Self::Agent];

    /// What users call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Boot {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|boot| boot.name() == word);
        named.ok_or_else(|| format!("'{word}' is neither auto (the image's own init) nor agent"))
    }
}

impl MachineConfig {
    /// The schema that is written.
    pub const SCHEMA: u32 = 1;
}

impl Versioned for MachineConfig {
    const SCHEMA: u32 = MachineConfig::SCHEMA;
}

/// The part of it that says which image is in use.
#[derive(Deserialize)]
pub(super) struct ImageOnly {
    pub(super) image: MachineImage,
}

impl Versioned for ImageOnly {
    const SCHEMA: u32 = MachineConfig::SCHEMA;
}

/// 32 hexadecimal digits, at random.
pub(crate) fn new_id() -> String {
    let mut bytes = [0; 16];
    // The kernel gives so few bytes whole, or the call is not there at all.
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) != Ok(16) {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = since.map_or(0, |since| since.as_nanos());
        bytes = (nanos ^ (u128::from(std::process::id()) << 96)).to_le_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
