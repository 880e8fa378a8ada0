//! A machine's console: written to a file of bounded size, and shown to whoever looks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes in the file before it is put aside for a new one: a guest cannot fill the host's disk.
const MOST: u64 = 1 << 20;
/// Writes that a viewer may be behind before it is left behind.
const BEHIND: usize = 1024;

/// A console that is recorded and looked at. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Tap(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    written: u64,
    viewers: Vec<SyncSender<Vec<u8>>>,
}

impl Tap {
    /// Begins a new file at `path`, and puts the one before aside.
    pub(super) fn new(path: PathBuf) -> io::Result<Self> {
        let file = begin(&path)?;
        Ok(Self(Arc::new(Mutex::new(Inner { path, file, written: 0, viewers: Vec::new() }))))
    }

    /// Everything that is written from now on; it ends when the reader is too slow.
    pub(super) fn view(&self) -> Receiver<Vec<u8>> {
        let (sender, receiver) = sync_channel(BEHIND);
        self.lock().viewers.push(sender);
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin(path: &PathBuf) -> io::Result<File> {
    let mut before = path.clone().into_os_string();
    before.push(".1");
    match fs::rename(path, before) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

impl Write for Tap {
    /// Never fails: a full disk must not stop a machine's console.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.lock();
        if inner.written >= MOST {
            match begin(&inner.path) {
                Ok(file) => (inner.file, inner.written) = (file, 0),
                Err(error) => tracing::warn!(%error, "the console's file cannot be begun anew"),
            }
        }
        if inner.written < MOST && inner.file.write_all(bytes).is_ok() {
            inner.written += bytes.len() as u64;
        }
        inner.viewers.retain(|viewer| viewer.try_send(bytes.to_vec()).is_ok());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "tap_test.rs"]
mod tests;
