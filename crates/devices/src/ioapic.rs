//! An I/O APIC (Intel 82093AA datasheet, order 290566) of version 0x20, which adds the EOI register
//! (I/O Controller Hub 10 datasheet, section 13.5, "APIC memory map").
//!
//! Interrupts leave as messages (Intel SDM volume 3, section 11.11, "Message signalled
//! interrupts"), so that local APICs in software and a KVM with a split interrupt controller are
//! served alike.
//!
//! [`IoApic`] is a handle: clones share the device, and its wires ([`IoApic::line`]) may be used
//! from any thread. Messages are sent after the device is unlocked: a local APIC may call
//! [`IoApic::eoi`] at any time, except while it holds a lock that its message target takes.
//!
//! Wires carry whether an interrupt is asserted, not a voltage: the polarity bit is kept and has no
//! effect. Edges at masked pins are lost (datasheet, section 3.2.4, "Interrupt mask").

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

use crate::MmioDevice;
use crate::line::{InterruptLine, MsiTarget, SharedLine};

/// Number of pins.
pub const PINS: u8 = 24;

/// A redirection table entry (82093AA, section 3.2.4).
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirection {
    /// The vector.
    pub vector: u8,
    /// Fixed, lowest priority, SMI, reserved, NMI, INIT, reserved, ExtINT.
    #[bits(3)]
    pub delivery_mode: u8,
    /// The destination is logical.
    pub logical: bool,
    /// Being sent; always 0 here.
    pub pending: bool,
    /// Active low; has no effect.
    pub active_low: bool,
    /// Accepted by a local APIC that has not signalled its end yet; level-triggered pins only.
    pub remote_irr: bool,
    /// Level-triggered.
    pub level_triggered: bool,
    /// Masked.
    pub masked: bool,
    #[bits(39)]
    __: u64,
    /// The local APICs to send to.
    pub destination: u8,
}

/// What a write to a redirection table entry can change.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// Delivery modes that local APICs acknowledge.
const FIXED: u8 = 0;
/// As [`FIXED`], to one of several.
const LOWEST_PRIORITY: u8 = 1;

/// A message signalled interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Where it is written.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

impl Redirection {
    /// The message this entry sends (SDM volume 3, sections 11.11.1 and 11.11.2).
    #[must_use]
    pub fn message(self) -> Message {
        let address =
            0xfee0_0000 | u64::from(self.destination()) << 12 | u64::from(self.logical()) << 2;
        let data = u32::from(self.vector())
            | u32::from(self.delivery_mode()) << 8
            | 1 << 14
            | u32::from(self.level_triggered()) << 15;
        Message { address, data }
    }

    /// Whether its local APIC will signal the end.
    fn waits_for_eoi(self) -> bool {
        self.level_triggered() && matches!(self.delivery_mode(), FIXED | LOWEST_PRIORITY)
    }
}

/// The saved state of [`IoApic`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApicState {
    /// The ID register's ID, 0 to 15. Messages do not use it.
    pub id: u8,
    /// The register that the data window shows.
    pub selected: u8,
    /// Levels of the pins; bit n is pin n.
    pub inputs: u32,
    /// The redirection table.
    pub table: [Redirection; PINS as usize],
}

impl Default for IoApicState {
    fn default() -> Self {
        let masked = Redirection::new().with_masked(true);
        Self { id: 0, selected: 0, inputs: 0, table: [masked; PINS as usize] }
    }
}

/// An I/O APIC.
#[derive(Clone)]
pub struct IoApic {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<IoApicState>,
    messages: Arc<dyn MsiTarget>,
}

/// Offsets of the registers in memory.
mod offset {
    pub(super) const SELECT: u64 = 0x00;
    pub(super) const WINDOW: u64 = 0x10;
    pub(super) const EOI: u64 = 0x40;
}

/// Numbers of the registers behind the window.
mod index {
    pub(super) const ID: u8 = 0x00;
    pub(super) const VERSION: u8 = 0x01;
    pub(super) const ARBITRATION: u8 = 0x02;
    pub(super) const TABLE: u8 = 0x10;
    pub(super) const TABLE_END: u8 = TABLE + 2 * super::PINS - 1;
}

impl IoApic {
    /// Where a PC's first I/O APIC is in guest-physical memory.
    pub const DEFAULT_ADDRESS: u64 = 0xfec0_0000;
    /// Bytes of guest-physical memory it takes.
    pub const SIZE: u64 = 0x1000;
    /// The version register's version: with an EOI register.
    pub const VERSION: u8 = 0x20;

    /// An I/O APIC after reset, all pins masked, that sends to `messages`.
    #[must_use]
    pub fn new(messages: Arc<dyn MsiTarget>) -> Self {
        Self::restore(IoApicState::default(), messages)
    }

    /// The I/O APIC of a saved state. It sends nothing: what it had sent is in the state of the
    /// local APICs.
    #[must_use]
    pub fn restore(state: IoApicState, messages: Arc<dyn MsiTarget>) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(state), messages }) }
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> IoApicState {
        let Self { shared } = self;
        let Shared { state: _, messages: _ } = &**shared;
        shared.lock().clone()
    }

    /// The wire of a pin, 0 to 23. Higher numbers lead nowhere.
    #[must_use]
    pub fn line(&self, pin: u8) -> SharedLine {
        Arc::new(Pin { ioapic: Arc::clone(&self.shared), pin })
    }

    /// A local APIC signals the end of a level-triggered interrupt (SDM volume 3, section 11.8.5):
    /// pins with this vector that are still raised interrupt again.
    pub fn eoi(&self, vector: u8) {
        self.shared.eoi(vector);
    }

    /// The redirection table entry of a pin; `None` above 23. An engine that routes interrupts by
    /// itself reads the message to route from it.
    #[must_use]
    pub fn redirection(&self, pin: u8) -> Option<Redirection> {
        self.shared.lock().table.get(usize::from(pin)).copied()
    }
}

