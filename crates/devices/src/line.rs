//! How a device asks for attention.

use std::sync::Arc;

/// A level-triggered wire to an interrupt controller. Setting the level it already has is harmless.
pub trait InterruptLine: Send + Sync {
    /// Raises (`true`) or lowers the wire.
    fn set(&self, level: bool);
}

/// Where message-signalled interrupts go (PCI 3.0, section 6.8): a write of `data` to `address`.
pub trait MsiTarget: Send + Sync {
    /// Delivers one message.
    fn send(&self, address: u64, data: u32);
}

/// A wire that leads nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLine;

impl InterruptLine for NoLine {
    fn set(&self, _level: bool) {}
}

/// A shared wire.
pub type SharedLine = Arc<dyn InterruptLine>;
