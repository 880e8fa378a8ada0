//! Debian packages (deb(5)): an `ar` archive of a version, `control.tar` and `data.tar`.
//!
//! A package comes from a signed archive, but is read as if it did not: every length is checked,
//! what comes out of a decompressor is counted, and nothing is written to the host's file system.

mod ar;
mod compression;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crate::error::disk_full_advice;

pub use ar::{ArMember, read_members};
pub use compression::{Bounded, decompress};

/// A package that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebError {
    /// Reading failed, or a decompressor met damage.
    #[error("{}{}", .0, disk_full_advice(.0))]
    Io(#[from] io::Error),
    /// Not a Debian package, or one of an unknown version.
    #[error("it is not a Debian package: {0}")]
    Format(&'static str),
    /// A compression Riad does not read.
    #[error("its member {0} has a compression that Riad does not read")]
    Compression(String),
    /// Something in it has an unreasonable size.
    #[error("its {what} is larger than {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A path that cannot be in a package.
    #[error("its entry '{path}' {reason}")]
    Entry {
        /// The path, as far as it can be printed.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Limits of one package.
pub mod limits {
    /// Bytes in a control archive.
    pub const CONTROL: u64 = 64 << 20;
    /// Bytes in a data archive. The largest of Debian's packages unpack to about 2 GiB.
    pub const DATA: u64 = 4 << 30;
    /// Entries in a data archive.
    pub const ENTRIES: usize = 500_000;
    /// Bytes in a kernel module.
    pub const MODULE: u64 = 64 << 20;
    /// Files in a control archive.
    pub const CONTROL_FILES: usize = 200;
}

/// An open package.
#[derive(Debug)]
pub struct Deb {
    file: File,
    control: ArMember,
    data: ArMember,
}

impl Deb {
    /// Opens a package.
    ///
    /// # Errors
    ///
    /// It is not one.
    pub fn open(mut file: File) -> Result<Self, DebError> {
        let members = read_members(&mut file)?;
        let Some(version) = members.first().filter(|m| m.name == "debian-binary") else {
            return Err(DebError::Format("its first member is not debian-binary"));
        };
        let mut text = String::new();
        file.seek(SeekFrom::Start(version.offset))?;
        (&mut file).take(version.size.min(16)).read_to_string(&mut text)?;
        if !text.starts_with("2.") {
            return Err(DebError::Format("its format version is not 2"));
        }
        let find = |prefix: &str| members.iter().find(|m| m.name.starts_with(prefix)).cloned();
        let control = find("control.tar").ok_or(DebError::Format("it has no control.tar"))?;
        let data = find("data.tar").ok_or(DebError::Format("it has no data.tar"))?;
        Ok(Self { file, control, data })
    }

    /// The files of the control archive by name: `control`, `md5sums`, `postinst` and so on.
    ///
    /// # Errors
    ///
    /// The archive is damaged or too large.
    pub fn control(&mut self) -> Result<BTreeMap<String, Vec<u8>>, DebError> {
        let mut files = BTreeMap::new();
        let member = self.control.clone();
        let mut archive =
            tar::Archive::new(self.member(&member, "control archive", limits::CONTROL)?);
        for entry in archive.entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = path.strip_prefix("./").unwrap_or(&path).to_owned();
            if name.is_empty() || name.contains(['/', '\0']) {
                continue;
            }
            if files.len() >= limits::CONTROL_FILES {
                return Err(DebError::Format("its control archive has too many files"));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.insert(name, bytes);
        }
        if !files.contains_key("control") {
            return Err(DebError::Format("its control archive has no control file"));
        }
        Ok(files)
    }

    /// The data archive: the files to install.
    ///
    /// # Errors
    ///
    /// Its compression is unknown. Damage shows when it is read.
    pub fn data(&mut self) -> Result<tar::Archive<impl Read + '_>, DebError> {
        let member = self.data.clone();
        Ok(tar::Archive::new(self.member(&member, "data archive", limits::DATA)?))
    }

    fn member<'a>(
        &'a mut self,
        member: &ArMember,
        what: &'static str,
        limit: u64,
    ) -> Result<impl Read + use<'a>, DebError> {
        self.file.seek(SeekFrom::Start(member.offset))?;
        let raw = BufReader::with_capacity(128 << 10, (&mut self.file).take(member.size));
        let extension = member.name.split_once(".tar").map_or("", |(_, extension)| extension);
        let plain = decompress(raw, extension)
            .map_err(DebError::Io)?
            .ok_or_else(|| DebError::Compression(member.name.clone()))?;
        Ok(Bounded::new(plain, what, limit))
    }
}

#[cfg(test)]
#[path = "deb_test.rs"]
mod tests;
