//! Release files: what an archive's suite contains, signed by Debian.
//!
//! An `InRelease` file is a clear-signed control file. It lists sizes and hashes of the suite's
//! indexes, which list those of the packages: one signature vouches for every byte of an image.
//! <https://wiki.debian.org/DebianRepository/Format> describes the format.

mod date;
mod openpgp;

use std::path::PathBuf;

pub use date::{parse_date, unix_seconds};
pub use openpgp::{Keyring, clear_text, verify_clear_signed};

use crate::deb822::Paragraphs;
use crate::packages::is_sha256;

/// A release file that cannot be used or cannot be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// No keyring to verify with.
    #[error(
        "cannot verify the archive: Debian's keyring is not on this host (looked for {looked}); \
         install the package debian-archive-keyring, name a keyring with `--keyring FILE`, or \
         accept packages that nobody vouches for with `--insecure-no-verify`"
    )]
    MissingKeyring {
        /// Where it was looked for.
        looked: String,
    },
    /// A keyring that cannot be read.
    #[error(
        "cannot verify the archive: the keyring {} cannot be used: {reason}; name another with \
         `--keyring FILE`", path.display()
    )]
    BadKeyring {
        /// The file, or what stands for it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The signature does not hold.
    #[error(
        "the archive's release file {url} is not vouched for: {reason}; if you know this mirror to \
         be signed by another key, name its keyring with `--keyring FILE`, or accept packages that \
         nobody vouches for with `--insecure-no-verify`"
    )]
    BadSignature {
        /// The release file.
        url: String,
        /// Why no signature counts.
        reason: String,
    },
    /// The file is not a release file.
    #[error("the archive's release file {url} is malformed: {reason}")]
    Malformed {
        /// The release file.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The archive is another distribution's.
    #[error(
        "the archive {url} is '{origin}', not Debian; name a Debian mirror with `--mirror URL` or \
         in RIAD_DEBIAN_MIRROR"
    )]
    NotDebian {
        /// The release file.
        url: String,
        /// Whose archive it says it is.
        origin: String,
    },
    /// The archive answered with another release than the one asked for.
    #[error("the archive {url} holds the release '{found}' instead of '{wanted}'")]
    WrongSuite {
        /// The release file.
        url: String,
        /// What it holds.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// The suite has no index for the architecture.
    #[error("the archive {url} has no packages of component '{component}' for {arch}")]
    NoIndex {
        /// The release file.
        url: String,
        /// The component.
        component: String,
        /// The architecture.
        arch: String,
    },
}

/// A file that a release file lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Path below the suite's directory.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// What a release file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Release {
    /// Whose archive it is: `Debian`.
    pub origin: String,
    /// The release's codename, such as `bookworm-security`.
    pub codename: String,
    /// The release's moving name, such as `oldstable-security`.
    pub suite: String,
    /// When it was made, seconds since the Unix epoch; 0 when not told.
    pub date: u64,
    /// Until when it is to be believed, seconds since the Unix epoch.
    pub valid_until: Option<u64>,
    /// Whether indexes can be fetched by their hash.
    pub by_hash: bool,
    /// The listed files.
    files: Vec<ListedFile>,
}

impl Release {
    /// Reads a release file. Its signature is not this function's business.
    ///
    /// # Errors
    ///
    /// What is wrong, as a clause.
    pub fn parse(text: &str) -> Result<Self, String> {
        let paragraph = Paragraphs::new(text)
            .next()
            .ok_or("it is empty")?
            .map_err(|error| error.to_string())?;
        let field = |name| paragraph.get(name).unwrap_or("").trim().to_owned();
        let mut files = Vec::new();
        for line in paragraph.lines("SHA256") {
            let mut words = line.split_whitespace();
            let (Some(sha256), Some(size), Some(path), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(format!("'{}' is no line of a list", clip(line)));
            };
            let sha256 = sha256.to_ascii_lowercase();
            let size = size.parse().map_err(|_| format!("'{}' is no size", clip(size)))?;
            if !is_sha256(&sha256) {
                return Err(format!("'{}' is no SHA-256", clip(&sha256)));
            }
            files.push(ListedFile { path: path.to_owned(), size, sha256 });
        }
        if files.is_empty() {
            return Err("it lists no files by SHA-256".to_owned());
        }
        Ok(Self {
            origin: field("Origin"),
            codename: field("Codename"),
            suite: field("Suite"),
            date: paragraph.get("Date").and_then(parse_date).unwrap_or(0),
            valid_until: paragraph.get("Valid-Until").and_then(parse_date),
            by_hash: paragraph.is_yes("Acquire-By-Hash"),
            files,
        })
    }

    /// The package index of a component: its compressed forms that the archive has and Riad reads,
    /// the smallest first.
    #[must_use]
    pub fn package_indexes(&self, component: &str, arch: &str) -> Vec<&ListedFile> {
        ["xz", "gz"]
            .iter()
            .filter_map(|form| {
                let path = format!("{component}/binary-{arch}/Packages.{form}");
                self.files.iter().find(|file| file.path == path)
            })
            .collect()
    }
}

/// The beginning of a text of unknown length, for an error message.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
#[path = "release_test.rs"]
mod tests;
