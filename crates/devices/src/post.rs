//! Ports that only have to swallow what is written: the POST code port and its neighbours.
//!
//! Port 0x80 shows a firmware's progress on a two-digit display, and kernels write to it (or to
//! 0xED) only because an access takes about a microsecond. 0x81 to 0x8F were the DMA page
//! registers, plain latches. 0xF0 and 0xF1 reset the coprocessor of an 80386 (IBM PC/AT Technical
//! Reference, "I/O address map"). All keep what is written, and do nothing with it.

use serde::{Deserialize, Serialize};

use crate::PortDevice;
use crate::port::{self, PortRange};

/// The saved state of [`PostPorts`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostPortsState {
    /// Latches of ports 0x80 to 0x8F; the first is the POST code.
    pub latches: [u8; 16],
}

/// The POST code port and other sinks.
#[derive(Debug, Default)]
pub struct PostPorts {
    state: PostPortsState,
}

impl PostPorts {
    /// Where the device answers; offsets are port numbers.
    pub const PORTS: &'static [PortRange] = &[0x80..=0x8f, 0xed..=0xed, 0xf0..=0xf1];

    /// Latches of zeros.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The device of a saved state.
    #[must_use]
    pub fn restore(state: PostPortsState) -> Self {
        Self { state }
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> PostPortsState {
        let Self { state } = self;
        state.clone()
    }

    /// The last POST code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.state.latches[0]
    }
}

impl PortDevice for PostPorts {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        port::read_bytes(offset, data, |port| match port {
            0x80..=0x8f => self.state.latches[usize::from(port & 0xf)],
            _ => 0xff,
        });
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        port::write_bytes(offset, data, |port, byte| {
            if let 0x80..=0x8f = port {
                self.state.latches[usize::from(port & 0xf)] = byte;
            }
        });
    }
}

#[cfg(test)]
#[path = "post_test.rs"]
mod tests;
