//! A function's configuration space (PCI 3.0, section 6.1): a type 0 header and capabilities.
//!
//! It is 256 bytes and a mask that says which bits the guest may change. Sizing a BAR (write all
//! ones, read back; section 6.2.5.1) needs no code: the low bits are not writable.

use serde::{Deserialize, Serialize};

use super::PciError;

/// Bytes of configuration space a conventional function has.
pub const CONFIG_SIZE: usize = 256;

/// Register offsets of the type 0 header (PCI 3.0, figure 6-1).
pub mod reg {
    /// Vendor ID, 16 bits.
    pub const VENDOR: usize = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE: usize = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: usize = 0x04;
    /// Status, 16 bits.
    pub const STATUS: usize = 0x06;
    /// Revision, 8 bits, followed by the 24-bit class code.
    pub const REVISION: usize = 0x08;
    /// The first of six BARs of 32 bits.
    pub const BAR0: usize = 0x10;
    /// Subsystem vendor ID, 16 bits.
    pub const SUBSYSTEM_VENDOR: usize = 0x2c;
    /// Subsystem ID, 16 bits.
    pub const SUBSYSTEM: usize = 0x2e;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES: usize = 0x34;
    /// Interrupt line, 8 bits: scratch for system software.
    pub const INTERRUPT_LINE: usize = 0x3c;
    /// The first byte after the header.
    pub const HEADER_END: usize = 0x40;
}

/// Command register bits (PCI 3.0, section 6.2.2).
pub mod command {
    /// Decode I/O BARs.
    pub const IO: u16 = 1 << 0;
    /// Decode memory BARs.
    pub const MEMORY: u16 = 1 << 1;
    /// May read and write memory, and send messages.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// Report parity errors: kept, without effect.
    pub const PARITY: u16 = 1 << 6;
    /// Report system errors: kept, without effect.
    pub const SERR: u16 = 1 << 8;
    /// Silence INTx: kept, without effect, as no function has an interrupt pin.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Status register: a capability list is present.
const STATUS_CAPABILITIES: u8 = 1 << 4;

/// Who a function says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code, 24 bits: base class, subclass, programming interface.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// What a BAR decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// Memory, placed below 4 GiB.
    Memory32,
    /// Memory, placed anywhere; takes two BAR registers.
    Memory64,
    /// I/O ports.
    Io,
}

/// A BAR where the guest has placed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarWindow {
    /// BAR number, 0 to 5.
    pub bar: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// First address, or first port.
    pub base: u64,
    /// Length in bytes, a power of two.
    pub size: u64,
    /// Whether the command register lets it decode.
    pub enabled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BarLayout {
    kind: BarKind,
    size: u64,
}

/// A function's configuration space.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: [u8; CONFIG_SIZE],
    /// Bits the guest may change.
    mask: [u8; CONFIG_SIZE],
    bars: [Option<BarLayout>; 6],
    /// Where the next capability goes.
    free: usize,
    /// The "next" pointer that will name it.
    link: usize,
}

/// Saved configuration space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigState {
    /// All 256 bytes.
    pub bytes: Vec<u8>,
}

