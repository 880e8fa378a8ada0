//! Kernel modules: finding them, following what they depend on.
//!
//! Debian's kernel packages have no `modules.dep` (depmod writes it when they are installed), so the
//! dependencies come from the modules themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};

use super::{Files, KernelError, module_info};
use crate::deb::{Bounded, decompress, limits};

/// A driver the agent needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The module's name.
    pub name: &'static str,
    /// Whether a guest is useless without it.
    pub required: bool,
}

const fn required(name: &'static str) -> Wanted {
    Wanted { name, required: true }
}

const fn optional(name: &'static str) -> Wanted {
    Wanted { name, required: false }
}

/// The drivers that stand between a kernel and a usable guest: devices first, in the order in which
/// they are worth having.
pub const MODULES: [Wanted; 12] = [
    required("virtio_pci"),
    required("virtio_blk"),
    // ext4 asks for this algorithm by a name that only a module loader could look up.
    optional("crc32c_generic"),
    optional("crc32c_intel"),
    required("ext4"),
    required("overlay"),
    required("vmw_vsock_virtio_transport"),
    optional("virtio_console"),
    optional("virtio_rng"),
    optional("virtio_net"),
    optional("virtio_mmio"),
    optional("af_packet"),
];

/// A module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Its content, not compressed.
    pub content: Vec<u8>,
}

/// The modules of one kernel.
pub struct Modules<'a> {
    tree: &'a dyn Files,
    version: &'a str,
    /// Paths by name.
    files: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
}

impl<'a> Modules<'a> {
    /// Finds the modules of a kernel in a tree.
    #[must_use]
    pub fn find(tree: &'a dyn Files, version: &'a str) -> Self {
        let directory = format!("lib/modules/{version}");
        let files = tree.below(&directory).into_iter();
        let files = files.filter_map(|path| Some((module_name(&path)?, path))).collect();
        let builtin = tree
            .read(&format!("{directory}/modules.builtin"), 4 << 20)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
            .lines()
            .filter_map(module_name)
            .collect();
        Self { tree, version, files, builtin }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The wanted modules and what they depend on, in the order to load them. What is built into
    /// the kernel is left out.
    ///
    /// # Errors
    ///
    /// A required module is missing, or one is damaged.
    pub fn closure(&self, wanted: &[Wanted]) -> Result<Vec<Module>, KernelError> {
        let mut loaded: Vec<Module> = Vec::new();
        let mut seen: BTreeSet<String> = BTreeSet::new();
        for Wanted { name, required } in wanted {
            if self.builtin.contains(*name) {
                continue;
            }
            if !self.files.contains_key(*name) {
                if *required {
                    return Err(KernelError::NoModule {
                        version: self.version.to_owned(),
                        module: (*name).to_owned(),
                    });
                }
                continue;
            }
            self.add((*name).to_owned(), &mut seen, &mut loaded)?;
        }
        Ok(loaded)
    }

    /// Adds a module after everything it depends on; no recursion.
    fn add(
        &self,
        name: String,
        seen: &mut BTreeSet<String>,
        loaded: &mut Vec<Module>,
    ) -> Result<(), KernelError> {
        // A module on the stack has its content once its dependencies were pushed above it.
        let mut stack: Vec<(String, Option<Vec<u8>>)> = vec![(name, None)];
        while let Some((name, content)) = stack.pop() {
            if let Some(content) = content {
                loaded.push(Module { name, content });
                continue;
            }
            if self.builtin.contains(&name) || !seen.insert(name.clone()) {
                continue;
            }
            let Some(path) = self.files.get(&name) else {
                return Err(KernelError::NoModule {
                    version: self.version.to_owned(),
                    module: name,
                });
            };
            let content = self.read(path)?;
            let needs = self.needs(path, &content)?;
            stack.push((name, Some(content)));
            stack.extend(needs.into_iter().rev().map(|need| (need, None)));
        }
        Ok(())
    }

    /// What must be loaded before a module: its dependencies, and the modules it says to be better
    /// with, if they exist.
    fn needs(&self, path: &str, content: &[u8]) -> Result<Vec<String>, KernelError> {
        let info = |key| {
            module_info(content, key).ok_or_else(|| KernelError::BadModule {
                path: path.to_owned(),
                reason: "it is not a 64-bit kernel module".to_owned(),
            })
        };
        let mut needs = Vec::new();
        for line in info("softdep")? {
            // "pre: a b post: c"
            let mut before = false;
            for word in line.split_whitespace() {
                match word {
                    "pre:" => before = true,
                    "post:" => before = false,
                    name => {
                        let name = name.replace('-', "_");
                        if before && self.files.contains_key(&name) {
                            needs.push(name);
                        }
                    }
                }
            }
        }
        for line in info("depends")? {
            needs.extend(line.split(',').filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")));
        }
        Ok(needs)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, KernelError> {
        let bad = |reason: String| KernelError::BadModule { path: path.to_owned(), reason };
        let raw = self
            .tree
            .read(path, limits::MODULE)
            .ok_or_else(|| bad("it cannot be read".to_owned()))?;
        let extension = path.rsplit_once(".ko").map_or("", |(_, extension)| extension);
        let plain = decompress(BufReader::new(raw.as_slice()), extension)
            .map_err(|error| bad(error.to_string()))?
            .ok_or_else(|| bad("its compression is unknown".to_owned()))?;
        let mut content = Vec::new();
        Bounded::new(plain, "content", limits::MODULE)
            .read_to_end(&mut content)
            .map_err(|error| bad(error.to_string()))?;
        Ok(content)
    }
}

/// The name of the module in a file: `-` and `_` are the same to the kernel.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, extension) = file.split_once(".ko")?;
    matches!(extension, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}
