//! The thread a device does its work on.
//!
//! A device's work is a [`Task`]: a turn does what there is to do, then waits for a kick. The
//! device keeps a [`Worker`], with which it kicks, holds, releases and ends the thread. Holding and
//! ending wait until the task is between turns, so that nothing is in flight afterwards; tasks look
//! at [`Control::interrupted`] often enough to keep that wait short.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use riad_confine::Kind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Bell;
use crate::pci::lock;

/// A device's work.
pub trait Task: Send + 'static {
    /// Does what there is to do, and returns early when [`Control::interrupted`].
    fn turn(&mut self, control: &Control);

    /// Waits for something to do; a kick must end the wait.
    fn wait(&mut self, control: &Control) {
        control.wait_for_kick();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Hold,
    End,
}

#[derive(Debug)]
struct Phase {
    wish: Wish,
    /// The thread is between turns and stays there while `wish` is not `Run`; or it has ended.
    quiet: bool,
}

/// What a worker's thread and those who steer it share.
#[derive(Debug)]
pub struct Control {
    kick: Bell,
    phase: Mutex<Phase>,
    changed: Condvar,
    interrupted: AtomicBool,
}

impl Control {
    fn new(held: bool) -> io::Result<Self> {
        let wish = if held { Wish::Hold } else { Wish::Run };
        let phase = Phase { wish, quiet: false };
        Ok(Self {
            kick: Bell::new()?,
            phase: Mutex::new(phase),
            changed: Condvar::new(),
            interrupted: AtomicBool::new(held),
        })
    }

    /// Wakes the task.
    pub fn kick(&self) {
        self.kick.ring();
    }

    /// The bell that wakes the task.
    #[must_use]
    pub fn bell(&self) -> &Bell {
        &self.kick
    }

    /// Holds the task between turns; returns when it is there.
    pub fn pause(&self) {
        self.wish(Wish::Hold);
        self.wait_until_quiet();
    }

    /// Lets a held task go on, with a turn at once.
    pub fn resume(&self) {
        self.wish(Wish::Run);
    }

    /// Whether the task should leave its turn soon.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Readable after a kick; see [`clear_kick`](Self::clear_kick).
    #[must_use]
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// Forgets kicks so far.
    pub fn clear_kick(&self) {
        self.kick.hush();
    }

    /// Waits for a kick and forgets it.
    pub fn wait_for_kick(&self) {
        self.wait_for_kick_until(None);
    }

    /// Waits for a kick, for `limit` at most, and forgets it.
    pub fn wait_for_kick_until(&self, limit: Option<Duration>) {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut fds = [PollFd::new(&self.kick, PollFlags::IN)];
        // Interrupted or refused: the task looks around once more, which is harmless.
        let _ = poll(&mut fds, limit.as_ref());
        self.clear_kick();
    }

    fn wish(&self, wish: Wish) {
        let mut phase = lock(&self.phase);
        phase.wish = wish;
        self.interrupted.store(wish != Wish::Run, Ordering::Relaxed);
        drop(phase);
        self.changed.notify_all();
        self.kick();
    }

    fn wait_until_quiet(&self) {
        let mut phase = lock(&self.phase);
        while !phase.quiet {
            phase = self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Called by the thread between turns: stays while held. Returns whether to go on.
    fn gate(&self) -> bool {
        let mut phase = lock(&self.phase);
        loop {
            match phase.wish {
                Wish::Run => {
                    phase.quiet = false;
                    return true;
                }
                Wish::End => return false,
                Wish::Hold => {
                    phase.quiet = true;
                    self.changed.notify_all();
                    phase = self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// Tells everyone who waits for the thread that it is gone, also when it panicked.
struct Farewell(Arc<Control>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let mut phase = lock(&self.0.phase);
        phase.quiet = true;
        drop(phase);
        self.0.changed.notify_all();
    }
}

/// A task on its thread.
pub struct Worker<T: Task> {
    control: Arc<Control>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Task> std::fmt::Debug for Worker<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("control", &self.control).finish_non_exhaustive()
    }
}

impl<T: Task> Worker<T> {
    /// Starts a thread of a kind, called `name`; when `held`, its first turn waits for
    /// [`resume`](Control::resume).
    ///
    /// # Errors
    /// When the host refuses a thread or a file descriptor.
    pub fn spawn(kind: Kind, name: &str, mut task: T, held: bool) -> io::Result<Self> {
        let control = Arc::new(Control::new(held)?);
        let theirs = Arc::clone(&control);
        let thread = riad_confine::spawn(kind, name, move || {
            let farewell = Farewell(Arc::clone(&theirs));
            while theirs.gate() {
                task.turn(&theirs);
                if !theirs.interrupted() {
                    task.wait(&theirs);
                }
            }
            drop(farewell);
            task
        })?;
        Ok(Self { control, thread: Some(thread) })
    }

    /// What the thread looks at: for others who may kick it.
    #[must_use]
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Ends the thread and gives the task back; `None` when it panicked.
    pub fn stop(mut self) -> Option<T> {
        self.end()
    }

    fn end(&mut self) -> Option<T> {
        let thread = self.thread.take()?;
        self.control.wish(Wish::End);
        thread.join().ok()
    }
}

impl<T: Task> Drop for Worker<T> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
#[path = "worker_test.rs"]
mod tests;
