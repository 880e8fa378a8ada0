//! ACPI hardware: the PM1a event and control registers and the power management timer (ACPI 6.5, section
//! 4.8.3, "Fixed hardware registers"), and a block of general-purpose events (4.8.4.1, "General-purpose
//! event register blocks"), which other devices of the board raise.
//!
//! The machine is always in ACPI mode (there is no SMI command port), so SCI_EN reads as 1. One
//! block of ports holds all registers:
//!
//! | offset | register | |
//! |---|---|---|
//! | 0 | PM1a_STS | 16 bits; writing a one clears |
//! | 2 | PM1a_EN | 16 bits |
//! | 4 | PM1a_CNT | 16 bits |
//! | 8 | PM_TMR | 32 bits, read-only; 3.579545 MHz |
//! | 12 | GPE0_STS | 8 bits, an event each; writing a one clears |
//! | 13 | GPE0_EN | 8 bits |

use bitfield_struct::bitfield;
use riad_clock::{Nanos, SharedClock};
use serde::{Deserialize, Serialize};

use crate::line::SharedLine;
use crate::power::{PowerEvent, SharedPower};
use crate::{PortDevice, TimedDevice};

/// Ticks of the power management timer a second.
pub const TIMER_FREQUENCY: u64 = 3_579_545;

/// The sleep type that turns the machine off: the DSDT's `\_S5` package must hold it.
pub const SLEEP_TYPE_S5: u8 = 5;

/// How wide the timer is; FADT's TMR_VAL_EXT flag says so to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimerWidth {
    /// 24 bits: wraps every 4.7 s.
    Bits24,
    /// 32 bits: wraps every 20 minutes.
    Bits32,
}

impl TimerWidth {
    /// Ticks between two changes of the highest bit.
    fn half(self) -> u64 {
        match self {
            Self::Bits24 => 1 << 23,
            Self::Bits32 => 1 << 31,
        }
    }
}

/// PM1 status and enable registers (ACPI 6.5, tables 4.11 and 4.12). Bits that are only in one of
/// them are reserved in the other.
#[bitfield(u16)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The timer's highest bit changed.
    pub timer: bool,
    #[bits(3)]
    __: u8,
    /// A bus master wants the bus; status only.
    pub bus_master: bool,
    /// The firmware released the global lock.
    pub global: bool,
    #[bits(2)]
    __: u8,
    /// The power button was pressed.
    pub power_button: bool,
    /// The sleep button was pressed.
    pub sleep_button: bool,
    /// The clock's alarm.
    pub clock: bool,
    #[bits(4)]
    __: u8,
    /// The machine woke up; status only.
    pub wake: bool,
}

/// Events that can be enabled: timer, global lock, power button, sleep button, clock.
const ENABLES: u16 = 0x0721;

/// PM1 control (ACPI 6.5, table 4.13).
#[bitfield(u16)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct PmControl {
    /// The machine is in ACPI mode; always 1.
    pub sci_enable: bool,
    /// Bus masters end processor sleep.
    pub bus_master_reload: bool,
    /// Tells the firmware that the global lock is free; reads as 0.
    pub global_release: bool,
    #[bits(7)]
    __: u8,
    /// The sleep state to enter.
    #[bits(3)]
    pub sleep_type: u8,
    /// Enters it; reads as 0.
    pub sleep: bool,
    #[bits(2)]
    __: u8,
}

/// The saved state of [`Pm`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmState {
    /// PM1a_STS.
    pub status: Events,
    /// PM1a_EN.
    pub enable: Events,
    /// PM1a_CNT.
    pub control: PmControl,
    /// The width of the timer.
    pub timer_width: TimerWidth,
    /// How often the timer's highest bit had changed when last looked at.
    pub served_halves: u64,
    /// GPE0_STS.
    #[serde(default)]
    pub general_status: u8,
    /// GPE0_EN.
    #[serde(default)]
    pub general_enable: u8,
}

/// ACPI's hardware.
pub struct Pm {
    state: PmState,
    clock: SharedClock,
    /// The system control interrupt: level-triggered, interrupt 9 by custom.
    sci: SharedLine,
    power: SharedPower,
}

/// Offsets of the registers.
mod offset {
    pub(super) const STATUS: usize = 0;
    pub(super) const ENABLE: usize = 2;
    pub(super) const CONTROL: usize = 4;
    pub(super) const TIMER: usize = 8;
    pub(super) const GENERAL_STATUS: usize = 12;
    pub(super) const GENERAL_ENABLE: usize = 13;
    pub(super) const END: usize = 14;
}

impl Pm {
    /// How many ports it takes.
    pub const PORT_COUNT: u16 = 16;
    /// Offset of the PM1a event block, 4 bytes, for the FADT.
    pub const EVENT_BLOCK: u16 = offset::STATUS as u16;
    /// Offset of the PM1a control block, 2 bytes, for the FADT.
    pub const CONTROL_BLOCK: u16 = offset::CONTROL as u16;
    /// Offset of the timer block, 4 bytes, for the FADT.
    pub const TIMER_BLOCK: u16 = offset::TIMER as u16;
    /// Offset of the block of general-purpose events, for the FADT.
    pub const GENERAL_BLOCK: u16 = offset::GENERAL_STATUS as u16;
    /// Bytes of that block: a status and an enable register, of 8 events.
    pub const GENERAL_LEN: u8 = 2;

