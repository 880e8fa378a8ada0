//! A 16550A serial port (National Semiconductor PC16550D datasheet; register numbers below are its
//! section 8).
//!
//! Bytes leave the moment they are written, so the transmitter is always empty and what remains of
//! the transmit FIFO is its interrupt. Bytes arrive with [`Serial::push_input`], which takes no
//! more than the receive FIFO has room for: the sender keeps the rest and is told when there is
//! room ([`SerialHost::receive_ready`]). The receive timeout (section 8.5) is immediate: bytes
//! below the trigger level are reported as timed out at once, for a guest cannot tell and no timer
//! is needed.
//!
//! On a PC the interrupt pin is connected through a gate that the OUT2 output opens; the guest has
//! to set OUT2 to be interrupted, and loopback mode closes the gate.

use std::collections::VecDeque;
use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::line::SharedLine;
use crate::port;
use crate::{PortDevice, PortRange};

mod registers;
pub use registers::{
    FifoControl, InterruptEnable, LineControl, LineStatus, ModemControl, ModemStatus,
};

/// Bytes in the receive FIFO of a 16550A.
pub const FIFO_SIZE: usize = 16;

/// The other end of the cable.
pub trait SerialHost: Send {
    /// The guest sent `byte`.
    fn transmit(&mut self, byte: u8);

    /// There is room again after [`Serial::push_input`] had to refuse something. Called in the
    /// middle of an access by the guest: take note, and push from elsewhere.
    fn receive_ready(&mut self) {}
}

/// A [`SerialHost`] that writes to `W`. What cannot be written is dropped: a guest must not stop
/// because nobody listens.
#[derive(Debug)]
pub struct WriteHost<W>(pub W);

impl<W: Write + Send> SerialHost for WriteHost<W> {
    fn transmit(&mut self, byte: u8) {
        if let Err(error) = self.0.write_all(&[byte]).and_then(|()| self.0.flush()) {
            tracing::trace!(%error, "serial output dropped");
        }
    }
}

/// A byte in the receive FIFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The byte.
    pub byte: u8,
    /// Whether it stands for a break condition that was not reported yet.
    pub is_break: bool,
}

/// The saved state of [`Serial`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialState {
    /// Divisor latch (DLL and DLM): the baud rate is 115200 divided by it.
    pub divisor: u16,
    /// IER.
    pub interrupt_enable: InterruptEnable,
    /// FCR.
    pub fifo_control: FifoControl,
    /// LCR.
    pub line_control: LineControl,
    /// MCR.
    pub modem_control: ModemControl,
    /// The change bits of MSR; its levels follow from MCR.
    pub modem_changes: ModemStatus,
    /// SCR.
    pub scratch: u8,
    /// Whether the "transmitter empty" interrupt waits to be read.
    pub transmit_empty: bool,
    /// Whether a byte was lost because the FIFO was full.
    pub overrun: bool,
    /// The receive FIFO, at most [`FIFO_SIZE`] bytes.
    pub received: VecDeque<Received>,
}

/// A 16550A.
pub struct Serial {
    state: SerialState,
    line: SharedLine,
    host: Box<dyn SerialHost>,
    /// Whether the host waits for room. Not saved: a host asks again.
    host_waits: bool,
}

/// Interrupt identification codes (section 8.6, table III), highest priority first.
mod identification {
    pub(super) const LINE_STATUS: u8 = 0x06;
    pub(super) const RECEIVED: u8 = 0x04;
    pub(super) const RECEIVE_TIMEOUT: u8 = 0x0c;
    pub(super) const TRANSMIT_EMPTY: u8 = 0x02;
    pub(super) const MODEM_STATUS: u8 = 0x00;
    pub(super) const NONE: u8 = 0x01;
    pub(super) const FIFOS_ENABLED: u8 = 0xc0;
}

impl Serial {
    /// Where the first serial port of a PC is; its interrupt is 4.
    pub const COM1: PortRange = 0x3f8..=0x3ff;
    /// Where the second serial port of a PC is; its interrupt is 3.
    pub const COM2: PortRange = 0x2f8..=0x2ff;
    /// How many ports it takes.
    pub const PORT_COUNT: u16 = 8;

    /// A serial port after reset.
    #[must_use]
    pub fn new(line: SharedLine, host: Box<dyn SerialHost>) -> Self {
        Self::restore(SerialState { divisor: 12, ..SerialState::default() }, line, host)
    }

