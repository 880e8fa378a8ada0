//! A machine's console: written to a file of bounded size, and shown to whoever looks.
//!
//! Processors and devices write here, whose threads may open no files; so a thread beside them begins
//! the file anew when it has become long. Until it has, they write on, and what a guest says faster
//! than that is lost to the file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use riad_confine::Kind;

/// Bytes in the file, at most: a guest cannot fill the host's disk.
const MOST: u64 = 1 << 20;
/// Bytes in the file before it is put aside for a new one.
const LONG: u64 = MOST / 4 * 3;
/// Writes that a viewer may be behind before it is left behind.
const BEHIND: usize = 1024;

/// A console that is recorded and looked at. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Tap(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    file: File,
    written: u64,
    /// Tells the thread that begins files anew; while it has been told and is not done, nobody.
    keeper: Option<SyncSender<()>>,
    told: bool,
    viewers: Vec<SyncSender<Vec<u8>>>,
}

impl Tap {
    /// Begins a new file at `path`, and puts the one before aside. It ends at its bound until it is
    /// [kept](Self::keep).
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let inner = Inner {
            file: begin(path)?,
            written: 0,
            keeper: None,
            told: false,
            viewers: Vec::new(),
        };
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    /// Has the file at `path` begun anew whenever it has become long, as long as the tap lives.
    pub(super) fn keep(&self, path: PathBuf) -> io::Result<()> {
        let (keeper, told) = sync_channel(1);
        let tap = Arc::downgrade(&self.0);
        riad_confine::spawn(Kind::Control, "console-log", move || {
            while let Ok(()) = told.recv() {
                let file = begin(&path);
                let Some(tap) = tap.upgrade() else { return };
                let mut inner = tap.lock().unwrap_or_else(PoisonError::into_inner);
                inner.told = false;
                match file {
                    Ok(file) => (inner.file, inner.written) = (file, 0),
                    Err(error) => {
                        tracing::warn!(%error, "the console's file cannot be begun anew");
                    }
                }
            }
        })?;
        self.lock().keeper = Some(keeper);
        Ok(())
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

fn begin(path: &Path) -> io::Result<File> {
    let mut before = path.to_owned().into_os_string();
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
        if inner.written >= LONG && !inner.told {
            inner.told = inner.keeper.as_ref().is_some_and(|keeper| keeper.try_send(()).is_ok());
        }
        let length = bytes.len() as u64;
        if inner.written + length <= MOST && inner.file.write_all(bytes).is_ok() {
            inner.written += length;
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
