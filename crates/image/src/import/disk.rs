//! A disk that is imported, and the ext4 file systems on it, which are read and never mounted.
//!
//! The bytes are hostile. Reading a file system is `ext4-view`'s, which checks what it follows; what is
//! read here is bounded in length, depth and number.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ext4_view::{Ext4, Ext4Read};

use super::place::Place;
use crate::kernel::Files;

/// Entries of directories that are looked at in one search.
const MOST_ENTRIES: usize = 100_000;
/// How deep a search goes.
const MOST_DEPTH: usize = 12;

/// A disk's bytes, whatever the format of the file that they are in.
pub trait DiskBytes: Send + Sync + fmt::Debug {
    /// How many there are.
    fn size(&self) -> u64;
    /// Fills a buffer from an offset.
    ///
    /// # Errors
    /// The bytes are not there, or cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A raw disk.
#[derive(Debug)]
pub(super) struct Raw(File, u64);

impl Raw {
    /// The disk in an open file. A block device's metadata has no size; its end does.
    pub(super) fn new(mut file: File) -> io::Result<Self> {
        let size = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        Ok(Self(file, size))
    }
}

impl DiskBytes for Raw {
    fn size(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// A part of a disk, as `ext4-view` reads it.
struct Part {
    disk: Arc<dyn DiskBytes>,
    place: Place,
}

impl Ext4Read for Part {
    fn read(
        &mut self,
        start: u64,
        to: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let end = start.checked_add(to.len() as u64);
        if end.is_none_or(|end| end > self.place.length) {
            return Err("it leads out of the file system".into());
        }
        Ok(self.disk.read_at(self.place.offset + start, to)?)
    }
}

/// A file system on a disk.
pub(super) struct FileSystem(Ext4);

impl FileSystem {
    /// # Errors
    /// A sentence for people: it is damaged, or has what cannot be read.
    pub(super) fn open(disk: &Arc<dyn DiskBytes>, place: Place) -> Result<Self, String> {
        let part = Part { disk: Arc::clone(disk), place };
        Ext4::load(Box::new(part)).map(Self).map_err(|error| error.to_string())
    }

    /// The names in a directory, and whether each is a directory itself.
    fn entries(&self, path: &str) -> Vec<(String, bool, bool)> {
        let Ok(entries) = self.0.read_dir(path) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in entries.take(MOST_ENTRIES) {
            let Ok(entry) = entry else { break };
            let (Ok(name), Ok(kind)) =
                (entry.file_name().as_str().map(str::to_owned), entry.file_type())
            else {
                continue;
            };
            if name != "." && name != ".." {
                found.push((name, kind.is_dir(), kind.is_regular_file()));
            }
        }
        found
    }
}

fn absolute(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

impl Files for FileSystem {
    fn names(&self, directory: &str) -> Vec<String> {
        self.entries(&absolute(directory)).into_iter().map(|(name, ..)| name).collect()
    }

    fn below(&self, directory: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut looked_at = 0;
        let mut stack = vec![(directory.trim_matches('/').to_owned(), 0)];
        while let Some((path, depth)) = stack.pop() {
            for (name, is_directory, is_file) in self.entries(&absolute(&path)) {
                looked_at += 1;
                if looked_at > MOST_ENTRIES {
                    return found;
                }
                let path = format!("{path}/{name}");
                if is_directory && depth < MOST_DEPTH {
                    stack.push((path, depth + 1));
                } else if is_file {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn read(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        let path = absolute(path);
        let metadata = self.0.metadata(path.as_str()).ok()?;
        let is_read = metadata.file_type().is_regular_file() && metadata.len() <= limit;
        is_read.then(|| self.0.read(path.as_str()).ok()).flatten()
    }
}
