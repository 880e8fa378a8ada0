//! The ACPI tables (ACPI 6.5, chapter 5): what the guest is told about the board.
//!
//! They lie one after the other from [`FIRMWARE_TABLES`] on, the root pointer (RSDP) first, where
//! kernels that were not told its address look for it.

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use riad_devices::cmos::Cmos;
use riad_devices::pm::Pm;
use riad_memory::{Gpa, GuestMemory};
use zerocopy::{Immutable, IntoBytes, little_endian as le};

use super::dsdt;
use super::map::{
    AddressMap, ECAM, FIRMWARE_TABLES, HIGH_MEMORY, IOAPIC, IOAPIC_ID, IRQ_COM1, IRQ_PIT, IRQ_SCI,
    LAPIC, MAX_CPUS, PCI_LAST_BUS, RESET_VALUE, isa_pin, port,
};

const OEM_ID: [u8; 6] = *b"RIAD  ";
const OEM_TABLE_ID: [u8; 8] = *b"RIADPC  ";
const OEM_REVISION: u32 = 1;

/// Bytes of the header that all tables but RSDP and FACS begin with.
const HEADER: u32 = 36;

/// `IAPC_BOOT_ARCH` flags (ACPI 6.5, table 5.10). Not set: 8042 keyboard controller (there is
/// none), MSI not supported (it is), CMOS clock not present (it is).
mod boot_arch {
    /// There are devices on the ISA bus.
    pub(super) const LEGACY_DEVICES: u16 = 1 << 0;
    /// There is no VGA: guests must not probe for it.
    pub(super) const NO_VGA: u16 = 1 << 2;
    /// PCI Express link power management is not to be touched.
    pub(super) const NO_ASPM: u16 = 1 << 4;
}

/// What cannot be told to the guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// No processor, or more than can be described.
    #[error("a machine has 1 to {MAX_CPUS} processors, not {0}: change --cpus")]
    Cpus(u32),
    /// The tables outgrew their place.
    #[error("the firmware tables need {0} bytes, which is more than there is room for")]
    TooLarge(usize),
}

/// The finished tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiTables {
    bytes: Vec<u8>,
}

impl AcpiTables {
    /// The tables of a board with `cpus` processors, whose APIC identifiers are 0, 1, 2, …
    ///
    /// # Errors
    /// When `cpus` is out of range.
    pub fn build(map: &AddressMap, cpus: u32) -> Result<Self, AcpiError> {
        if cpus == 0 || cpus > MAX_CPUS {
            return Err(AcpiError::Cpus(cpus));
        }
        let mut tables = Layout::default();
        // The root pointer comes first, but is written last: it points to the others.
        tables.add(&[0; size_of::<Rsdp>()]);
        let dsdt = tables.add(&sdt(*b"DSDT", 2, &dsdt::body(map)));
        tables.align(64);
        let facs = tables.add_aml(&FACS::new());
        let listed = [
            tables.add(&fadt(dsdt, facs)),
            tables.add(&madt(cpus)),
            tables.add(&mcfg()),
            tables.add(&spcr()),
            tables.add(&waet()),
        ];
        let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        for table in listed {
            xsdt.add_entry(table);
        }
        let xsdt = tables.add_aml(&xsdt);
        let mut rsdp = Vec::new();
        Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
        tables.bytes[..rsdp.len()].copy_from_slice(&rsdp);
        let room = (HIGH_MEMORY.0 - FIRMWARE_TABLES.0) as usize;
        if tables.bytes.len() > room {
            return Err(AcpiError::TooLarge(tables.bytes.len()));
        }
        Ok(Self { bytes: tables.bytes })
    }

    /// Where the root pointer is.
    #[must_use]
    pub fn rsdp(&self) -> Gpa {
        FIRMWARE_TABLES
    }

    /// The tables' bytes, the first of which belongs at [`FIRMWARE_TABLES`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts them into memory.
    ///
    /// # Errors
    /// When there is no RAM at [`FIRMWARE_TABLES`].
    pub fn write(&self, memory: &GuestMemory) -> Result<(), riad_memory::Error> {
        memory.write(FIRMWARE_TABLES, &self.bytes)
    }
}

/// Tables one after the other.
#[derive(Debug, Default)]
struct Layout {
    bytes: Vec<u8>,
}

impl Layout {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// Adds a table and returns its address.
    fn add(&mut self, table: &[u8]) -> u64 {
        self.align(16);
        let at = FIRMWARE_TABLES.0 + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        at
    }

    fn add_aml(&mut self, table: &dyn Aml) -> u64 {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        self.add(&bytes)
    }
}

/// A table of a header and a body.
fn sdt(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut sdt = Sdt::new(signature, HEADER, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    sdt.append_slice(body);
    sdt.as_slice().to_vec()
}

/// An I/O port register block, in the extended form of an address.
fn io_block(at: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, at.into())
}