    /// Fixed hardware after reset.
    #[must_use]
    pub fn new(
        timer_width: TimerWidth,
        clock: SharedClock,
        sci: SharedLine,
        power: SharedPower,
    ) -> Self {
        let state = PmState {
            status: Events::new(),
            enable: Events::new(),
            control: PmControl::new().with_sci_enable(true),
            timer_width,
            served_halves: 0,
            general_status: 0,
            general_enable: 0,
        };
        let mut pm = Self::restore(state, clock, sci, power);
        pm.state.served_halves = pm.halves();
        pm
    }

    /// The fixed hardware of a saved state. `clock` goes on from the time of the save.
    #[must_use]
    pub fn restore(
        state: PmState,
        clock: SharedClock,
        sci: SharedLine,
        power: SharedPower,
    ) -> Self {
        let pm = Self { state, clock, sci, power };
        pm.update_line();
        pm
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> PmState {
        let Self { state, clock: _, sci: _, power: _ } = self;
        state.clone()
    }

    /// Presses the power button: a guest that listens shuts down.
    pub fn press_power_button(&mut self) {
        self.state.status.set_power_button(true);
        self.update_line();
    }

    /// Whether the guest listens to the power button.
    #[must_use]
    pub fn power_button_enabled(&self) -> bool {
        self.state.enable.power_button()
    }

    /// General-purpose event `number`, 0 to 7, has happened.
    pub fn general_event(&mut self, number: u8) {
        self.state.general_status |= general_bit(number);
        self.update_line();
    }

    /// Whether the guest listens to general-purpose event `number`.
    #[must_use]
    pub fn general_event_enabled(&self, number: u8) -> bool {
        self.state.general_enable & general_bit(number) != 0
    }

    /// Ticks of the timer since the machine was powered on.
    fn ticks(&self) -> u64 {
        let ticks = u128::from(self.clock.now()) * u128::from(TIMER_FREQUENCY) / 1_000_000_000;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    fn halves(&self) -> u64 {
        self.ticks() / self.state.timer_width.half()
    }

    /// Notes changes of the timer's highest bit.
    fn sync(&mut self) {
        let halves = self.halves();
        if std::mem::replace(&mut self.state.served_halves, halves) != halves {
            self.state.status.set_timer(true);
        }
        self.update_line();
    }

    fn update_line(&self) {
        let events = self.state.status.into_bits() & self.state.enable.into_bits() & ENABLES;
        let general = self.state.general_status & self.state.general_enable;
        self.sci.set(events != 0 || general != 0);
    }

    /// All registers as the guest sees them at this moment.
    fn image(&self) -> [u8; offset::END] {
        let PmState {
            status,
            enable,
            control,
            timer_width,
            served_halves: _,
            general_status,
            general_enable,
        } = &self.state;
        let timer = self.ticks() % (2 * timer_width.half());
        let mut image = [0; offset::END];
        image[offset::STATUS..][..2].copy_from_slice(&status.into_bits().to_le_bytes());
        image[offset::ENABLE..][..2].copy_from_slice(&enable.into_bits().to_le_bytes());
        image[offset::CONTROL..][..2].copy_from_slice(&control.into_bits().to_le_bytes());
        image[offset::TIMER..][..4].copy_from_slice(&timer.to_le_bytes()[..4]);
        image[offset::GENERAL_STATUS] = *general_status;
        image[offset::GENERAL_ENABLE] = *general_enable;
        image
    }

    fn write_control(&mut self, value: PmControl) {
        self.state.control =
            value.with_sci_enable(true).with_global_release(false).with_sleep(false);
        if value.sleep() {
            if value.sleep_type() == SLEEP_TYPE_S5 {
                self.power.power(PowerEvent::PowerOff);
            } else {
                tracing::warn!(sleep_type = value.sleep_type(), "the guest chose no sleep state");
            }
        }
    }
}

/// The bit of a general-purpose event; none of one that does not exist.
fn general_bit(number: u8) -> u8 {
    1u8.checked_shl(number.into()).unwrap_or(0)
}

impl PortDevice for Pm {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        self.sync();
        let image = self.image();
        for (index, byte) in (usize::from(offset)..).zip(data) {
            *byte = image.get(index).copied().unwrap_or(0xff);
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        self.sync();
        let mut image = self.image();
        // A zero in a status register changes nothing.
        image[offset::STATUS..][..2].fill(0);
        image[offset::GENERAL_STATUS] = 0;
        let mut control_written = false;
        for (index, &byte) in (usize::from(offset)..).zip(data) {
            if let Some(to) = image.get_mut(index) {
                *to = byte;
                control_written |= index / 2 == offset::CONTROL / 2;
            }
        }
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let cleared = word(offset::STATUS);
        self.state.status = Events::from_bits(self.state.status.into_bits() & !cleared);
        self.state.enable = Events::from_bits(word(offset::ENABLE) & ENABLES);
        self.state.general_status &= !image[offset::GENERAL_STATUS];
        self.state.general_enable = image[offset::GENERAL_ENABLE];
        if control_written {
            self.write_control(PmControl::from_bits(word(offset::CONTROL) & 0x3c07));
        }
        self.update_line();
    }
}

impl TimedDevice for Pm {
    fn next_deadline(&self) -> Option<Nanos> {
        if !self.state.enable.timer() || self.state.status.timer() {
            return None;
        }
        let tick = u128::from(self.state.served_halves.checked_add(1)?)
            * u128::from(self.state.timer_width.half());
        u64::try_from((tick * 1_000_000_000).div_ceil(u128::from(TIMER_FREQUENCY))).ok()
    }

    fn expire(&mut self) {
        self.sync();
    }
}

#[cfg(test)]
#[path = "pm_test.rs"]
mod tests;
