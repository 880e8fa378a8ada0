//! The board: devices, buses and interrupt wires put together.
//!
//! ```text
//! PcConfig, PcParts ─► Pc::new ──► boot(kernel) ─► state of the first processor
//!        PcState ────► Pc::restore                      │
//!                                       resume ─► … ─► pause ─► save ─► PcState
//! ```
//!
//! A board is shared: every processor's thread reaches its devices through [`riad_cpu::Bus`], one
//! thread runs [`Pc::timers`], and the monitor pauses, saves and feeds it. It begins paused.
//!
//! A reset is not done in place: the monitor, told through [`SharedPower`](riad_devices::SharedPower),
//! builds a new board. So there is one way in which a machine begins, and none to forget in.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use riad_cpu::Bus;
use riad_cpu::x86::{DescriptorTable, VcpuState};
use riad_devices::cmos::Cmos;
use riad_devices::debug_exit::DebugExit;
use riad_devices::hotplug::HotPlug;
use riad_devices::i8042::I8042;
use riad_devices::ioapic::IoApic;
use riad_devices::pci::{ConfigPorts, Ecam, PciError};
use riad_devices::pic::Pic;
use riad_devices::pit::Pit;
use riad_devices::pm::Pm;
use riad_devices::post::PostPorts;
use riad_devices::reset::ResetPort;
use riad_devices::serial::Serial;
use riad_devices::virtio::pci::TransportError;
use riad_devices::{PortDevice, PortRange};
use riad_memory::{Gpa, GuestMemory};
use serde::{Deserialize, Serialize};

use super::acpi::{AcpiError, AcpiTables};
use super::bus::{MmioBus, Overlap, PortBus, Shared, UnclaimedCount, lock};
use super::chipset::{Chipset, Function, PcParts, PcState};
use super::hotplug;
use super::map::{AddressMap, ECAM, FIRMWARE_TABLES, IOAPIC, port};
use super::timers::Timers;
use crate::boot::{BootError, BootMachine, BootParams, Entry, KernelImage};

/// What a board is built to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcConfig {
    /// Memory.
    pub map: AddressMap,
    /// Processors, 1 to [`MAX_CPUS`](super::map::MAX_CPUS).
    pub cpus: u32,
    /// Whether there is a debug exit port ([`port::DEBUG_EXIT`]).
    pub debug_exit: bool,
}

/// Why a board could not be built.
#[derive(Debug, thiserror::Error)]
pub enum PcError {
    /// The firmware tables cannot describe the machine.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The memory is not laid out as the board needs it.
    #[error("the guest's memory is not laid out as its address map says")]
    MemoryLayout,
    /// Memory refused.
    #[error(transparent)]
    Memory(#[from] riad_memory::Error),
    /// Two devices in one place.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// PCI refused a function.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// A virtio device was refused.
    #[error(transparent)]
    Virtio(#[from] TransportError),
    /// The state is of a newer Riad.
    #[error(
        "the saved board has format {0}, and this Riad reads formats up to {newest}: use a newer Riad",
        newest = PcState::VERSION
    )]
    NewerState(u32),
    /// Not the devices the state was saved with.
    #[error("the saved board has {saved} virtio devices, and {given} were given to restore it")]
    Functions {
        /// Devices in the state.
        saved: usize,
        /// Devices given.
        given: usize,
    },
    /// A slot that functions do not come to.
    #[error(
        "nothing is plugged into PCI slot {0} while the guest runs: it is not one of those that the firmware tables name for it"
    )]
    FixedSlot(u8),
    /// The guest would not hear of it.
    #[error(
        "the guest does not listen to what is plugged in or out: its system has not come so far yet, or has no ACPI hot plug (Linux: CONFIG_HOTPLUG_PCI_ACPI); try again, or have it count from the next start on"
    )]
    Deaf,
    /// A device in another slot than when it was saved.
    #[error("the saved board has a device in PCI slot {saved}, and it was given for slot {given}")]
    Slot {
        /// Slot in the state.
        saved: u8,
        /// Slot given.
        given: u8,
    },
}

