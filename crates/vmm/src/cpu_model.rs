//! Whose features guests see (`--cpu`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whose features guests see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CpuModel {
    /// Those of the model that every engine has: a saved machine goes on anywhere.
    #[default]
    #[serde(rename = "riad-v1")]
    Riad,
    /// Those of the host's own processor, which the engine `kvm` lends: a saved machine goes on where
    /// the processor is the same.
    #[serde(rename = "host")]
    Host,
}

impl CpuModel {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Riad, Self::Host];

    /// What users call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Riad => "riad-v1",
            Self::Host => "host",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Riad => "the same on every computer and engine",
            Self::Host => "this computer's own, with --engine kvm: what is saved is tied to it",
        }
    }
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CpuModel {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|model| model.name() == word);
        named.ok_or_else(|| format!("'{word}' is not a processor model: expected riad-v1 or host"))
    }
}
