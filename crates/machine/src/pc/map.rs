//! The address map: memory, I/O ports and interrupt pins of the PC board.
//!
//! ```text
//! 0000_0000 ─┬ RAM, up to 3 GiB      000A_0000..0010_0000 is RAM too, but not told to the guest as
//!            │                       usable: the firmware tables live in 000E_0000..0010_0000
//! C000_0000 ─┼ 32-bit PCI window
//! E000_0000 ─┼ PCI configuration space (ECAM), one bus used, 256 MiB reserved
//! FEC0_0000 ─┼ IOAPIC
//! FEE0_0000 ─┼ local APICs, message-signalled interrupts
//! 1_0000_0000┼ the rest of RAM
//!    ...     └ 64-bit PCI window, on the first GiB boundary above RAM
//! ```
//!
//! Everything the firmware tables say and everything the board wires comes from the constants here.

use riad_memory::{Gpa, PAGE_SIZE};
use serde::{Deserialize, Serialize};

/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;
/// Bytes in a gibibyte.
pub const GIB: u64 = 1 << 30;

/// The least RAM a machine can have: the legacy first megabyte, and one more for a kernel.
pub const MIN_MEMORY: u64 = 2 * MIB;
/// The most RAM a machine can have. With the 64-bit PCI window above it, it stays below the
/// 2^39 bytes that any x86-64 processor can address.
pub const MAX_MEMORY: u64 = 256 * GIB;

/// Where conventional memory ends and the extended BIOS data area begins.
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// Where the legacy hole (video memory and ROMs on a real PC) begins.
pub const LEGACY_HOLE: Gpa = Gpa(0xa_0000);
/// Where the firmware tables are: 128 KiB, in which kernels look for the RSDP (ACPI 6.5, 5.2.5.1).
pub const FIRMWARE_TABLES: Gpa = Gpa(0xe_0000);
/// End of the firmware tables and of the legacy hole.
pub const HIGH_MEMORY: Gpa = Gpa(0x10_0000);

/// End of the RAM below 4 GiB, at most; start of the 32-bit PCI window.
pub const PCI_MMIO32: Gpa = Gpa(0xc000_0000);
/// Bytes in the 32-bit PCI window.
pub const PCI_MMIO32_SIZE: u64 = 512 * MIB;
/// PCI configuration space (PCI Express 5.0, 7.2.2): a megabyte a bus.
pub const ECAM: Gpa = Gpa(0xe000_0000);
/// Bytes the guest is told are taken by configuration space.
pub const ECAM_SIZE: u64 = 256 * MIB;
/// The last PCI bus that exists. The first is 0.
pub const PCI_LAST_BUS: u8 = 0;
/// The IOAPIC's registers.
pub const IOAPIC: Gpa = Gpa(0xfec0_0000);
/// Bytes decoded by the IOAPIC.
pub const IOAPIC_SIZE: u64 = 0x1000;
/// The local APICs' registers after reset (Intel SDM 3A, 11.4.1); writes elsewhere in this window
/// are message-signalled interrupts.
pub const LAPIC: Gpa = Gpa(0xfee0_0000);
/// Bytes of the interrupt window.
pub const LAPIC_SIZE: u64 = MIB;
/// Where the RAM that did not fit below [`PCI_MMIO32`] goes on.
pub const RAM_ABOVE_4G: Gpa = Gpa(0x1_0000_0000);
/// Bytes in the 64-bit PCI window.
pub const PCI_MMIO64_SIZE: u64 = 64 * GIB;

/// I/O ports of the board.
pub mod port {
    use riad_devices::pm::Pm;

