//! PCI hot plug in the DSDT: the slots into which functions may come while the guest runs, and the methods
//! that drive the controller ([`riad_devices::hotplug`]; ACPI 6.5, section 6.3).
//!
//! ```text
//! Scope (\_SB.PCI0) {
//!     OperationRegion (HPR, SystemIO, ...)  Field { HPIN, HPWB, HPEJ }
//!     Device (S09) { _ADR 0x00090000, _SUN 9, _EJ0 { HPEJ = 1 << 9 } }    and so on
//!     Method (HPEV) { whoever is in HPIN: Notify (S09, 1); in HPWB: Notify (S09, 3); both cleared }
//! }
//! Scope (\_GPE) { Method (_E01) { \_SB.PCI0.HPEV () } }
//! ```
//!
//! There is no `_STA`: a function is there when its configuration space answers.

use acpi_tables::aml::{
    And, Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, Local,
    Method, MethodCall, Name, Notify, OpRegion, OpRegionSpace, Scope, Store,
};
use acpi_tables::{Aml, AmlSink};
use riad_devices::hotplug::HotPlug;
use riad_devices::pci::slot;

use super::map::port;

/// Disks that may come and go: the root's is the first, and stays.
const DISKS: u8 = 16;
/// The general-purpose event that the controller raises; `_E01` handles it.
pub(super) const EVENT: u8 = 1;
/// Values of Notify (ACPI 6.5, table 5.154): look whether there is a device.
const DEVICE_CHECK: u8 = 1;
/// Let the device go.
const EJECT_REQUEST: u8 = 3;

/// The slots that network cards come to and go from: all of theirs, the first card's first.
pub fn card_slots() -> impl Iterator<Item = u8> {
    std::iter::once(slot::NET).chain(slot::NET_MORE..=slot::LAST)
}

/// The slots that disks come to and go from: those behind the first's.
pub fn disk_slots() -> impl Iterator<Item = u8> {
    slot::DISK_FIRST + 1..=slot::DISK_FIRST + DISKS
}

/// All slots that functions come to and go from.
pub fn slots() -> impl Iterator<Item = u8> {
    card_slots().chain(disk_slots())
}

/// The name of a slot's device in the DSDT.
fn name(slot: u8) -> String {
    format!("S{slot:02}_")
}

/// What belongs into the scopes `\_SB.PCI0` and `\_GPE`.
pub(super) fn add(aml: &mut Vec<u8>) {
    let (first, len) = (port::HOTPLUG, HotPlug::PORT_COUNT);
    let region = OpRegion::new("HPR_".into(), OpRegionSpace::SystemIO, &first, &len);
    let registers = Field::new(
        "HPR_".into(),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        [*b"HPIN", *b"HPWB", *b"HPEJ"].map(|name| FieldEntry::Named(name, 32)).to_vec(),
    );
    let devices: Vec<_> = slots().map(Slot).collect();
    let mut all: Vec<&dyn Aml> = vec![&region, &registers];
    all.extend(devices.iter().map(|device| device as &dyn Aml));
    all.push(&Events);
    Scope::new("\\_SB_.PCI0".into(), all).to_aml_bytes(aml);
    let look = MethodCall::new("\\_SB_.PCI0.HPEV".into(), Vec::new());
    let handler = Method::new(format!("_E{EVENT:02X}").as_str().into(), 0, false, vec![&look]);
    Scope::new("\\_GPE".into(), vec![&handler]).to_aml_bytes(aml);
}

/// A slot that functions come to and go from.
struct Slot(u8);

impl Aml for Slot {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let Self(slot) = *self;
        let eject = Name::new_field_name("HPEJ");
        let bit = 1u32 << slot;
        Device::new(
            name(slot).as_str().into(),
            vec![
                // Device and function (ACPI 6.5, 6.1.1).
                &Name::new("_ADR".into(), &(u32::from(slot) << 16)),
                &Name::new("_SUN".into(), &slot),
                &Method::new("_EJ0".into(), 1, false, vec![&Store::new(&eject, &bit)]),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The method that tells the guest's system what has happened to which slots.
struct Events;

impl Aml for Events {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let seen = Local(0);
        let register = |name| Name::new_field_name(name);
        let (inserted, wanted) = (register("HPIN"), register("HPWB"));
        let each = |what: u8| slots().map(move |slot| Told { slot, what }).collect::<Vec<_>>();
        let (checks, requests) = (each(DEVICE_CHECK), each(EJECT_REQUEST));
        // What comes after the register was read is told by the next event.
        let (read, clear) = (Store::new(&seen, &inserted), Store::new(&inserted, &seen));
        let mut body: Vec<&dyn Aml> = vec![&read, &clear];
        body.extend(checks.iter().map(|told| told as &dyn Aml));
        let (read, clear) = (Store::new(&seen, &wanted), Store::new(&wanted, &seen));
        body.extend([&read as &dyn Aml, &clear]);
        body.extend(requests.iter().map(|told| told as &dyn Aml));
        Method::new("HPEV".into(), 0, true, body).to_aml_bytes(sink);
    }
}

/// A slot is told of, if its bit is set in what was read.
struct Told {
    slot: u8,
    what: u8,
}

impl Aml for Told {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let Self { slot, what } = *self;
        let (none, seen, bit) = (acpi_tables::aml::ZERO, Local(0), 1u32 << slot);
        let device = Name::new_field_name(&name(slot));
        let is_set = And::new(&none, &seen, &bit);
        If::new(&is_set, vec![&Notify::new(&device, &what)]).to_aml_bytes(sink);
    }
}
