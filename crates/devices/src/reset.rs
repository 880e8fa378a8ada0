//! The reset control register at port 0xCF9 (Intel I/O Controller Hub 10 datasheet, section
//! 13.7.5, "RST_CNT"). ACPI's reset register points here with the value 6.
//!
//! The port lies inside the PCI configuration address register (0xCF8 to 0xCFB): the machine sends
//! byte accesses to 0xCF9 here, and 32-bit accesses to 0xCF8 to the PCI host bridge.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

use crate::PortDevice;
use crate::port::{self, PortRange};
use crate::power::{PowerEvent, SharedPower};

/// The reset control register.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetControl {
    #[bits(1)]
    __: u8,
    /// Whether the reset is of the whole system or of the processors only.
    pub system_reset: bool,
    /// Going from 0 to 1 resets.
    pub reset: bool,
    /// Whether the power is cycled as well.
    pub full_reset: bool,
    #[bits(4)]
    __: u8,
}

/// The saved state of [`ResetPort`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetPortState {
    /// What was written last.
    pub control: ResetControl,
}

/// The reset control register's device.
pub struct ResetPort {
    state: ResetPortState,
    power: SharedPower,
}

impl ResetPort {
    /// Where the device answers; offsets are port numbers.
    pub const PORTS: &'static [PortRange] = &[0xcf9..=0xcf9];
    /// What the ACPI reset register must write.
    pub const ACPI_RESET_VALUE: u8 = 0x06;

    /// A register that resets through `power`.
    #[must_use]
    pub fn new(power: SharedPower) -> Self {
        Self::restore(ResetPortState::default(), power)
    }

    /// The device of a saved state.
    #[must_use]
    pub fn restore(state: ResetPortState, power: SharedPower) -> Self {
        Self { state, power }
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> ResetPortState {
        let Self { state, power: _ } = self;
        state.clone()
    }
}

impl PortDevice for ResetPort {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        port::read_bytes(offset, data, |port| match port {
            0xcf9 => self.state.control.into_bits(),
            _ => 0xff,
        });
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        port::write_bytes(offset, data, |port, byte| {
            if port != 0xcf9 {
                return;
            }
            let was = self.state.control;
            self.state.control = ResetControl::from_bits(byte & 0x0e);
            if self.state.control.reset() && !was.reset() {
                self.power.power(PowerEvent::Reset);
            }
        });
    }
}

#[cfg(test)]
#[path = "reset_test.rs"]
mod tests;
