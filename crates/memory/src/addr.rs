//! Address types: guest-physical and guest-virtual addresses are not numbers, and not each other.

use serde::{Deserialize, Serialize};

/// Bytes in the smallest page, the unit of dirty tracking.
pub const PAGE_SIZE: u64 = 4096;

/// A guest-physical address.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Gpa(pub u64);

/// A guest-virtual (x86: linear) address.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Gva(pub u64);

impl Gpa {
    /// The address `by` bytes further on; `None` when it would wrap.
    #[must_use]
    pub fn checked_add(self, by: u64) -> Option<Self> {
        self.0.checked_add(by).map(Self)
    }
}

impl std::fmt::Display for Gpa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl std::fmt::Display for Gva {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
