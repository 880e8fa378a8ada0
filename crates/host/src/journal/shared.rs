//! The record of commands, which several may write at once.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Entry, SHARED, line, open, put_aside};

/// Bytes in the file before it is put aside.
const MOST: u64 = 1 << 20;
/// How long others may keep the file locked. They do so for as long as a line takes; one that is
/// stopped in the middle of it must not stop all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Appends an entry to the record beside the machines in `root`, durably. Never fails: what was done
/// is done, whether it can be written down or not.
pub(crate) fn append(root: &Path, entry: &Entry) {
    if let Err(error) = try_append(&root.join(SHARED), entry) {
        tracing::warn!(%error, event = entry.event, "what happened cannot be written down");
    }
}

fn try_append(path: &Path, entry: &Entry) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut file = open(path)?;
        lock(&file, deadline)?;
        let metadata = file.metadata()?;
        // Others may have put it aside before we had the lock.
        let is_there = fs::metadata(path).is_ok_and(|there| there.ino() == metadata.ino());
        if !is_there || put_aside(path, metadata.len(), MOST)? {
            continue;
        }
        let line = line(&file, entry)?;
        return file.write_all(&line).and_then(|()| file.sync_data());
    }
}

fn lock(file: &File, deadline: Instant) -> io::Result<()> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // Without it a line may be lost to a turn of the files, which is better than waiting.
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}
