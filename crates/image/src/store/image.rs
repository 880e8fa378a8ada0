//! One image of the store.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{write_file, write_json};
use crate::error::Error;
use crate::hash::sha256;
use crate::initramfs;
use crate::version::Version;

/// The version of `image.json` this build of Riad writes, and the newest it reads.
const SCHEMA: u32 = 1;

/// A package of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRecord {
    /// Name.
    pub name: String,
    /// Version.
    pub version: Version,
    /// SHA-256 of the package file.
    pub sha256: String,
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path below the image's directory.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

/// What `image.json` says. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMeta {
    /// Version of the format.
    pub schema: u32,
    /// What the image was built as, such as `debian:bookworm`.
    pub name: String,
    /// Codename of the release.
    pub suite: String,
    /// Debian's name of the architecture.
    pub arch: String,
    /// Version of the kernel, as `uname -r` tells it.
    pub kernel: String,
    /// When it was built, seconds since the Unix epoch.
    pub created: u64,
    /// SHA-256 over everything that went into it.
    pub digest: String,
    /// False when nobody vouched for the packages.
    pub verified: bool,
    /// Where the packages came from: addresses and suites.
    pub archives: Vec<String>,
    /// The packages, by name.
    pub packages: Vec<PackageRecord>,
    /// Kernel modules the agent loads, in that order: files below `modules/`.
    pub modules: Vec<String>,
    /// The partition that the root file system is in; `None` when it fills the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_partition: Option<u32>,
    /// The files that make up the image.
    pub files: Vec<FileRecord>,
}

/// An image that is there and whole.
#[derive(Debug, Clone)]
pub struct Image {
    directory: PathBuf,
    meta: ImageMeta,
}

pub(crate) const ROOTFS: &str = "rootfs.ext4";
pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const MODULES: &str = "modules";
const META: &str = "image.json";

impl ImageMeta {
    /// Checks what [`Image::open`] relies on.
    fn check(&self) -> Result<(), String> {
        if self.schema > SCHEMA {
            return Err(format!("it was made by a newer Riad (format {})", self.schema));
        }
        let is_plain =
            |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if !self.modules.iter().all(|name| is_plain(name)) {
            return Err("image.json has a module with an impossible name".to_owned());
        }
        let has = |path: &str| self.files.iter().any(|file| file.path == path);
        if !has(ROOTFS) || !has(KERNEL) {
            return Err("image.json does not list all files".to_owned());
        }
        Ok(())
    }
}

impl Image {
    /// Opens the image in a directory: reads its description and looks at the size of every file.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], saying what is wrong.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged { path: directory.to_owned(), reason };
        let text = fs::read(directory.join(META))
            .map_err(|error| damaged(format!("{META} cannot be read: {error}")))?;
        let meta: ImageMeta = serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("{META} is malformed: {error}")))?;
        meta.check().map_err(damaged)?;
        for FileRecord { path, size } in &meta.files {
            if path.split('/').any(|part| part.is_empty() || part == "..") {
                return Err(damaged(format!("{META} lists an impossible file")));
            }
            match fs::metadata(directory.join(path)) {
                Ok(m) if m.is_file() && m.len() == *size => {}
                Ok(m) => {
                    return Err(damaged(format!("{path} has {} bytes instead of {size}", m.len())));
                }
                Err(error) => return Err(damaged(format!("{path} cannot be read: {error}"))),
            }
        }
        Ok(Self { directory: directory.to_owned(), meta })
    }

    /// Writes the description of an image whose files are all in `directory`, which makes it one.
    pub(crate) fn create(directory: &Path, mut meta: ImageMeta) -> Result<Self, Error> {
        meta.schema = SCHEMA;
        let paths = [ROOTFS.to_owned(), KERNEL.to_owned()]
            .into_iter()
            .chain(meta.modules.iter().map(|name| format!("{MODULES}/{name}")));
        meta.files = Vec::new();
        for path in paths {
            let file = directory.join(&path);
            let size = fs::metadata(&file).map_err(Error::io("read", &file))?.len();
            meta.files.push(FileRecord { path, size });
        }
        write_json(&directory.join(META), &meta)?;
        Self::open(directory)
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is known about it.
    #[must_use]
    pub fn meta(&self) -> &ImageMeta {
        &self.meta
    }

    /// The root file system: a raw ext4 file system in a sparse file that nobody may write to.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.directory.join(ROOTFS)
    }

    /// The kernel, as the distribution ships it.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.directory.join(KERNEL)
    }

    /// The initial RAM file system with this agent; written on first use for each agent.
    ///
    /// # Errors
    ///
    /// A module cannot be read, or the file cannot be written.
    pub fn initramfs(&self, agent: &[u8]) -> Result<PathBuf, Error> {
        let digest = sha256(agent);
        let path = self.directory.join(format!("initramfs-{}.cpio", &digest[..12]));
        if path.exists() {
            return Ok(path);
        }
        let mut modules = Vec::new();
        for name in &self.meta.modules {
            let file = self.directory.join(MODULES).join(name);
            modules.push((name.clone(), fs::read(&file).map_err(Error::io("read", &file))?));
        }
        let mut archive = Vec::new();
        initramfs::write(&mut archive, agent, &modules).map_err(Error::io("write", &path))?;
        write_file(&path, &archive)?;
        Ok(path)
    }
}
