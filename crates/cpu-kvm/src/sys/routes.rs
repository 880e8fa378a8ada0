//! Routes of interrupts into the kernel (KVM API 4.52): which level-triggered vectors I/O APICs want
//! to hear the end of.
//!
//! The I/O APIC is the board's. The kernel tells the end of an interrupt (`KVM_EXIT_IOAPIC_EOI`) for
//! those vectors alone that a route of the I/O APIC's pins has, so the messages themselves, as they
//! pass, teach which those are.

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry};
use kvm_ioctls::VmFd;
use riad_cpu::Error;

/// Pins that the kernel keeps for an I/O APIC: as many level-triggered messages are remembered.
pub(super) const PINS: u32 = 24;

/// Message data: level-triggered (SDM 3A, 11.11.2).
const LEVEL: u32 = 1 << 15;

/// A message: address and data.
pub(super) type Message = (u64, u32);

/// Whether somebody wants to hear the end of what a message asks for.
pub(super) fn has_end(message: Message) -> bool {
    message.1 & LEVEL != 0
}

/// The routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Level-triggered messages, the oldest first.
    level: Vec<Message>,
}

impl Routes {
    /// A message passes. When it is level-triggered and new, the kernel is told.
    pub(super) fn learn(&mut self, vm: &VmFd, message: Message) -> Result<(), Error> {
        if !has_end(message) || self.level.contains(&message) {
            return Ok(());
        }
        if self.level.len() == PINS as usize {
            self.level.remove(0);
        }
        self.level.push(message);
        self.apply(vm)
    }

    fn apply(&self, vm: &VmFd) -> Result<(), Error> {
        let entries: Vec<_> =
            (0..).zip(&self.level).map(|(pin, message)| route(pin, *message)).collect();
        let failed = |reason: String| Error::Unavailable { engine: "kvm", reason };
        let list = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| failed("more interrupt routes than KVM takes".to_owned()))?;
        vm.set_gsi_routing(&list)
            .map_err(|error| failed(format!("KVM refused the interrupt routes: {error}")))
    }
}

fn route(gsi: u32, (address, data): Message) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = address as u32;
    entry.u.msi.address_hi = (address >> 32) as u32;
    entry.u.msi.data = data;
    entry
}
