//! The machine's time.
//!
//! Nothing in Riad's machine reads the host's clock directly (wall 3): devices and processors are
//! handed a [`Clock`]. Three kinds exist: one that follows the host, one that is moved by hand
//! (tests), and one that is moved by the processor as it retires instructions (deterministic runs).
//!
//! Guest time is a count of nanoseconds since the machine was first powered on. It stands still
//! while the machine is paused or lies in a snapshot, and never goes backwards.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Nanoseconds of guest time since the machine was first powered on.
pub type Nanos = u64;

/// A source of guest time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Guest time now, in nanoseconds. Monotonic.
    fn now(&self) -> Nanos;

    /// Wall-clock time now, in nanoseconds since the Unix epoch (UTC): what a real-time clock chip
    /// would show.
    fn wall(&self) -> u64;

    /// How long the host must wait, in nanoseconds of host time, for guest time `at`; `0` when it
    /// has passed. `None` when guest time does not move by waiting (a manual clock).
    fn wait_for(&self, at: Nanos) -> Option<u64> {
        Some(at.saturating_sub(self.now()))
    }

    /// Called by a processor that has nothing to do until `at`: clocks that do not move by
    /// themselves jump there. The default does nothing.
    fn idle_until(&self, _at: Nanos) {}

    /// Called by a processor that retired about this many instructions: clocks that are driven by
    /// execution move on. The default does nothing.
    fn retire(&self, _instructions: u64) {}
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// Saved time of any clock (wall 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockState {
    /// Guest time, nanoseconds.
    pub now: Nanos,
}

/// Guest time that follows the host's monotonic clock, with pauses taken out.
#[derive(Debug)]
pub struct HostClock {
    inner: Mutex<HostClockInner>,
}

#[derive(Debug, Clone, Copy)]
struct HostClockInner {
    /// Guest time at `since`, or the frozen guest time.
    base: Nanos,
    /// When the clock was last started; `None` while it is stopped.
    since: Option<Instant>,
}

impl HostClock {
    /// A running clock whose guest time is 0 now.
    #[must_use]
    pub fn new() -> Self {
        Self::restore(ClockState { now: 0 })
    }

    /// A running clock that goes on from a saved time.
    #[must_use]
    pub fn restore(state: ClockState) -> Self {
        let ClockState { now } = state;
        Self { inner: Mutex::new(HostClockInner { base: now, since: Some(Instant::now()) }) }
    }

    /// Freezes guest time. Idempotent.
    pub fn pause(&self) {
        let mut inner = self.lock();
        inner.base = inner.now();
        inner.since = None;
    }

    /// Lets guest time run on. Idempotent.
    pub fn resume(&self) {
        let mut inner = self.lock();
        if inner.since.is_none() {
            inner.since = Some(Instant::now());
        }
    }

    /// The saved state.
    pub fn save(&self) -> ClockState {
        ClockState { now: self.now() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HostClockInner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl HostClockInner {
    fn now(&self) -> Nanos {
        match self.since {
            Some(since) => {
                self.base
                    + u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX - self.base)
            }
            None => self.base,
        }
    }
}

impl Clock for HostClock {
    fn now(&self) -> Nanos {
        self.lock().now()
    }

    fn wall(&self) -> u64 {
        wall_now()
    }
}

/// A clock moved by hand or by a processor: tests, and runs that must be repeatable.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicU64,
    /// Wall time at guest time 0, nanoseconds since the Unix epoch.
    epoch: u64,
    /// Guest time that passes with each retired instruction.
    per_instruction: Nanos,
}

impl ManualClock {
    /// A clock at guest time 0 whose wall time starts at `epoch` nanoseconds since the Unix epoch.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self::restore(ClockState { now: 0 }, epoch)
    }

    /// A clock that goes on from a saved time.
    #[must_use]
    pub fn restore(state: ClockState, epoch: u64) -> Self {
        let ClockState { now } = state;
        Self { now: AtomicU64::new(now), epoch, per_instruction: 0 }
    }

    /// Makes guest time pass by `nanos` with each instruction a processor retires.
    #[must_use]
    pub fn driven(mut self, nanos: Nanos) -> Self {
        self.per_instruction = nanos;
        self
    }

    /// Moves guest time forward by `by` nanoseconds.
    pub fn advance(&self, by: Nanos) {
        self.now.fetch_add(by, Ordering::Relaxed);
    }

    /// Moves guest time forward to `at`; does nothing when that has passed.
    pub fn advance_to(&self, at: Nanos) {
        self.now.fetch_max(at, Ordering::Relaxed);
    }

    /// The saved state.
    pub fn save(&self) -> ClockState {
        ClockState { now: self.now() }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Nanos {
        self.now.load(Ordering::Relaxed)
    }

    fn wall(&self) -> u64 {
        self.epoch.saturating_add(self.now())
    }

    fn wait_for(&self, at: Nanos) -> Option<u64> {
        (at <= self.now()).then_some(0)
    }

    fn idle_until(&self, at: Nanos) {
        self.advance_to(at);
    }

    fn retire(&self, instructions: u64) {
        self.advance(instructions.saturating_mul(self.per_instruction));
    }
}

/// The host's wall clock, nanoseconds since the Unix epoch.
fn wall_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_by_hand() {
        let clock = ManualClock::new(5);
        assert_eq!((clock.now(), clock.wall()), (0, 5));
        clock.advance(10);
        clock.advance_to(3);
        assert_eq!((clock.now(), clock.wall()), (10, 15));
        assert_eq!(clock.wait_for(11), None);
        assert_eq!(clock.wait_for(10), Some(0));
    }

    #[test]
    fn host_clock_stands_still_while_paused() {
        let clock = HostClock::new();
        clock.pause();
        let frozen = clock.now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert_eq!(clock.now(), frozen);
        clock.resume();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(clock.now() > frozen);
        assert!(HostClock::restore(clock.save()).now() >= frozen);
    }
}