    /// First (master) interrupt controller, 2 ports.
    pub const PIC_MASTER: u16 = 0x20;
    /// Interval timer, 4 ports.
    pub const PIT: u16 = 0x40;
    /// Speaker gate and timer channel 2 output.
    pub const PORT_61: u16 = 0x61;
    /// Real-time clock and CMOS memory, 2 ports.
    pub const CMOS: u16 = 0x70;
    /// Fast A20 and reset.
    pub const PORT_92: u16 = 0x92;
    /// Second (slave) interrupt controller, 2 ports.
    pub const PIC_SLAVE: u16 = 0xa0;
    /// QEMU's `isa-debug-exit`: what is written ends the machine.
    pub const DEBUG_EXIT: u16 = 0xf4;
    /// First serial port, 8 ports.
    pub const COM1: u16 = 0x3f8;
    /// Interrupt trigger modes (edge or level) of the two controllers, 2 ports.
    pub const ELCR: u16 = 0x4d0;
    /// ACPI's hardware (ACPI 6.5, 4.8.3), [`Pm::PORT_COUNT`] ports.
    pub const PM: u16 = 0x600;
    /// PM1a event block: status and enable, 4 ports.
    pub const PM1A_EVT: u16 = PM + Pm::EVENT_BLOCK;
    /// PM1a control block, 2 ports.
    pub const PM1A_CNT: u16 = PM + Pm::CONTROL_BLOCK;
    /// Power management timer, 4 ports.
    pub const PM_TMR: u16 = PM + Pm::TIMER_BLOCK;
    /// General-purpose events (ACPI 6.5, 4.8.4.1), [`Pm::GENERAL_LEN`] ports.
    pub const GPE0: u16 = PM + Pm::GENERAL_BLOCK;
    /// PCI hot plug, [`HotPlug::PORT_COUNT`](riad_devices::hotplug::HotPlug::PORT_COUNT) ports.
    pub const HOTPLUG: u16 = 0x620;
    /// Where a guest may move the ports of PCI functions to, and those below 0x10000.
    pub const PCI_FIRST: u16 = 0x1000;
    /// PCI configuration address (PCI 3.0, 3.2.2.3.2).
    pub const PCI_ADDRESS: u16 = 0xcf8;
    /// Reset control, a byte inside the configuration address.
    pub const RESET_CONTROL: u16 = 0xcf9;
    /// PCI configuration data, 4 ports.
    pub const PCI_DATA: u16 = 0xcfc;
}

/// What the reset register takes to reset the machine: full reset, now.
pub const RESET_VALUE: u8 = riad_devices::reset::ResetPort::ACPI_RESET_VALUE;
/// What `SLP_TYP` takes to power the machine off (`_S5`, ACPI 6.5, 7.4.2).
pub const S5_SLEEP_TYPE: u8 = riad_devices::pm::SLEEP_TYPE_S5;

/// ISA interrupt of the interval timer.
pub const IRQ_PIT: u8 = 0;
/// ISA interrupt of the keyboard controller.
pub const IRQ_KEYBOARD: u8 = 1;
/// ISA interrupt of the first serial port.
pub const IRQ_COM1: u8 = 4;
/// ISA interrupt of the real-time clock.
pub const IRQ_RTC: u8 = 8;
/// The ACPI system control interrupt; level-triggered, active high.
pub const IRQ_SCI: u8 = 9;
/// Pins of the IOAPIC.
pub const IOAPIC_PINS: u8 = riad_devices::ioapic::PINS;
/// IOAPIC pin of the interval timer: pin 0 is taken by the interrupt controllers' output on a PC.
pub const PIT_PIN: u8 = 2;

/// The most processors a board takes: their APIC identifiers fit eight bits, of which 255 means all.
pub const MAX_CPUS: u32 = 255;
/// The IOAPIC's identifier.
pub const IOAPIC_ID: u8 = 0;

/// The IOAPIC pin of ISA interrupt `irq`.
#[must_use]
pub const fn isa_pin(irq: u8) -> u8 {
    if irq == IRQ_PIT { PIT_PIN } else { irq }
}

