//! Reading the record: all of its files, in the order of time, and what is added to them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Entry, MOST_ENTRY, OWN, SHARED, aside};
use crate::machines::{MachineError, Machines, Name};

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of the machine of this name, or that had it; all when `None`.
    pub machine: Option<Name>,
    /// From this time on, in milliseconds since the Unix epoch.
    pub since: u64,
}

/// Reads the record, and goes on where it was.
#[derive(Debug)]
pub struct Reader {
    machines: Machines,
    wanted: Wanted,
    /// The id of the machine that is asked about, once it is known.
    id: Option<String>,
    /// Files by the number that they keep when they are put aside, or their folder is renamed.
    files: BTreeMap<(u64, u64), Followed>,
}

/// A file that is read as it grows.
#[derive(Debug)]
struct Followed {
    file: File,
    /// What has been read and is no whole line yet.
    rest: Vec<u8>,
}

impl Reader {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(machines: Machines, wanted: Wanted) -> Self {
        Self { machines, wanted, id: None, files: BTreeMap::new() }
    }

    /// The entries that are new since the last call, in the order of time; at the first call, all
    /// that are kept.
    ///
    /// # Errors
    /// The directory of machines, or a record, cannot be read.
    pub fn read(&mut self) -> Result<Vec<Entry>, MachineError> {
        let mut entries = Vec::new();
        // What was put aside since is still open, and read to its end.
        for followed in self.files.values_mut() {
            followed.read(&mut entries).map_err(MachineError::io("read", self.machines.root()))?;
        }
        let mut there = Vec::new();
        for path in self.paths()? {
            // The file that is written to first: should it be put aside between the two, it is
            // found twice, and not missed.
            for path in [path.clone(), aside(&path)] {
                let failed = MachineError::io("read", &path);
                match self.find(&path, &mut entries) {
                    Ok(number) => there.push(number),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        // Nobody writes any more to what has no name.
        self.files.retain(|number, _| there.contains(number));
        entries.retain(|entry| self.wants(entry));
        entries.sort_by_key(|entry| entry.at);
        Ok(entries)
    }

    /// The records that there are.
    fn paths(&mut self) -> Result<Vec<PathBuf>, MachineError> {
        let root = self.machines.root().to_owned();
        let mut paths = vec![root.join(SHARED)];
        match &self.wanted.machine {
            None => {
                let names = self.machines.names()?;
                paths.extend(names.iter().map(|name| root.join(name.as_str()).join(OWN)));
            }
            Some(name) => {
                if let Ok(folder) = self.machines.get(name) {
                    self.id = folder.config().ok().map(|config| config.id).or(self.id.take());
                    paths.push(folder.path().join(OWN));
                }
            }
        }
        Ok(paths)
    }

    fn find(&mut self, path: &Path, entries: &mut Vec<Entry>) -> io::Result<(u64, u64)> {
        let metadata = std::fs::metadata(path)?;
        let number = (metadata.dev(), metadata.ino());
        if !self.files.contains_key(&number) {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            // Between the two it may have become another.
            let number = (metadata.dev(), metadata.ino());
            let mut followed = Followed { file, rest: Vec::new() };
            followed.read(entries)?;
            self.files.insert(number, followed);
            return Ok(number);
        }
        Ok(number)
    }

    fn wants(&self, entry: &Entry) -> bool {
        let is_it = self.wanted.machine.as_ref().is_none_or(|name| {
            entry.machine == name.as_str() || self.id.as_deref() == Some(&entry.id)
        });
        is_it && entry.at >= self.wanted.since
    }
}

impl Followed {
    /// Reads the whole lines that are new. Those that are none, or too long, are passed over.
    fn read(&mut self, entries: &mut Vec<Entry>) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            let count = self.file.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.rest.extend_from_slice(buffer.get(..count).unwrap_or_default());
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
                if self.rest.len() > MOST_ENTRY {
                    self.rest.clear();
                }
                continue;
            };
            let next = self.rest.split_off(end + 1);
            let lines = std::mem::replace(&mut self.rest, next);
            for line in lines.split(|byte| *byte == b'\n').filter(|line| line.len() <= MOST_ENTRY) {
                entries.extend(serde_json::from_slice::<Entry>(line).ok());
            }
        }
    }
}
