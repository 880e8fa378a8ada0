//! The board's devices, made anew or from a saved state, and their state as one value.

use std::sync::{Arc, Mutex};

use riad_clock::SharedClock;
use riad_cpu::Engine;
use riad_devices::cmos::{Cmos, CmosState, MemorySize};
use riad_devices::hotplug::{Ejector, HotPlug, HotPlugState};
use riad_devices::i8042::{I8042, I8042State};
use riad_devices::ioapic::{IoApic, IoApicState};
use riad_devices::pci::{ConfigPorts, ConfigPortsState, ConfigState, HostBridge, PciBus};
use riad_devices::pic::{Pic, PicState};
use riad_devices::pit::{Pit, PitState};
use riad_devices::pm::{Pm, PmState, TimerWidth};
use riad_devices::post::{PostPorts, PostPortsState};
use riad_devices::reset::{ResetPort, ResetPortState};
use riad_devices::serial::{Serial, SerialHost, SerialState};
use riad_devices::virtio::{VirtioDevice, VirtioPciState};
use riad_devices::{InterruptLine, SharedLine, SharedPower};
use serde::{Deserialize, Serialize};

use super::board::{PcConfig, PcError};
use super::bus::{Shared, lock};
use super::hotplug;
use super::interrupts::{Processors, isa_line};
use super::map::{
    IRQ_COM1, IRQ_KEYBOARD, IRQ_PIT, IRQ_RTC, IRQ_SCI, PCI_MMIO32, PCI_MMIO32_SIZE,
    PCI_MMIO64_SIZE, port,
};
use super::slots::Slots;

/// A virtio device and where it goes.
pub struct Function {
    /// PCI slot, of [`riad_devices::pci::slot`].
    pub slot: u8,
    /// The device.
    pub device: Box<dyn VirtioDevice>,
}

/// What a board is built from, besides its configuration.
pub struct PcParts {
    /// Lends the processors; has the machine's memory and clock.
    pub engine: Arc<dyn Engine>,
    /// Told when the guest powers off or resets.
    pub power: SharedPower,
    /// The other end of the first serial port.
    pub serial: Box<dyn SerialHost>,
    /// The virtio devices. For a restored board, in the order of [`PcState::functions`], and each
    /// restored from the device state there.
    pub functions: Vec<Function>,
}

/// Saved state of a virtio function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionState {
    /// PCI slot.
    pub slot: u8,
    /// The function and its device.
    pub function: VirtioPciState,
}

/// All state of a board (wall 4): everything of a machine but its memory, processors and clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcState {
    /// [`PcState::VERSION`] of the Riad that saved it.
    pub version: u32,
    /// What the board was built to.
    pub config: PcConfig,
    /// The 8259 pair.
    pub pic: PicState,
    /// The IOAPIC.
    pub ioapic: IoApicState,
    /// The interval timer.
    pub pit: PitState,
    /// The real-time clock.
    pub cmos: CmosState,
    /// The first serial port.
    pub serial: SerialState,
    /// Power management.
    pub pm: PmState,
    /// The keyboard controller.
    pub i8042: I8042State,
    /// The reset register.
    pub reset: ResetPortState,
    /// The POST code port.
    pub post: PostPortsState,
    /// The PCI configuration ports.
    pub pci_ports: ConfigPortsState,
    /// The PCI host bridge.
    pub host_bridge: ConfigState,
    /// The virtio functions, in the order in which they came.
    pub functions: Vec<FunctionState>,
    /// The PCI hot plug controller. A guest from before there was one does not know of it.
    #[serde(default)]
    pub hotplug: HotPlugState,
}

impl PcState {
    /// The version written by this Riad. Formats only grow: a field that is added later has a
    /// default that means "as before".
    pub const VERSION: u32 = 1;
}

