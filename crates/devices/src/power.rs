//! How a device tells its machine to stop or to start over.

use std::sync::Arc;

/// What the guest asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// The guest turned the machine off (ACPI S5).
    PowerOff,
    /// The guest pulled the reset line.
    Reset,
    /// The guest left through the debug exit port, with the exit status it chose. The host's exit
    /// status is the lowest 8 bits.
    DebugExit {
        /// The status, already in the form `(value << 1) | 1`.
        code: u32,
    },
}

/// Whoever can stop or reset the machine.
///
/// Called from a processor's thread in the middle of an access: implementations take note and
/// return at once. They must not call back into a device.
pub trait PowerControl: Send + Sync {
    /// The guest asked for `event`.
    fn power(&self, event: PowerEvent);
}

/// Shared power control.
pub type SharedPower = Arc<dyn PowerControl>;
