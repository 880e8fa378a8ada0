//! The kernel of an image: which packages have it, and which of its modules the agent must load
//! before the root file system can be mounted.

mod elf;
mod files;
mod modules;

pub use elf::{elf_section, module_info};
pub use files::Files;
pub use modules::{MODULES, Module, Modules, Wanted};

use std::collections::BTreeSet;

use crate::packages::{IndexError, Package, PackageSet};

/// A kernel package that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The archive has no kernel for the architecture.
    #[error("the archive has no kernel package for {arch} (looked for {looked})")]
    NoPackage {
        /// The architecture.
        arch: String,
        /// The names tried.
        looked: String,
    },
    /// The package has no kernel image.
    #[error("the kernel package {package} has no kernel image")]
    NoImage {
        /// The package.
        package: String,
    },
    /// A module that a guest cannot do without is missing.
    #[error(
        "the kernel {version} has no driver '{module}', neither built in nor as a module; a guest \
         cannot start without it"
    )]
    NoModule {
        /// The kernel's version.
        version: String,
        /// The module.
        module: String,
    },
    /// A module file is damaged.
    #[error("the kernel module {path} is damaged: {reason}")]
    BadModule {
        /// Its path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The index has a malformed relationship.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// The packages that have the kernel's image and modules: Debian's kernel for clouds, which leaves
/// out drivers for hardware, or where there is none the general one.
///
/// # Errors
///
/// The archive has none.
pub fn kernel_packages(set: &PackageSet) -> Result<Vec<&Package>, KernelError> {
    let arch = set.arch();
    let names = [format!("linux-image-cloud-{arch}"), format!("linux-image-{arch}")];
    let missing = || KernelError::NoPackage { arch: arch.to_owned(), looked: names.join(" and ") };
    let meta = names.iter().find_map(|name| set.get(name)).ok_or_else(missing)?;
    // From the metapackage to whatever has files: its dependencies among kernel packages.
    let mut found: Vec<&Package> = Vec::new();
    let mut seen = BTreeSet::from([meta.name.as_str()]);
    let mut queue = vec![meta];
    while let Some(package) = queue.pop() {
        for relation in package.depends(arch)?.iter().filter_map(|g| g.alternatives.first()) {
            let is_kernel = ["linux-image-", "linux-modules-", "linux-binary-", "linux-base-"]
                .iter()
                .any(|prefix| relation.name.starts_with(prefix));
            if let Some(next) = set.get(&relation.name).filter(|_| is_kernel)
                && relation.accepts(&next.version)
                && seen.insert(next.name.as_str())
            {
                found.push(next);
                queue.push(next);
            }
        }
    }
    if found.is_empty() { Err(missing()) } else { Ok(found) }
}

#[cfg(test)]
#[path = "kernel_test.rs"]
mod tests;
