//! The DSDT: what is on the board, in ACPI's own language (ACPI 6.5, chapters 19 and 20).
//!
//! It names the PCI root with its windows, the devices at fixed ports, and how to power off. The only code
//! in it is that of [PCI hot plug](super::hotplug): a guest that only reads names and constants understands
//! all the rest.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Memory32Fixed, Name, Package,
    ResourceTemplate, Scope,
};
use acpi_tables::{Aml, AmlSink};

use riad_devices::hotplug::HotPlug;
use riad_devices::pm::Pm;

use super::hotplug;
use super::map::{
    AddressMap, ECAM, ECAM_SIZE, IOAPIC, IOAPIC_SIZE, IRQ_COM1, IRQ_PIT, IRQ_RTC, LAPIC,
    LAPIC_SIZE, PCI_LAST_BUS, PCI_MMIO32, PCI_MMIO32_SIZE, PCI_MMIO64_SIZE, S5_SLEEP_TYPE, port,
};

/// An edge-triggered, active-high ISA interrupt (ACPI 6.5, 6.4.2.1, "IRQ descriptor"), which the
/// `acpi_tables` crate lacks.
struct IsaIrq(u8);

impl Aml for IsaIrq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        /// Small descriptor, type 4, 2 bytes: no flags, thus edge-triggered and active high.
        const IRQ_DESCRIPTOR: u8 = 0x22;
        sink.byte(IRQ_DESCRIPTOR);
        sink.word(1u16.checked_shl(self.0.into()).unwrap_or(0));
    }
}

/// The body of the DSDT, without its header.
pub(super) fn body(map: &AddressMap) -> Vec<u8> {
    let mut aml = Vec::new();
    system_bus(map, &mut aml);
    let (sleep_type, zero) = (S5_SLEEP_TYPE, 0u8);
    // ACPI 6.5, 7.4.2: SLP_TYP for PM1a and PM1b, then two reserved values.
    Name::new("\\_S5_".into(), &Package::new(vec![&sleep_type, &sleep_type, &zero, &zero]))
        .to_aml_bytes(&mut aml);
    hotplug::add(&mut aml);
    aml
}

fn system_bus(map: &AddressMap, aml: &mut Vec<u8>) {
    let pci = PciRoot::new(map);
    let board = BoardResources;
    let com1 =
        IsaDevice { name: "COM1", hid: "PNP0501", port: port::COM1, len: 8, irq: Some(IRQ_COM1) };
    let rtc =
        IsaDevice { name: "RTC_", hid: "PNP0B00", port: port::CMOS, len: 2, irq: Some(IRQ_RTC) };
    let pit =
        IsaDevice { name: "TMR_", hid: "PNP0100", port: port::PIT, len: 4, irq: Some(IRQ_PIT) };
    Scope::new("\\_SB_".into(), vec![&pci, &board, &com1, &rtc, &pit]).to_aml_bytes(aml);
}

/// A device at fixed ports.
struct IsaDevice {
    name: &'static str,
    hid: &'static str,
    port: u16,
    len: u8,
    irq: Option<u8>,
}

impl Aml for IsaDevice {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let io = IO::new(self.port, self.port, 1, self.len);
        let irq = self.irq.map(IsaIrq);
        let mut resources: Vec<&dyn Aml> = vec![&io];
        resources.extend(irq.as_ref().map(|irq| irq as &dyn Aml));
        Device::new(
            self.name.into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new(self.hid)),
                &Name::new("_UID".into(), &0u8),
                &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// What is at fixed addresses but belongs to no device: guests keep away from it, and believe the
/// configuration space of the MCFG table only when it is reserved here (PCI Firmware 3.2, 4.1.2).
struct BoardResources;

impl Aml for BoardResources {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let fixed =
            |at: riad_memory::Gpa, len: u64| Memory32Fixed::new(true, at.0 as u32, len as u32);
        let ports = |at: u16, len: u8| IO::new(at, at, 1, len);
        Device::new(
            "MBRD".into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
                &Name::new("_UID".into(), &0u8),
                &Name::new(
                    "_CRS".into(),
                    &ResourceTemplate::new(vec![
                        &fixed(ECAM, ECAM_SIZE),
                        &fixed(IOAPIC, IOAPIC_SIZE),
                        &fixed(LAPIC, LAPIC_SIZE),
                        &ports(port::PIC_MASTER, 2),
                        &ports(port::PIC_SLAVE, 2),
                        &ports(port::ELCR, 2),
                        &ports(port::PORT_61, 1),
                        &ports(port::PORT_92, 1),
                        &ports(port::PM, Pm::PORT_COUNT as u8),
                        &ports(port::HOTPLUG, HotPlug::PORT_COUNT as u8),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The PCI root bridge (PCI Firmware 3.2, 4.1.3). It has no `_PRT`: the board's PCI devices signal
/// by message (MSI-X) and have no interrupt pins.
struct PciRoot {
    mmio64: (u64, u64),
}

impl PciRoot {
    fn new(map: &AddressMap) -> Self {
        let start = map.pci_mmio64().0;
        Self { mmio64: (start, start + PCI_MMIO64_SIZE - 1) }
    }
}

impl Aml for PciRoot {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let bus = AddressSpace::<u16>::new_bus_number(0, PCI_LAST_BUS.into());
        let config = IO::new(port::PCI_ADDRESS, port::PCI_ADDRESS, 1, 8);
        let io_below = AddressSpace::<u16>::new_io(0, port::PCI_ADDRESS - 1, None);
        let io_above = AddressSpace::<u16>::new_io(port::PCI_DATA + 4, u16::MAX, None);
        let uncached = AddressSpaceCacheable::NotCacheable;
        let mmio32 = AddressSpace::<u32>::new_memory(
            uncached,
            true,
            PCI_MMIO32.0 as u32,
            (PCI_MMIO32.0 + PCI_MMIO32_SIZE - 1) as u32,
            None,
        );
        let (first, last) = self.mmio64;
        let mmio64 = AddressSpace::<u64>::new_memory(uncached, true, first, last, None);
        Device::new(
            "PCI0".into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
                &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
                &Name::new("_UID".into(), &0u8),
                &Name::new("_SEG".into(), &0u8),
                &Name::new("_BBN".into(), &0u8),
                // Memory accesses of devices are coherent (ACPI 6.5, 6.2.17).
                &Name::new("_CCA".into(), &1u8),
                &Name::new(
                    "_CRS".into(),
                    &ResourceTemplate::new(vec![
                        &bus, &config, &io_below, &io_above, &mmio32, &mmio64,
                    ]),
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}
