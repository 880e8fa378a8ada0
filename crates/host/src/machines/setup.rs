//! What a guest is made to fit: who uses it, where that is, in what language. Wished for in
//! `machine.json`, and once it was done written down in `setup.json`, by the machine's process.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::files::{Versioned, read_json, write_json};
use super::{Folder, MachineError};

/// What was done, in a machine's folder.
const SETUP: &str = "setup.json";

/// What a guest is made to fit. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestSetup {
    /// Who uses it, besides root.
    pub user: Option<MachineUser>,
    /// Public keys that may log in: as the user, or as root where there is no other.
    pub keys: Vec<String>,
    /// The language of its programs, such as `de_DE.UTF-8`.
    pub locale: Option<String>,
    /// Its time zone, such as `Europe/Berlin`.
    pub time_zone: Option<String>,
}

/// A user of a guest's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineUser {
    /// The name: `[a-z_][a-z0-9_-]*`, 32 characters at most (useradd(8)).
    pub name: String,
    /// The number, if it is free in the guest.
    #[serde(default)]
    pub uid: Option<u32>,
}

impl FromStr for MachineUser {
    type Err = String;

    /// A user by name.
    fn from_str(text: &str) -> Result<Self, String> {
        let first = |b: u8| b.is_ascii_lowercase() || b == b'_';
        let inner = |b: u8| first(b) || b.is_ascii_digit() || b == b'-';
        let is_name = text.len() <= 32
            && text.bytes().next().is_some_and(first)
            && text.bytes().all(inner)
            && text != "root";
        if is_name {
            return Ok(Self { name: text.to_owned(), uid: None });
        }
        Err("a user has lower-case letters, digits, '_' and '-', a letter first, and is not root"
            .to_owned())
    }
}

impl fmt::Display for MachineUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

/// `setup.json`: what a guest was made to fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SetupDone {
    pub(crate) schema: u32,
    /// The host name that it was given.
    pub(crate) hostname: String,
    /// All else.
    pub(crate) guest: GuestSetup,
}

impl Versioned for SetupDone {
    const SCHEMA: u32 = 1;
}

impl SetupDone {
    /// What is to be done for a machine.
    pub(crate) fn wanted(hostname: &str, guest: &GuestSetup) -> Self {
        let schema = <Self as Versioned>::SCHEMA;
        Self { schema, hostname: hostname.to_owned(), guest: guest.clone() }
    }
}

impl Folder {
    /// What the guest was made to fit, if it was.
    pub(crate) fn setup_done(&self) -> Result<Option<SetupDone>, MachineError> {
        match read_json(&self.path().join(SETUP)) {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write_setup_done(&self, done: &SetupDone) -> Result<(), MachineError> {
        write_json(&self.path().join(SETUP), done)
    }

    /// Who runs commands when nobody is named: the user that the guest has been given. `None` is
    /// root.
    ///
    /// # Errors
    /// The file that says it cannot be read, is damaged, or a newer Riad's.
    pub fn user(&self) -> Result<Option<String>, MachineError> {
        Ok(self.setup_done()?.and_then(|done| done.guest.user).map(|user| user.name))
    }
}
