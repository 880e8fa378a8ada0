//! A machine's own record, written by its process alone: it needs no lock, and is bounded in space
//! and in time, for a guest that restarts itself all day causes entries all day.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::entry::Flood;
use super::{Entry, Event, OWN, line, open, put_aside};

/// Bytes in the file before it is put aside.
const MOST: u64 = 256 << 10;
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
    /// What a guest may still cause, of each kind.
    budgets: [Budget; Flood::KINDS],
    /// Entries that were left out.
    left_out: u64,
}

/// Entries of a kind that a guest may still cause.
#[derive(Debug)]
struct Budget {
    kind: Flood,
    left: u32,
    /// Since when they are counted.
    counted: Instant,
}

impl Own {
    /// The record of a machine.
    pub(crate) fn open(folder: &Path, machine: &str, id: &str) -> Self {
        let path = folder.join(OWN);
        let file = open(&path).inspect_err(|error| tracing::warn!(%error, "no record")).ok();
        let budgets = [Flood::Starts, Flood::Network].map(Budget::new);
        let state = State { file, budgets, left_out: 0 };
        Self { path, machine: machine.to_owned(), id: id.to_owned(), state: Mutex::new(state) }
    }

    /// Writes down what happened. Never fails: a full disk must not stop a machine.
    pub(crate) fn say(&self, by: Option<String>, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if event.is_guests().is_some_and(|kind| !state.may_write(kind)) {
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
    /// Takes one of the entries of that kind that a guest may cause, if there is one.
    fn may_write(&mut self, kind: Flood) -> bool {
        self.budgets.iter_mut().find(|budget| budget.kind == kind).is_some_and(Budget::take)
    }
}

impl Budget {
    fn new(kind: Flood) -> Self {
        Self { kind, left: kind.burst(), counted: Instant::now() }
    }

    /// Takes one, if there is one.
    fn take(&mut self) -> bool {
        let (burst, refill) = (self.kind.burst(), self.kind.refill());
        let more = self.counted.elapsed().as_nanos() / refill.as_nanos();
        if more > 0 {
            self.counted = Instant::now();
            let more = u32::try_from(more).unwrap_or(burst);
            self.left = self.left.saturating_add(more).min(burst);
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
