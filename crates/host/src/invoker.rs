//! Who runs Riad, as far as a new machine is made to fit: name, public keys, locale, time zone.
//!
//! All of it is a guess that an option overrides, so what cannot be found, or cannot be had in a
//! guest, is left out.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::machines::{GuestSetup, MachineUser};

/// Bytes of the longest file of public keys.
const MOST_KEYS: u64 = 64 << 10;
/// Public keys that a machine is given at most.
const MOST_KEY_COUNT: usize = 64;

/// What a public key begins with (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
const KEY_KINDS: [&str; 4] = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];

/// A file that should hold public keys, and does not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the public key {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is the secret half.
    #[error(
        "{} is a private key, which stays where it is: give the public one, {}.pub",
        path.display(), path.display()
    )]
    Private {
        /// The file.
        path: PathBuf,
    },
    /// There is none in it.
    #[error(
        "{} has no public key in it: a line of it begins with ssh-ed25519, ssh-rsa or ecdsa-sha2-...",
        path.display()
    )]
    None {
        /// The file.
        path: PathBuf,
    },
}

/// A guest that fits whoever runs Riad.
#[must_use]
pub fn guest_setup() -> GuestSetup {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let home = variable("HOME").map(PathBuf::from);
    let uid = rustix::process::getuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let zone_link = fs::read_link("/etc/localtime").unwrap_or_default();
    GuestSetup {
        user: user(uid, &passwd, variable("USER").as_deref()),
        keys: home.map(|home| keys_in(&home.join(".ssh"))).unwrap_or_default(),
        locale: ["LC_ALL", "LANG"].into_iter().find_map(variable).and_then(|l| locale(&l)),
        time_zone: variable("TZ")
            .and_then(|zone| time_zone(zone.trim_start_matches(':')))
            .or_else(|| time_zone(zone_link.to_str()?.split_once("zoneinfo/")?.1))
            .or_else(|| time_zone(fs::read_to_string("/etc/timezone").ok()?.trim())),
    }
}

/// The user of that number; root needs no other.
fn user(uid: u32, passwd: &str, variable: Option<&str>) -> Option<MachineUser> {
    if uid == 0 {
        return None;
    }
    let name_of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    let name = passwd.lines().find_map(name_of).or_else(|| variable.map(str::to_owned))?;
    let name = name.parse::<MachineUser>().ok()?.name;
    // Numbers below are the system's own, and may be anyone's in a guest.
    Some(MachineUser { name, uid: (1000..60_000).contains(&uid).then_some(uid) })
}

/// A locale that says something.
fn locale(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.@-".contains(c);
    let is_one = text.len() <= 64 && text.chars().all(is_part) && !["C", "POSIX"].contains(&text);
    is_one.then(|| text.to_owned())
}

/// A time zone by its name in the tz database.
fn time_zone(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_+-".contains(c);
    let is_part = |part: &str| !part.is_empty() && part.chars().all(is_part);
    let is_one = text.len() <= 64 && text.split('/').all(is_part);
    is_one.then(|| text.to_owned())
}

/// A locale as an option gives it.
///
/// # Errors
/// A sentence: it has not the form of one.
pub fn parse_locale(text: &str) -> Result<String, String> {
    let none = || "write the name of a locale, such as C.UTF-8 or de_DE.UTF-8".to_owned();
    if ["C", "POSIX"].contains(&text) {
        return Ok(text.to_owned());
    }
    locale(text).filter(|locale| !locale.is_empty()).ok_or_else(none)
}

/// A time zone as an option gives it.
///
/// # Errors
/// A sentence: it has not the form of one.
pub fn parse_time_zone(text: &str) -> Result<String, String> {
    time_zone(text).ok_or_else(|| "write the name of a time zone, such as Europe/Berlin".to_owned())
}

/// The public keys in a directory, those of the first file first. What cannot be read has none.
fn keys_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|p| p.extension().is_some_and(|e| e == "pub"))
        .collect();
    paths.sort();
    let mut keys: Vec<_> = paths.iter().filter_map(|path| keys(path).ok()).flatten().collect();
    keys.truncate(MOST_KEY_COUNT);
    keys
}

/// The public keys in a file.
///
/// # Errors
/// It cannot be read, or there are none in it.
pub fn keys(path: &Path) -> Result<Vec<String>, KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MOST_KEYS).read_to_string(&mut text).map_err(failed)?;
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::Private { path: path.to_owned() });
    }
    let is_key = |line: &&str| {
        KEY_KINDS.iter().any(|kind| line.starts_with(kind)) && !line.chars().any(char::is_control)
    };
    let keys: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(is_key)
        .take(MOST_KEY_COUNT)
        .map(str::to_owned)
        .collect();
    if keys.is_empty() {
        return Err(KeyError::None { path: path.to_owned() });
    }
    Ok(keys)
}

#[cfg(test)]
#[path = "invoker_test.rs"]
mod tests;
