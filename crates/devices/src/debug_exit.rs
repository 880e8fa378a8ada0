//! The debug exit port: how test kernels end a run with a status.
//!
//! Same guest-visible behaviour as the `isa-debug-exit` device that kernel test suites expect at
//! port 0xF4, four ports wide: writing `value` ends the machine with status `(value << 1) | 1`, so
//! that a guest can never produce 0, which means that it powered off in the normal way.

use crate::PortDevice;
use crate::port::PortRange;
use crate::power::{PowerEvent, SharedPower};

/// The debug exit port. It has no state to save.
pub struct DebugExit {
    power: SharedPower,
}

impl DebugExit {
    /// Where kernels expect it.
    pub const DEFAULT_PORTS: PortRange = 0xf4..=0xf7;
    /// How many ports it takes.
    pub const PORT_COUNT: u16 = 4;

    /// A port that ends the machine through `power`.
    #[must_use]
    pub fn new(power: SharedPower) -> Self {
        Self { power }
    }
}

impl PortDevice for DebugExit {
    fn port_read(&mut self, _offset: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn port_write(&mut self, _offset: u16, data: &[u8]) {
        let value = data.iter().take(4).rev().fold(0u32, |value, &b| (value << 8) | u32::from(b));
        self.power.power(PowerEvent::DebugExit { code: (value << 1) | 1 });
    }
}

#[cfg(test)]
#[path = "debug_exit_test.rs"]
mod tests;
