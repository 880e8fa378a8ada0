//! Bus 0: slots, and which function answers at an address.
//!
//! The decode map is made again whenever a guest writes to the header of a function; accesses only
//! read it. BARs decode inside the bus's [`Apertures`] alone, as behind a real host bridge: a guest
//! that places a BAR over the interrupt controller hides the BAR, not the controller.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::config::{command, reg};
use super::{BarKind, BarWindow, PciDevice, PciError, slot};

/// Address ranges that the host bridge forwards to the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apertures {
    /// Memory below 4 GiB; BARs are first placed here.
    pub memory: Range<u64>,
    /// Memory above 4 GiB where a guest may move 64-bit BARs; may be empty.
    pub memory64: Range<u64>,
    /// I/O ports; may be empty.
    pub ports: Range<u16>,
}

/// Bus 0 with its functions.
pub struct PciBus {
    apertures: Apertures,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    slots: [Option<Slot>; 32],
    windows: Vec<Window>,
    /// First memory address and port not yet given to a BAR.
    next_memory: u64,
    next_port: u64,
}

/// How a device comes to be on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// It was there at power-on: firmware has placed it.
    PowerOn,
    /// It is where the guest had it.
    Restored,
    /// It came while the guest runs.
    Plugged,
}

struct Slot {
    device: Arc<dyn PciDevice>,
    /// Where BARs are placed after power-on: (BAR number, address, kind).
    placed: Vec<(u8, u64, BarKind)>,
}

struct Window {
    bar: BarWindow,
    device: Arc<dyn PciDevice>,
}

impl std::fmt::Debug for PciBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PciBus").field("apertures", &self.apertures).finish_non_exhaustive()
    }
}

impl PciBus {
    /// An empty bus.
    #[must_use]
    pub fn new(apertures: Apertures) -> Self {
        let state = State {
            next_memory: apertures.memory.start,
            next_port: u64::from(apertures.ports.start),
            ..State::default()
        };
        Self { apertures, state: RwLock::new(state) }
    }

    /// What the bus forwards: the ACPI tables describe it to the guest.
    #[must_use]
    pub fn apertures(&self) -> &Apertures {
        &self.apertures
    }

    /// Puts a new device into `slot`, places its BARs and turns it on, as firmware would.
    ///
    /// # Errors
    /// [`PciError::BadSlot`], [`PciError::SlotTaken`], [`PciError::NoWindow`].
    pub fn add_device(&self, slot: u8, device: Arc<dyn PciDevice>) -> Result<(), PciError> {
        self.add(slot, device, Arrival::PowerOn)
    }

    /// Puts a device that was restored from its saved state into `slot`; BARs stay where the guest
    /// had them. Devices are to be added in the order the machine was first built in.
    ///
    /// # Errors
    /// As for [`add_device`](Self::add_device).
    pub fn add_restored(&self, slot: u8, device: Arc<dyn PciDevice>) -> Result<(), PciError> {
        self.add(slot, device, Arrival::Restored)
    }

    /// Puts a new device into `slot` while the guest runs, which places its BARs and turns it on.
    ///
    /// # Errors
    /// [`PciError::BadSlot`], [`PciError::SlotTaken`].
    pub fn plug(&self, slot: u8, device: Arc<dyn PciDevice>) -> Result<(), PciError> {
        self.add(slot, device, Arrival::Plugged)
    }

    /// Takes the device out of `slot`, reset; `None` when there is none.
    pub fn remove(&self, slot: u8) -> Option<Arc<dyn PciDevice>> {
        let mut state = self.write();
        let entry = state.slots.get_mut(usize::from(slot))?.take()?;
        state.decode(&self.apertures);
        drop(state);
        entry.device.decoded(&[]);
        entry.device.reset();
        Some(entry.device)
    }

    fn add(&self, slot: u8, device: Arc<dyn PciDevice>, how: Arrival) -> Result<(), PciError> {
        let mut state = self.write();
        match state.slots.get(usize::from(slot)) {
            None => return Err(PciError::BadSlot(slot)),
            Some(Some(_)) => return Err(PciError::SlotTaken(slot)),
            Some(None) => {}
        }
        let mut placed = Vec::new();
        // What is plugged in has no place at power-on: there is no end to how often that is done.
        let bars = if how == Arrival::Plugged { Vec::new() } else { device.bars() };
        for BarWindow { bar, kind, size, .. } in bars {
            let at = state.allocate(&self.apertures, kind, size)?;
            placed.push((bar, at, kind));
        }
        let entry = Slot { device, placed };
        if how == Arrival::PowerOn {
            entry.place();
        }
        if let Some(room) = state.slots.get_mut(usize::from(slot)) {
            *room = Some(entry);
        }
        state.decode(&self.apertures);
        Ok(())
    }

    /// Resets every function and places BARs as at first.
    pub fn reset(&self) {
        let mut state = self.write();
        for entry in state.slots.iter().flatten() {
            entry.device.reset();
            entry.place();
        }
        state.decode(&self.apertures);
    }

