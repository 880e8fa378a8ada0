//! MSI-X (PCI 3.0, section 6.8.2): a table of messages in a BAR, with a mask and a pending bit each.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ConfigSpace, PciError};
use crate::MsiTarget;

/// Capability ID.
pub const CAPABILITY: u8 = 0x11;
/// The most vectors a function can have.
pub const MAX_VECTORS: usize = 2048;
/// Bytes of a table entry.
const ENTRY: u64 = 16;
/// Message Control: MSI-X Enable.
const CONTROL_ENABLE: u16 = 1 << 15;
/// Message Control: Function Mask.
const CONTROL_MASK: u16 = 1 << 14;

/// One entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixVector {
    /// Where the message is written.
    pub address: u64,
    /// What is written.
    pub data: u32,
    /// The entry's mask bit.
    pub masked: bool,
    /// A message waits for the mask to go.
    pub pending: bool,
}

impl MsixVector {
    const RESET: Self = Self { address: 0, data: 0, masked: true, pending: false };
}

/// Saved table. Enable and function mask are part of configuration space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixState {
    /// The entries.
    pub vectors: Vec<MsixVector>,
}

/// A function's MSI-X table.
pub struct Msix {
    vectors: Vec<MsixVector>,
    /// MSI-X Enable of Message Control.
    enabled: bool,
    /// Function Mask of Message Control, or the function may not master the bus.
    held: bool,
    target: Arc<dyn MsiTarget>,
}

impl std::fmt::Debug for Msix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Msix")
            .field("vectors", &self.vectors)
            .field("enabled", &self.enabled)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl Msix {
    /// A table of `vectors` masked entries that delivers to `target`.
    ///
    /// # Errors
    /// [`PciError::BadVectorCount`].
    pub fn new(vectors: usize, target: Arc<dyn MsiTarget>) -> Result<Self, PciError> {
        if vectors == 0 || vectors > MAX_VECTORS {
            return Err(PciError::BadVectorCount(vectors));
        }
        let vectors = vec![MsixVector::RESET; vectors];
        Ok(Self { vectors, enabled: false, held: false, target })
    }

    /// The table as saved; `config` is the restored configuration space with the capability at
    /// `capability`. Nothing is delivered by restoring.
    ///
    /// # Errors
    /// [`PciError::StateMismatch`].
    pub fn restore(
        state: &MsixState,
        config: &ConfigSpace,
        capability: u8,
        vectors: usize,
        target: Arc<dyn MsiTarget>,
    ) -> Result<Self, PciError> {
        let MsixState { vectors: saved } = state;
        if saved.len() != vectors {
            return Err(PciError::StateMismatch("another number of interrupt vectors"));
        }
        let (enabled, held) = control(config, capability);
        Ok(Self { vectors: saved.clone(), enabled, held, target })
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> MsixState {
        let Self { vectors, enabled: _, held: _, target: _ } = self;
        MsixState { vectors: vectors.clone() }
    }

    /// Declares the capability: the table at `table` and the pending bits at `pending`, bytes into
    /// BAR `bar`. Returns the capability's offset.
    ///
    /// # Errors
    /// [`PciError::NoCapabilityRoom`].
    pub fn add_capability(
        &self,
        config: &mut ConfigSpace,
        bar: u8,
        table: u32,
        pending: u32,
    ) -> Result<u8, PciError> {
        let last = u16::try_from(self.vectors.len().saturating_sub(1)).unwrap_or(u16::MAX);
        let mut body = [0; 10];
        body[..2].copy_from_slice(&last.to_le_bytes());
        body[2..6].copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
        body[6..].copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
        config.add_capability(CAPABILITY, &body, &(CONTROL_ENABLE | CONTROL_MASK).to_le_bytes())
    }

    /// Tells the table that configuration space was written.
    pub fn update_control(&mut self, config: &ConfigSpace, capability: u8) {
        (self.enabled, self.held) = control(config, capability);
        self.deliver_pending();
    }

    /// Whether the guest uses MSI-X.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Number of vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there is no vector; never the case.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Sends the message of `vector`, or notes it as pending while it is masked. A vector that does
    /// not exist, or MSI-X being off, makes it go nowhere.
    pub fn signal(&mut self, vector: u16) {
        let Some(entry) = self.vectors.get_mut(usize::from(vector)) else { return };
        if !self.enabled {
            return;
        }
        if self.held || entry.masked {
            entry.pending = true;
        } else {
            self.target.send(entry.address, entry.data);
        }
    }

    /// All vectors masked and idle, as after power-on.
    pub fn reset(&mut self) {
        self.vectors.fill(MsixVector::RESET);
        self.enabled = false;
        self.held = false;
    }

    /// Reads the table, `offset` bytes in.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let at = offset.saturating_add(index as u64);
            let entry = usize::try_from(at / ENTRY).ok().and_then(|i| self.vectors.get(i));
            *byte = entry.map_or(0, |entry| entry_bytes(entry)[(at % ENTRY) as usize]);
        }
    }

    /// Writes the table, `offset` bytes in.
    pub fn table_write(&mut self, offset: u64, data: &[u8]) {
        for (index, new) in data.iter().enumerate() {
            let at = offset.saturating_add(index as u64);
            let entry = usize::try_from(at / ENTRY).ok().and_then(|i| self.vectors.get_mut(i));
            let Some(entry) = entry else { continue };
            let shift = |first: u64| 8 * (at % ENTRY - first);
            match at % ENTRY {
                byte @ 0..8 => {
                    entry.address &= !(0xff << (8 * byte));
                    entry.address |= u64::from(*new) << (8 * byte);
                }
                8..12 => {
                    entry.data &= !(0xff << shift(8));
                    entry.data |= u32::from(*new) << shift(8);
                }
                12 => entry.masked = new & 1 != 0,
                _ => {}
            }
        }
        self.deliver_pending();
    }

    /// Reads the pending bits, `offset` bytes in.
    pub fn pending_read(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let at = offset.saturating_add(index as u64);
            let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(8);
            *byte = (0..8usize)
                .filter(|bit| {
                    self.vectors.get(first.saturating_add(*bit)).is_some_and(|v| v.pending)
                })
                .fold(0, |bits, bit| bits | (1 << bit));
        }
    }

    fn deliver_pending(&mut self) {
        if !self.enabled || self.held {
            return;
        }
        for entry in &mut self.vectors {
            if entry.pending && !entry.masked {
                entry.pending = false;
                self.target.send(entry.address, entry.data);
            }
        }
    }
}

/// (enabled, held back) as configuration space says.
fn control(config: &ConfigSpace, capability: u8) -> (bool, bool) {
    let control = config.read_u16(usize::from(capability) + 2);
    (control & CONTROL_ENABLE != 0, control & CONTROL_MASK != 0 || !config.bus_master())
}

fn entry_bytes(entry: &MsixVector) -> [u8; ENTRY as usize] {
    let mut bytes = [0; ENTRY as usize];
    bytes[..8].copy_from_slice(&entry.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&entry.data.to_le_bytes());
    bytes[12] = u8::from(entry.masked);
    bytes
}

#[cfg(test)]
#[path = "msix_test.rs"]
mod tests;