/// The PC board.
pub struct Pc {
    config: PcConfig,
    memory: GuestMemory,
    chipset: Chipset,
    ports: PortBus,
    mmio: MmioBus,
    timers: Arc<Timers>,
    unclaimed_ports: UnclaimedCount,
    unclaimed_memory: UnclaimedCount,
}

/// How often nobody answered the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unclaimed {
    /// Accesses to ports.
    pub ports: u64,
    /// Accesses to memory that is neither RAM nor a device.
    pub memory: u64,
}

impl Pc {
    /// A board as after power-on, paused, with its firmware tables in memory.
    ///
    /// # Errors
    /// When the parts do not fit the configuration or each other.
    pub fn new(config: PcConfig, parts: PcParts) -> Result<Self, PcError> {
        let tables = AcpiTables::build(&config.map, config.cpus)?;
        tables.write(parts.engine.memory())?;
        Self::assemble(config, parts, |parts| Chipset::new(&config, parts))
    }

    /// The board of a saved state, paused. Memory and clock are as they were when it was saved.
    ///
    /// # Errors
    /// When the parts do not fit the state.
    pub fn restore(state: PcState, parts: PcParts) -> Result<Self, PcError> {
        Self::assemble(state.config, parts, |parts| Chipset::restore(state, parts))
    }

    fn assemble(
        config: PcConfig,
        parts: PcParts,
        make: impl FnOnce(PcParts) -> Result<Chipset, PcError>,
    ) -> Result<Self, PcError> {
        let engine = Arc::clone(&parts.engine);
        let power = Arc::clone(&parts.power);
        let memory = engine.memory().clone();
        if !memory.regions().iter().map(|r| (r.start, r.len)).eq(config.map.runs()) {
            return Err(PcError::MemoryLayout);
        }
        let chipset = make(parts)?;
        let mut timers = Timers::new(Arc::clone(engine.clock()));
        let pit = Some(timers.add(Arc::<Mutex<Pit>>::clone(&chipset.pit)));
        let cmos = Some(timers.add(Arc::<Mutex<Cmos>>::clone(&chipset.cmos)));
        let pm = Some(timers.add(Arc::<Mutex<Pm>>::clone(&chipset.pm)));
        let timers = Arc::new(timers);

        let mut ports = PortBus::new(Arc::clone(&timers));
        ports.add_fixed(Pic::PORTS, &Arc::new(Mutex::new(chipset.pic.clone())), None)?;
        ports.add_fixed(Pit::PORTS, &chipset.pit, pit)?;
        ports.add_fixed(Cmos::PORTS, &chipset.cmos, cmos)?;
        ports.add_fixed(I8042::PORTS, &chipset.i8042, None)?;
        ports.add_fixed(PostPorts::PORTS, &chipset.post, None)?;
        let serial = Arc::<Mutex<Serial>>::clone(&chipset.serial);
        ports.add(range(port::COM1, Serial::PORT_COUNT), serial, None)?;
        ports.add(range(port::PM, Pm::PORT_COUNT), Arc::<Mutex<Pm>>::clone(&chipset.pm), pm)?;
        let hotplug = Arc::<Mutex<HotPlug>>::clone(&chipset.hotplug);
        ports.add(range(port::HOTPLUG, HotPlug::PORT_COUNT), hotplug, None)?;
        let pci_ports =
            PciPorts { config: Arc::clone(&chipset.pci_ports), reset: Arc::clone(&chipset.reset) };
        ports.add(range(port::PCI_ADDRESS, 8), Arc::new(Mutex::new(pci_ports)), None)?;
        if config.debug_exit {
            let debug_exit = DebugExit::new(power);
            let debug_exit_ports = range(port::DEBUG_EXIT, DebugExit::PORT_COUNT);
            ports.add(debug_exit_ports, Arc::new(Mutex::new(debug_exit)), None)?;
        }

        let mut mmio = MmioBus::default();
        let ecam = Ecam::new(Arc::clone(&chipset.pci));
        mmio.add(ECAM.0, riad_devices::pci::host::ECAM_SIZE, Arc::new(Mutex::new(ecam)))?;
        mmio.add(IOAPIC.0, IoApic::SIZE, Arc::new(Mutex::new(chipset.ioapic.clone())))?;
        Ok(Self {
            config,
            memory,
            chipset,
            ports,
            mmio,
            timers,
            unclaimed_ports: UnclaimedCount::default(),
            unclaimed_memory: UnclaimedCount::default(),
        })
    }

