//! The PCI hot plug controller: tells a guest which slots of bus 0 have got a function, asks for those
//! that are wanted back, and takes a function away when the guest has let it go (ACPI 6.5, section 6.3,
//! "Device insertion, removal, and status objects").
//!
//! ACPI leaves the registers to the board: methods of its DSDT are their driver. This board's are three
//! of 32 bits, a bit a slot:
//!
//! | offset | register | |
//! |---|---|---|
//! | 0 | INSERTED | slots that have got a function; writing a one clears |
//! | 4 | WANTED | slots whose function is wanted back; writing a one clears |
//! | 8 | EJECT | write-only: the guest has let these slots' functions go |
//!
//! An event is a general-purpose event of the ACPI hardware ([`Pm`](crate::pm::Pm)), which the board
//! wires up. A guest that ejects what nobody wants back has turned it off for itself, no more: it finds
//! the function again when it looks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::PortDevice;
use crate::line::SharedLine;

/// Where functions are: the bus, seen from the controller.
pub trait Ejector: Send + Sync {
    /// The guest has let the function in `slot` go. When this returns, it does not see it any more.
    ///
    /// Called from a processor's thread in the middle of an access; it must not call the controller.
    fn eject(&self, slot: u8);
}

/// The saved state of [`HotPlug`]; a bit a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotPlugState {
    /// INSERTED.
    pub inserted: u32,
    /// WANTED.
    pub wanted: u32,
    /// Slots that were wanted back, and whose functions are there still.
    pub leaving: u32,
}

/// Offsets of the registers.
mod offset {
    pub(super) const INSERTED: usize = 0;
    pub(super) const WANTED: usize = 4;
    pub(super) const EJECT: usize = 8;
    pub(super) const END: usize = 12;
}

/// The PCI hot plug controller.
pub struct HotPlug {
    state: HotPlugState,
    /// Raised when there is something to be looked at.
    event: SharedLine,
    ejector: Arc<dyn Ejector>,
}

impl HotPlug {
    /// How many ports it takes.
    pub const PORT_COUNT: u16 = offset::END as u16;

    /// A controller with nothing to tell.
    #[must_use]
    pub fn new(event: SharedLine, ejector: Arc<dyn Ejector>) -> Self {
        Self::restore(HotPlugState::default(), event, ejector)
    }

    /// The controller of a saved state. The event that was raised is the ACPI hardware's to remember.
    #[must_use]
    pub fn restore(state: HotPlugState, event: SharedLine, ejector: Arc<dyn Ejector>) -> Self {
        Self { state, event, ejector }
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> HotPlugState {
        let Self { state, event: _, ejector: _ } = self;
        state.clone()
    }

    /// `slot` has got a function.
    pub fn inserted(&mut self, slot: u8) {
        self.state.inserted |= bit(slot);
        self.event.set(true);
    }

    /// The function in `slot` is wanted back.
    pub fn want_back(&mut self, slot: u8) {
        self.state.wanted |= bit(slot);
        self.state.leaving |= bit(slot);
        self.event.set(true);
    }

    /// The function in `slot` may stay after all.
    pub fn keep(&mut self, slot: u8) {
        self.state.wanted &= !bit(slot);
        self.state.leaving &= !bit(slot);
    }

    fn eject(&mut self, slots: u32) {
        let gone = slots & self.state.leaving;
        self.state.leaving &= !gone;
        self.state.inserted &= !gone;
        self.state.wanted &= !gone;
        for slot in (0..32).filter(|slot| gone & bit(*slot) != 0) {
            self.ejector.eject(slot);
        }
    }
}

/// The bit of a slot; none of one that does not exist.
fn bit(slot: u8) -> u32 {
    1u32.checked_shl(slot.into()).unwrap_or(0)
}

impl PortDevice for HotPlug {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        let mut image = [0; offset::END];
        image[offset::INSERTED..][..4].copy_from_slice(&self.state.inserted.to_le_bytes());
        image[offset::WANTED..][..4].copy_from_slice(&self.state.wanted.to_le_bytes());
        for (index, byte) in (usize::from(offset)..).zip(data) {
            *byte = image.get(index).copied().unwrap_or(0xff);
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        // A zero changes nothing in any of the registers, so that a write may be of any width.
        let mut image = [0; offset::END];
        for (index, &byte) in (usize::from(offset)..).zip(data) {
            if let Some(to) = image.get_mut(index) {
                *to = byte;
            }
        }
        let word = |at: usize| {
            u32::from_le_bytes([image[at], image[at + 1], image[at + 2], image[at + 3]])
        };
        self.state.inserted &= !word(offset::INSERTED);
        self.state.wanted &= !word(offset::WANTED);
        self.eject(word(offset::EJECT));
    }
}

#[cfg(test)]
#[path = "hotplug_test.rs"]
mod tests;
