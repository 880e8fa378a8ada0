//! Registers A, B and C of the MC146818 (datasheet, "Registers").

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// Register A.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterA {
    /// The rate of periodic interrupts; 0 is none.
    #[bits(4)]
    pub rate: u8,
    /// The divider: [`RegisterA::RUNNING`], or 6 and 7 to hold it.
    #[bits(3)]
    pub divider: u8,
    /// An update is about to happen; read-only.
    pub updating: bool,
}

impl RegisterA {
    /// The divider of a 32,768 Hz crystal.
    pub const RUNNING: u8 = 0b010;

    /// Whether the divider is held in reset.
    #[must_use]
    pub fn divider_reset(self) -> bool {
        self.divider() >= 0b110
    }

    /// Ticks of 1/32,768 s between periodic interrupts.
    #[must_use]
    pub fn period(self) -> Option<u64> {
        match self.rate() {
            0 => None,
            // These two repeat the rates of 8 and 9.
            rate @ (1 | 2) => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }
}

/// Register B.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterB {
    /// Daylight saving, which no one uses.
    pub daylight_saving: bool,
    /// Hours are 0 to 23 rather than 1 to 12 with a bit for the afternoon.
    pub hours_24: bool,
    /// Numbers are binary rather than BCD.
    pub binary: bool,
    /// A square wave on a pin that is not connected.
    pub square_wave: bool,
    /// Interrupt after each update.
    pub update_interrupt: bool,
    /// Interrupt at the alarm.
    pub alarm_interrupt: bool,
    /// Interrupt at each period.
    pub periodic_interrupt: bool,
    /// The time stands still, to be set.
    pub set: bool,
}

/// Register C: what has happened since it was read.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    #[bits(4)]
    __: u8,
    /// An update ended.
    pub update: bool,
    /// The alarm.
    pub alarm: bool,
    /// A period ended.
    pub periodic: bool,
    /// One of these is enabled: the interrupt pin.
    pub request: bool,
}
