//! A machine's own record, written by its process alone: it needs no lock, and is bounded in space
//! and in time, for a guest that restarts itself all day causes entries all day.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Entry, Event, OWN, line, open, put_aside};

/// Bytes in the file before it is put aside.
const MOST: u64 = 256 << 10;
/// Entries that a guest can cause in a row: some ten starts.
const BURST: u32 = 100;
/// In this time it may cause one more.
const REFILL: Duration = Duration::from_secs(3);

/// A machine's own record.
#[derive(Debug)]
pub(crate) struct Own {
    path: PathBuf,
    machine: String,
    id: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Opened again after it was put aside.
    file: Option<File>,
    /// Entries that a guest may still cause.
    left: u32,
    /// Since when they are counted.
    counted: Instant,
    /// Entries that were left out.
    left_out: u64,
}

impl Own {
    /// The record of a machine.
    pub(crate) fn open(folder: &Path, machine: &str, id: &str) -> Self {
        let path = folder.join(OWN);
        let file = open(&path).inspect_err(|error| tracing::warn!(%error, "no record")).ok();
        let state = State { file, left: BURST, counted: Instant::now(), left_out: 0 };
        Self { path, machine: machine.to_owned(), id: id.to_owned(), state: Mutex::new(state) }
    }

    /// Writes down what happened. Never fails: a full disk must not stop a machine.
    pub(crate) fn say(&self, by: Option<String>, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if event.is_guests() && !state.may_write() {
            state.left_out += 1;
            return;
        }
        let left_out = std::mem::take(&mut state.left_out);
        if left_out > 0 {
            self.write(&mut state, None, &Event::LeftOut { count: left_out });
        }
        self.write(&mut state, by, event);
    }

    fn write(&self, state: &mut State, by: Option<String>, event: &Event) {
        let entry = Entry::new(&self.machine, &self.id, by, event);
        if let Err(error) = self.append(state, &entry, event.lasts()) {
            tracing::warn!(%error, event = entry.event, "what happened cannot be written down");
        }
    }

    fn append(&self, state: &mut State, entry: &Entry, lasts: bool) -> io::Result<()> {
        let mut file = match state.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        if put_aside(&self.path, file.metadata()?.len(), MOST)? {
            file = open(&self.path)?;
        }
        let line = line(&file, entry)?;
        // One write: who reads meanwhile sees all of it, or nothing.
        let written = file.write_all(&line).and_then(|()| match lasts {
            true => file.sync_data(),
            false => Ok(()),
        });
        state.file = Some(file);
        written
    }
}

impl State {
    /// Takes one of the entries that a guest may cause, if there is one.
    fn may_write(&mut self) -> bool {
        let more = self.counted.elapsed().as_nanos() / REFILL.as_nanos();
        if more > 0 {
            self.counted = Instant::now();
            let more = u32::try_from(more).unwrap_or(BURST);
            self.left = self.left.saturating_add(more).min(BURST);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
#[path = "own_test.rs"]
mod tests;
