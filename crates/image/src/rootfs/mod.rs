//! The root file system: packages unpacked into a tree, as dpkg would have left them before it
//! configures them, without root and without running anything of theirs.

mod base;
mod dpkg;
mod second_stage;
mod spool;
mod tree;
mod unpack;

pub use base::{BaseFiles, add_base_files, prepare};
pub use dpkg::DpkgDatabase;
pub use second_stage::{PROGRESS_PREFIX, SECOND_STAGE, SECOND_STAGE_PATH, parse_progress_line};
pub use spool::Spool;
pub use tree::{Attributes, Content, Kind, Node, ROOT, Tree, components};
pub use unpack::{is_excluded, unpack_archive, unpack_kernel, unpack_package};

/// A tree, and the content of its files.
#[derive(Debug)]
pub struct RootFs {
    /// Names and attributes.
    pub tree: Tree,
    /// Content.
    pub spool: Spool,
    /// The time given to everything that no package gives a time, seconds since the Unix epoch.
    pub mtime: u64,
}

impl RootFs {
    /// An empty file system whose files' content goes to a temporary file in `directory`.
    ///
    /// # Errors
    ///
    /// The temporary file cannot be made.
    pub fn new(directory: &std::path::Path, mtime: u64) -> std::io::Result<Self> {
        Ok(Self { tree: Tree::new(mtime), spool: Spool::new(directory)?, mtime })
    }

    /// Puts a small file of root's at a path.
    ///
    /// # Errors
    ///
    /// The path is impossible.
    pub fn write(
        &mut self,
        path: &str,
        mode: u16,
        content: impl Into<Vec<u8>>,
    ) -> Result<(), crate::deb::DebError> {
        let kind = Kind::File(Content::Bytes(content.into()));
        self.tree.put(path, Attributes::root(mode, self.mtime), kind)
    }

    /// The content of the file a path leads to, if it is a file of at most `limit` bytes.
    #[must_use]
    pub fn read(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        match &self.tree.get(path)?.kind {
            Kind::File(content) if content.len() <= limit => self.spool.read(content).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "rootfs_test.rs"]
mod tests;