    /// Reads configuration space of the function in `slot`, which is all ones when there is none.
    pub fn config_read(&self, slot: u8, offset: u16, data: &mut [u8]) {
        match self.device(slot) {
            Some(device) => device.config_read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes configuration space of the function in `slot`, if there is one.
    pub fn config_write(&self, slot: u8, offset: u16, data: &[u8]) {
        let Some(device) = self.device(slot) else { return };
        device.config_write(offset, data);
        if usize::from(offset) < reg::HEADER_END {
            self.write().decode(&self.apertures);
        }
    }

    /// Reads guest-physical memory; `false` when no BAR decodes `at`, then `data` is untouched.
    pub fn mmio_read(&self, at: u64, data: &mut [u8]) -> bool {
        let Some((device, bar, offset)) = self.find(at, data.len(), false) else { return false };
        device.bar_read(bar, offset, data);
        true
    }

    /// Writes guest-physical memory; `false` when no BAR decodes `at`.
    pub fn mmio_write(&self, at: u64, data: &[u8]) -> bool {
        let Some((device, bar, offset)) = self.find(at, data.len(), false) else { return false };
        device.bar_write(bar, offset, data);
        true
    }

    /// Reads an I/O port; `false` when no BAR decodes it, then `data` is untouched.
    pub fn port_read(&self, port: u16, data: &mut [u8]) -> bool {
        let found = self.find(u64::from(port), data.len(), true);
        let Some((device, bar, offset)) = found else { return false };
        device.bar_read(bar, offset, data);
        true
    }

    /// Writes an I/O port; `false` when no BAR decodes it.
    pub fn port_write(&self, port: u16, data: &[u8]) -> bool {
        let found = self.find(u64::from(port), data.len(), true);
        let Some((device, bar, offset)) = found else { return false };
        device.bar_write(bar, offset, data);
        true
    }

    /// The bus as `lspci` would tell it, a line a function: for people, and for the test that
    /// notices when guest-visible hardware changes.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for number in 0..=slot::LAST {
            let Some(device) = self.device(number) else { continue };
            let word = |at: u16| {
                let mut data = [0; 4];
                device.config_read(at, &mut data);
                u32::from_le_bytes(data)
            };
            let (id, class, subsystem) = (word(0), word(8), word(0x2c));
            let _ = write!(
                text,
                "00:{number:02x}.0 class {:06x} rev {:02x} id {:04x}:{:04x} subsystem {:04x}:{:04x}",
                class >> 8,
                class & 0xff,
                id & 0xffff,
                id >> 16,
                subsystem & 0xffff,
                subsystem >> 16,
            );
            for bar in device.bars() {
                let state = if bar.enabled { "" } else { " off" };
                let BarWindow { bar, kind, base, size, .. } = bar;
                let _ = write!(text, " bar{bar} {kind:?} {base:#x}+{size:#x}{state}");
            }
            let mut at = word(reg::CAPABILITIES as u16) & 0xff;
            for _ in 0..64 {
                if at == 0 {
                    break;
                }
                let capability = word(at as u16);
                let _ = write!(text, " cap {:02x}@{at:02x}", capability & 0xff);
                at = (capability >> 8) & 0xff;
            }
            text.push('\n');
        }
        text
    }

    fn find(&self, at: u64, len: usize, port: bool) -> Option<(Arc<dyn PciDevice>, u8, u64)> {
        let state = self.read();
        let window = state.windows.iter().find(|window| {
            let BarWindow { kind, base, size, .. } = window.bar;
            let offset = at.wrapping_sub(base);
            (kind == BarKind::Io) == port && offset < size && len as u64 <= size - offset
        })?;
        Some((Arc::clone(&window.device), window.bar.bar, at.wrapping_sub(window.bar.base)))
    }

    fn device(&self, slot: u8) -> Option<Arc<dyn PciDevice>> {
        let state = self.read();
        let entry = state.slots.get(usize::from(slot))?.as_ref()?;
        Some(Arc::clone(&entry.device))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Finds room for a BAR; BARs are aligned to their size (PCI 3.0, section 6.2.5.1) and kept
    /// apart by whole pages, so that a guest can map one without seeing another.
    fn allocate(
        &mut self,
        apertures: &Apertures,
        kind: BarKind,
        size: u64,
    ) -> Result<u64, PciError> {
        let full = PciError::NoWindow { size };
        let (next, end, align) = match kind {
            BarKind::Io => (&mut self.next_port, u64::from(apertures.ports.end), size),
            _ => (&mut self.next_memory, apertures.memory.end, size.max(4096)),
        };
        let Some(at) = next.checked_next_multiple_of(align) else { return Err(full) };
        match at.checked_add(size) {
            Some(after) if after <= end => {
                *next = after;
                Ok(at)
            }
            _ => Err(full),
        }
    }

    fn decode(&mut self, apertures: &Apertures) {
        self.windows.clear();
        for Slot { device, .. } in self.slots.iter().flatten() {
            let mut bars = device.bars();
            bars.retain(|bar| bar.enabled && within(apertures, bar));
            device.decoded(&bars);
            let window = |bar| Window { bar, device: Arc::clone(device) };
            self.windows.extend(bars.into_iter().map(window));
        }
    }
}

impl Slot {
    fn place(&self) {
        for &(bar, at, kind) in &self.placed {
            let bytes = at.to_le_bytes();
            let len = if kind == BarKind::Memory64 { 8 } else { 4 };
            let offset = reg::BAR0 as u16 + 4 * u16::from(bar);
            self.device.config_write(offset, bytes.get(..len).unwrap_or(&bytes));
        }
        let on = command::MEMORY | command::IO | command::BUS_MASTER;
        self.device.config_write(reg::COMMAND as u16, &on.to_le_bytes());
    }
}

fn within(apertures: &Apertures, bar: &BarWindow) -> bool {
    let Some(end) = bar.base.checked_add(bar.size) else { return false };
    let inside = |range: &Range<u64>| range.start <= bar.base && end <= range.end;
    match bar.kind {
        BarKind::Io => inside(&(u64::from(apertures.ports.start)..u64::from(apertures.ports.end))),
        BarKind::Memory32 => inside(&apertures.memory),
        BarKind::Memory64 => inside(&apertures.memory) || inside(&apertures.memory64),
    }
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod tests;
