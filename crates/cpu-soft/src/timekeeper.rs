//! Wakes processors whose timer falls due while they do not look at the clock.
//!
//! An interpreted processor compares the clock with its APIC timer's deadline between blocks; one
//! that runs linked translated blocks looks at nothing but its requests. So it tells the timekeeper
//! of the deadline before it sets off, and the timekeeper posts a request when the time has come.
//!
//! One thread serves a machine's processors. Arming happens at every write to a timer, thousands of
//! times a second, and must cost next to nothing. So the thread is not woken for a deadline later
//! than the one it sleeps for, nor when that one is taken back: it finds out when it wakes anyway.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use riad_clock::{Nanos, SharedClock};
use riad_confine::Kind;

/// What is called with a processor's number when its deadline has passed.
pub type Expired = Box<dyn Fn(u32) + Send + Sync>;

/// The least the thread sleeps, nanoseconds of host time: it cannot be made to spin.
const LEAST_NAP: u64 = 50_000;
/// The most it sleeps past a deadline while guest time stands still, nanoseconds of host time. A
/// machine that goes on is at most this late with a timer that its processor did not arm again.
const MOST_NAP_IN_A_PAUSE: u64 = 10_000_000;

/// A machine's deadlines, and the thread that waits for them. The thread starts with the first
/// deadline; dropping the timekeeper ends it.
pub struct Timekeeper {
    shared: Arc<Shared>,
    /// Guest time passes by waiting. Where it does not, processors look at the clock themselves.
    moves: bool,
}

struct Shared {
    clock: SharedClock,
    expired: Expired,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Each processor's deadline. A machine has a handful: looking through them is quick.
    deadlines: Vec<Deadline>,
    /// The thread will look again at this guest time; a deadline before it must wake the thread. It
    /// is 0 while the thread is about to look.
    looks_at: Nanos,
    thread: Option<JoinHandle<()>>,
    over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Deadline {
    processor: u32,
    due: Nanos,
}

impl Timekeeper {
    /// A timekeeper by this clock. From its own thread it calls `expired` once for each deadline
    /// that passes, and forgets the deadline. A deadline that is replaced or disarmed at the moment
    /// it passes may still be called for: whoever is woken looks at the clock.
    ///
    /// On a clock that does not move by waiting nothing ever expires.
    #[must_use]
    pub fn new(clock: SharedClock, expired: Expired) -> Self {
        let moves = clock.wait_for(Nanos::MAX).is_some();
        let state = State { deadlines: Vec::new(), looks_at: 0, thread: None, over: false };
        let shared = Shared { clock, expired, state: Mutex::new(state), changed: Condvar::new() };
        Self { shared: Arc::new(shared), moves }
    }

    /// Makes this the processor's deadline, in guest time, in place of an earlier call's. `None`:
    /// it has none.
    pub fn arm(&self, processor: u32, due: Option<Nanos>) {
        if !self.moves {
            return;
        }
        let mut state = self.shared.state();
        let at = state.deadlines.iter().position(|deadline| deadline.processor == processor);
        match (at, due) {
            (Some(at), Some(due)) => state.deadlines[at].due = due,
            (Some(at), None) => drop(state.deadlines.swap_remove(at)),
            (None, Some(due)) => state.deadlines.push(Deadline { processor, due }),
            (None, None) => {}
        }
        let Some(due) = due else { return };
        if state.thread.is_none() {
            state.thread = self.start();
        } else if due < state.looks_at {
            state.looks_at = 0;
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// Starts the thread. If the host refuses, the next deadline tries again.
    fn start(&self) -> Option<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        match riad_confine::spawn(Kind::Timer, "timekeeper", move || shared.keep()) {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::warn!(%error, "the host refused the timekeeper's thread: timers are late");
                None
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's work.
    fn keep(&self) {
        let mut state = self.state();
        // How long to sleep at least, longer and longer while guest time stands still; and when the
        // thread last fell asleep.
        let mut nap = LEAST_NAP;
        let mut slept_at = None;
        while !state.over {
            let Some(next) = state.earliest() else {
                slept_at = None;
                state = self.sleep(state, Nanos::MAX, None);
                continue;
            };
            match self.clock.wait_for(next.due) {
                // Not by this clock, whatever it said of other times.
                None => state.forget(next),
                Some(0) => {
                    state.forget(next);
                    drop(state);
                    (self.expired)(next.processor);
                    state = self.state();
                }
                Some(wait) => {
                    let now = self.clock.now();
                    let paused = slept_at == Some(now);
                    nap = if paused { (nap * 2).min(MOST_NAP_IN_A_PAUSE) } else { LEAST_NAP };
                    slept_at = Some(now);
                    // A processor that goes on after a pause arms its deadline, and is heard.
                    let looks_at = if paused { Nanos::MAX } else { next.due };
                    let limit = Duration::from_nanos(wait.max(nap));
                    state = self.sleep(state, looks_at, Some(limit));
                }
            }
        }
    }

    /// Sleeps until a deadline before `looks_at` is armed, or the time is over (`None`: no limit).
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        looks_at: Nanos,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        state.looks_at = looks_at;
        let mut state = match limit {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.looks_at = 0;
        state
    }
}

impl State {
    fn earliest(&self) -> Option<Deadline> {
        self.deadlines.iter().copied().min_by_key(|deadline| deadline.due)
    }

    fn forget(&mut self, deadline: Deadline) {
        self.deadlines.retain(|other| *other != deadline);
    }
}

impl Drop for Timekeeper {
    fn drop(&mut self) {
        let thread = {
            let mut state = self.shared.state();
            state.over = true;
            state.thread.take()
        };
        self.shared.changed.notify_one();
        // Its own thread drops it when the last to know of it was `expired`.
        let is_own = |thread: &JoinHandle<()>| thread.thread().id() == thread::current().id();
        if let Some(thread) = thread.filter(|thread| !is_own(thread)) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Timekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state();
        f.debug_struct("Timekeeper")
            .field("deadlines", &state.deadlines)
            .field("runs", &state.thread.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "timekeeper_test.rs"]
mod tests;