    /// What the board was built to.
    #[must_use]
    pub fn config(&self) -> PcConfig {
        self.config
    }

    /// Puts a kernel into memory, and returns the state in which processor 0 starts it. The other
    /// processors wait to be started.
    ///
    /// # Errors
    /// When the kernel does not fit.
    pub fn boot(
        &self,
        kernel: &KernelImage<'_>,
        params: &BootParams<'_>,
    ) -> Result<VcpuState, BootError> {
        let e820 = self.config.map.e820();
        let rsdp = Some(FIRMWARE_TABLES);
        let machine = BootMachine { memory: &self.memory, e820: &e820, rsdp };
        Ok(bootstrap_state(&kernel.load(&machine, params)?))
    }

    /// The timed devices. Somebody has to run [`Timers::run`] on a thread of its own, or call
    /// [`Timers::expire_due`] when guest time has moved.
    #[must_use]
    pub fn timers(&self) -> &Arc<Timers> {
        &self.timers
    }

    /// Types on the first serial port. Returns how many bytes there was room for;
    /// [`SerialHost::receive_ready`](riad_devices::serial::SerialHost::receive_ready) says when
    /// there is more.
    pub fn serial_input(&self, bytes: &[u8]) -> usize {
        lock(&self.chipset.serial).push_input(bytes)
    }

    /// Presses the power button. Returns whether the guest listens to it.
    pub fn press_power_button(&self) -> bool {
        let mut pm = lock(&self.chipset.pm);
        pm.press_power_button();
        pm.power_button_enabled()
    }

    /// Puts a function into a slot of [`hotplug::slots`] while the guest runs, and tells it.
    ///
    /// # Errors
    /// [`PcError::FixedSlot`], [`PcError::Deaf`]; the slot is taken.
    pub fn plug(&self, function: Function) -> Result<(), PcError> {
        let slot = function.slot;
        self.check_hot(slot)?;
        self.chipset.slots.plug(function)?;
        lock(&self.chipset.hotplug).inserted(slot);
        Ok(())
    }

    /// Asks the guest to let the function in a slot go; [`is_taken`](Self::is_taken) says when it has.
    ///
    /// # Errors
    /// [`PcError::FixedSlot`], [`PcError::Deaf`].
    pub fn want_back(&self, slot: u8) -> Result<(), PcError> {
        self.check_hot(slot)?;
        lock(&self.chipset.hotplug).want_back(slot);
        Ok(())
    }

    /// Whether there is a function in a slot; if there is, after waiting for up to `limit` of host time
    /// for the guest to let it go.
    #[must_use]
    pub fn is_taken(&self, slot: u8, limit: Duration) -> bool {
        self.chipset.slots.is_taken(slot, limit)
    }

    /// Lets a function stay that was wanted back, unless it is gone.
    pub fn keep(&self, slot: u8) {
        lock(&self.chipset.hotplug).keep(slot);
    }

    fn check_hot(&self, slot: u8) -> Result<(), PcError> {
        if !hotplug::slots().any(|hot| hot == slot) {
            return Err(PcError::FixedSlot(slot));
        }
        if !lock(&self.chipset.pm).general_event_enabled(hotplug::EVENT) {
            return Err(PcError::Deaf);
        }
        Ok(())
    }

