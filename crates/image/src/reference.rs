//! The names of images: `debian`, `debian:trixie`, `debian:12`, or a name the user chose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::apt::{KNOWN_SUITES, Suite};
use crate::error::Error;

/// Names an image. Serialized as users write it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum ImageRef {
    /// Debian: the release named, or else the one last built without naming one.
    Debian {
        /// The release.
        suite: Option<Suite>,
    },
    /// An image that was given a name of its own when it was built.
    Named(String),
}

impl ImageRef {
    /// What an image is called in the store, for one architecture.
    pub(crate) fn key(&self, arch: &str) -> String {
        match self {
            Self::Debian { suite: None } => format!("debian-{arch}"),
            Self::Debian { suite: Some(suite) } => format!("debian-{suite}-{arch}"),
            Self::Named(name) => format!("{name}-{arch}"),
        }
    }

    /// What Riad can build, as a sentence lists it.
    pub(crate) fn buildable() -> String {
        format!("'debian' and 'debian:RELEASE' where RELEASE is {KNOWN_SUITES}")
    }

    /// The error for an image of this name that is not there and cannot be built.
    #[must_use]
    pub fn unknown(&self) -> Error {
        Error::UnknownImage { name: self.to_string(), known: Self::buildable() }
    }

    /// Checks a name that a user gives to an image.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`]: it has characters that no name may have, or is one of Riad's own.
    pub fn check_name(name: &str) -> Result<(), Error> {
        let is_plain = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && name.len() <= 64
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if is_plain { Ok(()) } else { Err(Error::BadName { name: name.to_owned() }) }
    }
}

impl FromStr for ImageRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            None if text == "debian" => Ok(Self::Debian { suite: None }),
            Some(("debian", suite)) => Ok(Self::Debian { suite: Some(Suite::parse(suite)?) }),
            Some(_) => Err(Error::UnknownImage { name: text.to_owned(), known: Self::buildable() }),
            None => {
                Self::check_name(text)?;
                Ok(Self::Named(text.to_owned()))
            }
        }
    }
}

impl TryFrom<String> for ImageRef {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(reference: ImageRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { suite: None } => f.write_str("debian"),
            Self::Debian { suite: Some(suite) } => write!(f, "debian:{suite}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
#[path = "reference_test.rs"]
mod tests;
