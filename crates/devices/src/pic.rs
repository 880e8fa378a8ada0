//! The two 8259A interrupt controllers of a PC (Intel 8259A datasheet, order 231468), with the
//! edge/level control registers that EISA added (82371AB PIIX4 datasheet, section 4.3.2, "ELCR").
//!
//! The second controller's output is input 2 of the first. Together they raise one wire, INTR; a
//! processor that takes the interrupt asks [`Pic::acknowledge`] for the vector.
//!
//! [`Pic`] is a handle: clones share the device, and its wires ([`Pic::line`]) may be used from any
//! thread. The wire INTR is set with the device locked, so that its levels arrive in order: it must
//! not call back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::PortDevice;
use crate::line::{InterruptLine, SharedLine};
use crate::port::{self, PortRange};

mod chip;
pub use chip::{ChipState, Expect, OperationCommand2, OperationCommand3};

/// The input of the first controller that the second is connected to.
const CASCADE: u8 = 2;
/// Inputs whose trigger mode can be chosen: not the timer, keyboard, cascade, clock, coprocessor.
const ELCR_WRITABLE: [u8; 2] = [0xf8, 0xde];

/// The saved state of [`Pic`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicState {
    /// The first controller (IRQ 0 to 7).
    pub first: ChipState,
    /// The second controller (IRQ 8 to 15).
    pub second: ChipState,
}

/// Both controllers.
#[derive(Clone)]
pub struct Pic {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<PicState>,
    intr: SharedLine,
}

impl Pic {
    /// Where the device answers; offsets are port numbers.
    pub const PORTS: &'static [PortRange] = &[0x20..=0x21, 0xa0..=0xa1, 0x4d0..=0x4d1];

    /// Controllers that wait to be initialized, and raise `intr` for the processor.
    #[must_use]
    pub fn new(intr: SharedLine) -> Self {
        Self::restore(PicState::default(), intr)
    }

    /// The controllers of a saved state.
    #[must_use]
    pub fn restore(state: PicState, intr: SharedLine) -> Self {
        intr.set(state.first.request(true).is_some());
        Self { shared: Arc::new(Shared { state: Mutex::new(state), intr }) }
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> PicState {
        let Self { shared } = self;
        let Shared { state: _, intr: _ } = &**shared;
        shared.lock().clone()
    }

    /// The wire of an interrupt request, 0 to 15. Wire 2 is the cascade and, like numbers above 15,
    /// leads nowhere.
    #[must_use]
    pub fn line(&self, irq: u8) -> SharedLine {
        Arc::new(Wire { pic: Arc::clone(&self.shared), irq })
    }

    /// Whether INTR is raised.
    #[must_use]
    pub fn output(&self) -> bool {
        self.shared.lock().first.request(true).is_some()
    }

    /// The processor's interrupt acknowledge cycle: the vector of the request of the highest
    /// priority, or of IRQ 7 or 15 when the request has gone meanwhile (datasheet, "Interrupt
    /// sequence").
    ///
    /// The caller must not hold a lock that the INTR wire takes.
    pub fn acknowledge(&self) -> u8 {
        let mut state = self.shared.lock();
        let vector = match state.first.acknowledge(true) {
            Some(CASCADE) => {
                let irq = state.second.acknowledge(false);
                state.second.vector(irq.unwrap_or(7))
            }
            irq => state.first.vector(irq.unwrap_or(7)),
        };
        self.shared.settle(&mut state);
        vector
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, PicState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes the second controller's output to the first, and the first's to the processor.
    fn settle(&self, state: &mut PicState) {
        let cascade = state.second.request(false).is_some();
        state.first.follow(CASCADE, cascade);
        self.intr.set(state.first.request(true).is_some());
    }
}

impl PortDevice for Pic {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        let mut state = self.shared.lock();
        port::read_bytes(offset, data, |port| match port {
            0x20 => state.first.read_command(true),
            0x21 => state.first.mask,
            0xa0 => state.second.read_command(false),
            0xa1 => state.second.mask,
            0x4d0 => state.first.level_triggered,
            0x4d1 => state.second.level_triggered,
            _ => 0xff,
        });
        self.shared.settle(&mut state);
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        let mut state = self.shared.lock();
        port::write_bytes(offset, data, |port, value| match port {
            0x20 => state.first.write_command(value),
            0x21 => state.first.write_data(value),
            0xa0 => state.second.write_command(value),
            0xa1 => state.second.write_data(value),
            0x4d0 => state.first.set_trigger_modes(value & ELCR_WRITABLE[0]),
            0x4d1 => state.second.set_trigger_modes(value & ELCR_WRITABLE[1]),
            _ => {}
        });
        self.shared.settle(&mut state);
    }
}

/// One interrupt request wire.
struct Wire {
    pic: Arc<Shared>,
    irq: u8,
}

impl InterruptLine for Wire {
    fn set(&self, level: bool) {
        let mut state = self.pic.lock();
        match self.irq {
            CASCADE => return,
            irq @ 0..=7 => state.first.set_input(irq, level),
            irq @ 8..=15 => state.second.set_input(irq & 7, level),
            _ => return,
        }
        self.pic.settle(&mut state);
    }
}

#[cfg(test)]
#[path = "pic_test.rs"]
mod tests;