/// Why a machine cannot have the memory asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Less than a PC needs.
    #[error("a machine needs at least {min} MiB of memory, not {asked} bytes: raise --memory", min = MIN_MEMORY / MIB)]
    TooSmall {
        /// Bytes asked for.
        asked: u64,
    },
    /// More than the address map has room for.
    #[error("a machine takes at most {max} GiB of memory, not {asked} bytes: lower --memory", max = MAX_MEMORY / GIB)]
    TooLarge {
        /// Bytes asked for.
        asked: u64,
    },
    /// Not whole pages.
    #[error(
        "memory comes in pages of {PAGE_SIZE} bytes, and {asked} bytes are not whole pages: round --memory up"
    )]
    Misaligned {
        /// Bytes asked for.
        asked: u64,
    },
}

/// Where RAM and the 64-bit PCI window are in a machine of a given size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressMap {
    memory: u64,
}

impl AddressMap {
    /// The map of a machine with `memory` bytes of RAM.
    ///
    /// # Errors
    /// When `memory` is too little, too much, or not whole pages.
    pub fn new(memory: u64) -> Result<Self, MapError> {
        match memory {
            asked if asked < MIN_MEMORY => Err(MapError::TooSmall { asked }),
            asked if asked > MAX_MEMORY => Err(MapError::TooLarge { asked }),
            asked if asked % PAGE_SIZE != 0 => Err(MapError::Misaligned { asked }),
            memory => Ok(Self { memory }),
        }
    }

    /// Bytes of RAM.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Bytes of RAM below 4 GiB, from address 0.
    #[must_use]
    pub fn low(&self) -> u64 {
        self.memory.min(PCI_MMIO32.0)
    }

    /// Bytes of RAM from [`RAM_ABOVE_4G`] on.
    #[must_use]
    pub fn high(&self) -> u64 {
        self.memory - self.low()
    }

    /// The runs of RAM, as [`riad_memory::GuestMemory::new`] takes them.
    #[must_use]
    pub fn runs(&self) -> Vec<(Gpa, u64)> {
        let mut runs = vec![(Gpa(0), self.low())];
        if self.high() > 0 {
            runs.push((RAM_ABOVE_4G, self.high()));
        }
        runs
    }

    /// Start of the 64-bit PCI window, [`PCI_MMIO64_SIZE`] bytes.
    #[must_use]
    pub fn pci_mmio64(&self) -> Gpa {
        Gpa((RAM_ABOVE_4G.0 + self.high()).next_multiple_of(GIB))
    }

    /// What the guest is told about memory, in address order.
    #[must_use]
    pub fn e820(&self) -> Vec<E820Entry> {
        let mut map = vec![
            E820Entry::new(Gpa(0), LOW_MEMORY_END, E820Kind::Ram),
            E820Entry::new(Gpa(LOW_MEMORY_END), LEGACY_HOLE.0 - LOW_MEMORY_END, E820Kind::Reserved),
            E820Entry::new(FIRMWARE_TABLES, HIGH_MEMORY.0 - FIRMWARE_TABLES.0, E820Kind::Reserved),
            E820Entry::new(HIGH_MEMORY, self.low() - HIGH_MEMORY.0, E820Kind::Ram),
            E820Entry::new(ECAM, ECAM_SIZE, E820Kind::Reserved),
        ];
        if self.high() > 0 {
            map.push(E820Entry::new(RAM_ABOVE_4G, self.high(), E820Kind::Ram));
        }
        map
    }
}

/// What a range of memory is for (ACPI 6.5, 15.1, "address range types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// Free for the guest to use.
    Ram = 1,
    /// Not for the guest to use.
    Reserved = 2,
}

/// A range of the memory map that BIOS call `E820` would report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct E820Entry {
    /// First address.
    pub start: Gpa,
    /// Bytes; at least 1.
    pub len: u64,
    /// What it is for.
    pub kind: E820Kind,
}

impl E820Entry {
    const fn new(start: Gpa, len: u64, kind: E820Kind) -> Self {
        Self { start, len, kind }
    }

    /// The address after the last.
    #[must_use]
    pub fn end(&self) -> Gpa {
        Gpa(self.start.0.saturating_add(self.len))
    }
}

#[cfg(test)]
#[path = "map_test.rs"]
mod tests;
