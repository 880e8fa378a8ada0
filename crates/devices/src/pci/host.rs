//! The host bridge, and the two ways to configuration space.
//!
//! * [`HostBridge`]: function 00:00.0, whose class tells a guest that the bus is there.
//! * [`ConfigPorts`]: configuration mechanism #1 (PCI 3.0, section 3.2.2.3.2), ports 0xCF8 to 0xCFF.
//! * [`Ecam`]: configuration space as memory (PCI Express 3.0, section 7.2.2), 1 MiB for bus 0.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::{BarWindow, ConfigSpace, ConfigState, Identity, PciBus, PciDevice, PciError, lock};
use crate::{MmioDevice, PortDevice, PortRange};

/// CONFIG_ADDRESS.
const ADDRESS_PORT: u16 = 0xcf8;
/// The first of four bytes of CONFIG_DATA.
const DATA_PORT: u16 = 0xcfc;
/// The last.
const DATA_PORT_END: u16 = 0xcff;
/// Bytes of ECAM that bus 0 takes.
pub const ECAM_SIZE: u64 = 1 << 20;

/// A generic host bridge.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_00_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// Function 00:00.0: identity, nothing else.
#[derive(Debug)]
pub struct HostBridge {
    config: Mutex<ConfigSpace>,
}

impl HostBridge {
    /// The bridge as after power-on.
    #[must_use]
    pub fn new() -> Self {
        Self { config: Mutex::new(ConfigSpace::new(IDENTITY)) }
    }

    /// The bridge as saved.
    ///
    /// # Errors
    /// [`PciError::StateMismatch`].
    pub fn restore(state: &ConfigState) -> Result<Self, PciError> {
        Ok(Self { config: Mutex::new(ConfigSpace::new(IDENTITY).restore(state)?) })
    }

    /// The saved state.
    pub fn save(&self) -> ConfigState {
        let Self { config } = self;
        lock(config).save()
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl PciDevice for HostBridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        lock(&self.config).read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        lock(&self.config).write(offset, data);
    }

    fn bars(&self) -> Vec<BarWindow> {
        Vec::new()
    }

    fn bar_read(&self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}

    fn reset(&self) {
        *lock(&self.config) = ConfigSpace::new(IDENTITY);
    }
}

/// CONFIG_ADDRESS and CONFIG_DATA.
///
/// Port 0xCF9 between them is the reset control register of chipsets, another device: only 32-bit
/// accesses to 0xCF8 are CONFIG_ADDRESS.
#[derive(Debug)]
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    address: u32,
}

/// Saved [`ConfigPorts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPortsState {
    /// CONFIG_ADDRESS.
    pub address: u32,
}

impl ConfigPorts {
    /// Its ports; a 32-bit access to the first reaches over the gap.
    pub const PORTS: &'static [PortRange] = &[0xcf8..=0xcf8, 0xcfa..=0xcfb, 0xcfc..=0xcff];

    /// Ports that reach `bus`.
    #[must_use]
    pub fn new(bus: Arc<PciBus>) -> Self {
        Self { bus, address: 0 }
    }

    /// Ports as saved.
    #[must_use]
    pub fn restore(bus: Arc<PciBus>, state: &ConfigPortsState) -> Self {
        let ConfigPortsState { address } = *state;
        Self { bus, address: address & Self::IMPLEMENTED }
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> ConfigPortsState {
        let Self { bus: _, address } = self;
        ConfigPortsState { address: *address }
    }

    /// Bits of CONFIG_ADDRESS that exist: enable, bus, device, function, register.
    const IMPLEMENTED: u32 = 0x80ff_fffc;

    /// (slot, offset) that CONFIG_DATA reaches now, `within` bytes in; `None` when there is nothing.
    fn target(&self, within: u16) -> Option<(u8, u16)> {
        let [register, function, bus, enable] = self.address.to_le_bytes();
        if enable & 0x80 == 0 || bus != 0 || function & 7 != 0 {
            return None;
        }
        Some((function >> 3, u16::from(register) + within))
    }
}

impl PortDevice for ConfigPorts {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        match (offset, data.len()) {
            (ADDRESS_PORT, 4) => data.copy_from_slice(&self.address.to_le_bytes()),
            (DATA_PORT..=DATA_PORT_END, _) => {
                if let Some((slot, at)) = self.target(offset - DATA_PORT) {
                    self.bus.config_read(slot, at, data);
                }
            }
            _ => {}
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        match (offset, <[u8; 4]>::try_from(data)) {
            (ADDRESS_PORT, Ok(address)) => {
                self.address = u32::from_le_bytes(address) & Self::IMPLEMENTED
            }
            (DATA_PORT..=DATA_PORT_END, _) => {
                if let Some((slot, at)) = self.target(offset - DATA_PORT) {
                    self.bus.config_write(slot, at, data);
                }
            }
            _ => {}
        }
    }
}

/// Configuration space as memory, bus 0.
#[derive(Debug, Clone)]
pub struct Ecam {
    bus: Arc<PciBus>,
}

impl Ecam {
    /// A view of `bus`. It has no state of its own.
    #[must_use]
    pub fn new(bus: Arc<PciBus>) -> Self {
        Self { bus }
    }

    /// (slot, offset in configuration space) of an address in the region.
    fn target(offset: u64) -> Option<(u8, u16)> {
        let function = offset >> 12;
        if offset >= ECAM_SIZE || function & 7 != 0 {
            return None;
        }
        Some((u8::try_from(function >> 3).ok()?, (offset & 0xfff) as u16))
    }
}

impl MmioDevice for Ecam {
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        match Self::target(offset) {
            Some((slot, at)) => self.bus.config_read(slot, at, data),
            None => data.fill(0xff),
        }
    }

    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        if let Some((slot, at)) = Self::target(offset) {
            self.bus.config_write(slot, at, data);
        }
    }
}

#[cfg(test)]
#[path = "host_test.rs"]
mod tests;
