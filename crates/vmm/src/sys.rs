//! What only the host's kernel knows: how long a thread of ours has run.
#![expect(unsafe_code, reason = "the clock of another thread has no safe interface")]

use std::time::Duration;

/// How long one thread has been running on a processor of the host's, as any thread may ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The calling thread's. `None` where the host has no such clock.
    pub(crate) fn of_this_thread() -> Option<Self> {
        let mut clock = 0;
        // SAFETY: a thread's own handle is valid in it, and `clock` can be written to.
        let error = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        (error == 0).then_some(Self(clock))
    }

    /// What it shows; `None` when the thread has ended.
    pub(crate) fn time(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` can be written to. A clock is a number: one that is no clock any more is
        // refused.
        if unsafe { libc::clock_gettime(self.0, &raw mut time) } != 0 {
            return None;
        }
        let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
        Some(Duration::new(seconds.ok()?, nanos.ok()?))
    }
}