impl ConfigSpace {
    /// A type 0 header without BARs or capabilities.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let Identity { vendor, device, revision, class, subsystem_vendor, subsystem } = identity;
        let mut config = Self {
            bytes: [0; CONFIG_SIZE],
            mask: [0; CONFIG_SIZE],
            bars: [None; 6],
            free: reg::HEADER_END,
            link: reg::CAPABILITIES,
        };
        config.put(reg::VENDOR, &vendor.to_le_bytes());
        config.put(reg::DEVICE, &device.to_le_bytes());
        config.put(reg::REVISION, &((class << 8) | u32::from(revision)).to_le_bytes());
        config.put(reg::SUBSYSTEM_VENDOR, &subsystem_vendor.to_le_bytes());
        config.put(reg::SUBSYSTEM, &subsystem.to_le_bytes());
        let writable =
            command::BUS_MASTER | command::PARITY | command::SERR | command::INTX_DISABLE;
        config.allow(reg::COMMAND, &writable.to_le_bytes());
        config.allow(reg::INTERRUPT_LINE, &[0xff]);
        config
    }

    /// Declares BAR `bar` of `size` bytes.
    ///
    /// # Errors
    /// [`PciError::BadBar`] when the size is not a power of two, too small (16 bytes for memory, 4
    /// ports), too large for its kind, or the register is in use.
    pub fn add_bar(&mut self, bar: u8, kind: BarKind, size: u64) -> Result<(), PciError> {
        let bad = PciError::BadBar { bar, size };
        let (least, most, registers) = match kind {
            BarKind::Memory32 => (16, 1 << 31, 1),
            BarKind::Memory64 => (16, 1 << 62, 2),
            BarKind::Io => (4, 256, 1),
        };
        let first = usize::from(bar);
        let upper_half_of_last = first > 0
            && matches!(self.bars.get(first - 1), Some(Some(below)) if below.kind == BarKind::Memory64);
        let taken = match self.bars.get(first..first + registers) {
            Some(wanted) => wanted.iter().any(Option::is_some) || upper_half_of_last,
            None => true,
        };
        if taken || !size.is_power_of_two() || size < least || size > most {
            return Err(bad);
        }
        let at = reg::BAR0 + 4 * first;
        let address_bits = !(size - 1);
        let (flags, decode) = match kind {
            BarKind::Memory32 => (0b000, command::MEMORY),
            BarKind::Memory64 => (0b100, command::MEMORY),
            BarKind::Io => (0b001, command::IO),
        };
        self.put(at, &[flags]);
        self.allow(at, &address_bits.to_le_bytes()[..4 * registers]);
        self.allow(reg::COMMAND, &decode.to_le_bytes());
        self.bars[first] = Some(BarLayout { kind, size });
        Ok(())
    }

    /// Appends a capability (PCI 3.0, section 6.7) and returns its offset. `body` is what follows
    /// the ID and the "next" pointer; `writable` masks `body`, short masks end in zeros.
    ///
    /// # Errors
    /// [`PciError::NoCapabilityRoom`].
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u8, PciError> {
        let full = PciError::NoCapabilityRoom(body.len() + 2);
        let at = self.free;
        let end = at + 2 + body.len();
        let Ok(offset) = u8::try_from(at) else { return Err(full) };
        if end > CONFIG_SIZE || writable.len() > body.len() {
            return Err(full);
        }
        self.put(self.link, &[offset]);
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.allow(at + 2, writable);
        self.bytes[reg::STATUS] |= STATUS_CAPABILITIES;
        self.link = at + 1;
        self.free = end.next_multiple_of(4);
        Ok(offset)
    }

    /// The space as saved, over the same layout.
    ///
    /// # Errors
    /// [`PciError::StateMismatch`] when a read-only bit differs: it was other hardware.
    pub fn restore(mut self, state: &ConfigState) -> Result<Self, PciError> {
        let ConfigState { bytes } = state;
        let Ok(bytes) = <[u8; CONFIG_SIZE]>::try_from(bytes.as_slice()) else {
            return Err(PciError::StateMismatch("configuration space has another size"));
        };
        let same_hardware =
            (0..CONFIG_SIZE).all(|at| (bytes[at] ^ self.bytes[at]) & !self.mask[at] == 0);
        if !same_hardware {
            return Err(PciError::StateMismatch("configuration space differs"));
        }
        self.bytes = bytes;
        Ok(self)
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> ConfigState {
        // The rest is layout, which the constructor makes again.
        let Self { bytes, mask: _, bars: _, free: _, link: _ } = self;
        ConfigState { bytes: bytes.to_vec() }
    }

    /// Reads; bytes beyond the space are zero.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes what the guest may write.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, new) in (usize::from(offset)..).zip(data) {
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.mask.get(at)) {
                *byte = (*byte & !mask) | (new & mask);
            }
        }
    }

    /// Sets bytes whatever their mask: for registers that the device itself drives. What lies
    /// beyond the space is dropped.
    pub fn put(&mut self, offset: usize, data: &[u8]) {
        for (byte, new) in self.bytes.iter_mut().skip(offset).zip(data) {
            *byte = *new;
        }
    }

    /// A 16-bit register; zero beyond the space.
    #[must_use]
    pub fn read_u16(&self, offset: usize) -> u16 {
        let byte = |at| self.bytes.get(at).copied().unwrap_or(0);
        u16::from_le_bytes([byte(offset), byte(offset.saturating_add(1))])
    }

    /// A 32-bit register; zero beyond the space.
    #[must_use]
    pub fn read_u32(&self, offset: usize) -> u32 {
        u32::from(self.read_u16(offset)) | (u32::from(self.read_u16(offset + 2)) << 16)
    }

    /// Whether the function may master the bus: touch memory and send messages.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.read_u16(reg::COMMAND) & command::BUS_MASTER != 0
    }

    /// The BARs where they are now.
    #[must_use]
    pub fn bars(&self) -> Vec<BarWindow> {
        let command = self.read_u16(reg::COMMAND);
        let mut windows = Vec::new();
        for (bar, layout) in (0u8..).zip(&self.bars) {
            let Some(BarLayout { kind, size }) = *layout else { continue };
            let at = reg::BAR0 + 4 * usize::from(bar);
            let low = u64::from(self.read_u32(at));
            let (raw, decode) = match kind {
                BarKind::Memory32 => (low, command::MEMORY),
                BarKind::Memory64 => {
                    (low | (u64::from(self.read_u32(at + 4)) << 32), command::MEMORY)
                }
                BarKind::Io => (low & 0xffff, command::IO),
            };
            windows.push(BarWindow {
                bar,
                kind,
                base: raw & !(size - 1),
                size,
                enabled: command & decode != 0,
            });
        }
        windows
    }

    /// The capabilities, as (ID, offset), in list order.
    #[must_use]
    pub fn capabilities(&self) -> Vec<(u8, u8)> {
        let mut found = Vec::new();
        let mut at = self.bytes[reg::CAPABILITIES];
        while at != 0 && found.len() < CONFIG_SIZE / 4 {
            let header = self.read_u16(usize::from(at)).to_le_bytes();
            found.push((header[0], at));
            at = header[1];
        }
        found
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        for (byte, new) in self.mask.iter_mut().skip(offset).zip(mask) {
            *byte |= *new;
        }
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
