//! A file tree in memory: names and attributes here, the content of files in a [`Spool`].
//!
//! Paths come from packages. They are resolved inside the tree, symbolic links included, so that
//! nothing a path says can lead outside of it: `..` in a path is refused, `..` in a link's target
//! stops at the root.
//!
//! [`Spool`]: super::Spool

use std::collections::BTreeMap;

use crate::deb::DebError;

/// Permissions, owner and time of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, with set-user-ID, set-group-ID and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change, seconds since the Unix epoch.
    pub mtime: u64,
}

impl Attributes {
    /// Root's, with this mode and time.
    #[must_use]
    pub fn root(mode: u16, mtime: u64) -> Self {
        Self { mode, uid: 0, gid: 0, mtime }
    }
}

/// Where the content of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In the spool.
    Spooled {
        /// Start, in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
}

impl Content {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Spooled { len, .. } => *len,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory: names and the numbers of their nodes.
    Directory(BTreeMap<String, usize>),
    /// A regular file.
    File(Content),
    /// A symbolic link.
    Symlink(String),
    /// A character or block device.
    Device {
        /// True for a block device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A node: a file by whatever names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its attributes.
    pub attributes: Attributes,
    /// What it is.
    pub kind: Kind,
}

/// A file tree.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
}

/// The number of the root directory.
pub const ROOT: usize = 0;
/// How many symbolic links one path may go through (what Linux allows).
const MAX_LINKS: usize = 40;
/// How long a path may be.
const MAX_PATH: usize = 4096;
/// How long a name may be.
const MAX_NAME: usize = 255;

fn refuse(path: &str, reason: impl Into<String>) -> DebError {
    DebError::Entry { path: path.chars().take(200).collect(), reason: reason.into() }
}

/// The names in a path.
///
/// # Errors
///
/// The path is too long or contains `..` or a null byte.
pub fn components(path: &str) -> Result<Vec<&str>, DebError> {
    if path.len() > MAX_PATH {
        return Err(refuse(path, "is too long"));
    }
    let names: Vec<&str> =
        path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    for name in &names {
        if *name == ".." {
            return Err(refuse(path, "leads out of the package"));
        }
        if name.contains('\0') || name.len() > MAX_NAME {
            return Err(refuse(path, "has an impossible name"));
        }
    }
    Ok(names)
}

impl Tree {
    /// A tree with an empty root directory.
    #[must_use]
    pub fn new(mtime: u64) -> Self {
        let root = Node {
            attributes: Attributes::root(0o755, mtime),
            kind: Kind::Directory(BTreeMap::new()),
        };
        Self { nodes: vec![root] }
    }