/// The devices.
pub(super) struct Chipset {
    pub(super) pic: Pic,
    pub(super) ioapic: IoApic,
    pub(super) pit: Shared<Pit>,
    pub(super) cmos: Shared<Cmos>,
    pub(super) serial: Shared<Serial>,
    pub(super) pm: Shared<Pm>,
    pub(super) i8042: Shared<I8042>,
    pub(super) reset: Shared<ResetPort>,
    pub(super) post: Shared<PostPorts>,
    pub(super) pci_ports: Shared<ConfigPorts>,
    pub(super) host_bridge: Arc<HostBridge>,
    pub(super) pci: Arc<PciBus>,
    pub(super) slots: Arc<Slots>,
    pub(super) hotplug: Shared<HotPlug>,
}

/// What the devices of a board have in common.
struct Surroundings {
    processors: Arc<Processors>,
    clock: SharedClock,
    power: SharedPower,
    pci: Arc<PciBus>,
    slots: Arc<Slots>,
}

/// Raises a general-purpose event of the ACPI hardware. It is latched there, so that to lower the wire
/// means nothing.
struct GeneralEvent(Shared<Pm>);

impl InterruptLine for GeneralEvent {
    fn set(&self, level: bool) {
        if level {
            lock(&self.0).general_event(hotplug::EVENT);
        }
    }
}

impl Surroundings {
    fn new(config: &PcConfig, parts: &PcParts) -> Self {
        let mmio64 = config.map.pci_mmio64().0;
        let apertures = riad_devices::pci::Apertures {
            memory: PCI_MMIO32.0..PCI_MMIO32.0 + PCI_MMIO32_SIZE,
            memory64: mmio64..mmio64 + PCI_MMIO64_SIZE,
            ports: port::PCI_FIRST..u16::MAX,
        };
        let processors = Arc::new(Processors::new(Arc::clone(&parts.engine)));
        let memory = parts.engine.memory().clone();
        let pci = Arc::new(PciBus::new(apertures));
        let slots = Arc::new(Slots::new(Arc::clone(&pci), Arc::clone(&processors), memory));
        let (clock, power) = (Arc::clone(parts.engine.clock()), Arc::clone(&parts.power));
        Self { processors, clock, power, pci, slots }
    }

    /// What the hot plug controller ejects from.
    fn ejector(&self) -> Arc<dyn Ejector> {
        Arc::<Slots>::clone(&self.slots)
    }
}

impl Chipset {
    /// The devices as after power-on.
    pub(super) fn new(config: &PcConfig, parts: PcParts) -> Result<Self, PcError> {
        let around = Surroundings::new(config, &parts);
        let Surroundings { processors, clock, power, pci, slots } = &around;
        let PcParts { engine: _, power: _, serial, functions } = parts;
        let pic = Pic::new(Arc::<Processors>::clone(processors));
        let ioapic = IoApic::new(Arc::<Processors>::clone(processors));
        let line = |irq| isa_line(&pic, &ioapic, irq);
        let size = MemorySize { below_4g: config.map.low(), above_4g: config.map.high() };
        let host_bridge = Arc::new(HostBridge::new());
        pci.add_device(
            riad_devices::pci::slot::HOST_BRIDGE,
            Arc::<HostBridge>::clone(&host_bridge),
        )?;
        functions.into_iter().try_for_each(|function| slots.add(function))?;
        let pm = Pm::new(PM_TIMER, Arc::clone(clock), line(IRQ_SCI), Arc::clone(power));
        let pm = shared(pm);
        let event = Arc::new(GeneralEvent(Arc::clone(&pm)));
        Ok(Self {
            pit: shared(Pit::new(Arc::clone(clock), line(IRQ_PIT))),
            cmos: shared(Cmos::new(size, Arc::clone(clock), line(IRQ_RTC))),
            serial: shared(Serial::new(line(IRQ_COM1), serial)),
            pm,
            hotplug: shared(HotPlug::new(event, around.ejector())),
            i8042: shared(I8042::new(line(IRQ_KEYBOARD), Arc::clone(power))),
            reset: shared(ResetPort::new(Arc::clone(power))),
            post: shared(PostPorts::new()),
            pci_ports: shared(ConfigPorts::new(Arc::clone(pci))),
            host_bridge,
            pci: Arc::clone(pci),
            slots: Arc::clone(slots),
            pic,
            ioapic,
        })
    }