/// The fixed hardware (ACPI 6.5, 5.2.9). The addresses are below 1 MiB: the casts keep them.
fn fadt(dsdt: u64, facs: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .firmware_ctrl_32(facs as u32)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    // No SMI command port: the board is in ACPI mode from the start (ACPI 6.5, 4.8.2.5).
    fadt.sci_int = u16::from(IRQ_SCI).into();
    fadt.pm1a_evt_blk = u32::from(port::PM1A_EVT).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = io_block(port::PM1A_EVT, 32, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(port::PM1A_CNT).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = io_block(port::PM1A_CNT, 16, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(port::PM_TMR).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = io_block(port::PM_TMR, 32, AccessSize::DwordAccess);
    fadt.gpe0_blk = u32::from(port::GPE0).into();
    fadt.gpe0_blk_len = Pm::GENERAL_LEN;
    fadt.x_gpe0_blk = io_block(port::GPE0, 16, AccessSize::ByteAccess);
    // Latencies above these limits say that the C2 and C3 states do not exist.
    fadt.p_lvl2_lat = 0x0fff.into();
    fadt.p_lvl3_lat = 0x0fff.into();
    fadt.century = Cmos::CENTURY;
    fadt.iapc_boot_arch =
        (boot_arch::LEGACY_DEVICES | boot_arch::NO_VGA | boot_arch::NO_ASPM).into();
    fadt.reset_reg = io_block(port::RESET_CONTROL, 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    let mut bytes = Vec::new();
    fadt.finalize().to_aml_bytes(&mut bytes);
    bytes
}

/// Interrupt controllers (ACPI 6.5, 5.2.12).
fn madt(cpus: u32) -> Vec<u8> {
    /// There are also two 8259s.
    const PCAT_COMPAT: u32 = 1;
    const LOCAL_APIC_ENABLED: u32 = 1;
    let mut body = Vec::new();
    body.extend((LAPIC.0 as u32).to_le_bytes());
    body.extend(PCAT_COMPAT.to_le_bytes());
    // MAX_CPUS keeps identifiers below 255, so that no x2APIC structures are needed.
    for id in (0..cpus).filter_map(|cpu| u8::try_from(cpu).ok()) {
        let flags = LOCAL_APIC_ENABLED.into();
        body.extend(LocalApic { kind: 0, len: 8, uid: id, id, flags }.as_bytes());
    }
    let ioapic = IoApic {
        kind: 1,
        len: 12,
        id: IOAPIC_ID,
        reserved: 0,
        address: (IOAPIC.0 as u32).into(),
        first: 0.into(),
    };
    body.extend(ioapic.as_bytes());
    // The timer is on another pin than its number, and the SCI is no edge-triggered ISA interrupt.
    for (irq, flags) in [(IRQ_PIT, 0), (IRQ_SCI, mps::ACTIVE_HIGH | mps::LEVEL)] {
        let pin = u32::from(isa_pin(irq)).into();
        let source = SourceOverride { kind: 2, len: 10, bus: 0, irq, pin, flags: flags.into() };
        body.extend(source.as_bytes());
    }
    // LINT1 of all processors is the non-maskable interrupt.
    let nmi = LocalApicNmi { kind: 4, len: 6, uid: 0xff, flags: 0.into(), lint: 1 };
    body.extend(nmi.as_bytes());
    sdt(*b"APIC", 5, &body)
}

/// Interrupt polarity and trigger mode (ACPI 6.5, table 5.26).
mod mps {
    pub(super) const ACTIVE_HIGH: u16 = 0b01;
    pub(super) const LEVEL: u16 = 0b11 << 2;
}

#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct LocalApic {
    kind: u8,
    len: u8,
    uid: u8,
    id: u8,
    flags: le::U32,
}

#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct IoApic {
    kind: u8,
    len: u8,
    id: u8,
    reserved: u8,
    address: le::U32,
    first: le::U32,
}

#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct SourceOverride {
    kind: u8,
    len: u8,
    bus: u8,
    irq: u8,
    pin: le::U32,
    flags: le::U16,
}

#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct LocalApicNmi {
    kind: u8,
    len: u8,
    uid: u8,
    flags: le::U16,
    lint: u8,
}

/// PCI configuration space in memory (PCI Firmware 3.2, 4.1.2).
fn mcfg() -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ECAM.0, 0, 0, PCI_LAST_BUS);
    let mut bytes = Vec::new();
    mcfg.to_aml_bytes(&mut bytes);
    bytes
}

/// The serial port as a console (Microsoft "Serial Port Console Redirection table", revision 2).
fn spcr() -> Vec<u8> {
    #[derive(Clone, Copy, IntoBytes, Immutable)]
    #[repr(C)]
    struct Spcr {
        interface: u8,
        reserved: [u8; 3],
        address: [u8; 12],
        interrupt_type: u8,
        irq: u8,
        gsi: le::U32,
        baud: u8,
        parity: u8,
        stop_bits: u8,
        flow_control: u8,
        terminal: u8,
        language: u8,
        pci_device: le::U16,
        pci_vendor: le::U16,
        pci_address: [u8; 3],
        pci_flags: le::U32,
        pci_segment: u8,
        clock: le::U32,
    }
    let mut address = Vec::new();
    io_block(port::COM1, 8, AccessSize::ByteAccess).to_aml_bytes(&mut address);
    let mut spcr = Spcr {
        interface: 0, // 16550
        reserved: [0; 3],
        address: [0; 12],
        interrupt_type: 0b11, // 8259 and IOAPIC
        irq: IRQ_COM1,
        gsi: u32::from(isa_pin(IRQ_COM1)).into(),
        baud: 7, // 115200
        parity: 0,
        stop_bits: 1,
        flow_control: 0,
        terminal: 3, // ANSI
        language: 0,
        pci_device: 0xffff.into(),
        pci_vendor: 0xffff.into(),
        pci_address: [0; 3],
        pci_flags: 0.into(),
        pci_segment: 0,
        clock: 0.into(),
    };
    spcr.address.copy_from_slice(&address);
    sdt(*b"SPCR", 2, spcr.as_bytes())
}

/// What guests need not work around (Microsoft "Windows ACPI Emulated Devices table"): one read of
/// the power-management timer is enough.
fn waet() -> Vec<u8> {
    const PM_TIMER_GOOD: u32 = 1 << 1;
    sdt(*b"WAET", 1, &PM_TIMER_GOOD.to_le_bytes())
}

#[cfg(test)]
#[path = "acpi_test.rs"]
mod tests;