    /// The serial port of a saved state.
    #[must_use]
    pub fn restore(mut state: SerialState, line: SharedLine, host: Box<dyn SerialHost>) -> Self {
        state.received.truncate(FIFO_SIZE);
        let serial = Self { state, line, host, host_waits: false };
        serial.update_line();
        serial
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> SerialState {
        let Self { state, line: _, host: _, host_waits: _ } = self;
        state.clone()
    }

    /// Puts bytes into the receive FIFO and returns how many it took. When that is fewer than
    /// offered, [`SerialHost::receive_ready`] tells when to try again.
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        self.state
            .received
            .extend(bytes.iter().take(taken).map(|&byte| Received { byte, is_break: false }));
        self.host_waits = taken < bytes.len();
        self.update_line();
        taken
    }

    /// Signals a break (Linux's console takes it for SysRq). Returns whether there was room for it.
    pub fn push_break(&mut self) -> bool {
        let room = self.room() > 0;
        if room {
            self.state.received.push_back(Received { byte: 0, is_break: true });
            self.update_line();
        }
        self.host_waits |= !room;
        room
    }

    /// How many bytes [`push_input`](Self::push_input) would take now.
    #[must_use]
    pub fn room(&self) -> usize {
        // In loopback mode the receiver is cut off from the cable.
        if self.state.modem_control.loopback() { 0 } else { self.fifo_room() }
    }

    fn fifo_room(&self) -> usize {
        let capacity = if self.state.fifo_control.enable() { FIFO_SIZE } else { 1 };
        capacity.saturating_sub(self.state.received.len())
    }

    fn read(&mut self, register: u16) -> u8 {
        let dlab = self.state.line_control.divisor_latch();
        let value = match register {
            0 if dlab => self.state.divisor.to_le_bytes()[0],
            1 if dlab => self.state.divisor.to_le_bytes()[1],
            0 => self.state.received.pop_front().map_or(0, |received| received.byte),
            1 => self.state.interrupt_enable.into_bits(),
            2 => self.read_identification(),
            3 => self.state.line_control.into_bits(),
            4 => self.state.modem_control.into_bits(),
            5 => self.read_line_status(),
            6 => {
                let changes = std::mem::take(&mut self.state.modem_changes);
                self.modem_inputs().into_bits() | changes.into_bits()
            }
            7 => self.state.scratch,
            _ => 0xff,
        };
        self.settle();
        value
    }

    fn write(&mut self, register: u16, value: u8) {
        let dlab = self.state.line_control.divisor_latch();
        let [low, high] = self.state.divisor.to_le_bytes();
        match register {
            0 if dlab => self.state.divisor = u16::from_le_bytes([value, high]),
            1 if dlab => self.state.divisor = u16::from_le_bytes([low, value]),
            0 => self.transmit(value),
            1 => {
                let was = self.state.interrupt_enable;
                let now = InterruptEnable::from_bits(value & 0x0f);
                // Enabling the interrupt while the transmitter is empty, as it always is, raises it
                // (section 8.7): Linux tests for this when it opens the port.
                self.state.transmit_empty |= now.transmit_empty() && !was.transmit_empty();
                self.state.interrupt_enable = now;
            }
            2 => self.write_fifo_control(FifoControl::from_bits(value)),
            3 => self.state.line_control = LineControl::from_bits(value),
            4 => self.write_modem_control(ModemControl::from_bits(value & 0x1f)),
            7 => self.state.scratch = value,
            // LSR and MSR are written in factory tests only.
            _ => {}
        }
        self.settle();
    }

    fn transmit(&mut self, byte: u8) {
        // A full register withdraws the interrupt; edge-triggered controllers need to see that.
        self.state.transmit_empty = false;
        self.update_line();
        if !self.state.modem_control.loopback() {
            self.host.transmit(byte);
        } else if self.fifo_room() > 0 {
            self.state.received.push_back(Received { byte, is_break: false });
        } else {
            self.state.overrun = true;
            if !self.state.fifo_control.enable() {
                // Without the FIFO the new character replaces the old one (section 8.4, bit 1).
                self.state.received.clear();
                self.state.received.push_back(Received { byte, is_break: false });
            }
        }
        self.state.transmit_empty = true;
    }