    /// The devices of a saved state. Interrupt controllers come first: they know the levels of
    /// their wires, so that devices which set theirs again change nothing.
    pub(super) fn restore(state: PcState, parts: PcParts) -> Result<Self, PcError> {
        let PcState {
            version,
            config,
            pic,
            ioapic,
            pit,
            cmos,
            serial: serial_state,
            pm,
            i8042,
            reset,
            post,
            pci_ports,
            host_bridge,
            functions: function_states,
            hotplug,
        } = state;
        if version > PcState::VERSION {
            return Err(PcError::NewerState(version));
        }
        let around = Surroundings::new(&config, &parts);
        let Surroundings { processors, clock, power, pci, slots } = &around;
        let PcParts { engine: _, power: _, serial, functions } = parts;
        let pic = Pic::restore(pic, Arc::<Processors>::clone(processors));
        let ioapic = IoApic::restore(ioapic, Arc::<Processors>::clone(processors));
        let line = |irq| -> SharedLine { isa_line(&pic, &ioapic, irq) };
        let host_bridge = Arc::new(HostBridge::restore(&host_bridge)?);
        pci.add_restored(
            riad_devices::pci::slot::HOST_BRIDGE,
            Arc::<HostBridge>::clone(&host_bridge),
        )?;
        if functions.len() != function_states.len() {
            return Err(PcError::Functions {
                saved: function_states.len(),
                given: functions.len(),
            });
        }
        for (function, saved) in functions.into_iter().zip(&function_states) {
            slots.add_restored(function, saved)?;
        }
        let pm = Pm::restore(pm, Arc::clone(clock), line(IRQ_SCI), Arc::clone(power));
        let pm = shared(pm);
        let event = Arc::new(GeneralEvent(Arc::clone(&pm)));
        Ok(Self {
            pit: shared(Pit::restore(pit, Arc::clone(clock), line(IRQ_PIT))),
            cmos: shared(Cmos::restore(cmos, Arc::clone(clock), line(IRQ_RTC))),
            serial: shared(Serial::restore(serial_state, line(IRQ_COM1), serial)),
            pm,
            hotplug: shared(HotPlug::restore(hotplug, event, around.ejector())),
            i8042: shared(I8042::restore(i8042, line(IRQ_KEYBOARD), Arc::clone(power))),
            reset: shared(ResetPort::restore(reset, Arc::clone(power))),
            post: shared(PostPorts::restore(post)),
            pci_ports: shared(ConfigPorts::restore(Arc::clone(pci), &pci_ports)),
            host_bridge,
            pci: Arc::clone(pci),
            slots: Arc::clone(slots),
            pic,
            ioapic,
        })
    }

    /// The state of all devices.
    pub(super) fn save(&self, config: PcConfig) -> PcState {
        let Self {
            pic,
            ioapic,
            pit,
            cmos,
            serial,
            pm,
            i8042,
            reset,
            post,
            pci_ports,
            host_bridge,
            pci: _,
            slots,
            hotplug,
        } = self;
        PcState {
            version: PcState::VERSION,
            config,
            pic: pic.save(),
            ioapic: ioapic.save(),
            pit: lock(pit).save(),
            cmos: lock(cmos).save(),
            serial: lock(serial).save(),
            pm: lock(pm).save(),
            i8042: lock(i8042).save(),
            reset: lock(reset).save(),
            post: lock(post).save(),
            pci_ports: lock(pci_ports).save(),
            host_bridge: host_bridge.save(),
            functions: slots.save(),
            hotplug: lock(hotplug).save(),
        }
    }
}

/// The width that the FADT's TMR_VAL_EXT flag tells the guest.
const PM_TIMER: TimerWidth = TimerWidth::Bits32;

fn shared<T>(device: T) -> Shared<T> {
    Arc::new(Mutex::new(device))
}