    /// The PCI functions, a line each.
    #[must_use]
    pub fn describe_pci(&self) -> String {
        self.chipset.pci.describe()
    }

    /// How often nobody answered the guest.
    #[must_use]
    pub fn unclaimed(&self) -> Unclaimed {
        Unclaimed { ports: self.unclaimed_ports.get(), memory: self.unclaimed_memory.get() }
    }

    /// Holds all devices. When it returns, none touches guest memory or raises an interrupt by
    /// itself. Processors are the caller's to stop, first.
    pub fn pause(&self) {
        self.timers.pause();
        self.chipset.slots.pause();
    }

    /// Lets the devices go on.
    pub fn resume(&self) {
        self.chipset.slots.resume();
        self.timers.resume();
    }

    /// The state of the board, which is paused, and whose processors stand still.
    #[must_use]
    pub fn save(&self) -> PcState {
        let Self {
            config,
            memory: _,
            chipset,
            ports: _,
            mmio: _,
            timers: _,
            unclaimed_ports: _,
            unclaimed_memory: _,
        } = self;
        chipset.save(*config)
    }
}

/// The state in which processor 0 begins with a kernel's first instruction.
#[must_use]
pub fn bootstrap_state(entry: &Entry) -> VcpuState {
    /// Indices into [`VcpuState::gpr`].
    const RAX: usize = 0;
    const RBX: usize = 3;
    const RSI: usize = 6;
    let Entry { eip, eax, ebx, esi, gdt } = *entry;
    let mut state = VcpuState::flat_protected(0, eip);
    state.gpr[RAX] = eax.into();
    state.gpr[RBX] = ebx.into();
    state.gpr[RSI] = esi.into();
    state.gdtr = DescriptorTable { base: gdt.0, limit: Entry::GDT_LIMIT };
    state
}

impl Bus for Pc {
    fn mmio_read(&self, at: Gpa, data: &mut [u8]) {
        if !self.mmio.read(at.0, data) && !self.chipset.pci.mmio_read(at.0, data) {
            data.fill(0xff);
            self.unclaimed_memory.note("memory read", at.0, data.len());
        }
    }

    fn mmio_write(&self, at: Gpa, data: &[u8]) {
        if !self.mmio.write(at.0, data) && !self.chipset.pci.mmio_write(at.0, data) {
            self.unclaimed_memory.note("memory write", at.0, data.len());
        }
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        if !self.ports.read(port, data) && !self.chipset.pci.port_read(port, data) {
            data.fill(0xff);
            self.unclaimed_ports.note("port read", port.into(), data.len());
        }
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        if !self.ports.write(port, data) && !self.chipset.pci.port_write(port, data) {
            self.unclaimed_ports.note("port write", port.into(), data.len());
        }
    }

    fn acknowledge_extint(&self) -> u8 {
        self.chipset.pic.acknowledge()
    }

    fn end_of_interrupt(&self, vector: u8) {
        self.chipset.ioapic.eoi(vector);
    }
}

/// Ports 0xCF8 to 0xCFF: PCI configuration, in which the reset register hides.
struct PciPorts {
    config: Shared<ConfigPorts>,
    reset: Shared<ResetPort>,
}

impl PciPorts {
    const RESET: u16 = port::RESET_CONTROL - port::PCI_ADDRESS;
}

impl PortDevice for PciPorts {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        if offset == Self::RESET {
            lock(&self.reset).port_read(port::RESET_CONTROL, data);
        } else {
            lock(&self.config).port_read(port::PCI_ADDRESS + offset, data);
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        if offset == Self::RESET {
            lock(&self.reset).port_write(port::RESET_CONTROL, data);
        } else {
            lock(&self.config).port_write(port::PCI_ADDRESS + offset, data);
        }
    }
}

/// `count` ports from `first`; the counts here are small constants.
fn range(first: u16, count: u16) -> PortRange {
    first..=first + (count - 1)
}

#[cfg(test)]
#[path = "board_test.rs"]
mod tests;
