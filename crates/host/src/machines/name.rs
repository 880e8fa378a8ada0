//! Names of machines.

use std::fmt;
use std::str::FromStr;

use super::MachineError;

/// The name of a machine, which is its host name too: RFC 1123, section 2.1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Characters in the longest name.
    pub const MOST: usize = 63;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = MachineError;

    fn from_str(text: &str) -> Result<Self, MachineError> {
        match is_name(text, Self::MOST) {
            true => Ok(Self(text.to_owned())),
            false => Err(MachineError::BadName(text.to_owned())),
        }
    }
}

/// Whether something can be a name, of so many characters at most.
pub(super) fn is_name(text: &str, most: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends = |b: Option<&u8>| b.is_some_and(|b| inner(*b) && *b != b'-');
    let bytes = text.as_bytes();
    bytes.len() <= most
        && bytes.iter().all(|b| inner(*b))
        && ends(bytes.first())
        && ends(bytes.last())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
