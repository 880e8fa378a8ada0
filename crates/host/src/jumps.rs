//! Jumps of the host's wall clock: somebody set it, or the computer slept.
//!
//! Guest time and all of our waits follow the monotonic clock, which knows nothing of jumps. A guest
//! reads the wall clock once, when it starts; so after a jump of the host's it has to be told.

use std::time::Duration;

/// How often to look.
pub(crate) const LOOK: Duration = Duration::from_secs(10);

/// Differences below this are no jump: clocks are slewed, and looking takes time.
const LEAST: Duration = Duration::from_secs(1);

/// Watches the wall clock against the monotonic one.
#[derive(Debug)]
pub(crate) struct Jumps {
    wall: Duration,
    monotonic: Duration,
}

impl Jumps {
    /// `wall` is the time since the Unix epoch, `monotonic` that since any moment.
    pub(crate) fn new(wall: Duration, monotonic: Duration) -> Self {
        Self { wall, monotonic }
    }

    /// Whether the wall clock jumped since it was last looked at.
    pub(crate) fn look(&mut self, wall: Duration, monotonic: Duration) -> bool {
        let passed = monotonic.saturating_sub(self.monotonic);
        let expected = self.wall.saturating_add(passed);
        *self = Self { wall, monotonic };
        wall.abs_diff(expected) >= LEAST
    }
}

#[cfg(test)]
#[path = "jumps_test.rs"]
mod tests;
