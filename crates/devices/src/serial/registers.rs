//! Registers of the 16550A with fields (PC16550D datasheet, section 8).

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// IER (section 8.7).
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptEnable {
    /// Bytes were received.
    pub received: bool,
    /// The transmitter is empty.
    pub transmit_empty: bool,
    /// An error or a break was received.
    pub line_status: bool,
    /// A modem input changed.
    pub modem_status: bool,
    #[bits(4)]
    __: u8,
}

/// FCR (section 8.5).
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct FifoControl {
    /// Turns both FIFOs on.
    pub enable: bool,
    /// Empties the receive FIFO; always reads as 0.
    pub clear_receive: bool,
    /// Empties the transmit FIFO; always reads as 0.
    pub clear_transmit: bool,
    /// DMA mode.
    pub dma_mode: bool,
    #[bits(2)]
    __: u8,
    /// Received bytes before an interrupt: 1, 4, 8 or 14.
    #[bits(2)]
    pub trigger: u8,
}

impl FifoControl {
    /// How many received bytes raise the interrupt.
    #[must_use]
    pub fn trigger_level(self) -> usize {
        match (self.enable(), self.trigger()) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }
}

/// LCR (section 8.1). Riad's cable has no bit times: only the divisor latch bit matters.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct LineControl {
    /// Bits in a character, less five.
    #[bits(2)]
    pub word_length: u8,
    /// More than one stop bit.
    pub stop_bits: bool,
    /// Parity is on.
    pub parity: bool,
    /// Parity is even.
    pub even_parity: bool,
    /// Parity has a fixed value.
    pub stick_parity: bool,
    /// A break is sent.
    pub send_break: bool,
    /// Registers 0 and 1 are the divisor latch.
    pub divisor_latch: bool,
}

/// MCR (section 8.8).
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct ModemControl {
    /// DTR.
    pub data_terminal_ready: bool,
    /// RTS.
    pub request_to_send: bool,
    /// OUT1, unconnected.
    pub out1: bool,
    /// OUT2, the gate of the interrupt pin.
    pub out2: bool,
    /// The port hears itself.
    pub loopback: bool,
    #[bits(3)]
    __: u8,
}

/// LSR (section 8.4).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct LineStatus {
    /// A byte was received.
    pub data_ready: bool,
    /// A byte was lost.
    pub overrun: bool,
    /// Parity was wrong.
    pub parity_error: bool,
    /// A stop bit was missing.
    pub framing_error: bool,
    /// A break was received.
    pub break_received: bool,
    /// Room in the transmitter (THRE).
    pub transmit_empty: bool,
    /// Nothing being sent (TEMT).
    pub transmitter_idle: bool,
    /// Something in the receive FIFO has an error.
    pub fifo_error: bool,
}

/// MSR (section 8.9).
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct ModemStatus {
    /// CTS changed.
    pub clear_to_send_changed: bool,
    /// DSR changed.
    pub data_set_ready_changed: bool,
    /// RI went from on to off.
    pub ring_ended: bool,
    /// DCD changed.
    pub carrier_changed: bool,
    /// CTS.
    pub clear_to_send: bool,
    /// DSR.
    pub data_set_ready: bool,
    /// RI.
    pub ring: bool,
    /// DCD.
    pub carrier: bool,
}
