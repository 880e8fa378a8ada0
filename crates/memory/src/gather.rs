//! Huge pages for the parts of RAM that a guest uses.
//!
//! A host gives memory out page by page as it is touched, and finds each of these pages by a walk of
//! its own, which costs most inside of a virtual machine, where many of our users' hosts are. Memory
//! files get huge pages only where the administrator says so. But a process may ask for a stretch of
//! 2 MiB that it has begun to fill to be gathered into one huge page (madvise(2), `MADV_COLLAPSE`,
//! Linux 6.1): then 512 pages are found as one, and those of them that were not touched yet need not
//! be asked for one by one. Guests that touch little stay small: a stretch is gathered when an eighth
//! of it was written to.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use riad_confine::Kind;

use crate::GuestMemory;
use crate::sys::HUGE_PAGE;

/// Pages of a stretch.
const PAGES: usize = HUGE_PAGE / crate::PAGE_SIZE as usize;

/// So many pages of a stretch are written to before it is gathered.
const DENSE: u32 = 64;

/// Counts pages that are written to, by stretches, and hands on stretches that are worth gathering.
#[derive(Debug)]
pub(crate) struct Stretches {
    written: Box<[AtomicU32]>,
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Due {
    stretches: Vec<usize>,
    over: bool,
}

impl Stretches {
    /// Counts for so many pages.
    pub(crate) fn new(pages: usize) -> Self {
        // A rest at the end that is no whole stretch stays as it is.
        let written = (0..pages / PAGES).map(|_| AtomicU32::new(0)).collect();
        Self { written, due: Mutex::default(), changed: Condvar::new() }
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A clean page was written to. Pages that are cleaned count again, to no effect.
    pub(crate) fn count(&self, page: usize) {
        let stretch = page / PAGES;
        let Some(written) = self.written.get(stretch) else { return };
        if written.fetch_add(1, Ordering::Relaxed) + 1 == DENSE {
            self.due().stretches.push(stretch);
            self.changed.notify_one();
        }
    }

    /// Waits for a stretch that is worth gathering. `None` when it is over.
    fn next(&self) -> Option<usize> {
        let due = self.due();
        let mut due = self
            .changed
            .wait_while(due, |due| due.stretches.is_empty() && !due.over)
            .unwrap_or_else(PoisonError::into_inner);
        if due.over { None } else { due.stretches.pop() }
    }

    fn end(&self) {
        self.due().over = true;
        self.changed.notify_all();
    }
}

/// Gathers a guest's memory into huge pages, in a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Gatherer {
    memory: GuestMemory,
    thread: Option<JoinHandle<()>>,
}

impl Gatherer {
    /// Begins. Where the host has no thread or no huge pages to give, memory stays as it is.
    #[must_use]
    pub fn new(memory: &GuestMemory) -> Self {
        let memory = memory.clone();
        let here = memory.clone();
        let gather = move || while here.gather_next() {};
        let thread = riad_confine::spawn(Kind::Gatherer, "gatherer", gather).ok();
        Self { memory, thread }
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        self.memory.stretches().end();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, memory stays as it is.
            let _ = thread.join();
        }
    }
}

impl GuestMemory {
    fn stretches(&self) -> &Stretches {
        self.pages().stretches()
    }

    /// Waits for a stretch to gather, and does. Returns whether there may be a next.
    fn gather_next(&self) -> bool {
        match self.stretches().next() {
            Some(stretch) => self.gather(stretch * HUGE_PAGE),
            None => false,
        }
    }
}

#[cfg(test)]
#[path = "gather_test.rs"]
mod tests;