    /// A node by its number, which came from a [`Kind::Directory`] of the same tree.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// How many nodes there are or were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the tree has nothing but its root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// The node a path leads to, through symbolic links.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        let names = components(path).ok()?;
        let number = self.walk(path, &names, true).ok()?.number?;
        self.nodes.get(number)
    }

    /// The node at a path, which may itself be a symbolic link.
    #[must_use]
    pub fn get_link(&self, path: &str) -> Option<&Node> {
        let names = components(path).ok()?;
        let (last, parents) = names.split_last()?;
        let parent = self.walk(path, parents, true).ok()?.number?;
        self.nodes.get(*self.entries(parent)?.get(*last)?)
    }

    fn entries(&self, number: usize) -> Option<&BTreeMap<String, usize>> {
        match &self.nodes.get(number)?.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// Follows names from the root as far as they lead.
    fn walk(&self, path: &str, names: &[&str], follow_last: bool) -> Result<Walk, DebError> {
        let mut pending: Vec<String> = names.iter().rev().map(ToString::to_string).collect();
        // The directories on the way, for `..` in the targets of links.
        let mut way = vec![ROOT];
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let here = way.last().copied().unwrap_or(ROOT);
            let Some(entries) = self.entries(here) else {
                return Err(refuse(path, "has a file where a directory should be"));
            };
            let Some(&next) = entries.get(&name) else {
                pending.push(name);
                pending.reverse();
                return Ok(Walk { number: None, reached: here, missing: pending });
            };
            if let Kind::Symlink(target) = &self.nodes[next].kind
                && (follow_last || !pending.is_empty())
            {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refuse(path, "goes round in circles"));
                }
                if target.starts_with('/') {
                    way.truncate(1);
                }
                pending.extend(
                    target
                        .split('/')
                        .rev()
                        .filter(|name| !name.is_empty() && *name != ".")
                        .map(str::to_owned),
                );
                if pending.len() > MAX_PATH {
                    return Err(refuse(path, "goes round in circles"));
                }
                continue;
            }
            way.push(next);
        }
        let number = way.last().copied().unwrap_or(ROOT);
        Ok(Walk { number: Some(number), reached: number, missing: Vec::new() })
    }

    /// The directory a path leads to; what is missing is made, as root's and for all to read.
    fn directory(&mut self, path: &str, names: &[&str], mtime: u64) -> Result<usize, DebError> {
        let walk = self.walk(path, names, true)?;
        let mut here = walk.reached;
        for name in walk.missing {
            if name == ".." {
                return Err(refuse(path, "goes through a link that leads nowhere"));
            }
            let kind = Kind::Directory(BTreeMap::new());
            here = self.insert(path, here, &name, Attributes::root(0o755, mtime), kind)?;
        }
        match self.entries(here) {
            Some(_) => Ok(here),
            None => Err(refuse(path, "has a file where a directory should be")),
        }
    }

    /// Puts a new node under a name, in place of what may be there.
    fn insert(
        &mut self,
        path: &str,
        parent: usize,
        name: &str,
        attributes: Attributes,
        kind: Kind,
    ) -> Result<usize, DebError> {
        let number = self.nodes.len();
        self.nodes.push(Node { attributes, kind });
        self.name(path, parent, name, number)?;
        Ok(number)
    }

    fn name(
        &mut self,
        path: &str,
        parent: usize,
        name: &str,
        number: usize,
    ) -> Result<(), DebError> {
        match &mut self.nodes[parent].kind {
            Kind::Directory(entries) => {
                entries.insert(name.to_owned(), number);
                Ok(())
            }
            _ => Err(refuse(path, "has a file where a directory should be")),
        }
    }

    /// Puts a node at a path, as dpkg would: a directory that is there stays as it is, and so does
    /// a link to a directory where a directory is to be put, or a directory where a link is.
    /// Directories on the way are made.
    ///
    /// # Errors
    ///
    /// The path is impossible, or a directory would be replaced by a file.
    pub fn put(&mut self, path: &str, attributes: Attributes, kind: Kind) -> Result<(), DebError> {
        let names = components(path)?;
        let Some((last, parents)) = names.split_last() else {
            // The root itself: only its attributes can change.
            if matches!(kind, Kind::Directory(_)) {
                self.nodes[ROOT].attributes = attributes;
            }
            return Ok(());
        };
        let parent = self.directory(path, parents, attributes.mtime)?;
        let there = self.entries(parent).and_then(|entries| entries.get(*last)).copied();
        if let Some(there) = there {
            let is_directory = matches!(self.nodes[there].kind, Kind::Directory(_));
            match (&self.nodes[there].kind, &kind) {
                (Kind::Directory(_), Kind::Directory(_) | Kind::Symlink(_)) => return Ok(()),
                (Kind::Symlink(_), Kind::Directory(_)) => {
                    self.directory(path, &names, attributes.mtime)?;
                    return Ok(());
                }
                _ if is_directory => {
                    return Err(refuse(path, "would replace a directory by a file"));
                }
                _ => {}
            }
        }
        self.insert(path, parent, last, attributes, kind)?;
        Ok(())
    }

    /// Gives the file at `target` another name.
    ///
    /// # Errors
    ///
    /// A path is impossible, or there is no file at `target`.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), DebError> {
        let names = components(path)?;
        let target_names = components(target)?;
        let walk = self.walk(target, &target_names, false)?;
        let Some(number) = walk.number.filter(|&n| self.entries(n).is_none()) else {
            return Err(refuse(path, format!("is a link to '{target}', which is not there")));
        };
        let Some((last, parents)) = names.split_last() else {
            return Err(refuse(path, "is not a file"));
        };
        let mtime = self.nodes[number].attributes.mtime;
        let parent = self.directory(path, parents, mtime)?;
        let there = self.entries(parent).and_then(|entries| entries.get(*last)).copied();
        if there.is_some_and(|there| self.entries(there).is_some()) {
            return Err(refuse(path, "would replace a directory by a file"));
        }
        self.name(path, parent, last, number)
    }

    /// Sets the attributes of what is at a path, if anything is.
    pub fn set_attributes(&mut self, path: &str, attributes: Attributes) {
        let Ok(names) = components(path) else { return };
        if let Ok(Walk { number: Some(number), .. }) = self.walk(path, &names, true) {
            self.nodes[number].attributes = attributes;
        }
    }

    /// All paths below a directory, with their nodes, in order: parents before children.
    #[must_use]
    pub fn below(&self, path: &str) -> Vec<(String, &Node)> {
        let Ok(names) = components(path) else { return Vec::new() };
        let Ok(Walk { number: Some(start), .. }) = self.walk(path, &names, true) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut stack = vec![(names.join("/"), start)];
        while let Some((prefix, number)) = stack.pop() {
            if number != start {
                found.push((prefix.clone(), &self.nodes[number]));
            }
            for (name, &child) in self.entries(number).into_iter().flatten().rev() {
                let path =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
                stack.push((path, child));
            }
        }
        found
    }
}

/// How far a path leads.
struct Walk {
    /// The node at its end, if it is there.
    number: Option<usize>,
    /// The last node reached.
    reached: usize,
    /// The names that are missing.
    missing: Vec<String>,
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tests;
