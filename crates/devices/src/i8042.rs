//! A keyboard controller without a keyboard (IBM PS/2 Hardware Interface Technical Reference,
//! "Keyboard and auxiliary device controller"), and system control port A, 0x92.
//!
//! Guests use it for two things: to reset the machine (command 0xFE), and to ask what is plugged
//! in. The answer is "nothing": whatever is sent to a device times out at once, which drivers learn
//! in microseconds rather than half a second. Address line 20 is always open.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

use crate::PortDevice;
use crate::line::SharedLine;
use crate::port::{self, PortRange};
use crate::power::{PowerEvent, SharedPower};

/// The status register, port 0x64.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// A byte waits at port 0x60.
    pub output_full: bool,
    /// A written byte was not taken yet; never here.
    pub input_full: bool,
    /// The self test passed.
    pub system: bool,
    /// The last write was a command.
    pub command: bool,
    /// The keyboard is not locked.
    pub unlocked: bool,
    /// The byte is from the auxiliary device.
    pub auxiliary: bool,
    /// The device did not answer.
    pub timeout: bool,
    /// Parity was wrong.
    pub parity: bool,
}

/// The controller's command byte.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandByte {
    /// Interrupt 1 when a byte of the keyboard waits.
    pub keyboard_interrupt: bool,
    /// Interrupt 12 when a byte of the auxiliary device waits.
    pub auxiliary_interrupt: bool,
    /// The system flag of the status.
    pub system: bool,
    #[bits(1)]
    __: u8,
    /// The keyboard's clock is held.
    pub keyboard_off: bool,
    /// The auxiliary device's clock is held.
    pub auxiliary_off: bool,
    /// Scan codes are translated.
    pub translate: bool,
    #[bits(1)]
    __: u8,
}

/// What the next byte written to port 0x60 is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataFor {
    /// A command to the keyboard.
    #[default]
    Keyboard,
    /// A command to the auxiliary device.
    Auxiliary,
    /// The command byte.
    CommandByte,
    /// The output port.
    OutputPort,
    /// A byte to be read back as the keyboard's.
    KeyboardEcho,
    /// A byte of a command that takes one and does nothing here.
    Nothing,
}

/// The saved state of [`I8042`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct I8042State {
    /// The status register.
    pub status: Status,
    /// The command byte.
    pub command_byte: CommandByte,
    /// The byte that waits at port 0x60, or the last one read.
    pub output: u8,
    /// What the next byte is.
    pub data_for: DataFor,
    /// System control port A.
    pub control_port_a: u8,
}

/// The controller.
pub struct I8042 {
    state: I8042State,
    /// Interrupt request 1.
    line: SharedLine,
    power: SharedPower,
}

/// What a device that does not answer makes the controller say.
const NO_ANSWER: u8 = 0xfe;
/// The output port: address line 20 is open and reset is not pulled.
const OUTPUT_PORT: u8 = 0x03;

impl I8042 {
    /// Where the device answers; offsets are port numbers.
    pub const PORTS: &'static [PortRange] = &[0x60..=0x60, 0x64..=0x64, 0x92..=0x92];

    /// A controller as firmware leaves it.
    #[must_use]
    pub fn new(line: SharedLine, power: SharedPower) -> Self {
        let state = I8042State {
            status: Status::new().with_system(true).with_unlocked(true),
            command_byte: CommandByte::new()
                .with_keyboard_interrupt(true)
                .with_system(true)
                .with_auxiliary_off(true)
                .with_translate(true),
            output: 0,
            data_for: DataFor::Keyboard,
            control_port_a: 0x02,
        };
        Self::restore(state, line, power)
    }

    /// The controller of a saved state.
    #[must_use]
    pub fn restore(state: I8042State, line: SharedLine, power: SharedPower) -> Self {
        let controller = Self { state, line, power };
        controller.update_line();
        controller
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> I8042State {
        let Self { state, line: _, power: _ } = self;
        state.clone()
    }

    fn update_line(&self) {
        let I8042State { status, command_byte, .. } = &self.state;
        let keyboard = status.output_full() && !status.auxiliary();
        self.line.set(keyboard && command_byte.keyboard_interrupt());
    }

    /// A byte of the controller or the keyboard.
    fn answer(&mut self, byte: u8) {
        self.state.output = byte;
        self.state.status =
            self.state.status.with_output_full(true).with_auxiliary(false).with_timeout(false);
    }

    fn read(&mut self, port: u16) -> u8 {
        match port {
            0x60 => {
                self.state.status = self.state.status.with_output_full(false).with_timeout(false);
                self.update_line();
                self.state.output
            }
            0x64 => self.state.status.into_bits(),
            0x92 => self.state.control_port_a,
            _ => 0xff,
        }
    }

    fn write(&mut self, port: u16, value: u8) {
        match port {
            0x60 => self.data(value),
            0x64 => self.command(value),
            0x92 => {
                let was = std::mem::replace(&mut self.state.control_port_a, value & 0x03);
                if value & !was & 1 != 0 {
                    self.power.power(PowerEvent::Reset);
                }
            }
            _ => {}
        }
        self.update_line();
    }

    fn command(&mut self, command: u8) {
        self.state.status.set_command(true);
        self.state.data_for = DataFor::Keyboard;
        let byte = &mut self.state.command_byte;
        match command {
            0x20 => {
                let byte = byte.into_bits();
                self.answer(byte);
            }
            0x60 => self.state.data_for = DataFor::CommandByte,
            0xa7 => byte.set_auxiliary_off(true),
            0xa8 => byte.set_auxiliary_off(false),
            // Auxiliary port test: its clock line is stuck, for there is none.
            0xa9 => self.answer(0x01),
            // Self test passed.
            0xaa => {
                self.state.status.set_system(true);
                self.answer(0x55);
            }
            // Keyboard port test passed.
            0xab => self.answer(0x00),
            0xad => byte.set_keyboard_off(true),
            0xae => byte.set_keyboard_off(false),
            0xc0 => self.answer(0x80),
            0xd0 => {
                let full = u8::from(self.state.status.output_full()) << 4;
                self.answer(OUTPUT_PORT | full);
            }
            0xd1 => self.state.data_for = DataFor::OutputPort,
            0xd2 => self.state.data_for = DataFor::KeyboardEcho,
            // Auxiliary echo, by which drivers look for the port: it stays silent.
            0xd3 => self.state.data_for = DataFor::Nothing,
            0xd4 => self.state.data_for = DataFor::Auxiliary,
            // Pulses lines of the output port; line 0 is reset.
            0xf0..=0xff if command & 1 == 0 => self.power.power(PowerEvent::Reset),
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        self.state.status.set_command(false);
        match std::mem::take(&mut self.state.data_for) {
            DataFor::Keyboard => {
                self.answer(NO_ANSWER);
                self.state.status.set_timeout(true);
            }
            DataFor::Auxiliary => {
                self.answer(NO_ANSWER);
                self.state.status.set_timeout(true);
                self.state.status.set_auxiliary(true);
            }
            DataFor::CommandByte => {
                self.state.command_byte = CommandByte::from_bits(value);
                self.state.status.set_system(self.state.command_byte.system());
            }
            DataFor::OutputPort if value & 1 == 0 => self.power.power(PowerEvent::Reset),
            DataFor::OutputPort | DataFor::Nothing => {}
            DataFor::KeyboardEcho => self.answer(value),
        }
    }
}

impl PortDevice for I8042 {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        port::read_bytes(offset, data, |port| self.read(port));
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        port::write_bytes(offset, data, |port, value| self.write(port, value));
    }
}

#[cfg(test)]
#[path = "i8042_test.rs"]
mod tests;
