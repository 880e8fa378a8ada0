//! What a kernel and its modules are looked for in: a tree that was unpacked, or a disk.

use crate::rootfs::{Kind, RootFs};

/// A tree of files. What cannot be read counts as not there.
pub trait Files {
    /// The names in a directory.
    fn names(&self, directory: &str) -> Vec<String>;
    /// The paths of the regular files below a directory.
    fn below(&self, directory: &str) -> Vec<String>;
    /// The content of the file a path leads to, if it is a file of at most `limit` bytes.
    fn read(&self, path: &str, limit: u64) -> Option<Vec<u8>>;
}

impl Files for RootFs {
    fn names(&self, directory: &str) -> Vec<String> {
        match self.tree.get(directory).map(|node| &node.kind) {
            Some(Kind::Directory(entries)) => entries.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    fn below(&self, directory: &str) -> Vec<String> {
        let found = self.tree.below(directory).into_iter();
        found.filter(|(_, node)| matches!(node.kind, Kind::File(_))).map(|(path, _)| path).collect()
    }

    fn read(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        Self::read(self, path, limit)
    }
}
