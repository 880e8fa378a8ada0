//! What comes to devices, counted by kind: for processors in software that is what an exit is for
//! those that a host's kernel lends, and it has the same names.

use std::sync::Arc;

use riad_cpu::{Bus, ExitKind, Exits};
use riad_memory::Gpa;

/// The kinds that there are.
pub(crate) const KINDS: [ExitKind; 5] = [
    ExitKind::PortIn,
    ExitKind::PortOut,
    ExitKind::MmioRead,
    ExitKind::MmioWrite,
    ExitKind::EndOfInterrupt,
];

/// A bus whose accesses are counted.
pub(crate) struct CountedBus {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) accesses: Arc<Exits>,
}

impl Bus for CountedBus {
    fn mmio_read(&self, at: Gpa, data: &mut [u8]) {
        self.accesses.count(ExitKind::MmioRead);
        self.bus.mmio_read(at, data);
    }

    fn mmio_write(&self, at: Gpa, data: &[u8]) {
        self.accesses.count(ExitKind::MmioWrite);
        self.bus.mmio_write(at, data);
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        self.accesses.count(ExitKind::PortIn);
        self.bus.port_read(port, data);
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        self.accesses.count(ExitKind::PortOut);
        self.bus.port_write(port, data);
    }

    fn acknowledge_extint(&self) -> u8 {
        self.bus.acknowledge_extint()
    }

    fn end_of_interrupt(&self, vector: u8) {
        self.accesses.count(ExitKind::EndOfInterrupt);
        self.bus.end_of_interrupt(vector);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use riad_cpu::{Bus, Exits, Nowhere};
    use riad_memory::Gpa;

    use super::{CountedBus, KINDS};

    #[test]
    fn each_kind_counts_for_itself() {
        let accesses = Arc::new(Exits::default());
        let bus = CountedBus { bus: Arc::new(Nowhere), accesses: Arc::clone(&accesses) };
        bus.port_read(0x60, &mut [0]);
        for _ in 0..2 {
            bus.port_write(0x60, &[0]);
        }
        for _ in 0..3 {
            bus.mmio_read(Gpa(0), &mut [0]);
        }
        for _ in 0..4 {
            bus.mmio_write(Gpa(0), &[0]);
        }
        for _ in 0..5 {
            bus.end_of_interrupt(0x30);
        }
        bus.acknowledge_extint();
        let expected =
            [("port-in", 1), ("port-out", 2), ("mmio-read", 3), ("mmio-write", 4), ("eoi", 5)];
        assert_eq!(accesses.list(&KINDS), expected);
    }
}
