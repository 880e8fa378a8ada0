//! Calling devices when their time has come.
//!
//! A device says when it wants to be called ([`TimedDevice::next_deadline`]); an access by the guest
//! may change that. [`Timers`] keeps the deadlines and calls the devices from the thread that runs
//! [`Timers::run`], or, when time is moved by hand, from whoever calls [`Timers::expire_due`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use riad_clock::{Nanos, SharedClock};
use riad_devices::TimedDevice;

use super::bus::{Shared, lock};

/// A deadline that is never.
const NEVER: u64 = u64::MAX;

/// The shortest wait: a guest that sets a timer to fire all the time does not get a host processor
/// of its own for it.
const SHORTEST_WAIT: Duration = Duration::from_micros(20);

/// The devices that want to be called, and when.
pub struct Timers {
    clock: SharedClock,
    slots: Vec<Slot>,
    /// Held while devices are called, so that none is once [`Timers::pause`] returns.
    mode: Mutex<Mode>,
    changed: Condvar,
}

struct Slot {
    device: Shared<dyn TimedDevice>,
    deadline: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    Paused,
    Stopped,
}

/// Names a device of [`Timers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId(usize);

impl Timers {
    /// Timers of no devices, paused.
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, slots: Vec::new(), mode: Mutex::new(Mode::Paused), changed: Condvar::new() }
    }

    /// Adds a device while the board is built.
    pub(super) fn add(&mut self, device: Shared<dyn TimedDevice>) -> TimerId {
        let deadline = lock(&device).next_deadline().unwrap_or(NEVER);
        self.slots.push(Slot { device, deadline: AtomicU64::new(deadline) });
        TimerId(self.slots.len() - 1)
    }

    /// The guest accessed a device: its deadline may have changed.
    pub(super) fn touched(&self, id: TimerId) {
        let Some(slot) = self.slots.get(id.0) else { return };
        if slot.look() {
            // With the lock, a thread that is about to wait has either seen the new deadline or is
            // already waiting.
            let _mode = lock(&self.mode);
            self.changed.notify_all();
        }
    }

    /// When the first device wants to be called, in guest time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        let deadlines = self.slots.iter().map(|slot| slot.deadline.load(Ordering::SeqCst));
        deadlines.min().filter(|&at| at != NEVER)
    }

    /// Calls the devices whose time has come, unless paused. Returns when to come back.
    pub fn expire_due(&self) -> Option<Nanos> {
        let mode = lock(&self.mode);
        if *mode == Mode::Running {
            self.call_due();
        }
        drop(mode);
        self.next_deadline()
    }

    fn call_due(&self) {
        let now = self.clock.now();
        for slot in &self.slots {
            if slot.deadline.load(Ordering::SeqCst) <= now {
                lock(&slot.device).expire();
                slot.look();
            }
        }
    }

    /// Calls devices in time until [`stop`](Self::stop). For a thread of its own.
    pub fn run(&self) {
        let mut mode = lock(&self.mode);
        loop {
            let wait = match *mode {
                Mode::Stopped => return,
                Mode::Paused => None,
                Mode::Running => {
                    self.call_due();
                    self.next_deadline().and_then(|at| self.clock.wait_for(at))
                }
            };
            mode = match wait {
                // A clock moved by hand: whoever moves it calls `expire_due`.
                None => self.changed.wait(mode).unwrap_or_else(PoisonError::into_inner),
                Some(nanos) => {
                    let wait = Duration::from_nanos(nanos).max(SHORTEST_WAIT);
                    let woken = self.changed.wait_timeout(mode, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Calls no device any more. When it returns, none is being called.
    pub fn pause(&self) {
        self.set(Mode::Paused);
    }

    /// Calls devices again.
    pub fn resume(&self) {
        for slot in &self.slots {
            slot.look();
        }
        self.set(Mode::Running);
    }

    /// Ends [`run`](Self::run), for good.
    pub fn stop(&self) {
        self.set(Mode::Stopped);
    }

    fn set(&self, new: Mode) {
        let mut mode = lock(&self.mode);
        if *mode != Mode::Stopped {
            *mode = new;
        }
        self.changed.notify_all();
    }
}

impl Slot {
    /// Asks the device for its deadline; returns whether it is another than before.
    fn look(&self) -> bool {
        let device = lock(&self.device);
        let deadline = device.next_deadline().unwrap_or(NEVER);
        // Still with the device locked: of two threads, the later one stores the later answer.
        self.deadline.swap(deadline, Ordering::SeqCst) != deadline
    }
}

#[cfg(test)]
#[path = "timers_test.rs"]
mod tests;