/// Messages to send once the device is unlocked: at most one a pin.
#[derive(Default)]
struct Outbox {
    pins: u32,
    messages: [Option<Message>; PINS as usize],
}

impl IoApicState {
    /// Sends the interrupt of a raised level-triggered pin, unless it waits for an end.
    fn serve_level(&mut self, pin: usize, out: &mut Outbox) {
        let raised = self.inputs & (1 << pin) != 0;
        if let Some(entry) = self.table.get_mut(pin)
            && raised
            && entry.level_triggered()
            && !entry.masked()
            && !entry.remote_irr()
        {
            entry.set_remote_irr(entry.waits_for_eoi());
            out.push(pin, *entry);
        }
    }

    fn set_input(&mut self, pin: u8, level: bool, out: &mut Outbox) {
        let pin = usize::from(pin);
        let Some(&entry) = self.table.get(pin) else { return };
        let was = self.inputs & (1 << pin) != 0;
        self.inputs = (self.inputs & !(1 << pin)) | (u32::from(level) << pin);
        if was == level {
            return;
        }
        if entry.level_triggered() {
            self.serve_level(pin, out);
        } else if level && !entry.masked() {
            out.push(pin, entry);
        }
    }

    fn eoi(&mut self, vector: u8, out: &mut Outbox) {
        for pin in 0..usize::from(PINS) {
            let entry = &mut self.table[pin];
            if entry.vector() == vector && entry.level_triggered() && entry.remote_irr() {
                entry.set_remote_irr(false);
                self.serve_level(pin, out);
            }
        }
    }

    fn read_window(&self) -> u32 {
        match self.selected {
            index::ID | index::ARBITRATION => u32::from(self.id & 0xf) << 24,
            index::VERSION => u32::from(IoApic::VERSION) | u32::from(PINS - 1) << 16,
            register @ index::TABLE..=index::TABLE_END => {
                let register = register - index::TABLE;
                let entry = self.table[usize::from(register / 2)].into_bits();
                let half = if register.is_multiple_of(2) { entry } else { entry >> 32 };
                (half & 0xffff_ffff) as u32
            }
            _ => 0,
        }
    }

    fn write_window(&mut self, value: u32, out: &mut Outbox) {
        match self.selected {
            index::ID => self.id = (value >> 24 & 0xf) as u8,
            register @ index::TABLE..=index::TABLE_END => {
                let register = register - index::TABLE;
                let pin = usize::from(register / 2);
                let shift = if register.is_multiple_of(2) { 0 } else { 32 };
                let entry = &mut self.table[pin];
                let writable = WRITABLE & (0xffff_ffff << shift);
                let bits = (entry.into_bits() & !writable) | (u64::from(value) << shift & writable);
                *entry = Redirection::from_bits(bits);
                // A pin that becomes edge-triggered forgets: drivers use this as an end.
                if !entry.level_triggered() {
                    entry.set_remote_irr(false);
                }
                self.serve_level(pin, out);
            }
            _ => {}
        }
    }
}

impl Outbox {
    fn push(&mut self, pin: usize, entry: Redirection) {
        if let Some(slot) = self.messages.get_mut(pin) {
            *slot = Some(entry.message());
            self.pins |= 1 << pin;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, IoApicState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn eoi(&self, vector: u8) {
        self.with(|state, out| state.eoi(vector, out));
    }

    /// Changes the state with the device locked, then sends with it unlocked.
    fn with(&self, change: impl FnOnce(&mut IoApicState, &mut Outbox)) {
        let mut out = Outbox::default();
        change(&mut self.lock(), &mut out);
        if out.pins != 0 {
            for message in out.messages.iter().flatten() {
                self.messages.send(message.address, message.data);
            }
        }
    }
}

impl MmioDevice for IoApic {
    /// Registers are 32 bits wide at 16-byte steps; other bytes read as 0.
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        let state = self.shared.lock();
        let register = match offset & !3 {
            offset::SELECT => u32::from(state.selected),
            offset::WINDOW => state.read_window(),
            _ => 0,
        };
        let bytes = register.to_le_bytes();
        let skip = (offset & 3) as usize;
        data.fill(0);
        for (to, from) in data.iter_mut().zip(&bytes[skip..]) {
            *to = *from;
        }
    }

    /// Writes must start at a register; narrower ones are extended with zeros.
    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        let value = data.iter().take(4).rev().fold(0u32, |value, &b| value << 8 | u32::from(b));
        let [low, ..] = value.to_le_bytes();
        match offset {
            offset::SELECT => self.shared.lock().selected = low,
            offset::WINDOW => self.shared.with(|state, out| state.write_window(value, out)),
            offset::EOI => self.shared.eoi(low),
            _ => {}
        }
    }
}

/// One pin's wire.
struct Pin {
    ioapic: Arc<Shared>,
    pin: u8,
}

impl InterruptLine for Pin {
    fn set(&self, level: bool) {
        self.ioapic.with(|state, out| state.set_input(self.pin, level, out));
    }
}

#[cfg(test)]
#[path = "ioapic_test.rs"]
mod tests;
