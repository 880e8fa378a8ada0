//! What can go wrong, in sentences a user can act on.

use std::io;
use std::path::{Path, PathBuf};

use crate::apt::AptError;
use crate::deb::DebError;
use crate::fetch::FetchError;
use crate::kernel::KernelError;
use crate::packages::IndexError;
use crate::release::ReleaseError;
use crate::resolve::ResolveError;

/// Any failure of building, finding or removing an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image name is not one Riad can build and none of that name was built.
    #[error(
        "there is no image called '{name}'; Riad can build {known}, and `riad image ls` lists the \
         images that are built already"
    )]
    UnknownImage {
        /// What was asked for.
        name: String,
        /// What can be built.
        known: String,
    },
    /// A name that cannot be the name of an image.
    #[error(
        "'{name}' cannot be the name of an image: use lower-case letters, digits, '.', '_' and \
         '-', starting with a letter or digit, at most 64 of them"
    )]
    BadName {
        /// The name given.
        name: String,
    },
    /// A release of Debian Riad does not know.
    #[error("Riad does not know the Debian release '{suite}'; it can build {known}")]
    UnknownSuite {
        /// The release asked for.
        suite: String,
        /// The releases known.
        known: String,
    },
    /// The cache directory could not be chosen.
    #[error(
        "no place for images: neither RIAD_CACHE, XDG_CACHE_HOME nor HOME is set; set RIAD_CACHE to \
         a directory with a few gigabytes free"
    )]
    NoCacheDirectory,
    /// A file system operation failed.
    #[error("cannot {action} {}: {source}{}", path.display(), disk_full_advice(source))]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The host's package configuration does not lead to a Debian archive.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// A release file could not be had or could not be trusted.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// A package index is malformed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The packages asked for cannot be installed together.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A download failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A package is malformed.
    #[error("the package {package} cannot be unpacked: {source}")]
    Deb {
        /// The package file's name.
        package: String,
        /// What is wrong with it.
        source: DebError,
    },
    /// The kernel package is not usable.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The file system could not be laid out.
    #[error(
        "cannot lay out the root file system ({size_mib} MiB): {source}; if it is too small, ask \
         for a larger size"
    )]
    Ext4 {
        /// The size that was asked for, in MiB.
        size_mib: u64,
        /// The writer's reason.
        source: mkext4::Error,
    },
    /// The second stage, run inside a virtual machine, failed.
    #[error("configuring the packages inside a virtual machine failed: {source}")]
    Configure {
        /// The caller's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file cannot be imported.
    #[error("{} cannot be imported: {reason}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// A stored image is damaged.
    #[error(
        "the image {} is damaged ({reason}); remove it with `riad image rm` and build it again",
        path.display()
    )]
    Damaged {
        /// The image's directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// Turns an I/O error into one that names what was being done to which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Names the package a [`DebError`] is about.
    pub(crate) fn deb(package: &str) -> impl FnOnce(DebError) -> Self {
        let package = package.to_owned();
        move |source| Self::Deb { package, source }
    }
}

/// What to do about a full disk; empty for every other error.
pub(crate) fn disk_full_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space there, or set RIAD_CACHE to a directory on another disk"
        }
        _ => "",
    }
}