    /// FCR (section 8.5).
    fn write_fifo_control(&mut self, value: FifoControl) {
        let switched = value.enable() != self.state.fifo_control.enable();
        if switched || (value.enable() && value.clear_receive()) {
            self.state.received.clear();
        }
        // While the FIFOs are off, the other bits cannot be programmed.
        self.state.fifo_control = if value.enable() {
            value.with_clear_receive(false).with_clear_transmit(false)
        } else {
            FifoControl::new()
        };
        if value.enable() && value.clear_transmit() {
            self.state.transmit_empty = true;
        }
    }

    /// MCR (section 8.8).
    fn write_modem_control(&mut self, value: ModemControl) {
        let was = self.modem_inputs();
        self.state.modem_control = value;
        let now = self.modem_inputs();
        let changes = &mut self.state.modem_changes;
        changes.set_clear_to_send_changed(
            changes.clear_to_send_changed() | (was.clear_to_send() != now.clear_to_send()),
        );
        changes.set_data_set_ready_changed(
            changes.data_set_ready_changed() | (was.data_set_ready() != now.data_set_ready()),
        );
        changes.set_ring_ended(changes.ring_ended() | (was.ring() && !now.ring()));
        changes.set_carrier_changed(changes.carrier_changed() | (was.carrier() != now.carrier()));
    }

    /// The levels of MSR: a connected peer, or the port's own outputs in loopback mode.
    fn modem_inputs(&self) -> ModemStatus {
        let control = self.state.modem_control;
        if control.loopback() {
            ModemStatus::new()
                .with_clear_to_send(control.request_to_send())
                .with_data_set_ready(control.data_terminal_ready())
                .with_ring(control.out1())
                .with_carrier(control.out2())
        } else {
            ModemStatus::new().with_clear_to_send(true).with_data_set_ready(true).with_carrier(true)
        }
    }

    /// LSR (section 8.4). Reading clears the errors.
    fn read_line_status(&mut self) -> u8 {
        let status = LineStatus::new()
            .with_data_ready(!self.state.received.is_empty())
            .with_overrun(std::mem::take(&mut self.state.overrun))
            .with_break_received(self.state.received.front().is_some_and(|r| r.is_break))
            .with_transmit_empty(true)
            .with_transmitter_idle(true)
            .with_fifo_error(
                self.state.fifo_control.enable() && self.state.received.iter().any(|r| r.is_break),
            );
        if let Some(head) = self.state.received.front_mut() {
            head.is_break = false;
        }
        status.into_bits()
    }

    /// IIR (section 8.6). Reading it withdraws the "transmitter empty" interrupt it reports.
    fn read_identification(&mut self) -> u8 {
        let code = self.identification();
        if code == identification::TRANSMIT_EMPTY {
            self.state.transmit_empty = false;
        }
        if self.state.fifo_control.enable() { code | identification::FIFOS_ENABLED } else { code }
    }

    /// The interrupt of the highest priority.
    fn identification(&self) -> u8 {
        let SerialState {
            divisor: _,
            interrupt_enable: enabled,
            fifo_control,
            line_control: _,
            modem_control: _,
            modem_changes,
            scratch: _,
            transmit_empty,
            overrun,
            received,
        } = &self.state;
        let line_error = *overrun || received.front().is_some_and(|r| r.is_break);
        if enabled.line_status() && line_error {
            identification::LINE_STATUS
        } else if enabled.received() && received.len() >= fifo_control.trigger_level() {
            identification::RECEIVED
        } else if enabled.received() && !received.is_empty() {
            identification::RECEIVE_TIMEOUT
        } else if enabled.transmit_empty() && *transmit_empty {
            identification::TRANSMIT_EMPTY
        } else if enabled.modem_status() && modem_changes.into_bits() != 0 {
            identification::MODEM_STATUS
        } else {
            identification::NONE
        }
    }

    fn update_line(&self) {
        let control = self.state.modem_control;
        let gate = control.out2() && !control.loopback();
        self.line.set(gate && self.identification() != identification::NONE);
    }

    /// After an access: the line, and the host that waits for room.
    fn settle(&mut self) {
        self.update_line();
        if self.host_waits && self.room() > 0 {
            self.host_waits = false;
            self.host.receive_ready();
        }
    }
}

impl PortDevice for Serial {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        port::read_bytes(offset, data, |register| self.read(register));
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        port::write_bytes(offset, data, |register, value| self.write(register, value));
    }
}

#[cfg(test)]
#[path = "serial_test.rs"]
mod tests;
