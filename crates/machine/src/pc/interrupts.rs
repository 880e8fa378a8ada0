//! Where the devices' interrupt wires lead, and who rings their bells.
//!
//! ```text
//! ISA device ─ IRQ n ─┬─► 8259 pair, input n ── INTR ─► processor 0, LINT0
//!                     └─► IOAPIC, pin n (timer: pin 2) ─┐
//! PCI function ─ MSI-X ────────────────────────────────┴► local APICs
//! ```

use std::os::fd::AsFd;
use std::sync::Arc;

use riad_cpu::Engine;
use riad_devices::ioapic::IoApic;
use riad_devices::pic::Pic;
use riad_devices::{Bell, Doorbells, InterruptLine, MsiTarget, SharedLine};
use riad_memory::Gpa;

use super::map::isa_pin;

/// The processors' end of all wires.
#[derive(Clone)]
pub struct Processors(Arc<dyn Engine>);

impl Processors {
    /// The processors of `engine`.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self(engine)
    }
}

impl MsiTarget for Processors {
    fn send(&self, address: u64, data: u32) {
        self.0.send_msi(address, data);
    }
}

impl Doorbells for Processors {
    fn hang(&self, at: Gpa, bell: &Bell) -> bool {
        self.0.hang_bell(at, bell.as_fd())
    }

    fn take_down(&self, at: Gpa, bell: &Bell) {
        self.0.take_bell_down(at, bell.as_fd());
    }
}

/// INTR of the 8259 pair.
impl InterruptLine for Processors {
    fn set(&self, level: bool) {
        self.0.set_extint(level);
    }
}

/// The wire of an ISA interrupt: to both interrupt controllers, of which the guest uses one.
struct IsaLine {
    pic: SharedLine,
    ioapic: SharedLine,
}

impl InterruptLine for IsaLine {
    fn set(&self, level: bool) {
        self.pic.set(level);
        self.ioapic.set(level);
    }
}

/// The wire of ISA interrupt `irq`, 0 to 15.
pub(super) fn isa_line(pic: &Pic, ioapic: &IoApic, irq: u8) -> SharedLine {
    Arc::new(IsaLine { pic: pic.line(irq), ioapic: ioapic.line(isa_pin(irq)) })
}
