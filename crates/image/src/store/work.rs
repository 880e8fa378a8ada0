//! Work in progress: locks on names, and directories that vanish unless their work is finished.
//!
//! Locks are the kernel's (flock(2)): they end with the process, however it ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Store;
use crate::error::Error;
use crate::fetch::PARTIAL_PREFIX;

/// The right to build an image of one name. Given back when dropped.
#[derive(Debug)]
pub struct NameLock {
    _file: File,
}

/// A directory for work in progress. Removed when dropped, unless it was moved away.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

/// A download nobody has touched for so long is nobody's.
const PARTIAL_AGE: Duration = Duration::from_secs(6 * 3600);

impl Store {
    /// Takes the lock on a name; `waiting` is called once if another process has it.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made.
    pub fn lock_name(&self, key: &str, waiting: &mut dyn FnMut()) -> Result<NameLock, Error> {
        let path = self.directory("locks").join(format!("{key}.lock"));
        let file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(Error::io("lock", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        Ok(NameLock { _file: file })
    }

    /// Makes a directory for work in progress.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn begin_work(&self) -> Result<WorkDir, Error> {
        let _guard = self.guard()?;
        let tmp = self.directory("tmp");
        let path = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(&tmp)
            .map_err(Error::io("create a directory in", &tmp))?
            .keep();
        let lock_path = path.with_extension("lock");
        let lock = open_lock(&lock_path)?;
        lock.lock().map_err(Error::io("lock", &lock_path))?;
        Ok(WorkDir { path, lock_path, _lock: lock })
    }

    /// Removes directories whose lock nobody holds, and downloads nobody goes on with.
    pub(super) fn remove_stale_work(&self) -> Result<(), Error> {
        let guard = self.guard()?;
        let tmp = self.directory("tmp");
        let mut stale = Vec::new();
        for name in super::entries(&tmp)? {
            let path = tmp.join(&name);
            let lock_path = path.with_extension("lock");
            let is_held = match File::open(&lock_path) {
                Ok(lock) => matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
                Err(_) => false,
            };
            if !is_held {
                stale.push(path);
            }
        }
        // Nobody else may begin work under one of these names, so the guard is not needed on.
        drop(guard);
        for path in stale {
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove an old build");
            }
        }
        for directory in ["packages", "lists"] {
            for entry in fs::read_dir(self.directory(directory)).into_iter().flatten().flatten() {
                let is_partial = entry.file_name().to_string_lossy().starts_with(PARTIAL_PREFIX);
                let age = entry.metadata().and_then(|m| m.modified()).ok();
                let age = age.and_then(|time| time.elapsed().ok()).unwrap_or_default();
                if is_partial && age > PARTIAL_AGE {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Ok(())
    }

    /// Held for the moments between making a directory and locking it, and while looking for
    /// directories that are not locked.
    fn guard(&self) -> Result<File, Error> {
        let path = self.directory("locks").join(".work");
        let file = open_lock(&path)?;
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(file)
    }
}

fn open_lock(path: &Path) -> Result<File, Error> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Error::io("create", path))
}

impl WorkDir {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // Nothing to remove when the work was moved to its place.
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}
