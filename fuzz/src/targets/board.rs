//! The whole board: ports, memory-mapped registers, PCI configuration, timers; and that a board
//! built from its saved state is the same board.

use std::sync::Arc;

use riad_clock::{Clock, ManualClock, SharedClock};
use riad_cpu::x86::lapic::{Lapic, LapicState, Message};
use riad_cpu::{Bus, Engine, Vcpu};
use riad_devices::pci::slot;
use riad_devices::serial::WriteHost;
use riad_devices::virtio::{Blk, Console, DeviceState, HostEntropy, Net, Rng, VirtioDevice, Vsock};
use riad_disk::{Disk, MemDisk};
use riad_machine::pc::map::{AddressMap, ECAM, IOAPIC, MIB, PCI_MMIO32, port};
use riad_machine::pc::{Function, Pc, PcConfig, PcParts, PcState, power_channel};
use riad_memory::{Gpa, GuestMemory};
use riad_network::Cable;
use riad_network::pair::Pair;

use super::{Target, no_seeds};
use crate::input::Input;
use crate::random::Random;

/// Everything a guest can reach of a board.
pub(super) const BOARD: Target = Target {
    name: "board",
    what: "ports and registers of the whole board, and its saved state",
    unit: "steps",
    run: |bytes| run(bytes, false),
    seeds: probes,
    generate: Some(|random| accesses(random, false)),
    words: &[],
};

/// PCI only.
pub(super) const PCI: Target = Target {
    name: "pci",
    what: "PCI configuration, BARs and what is behind them",
    unit: "steps",
    run: |bytes| run(bytes, true),
    seeds: no_seeds,
    generate: Some(|random| accesses(random, true)),
    words: &[],
};

/// The local APIC by itself.
pub(super) const LAPIC: Target = Target {
    name: "lapic",
    what: "the local APIC: registers in both modes, messages, timer",
    unit: "steps",
    run: lapic,
    seeds: no_seeds,
    generate: None,
    words: &[&[0xf0, 0, 0xff, 1], &[0x20, 3], &[0x80, 3]],
};

/// An engine without processors.
struct NoProcessors {
    memory: GuestMemory,
    clock: SharedClock,
}

impl Engine for NoProcessors {
    fn name(&self) -> &'static str {
        "none"
    }

    fn add_vcpu(&self, _id: u32, _bus: Arc<dyn Bus>) -> Result<Box<dyn Vcpu>, riad_cpu::Error> {
        let reason = "there are no processors".to_owned();
        Err(riad_cpu::Error::Unavailable { engine: "none", reason })
    }

    fn send_msi(&self, address: u64, data: u32) {
        let _ = Message::from_msi(address, data);
    }

    fn set_extint(&self, _level: bool) {}

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn clock(&self) -> &SharedClock {
        &self.clock
    }
}

/// A board and what is around it.
struct Bench {
    pc: Pc,
    memory: GuestMemory,
    clock: Arc<ManualClock>,
    disk: Arc<dyn Disk>,
}

impl Bench {
    fn new() -> Option<Self> {
        let map = AddressMap::new(4 * MIB).ok()?;
        let memory = GuestMemory::new(&map.runs()).ok()?;
        let clock = Arc::new(ManualClock::new(1_700_000_000_000_000_000));
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(64 << 10).ok()?);
        let functions = vec![
            function(slot::NET, Net::new(cable()).0),
            function(slot::VSOCK, Vsock::new(3).0),
            function(slot::CONSOLE, Console::new(Box::new(std::io::sink())).0),
            function(slot::RNG, Rng::new(Box::new(HostEntropy))),
            function(slot::DISK_FIRST, Blk::new(Arc::clone(&disk), "fuzz")),
        ];
        let config = PcConfig { map, cpus: 2, debug_exit: true };
        let pc = Pc::new(config, parts(&memory, &clock, functions)).ok()?;
        pc.resume();
        Some(Self { pc, memory, clock, disk })
    }

    /// The same board, built anew from its state.
    fn again(self) -> Self {
        let Self { pc, memory, clock, disk } = self;
        pc.pause();
        let state = pc.save();
        drop(pc);
        let functions = restored(&state, &disk);
        let pc = match Pc::restore(state.clone(), parts(&memory, &clock, functions)) {
            Ok(pc) => pc,
            Err(error) => panic!("a board cannot be built from its own state: {error}"),
        };
        assert_eq!(pc.save(), state, "a board built from a state has another state");
        pc.resume();
        Self { pc, memory, clock, disk }
    }
}

fn function(slot: u8, device: impl VirtioDevice + 'static) -> Function {
    Function { slot, device: Box::new(device) }
}

/// A cable with nobody at its other end.
fn cable() -> Cable {
    match Pair::new([[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]], 1500) {
        Ok([link, _]) => Cable::new(link),
        Err(error) => panic!("the host has no file descriptor for a cable: {error}"),
    }
}

fn parts(memory: &GuestMemory, clock: &Arc<ManualClock>, functions: Vec<Function>) -> PcParts {
    let shared: SharedClock = Arc::<ManualClock>::clone(clock);
    let engine = Arc::new(NoProcessors { memory: memory.clone(), clock: shared });
    PcParts {
        engine,
        power: power_channel().0,
        serial: Box::new(WriteHost(std::io::sink())),
        functions,
    }
}

fn restored(state: &PcState, disk: &Arc<dyn Disk>) -> Vec<Function> {
    let device = |state: &DeviceState| -> Box<dyn VirtioDevice> {
        match state {
            DeviceState::Blk(state) => match Blk::restore(Arc::clone(disk), state) {
                Ok(blk) => Box::new(blk),
                Err(error) => panic!("a disk does not take its own state: {error}"),
            },
            DeviceState::Console(state) => {
                Box::new(Console::restore(Box::new(std::io::sink()), state).0)
            }
            DeviceState::Net(state) => Box::new(Net::restore(cable(), state).0),
            DeviceState::Rng(state) => Box::new(Rng::restore(Box::new(HostEntropy), state)),
            DeviceState::Vsock(state) => Box::new(Vsock::restore(state).0),
        }
    };
    state
        .functions
        .iter()
        .map(|saved| Function { slot: saved.slot, device: device(&saved.function.device) })
        .collect()
}

/// Operations in a case.
const MOST_OPERATIONS: usize = 400;
/// Times a case may build the board anew.
const MOST_RESTORES: usize = 3;

fn run(bytes: &[u8], only_pci: bool) -> u64 {
    let Some(mut bench) = Bench::new() else { return 0 };
    let mut steps = 0;
    let mut input = Input::new(bytes);
    let mut restores = 0;
    for _ in 0..MOST_OPERATIONS {
        if input.is_empty() {
            break;
        }
        let kind = input.u8();
        if kind % 64 == 63 && restores < MOST_RESTORES {
            restores += 1;
            bench = bench.again();
        } else {
            step(&bench, kind, only_pci, &mut input);
            steps += 1;
        }
    }
    let bench = bench.again();
    let riad_machine::pc::Unclaimed { ports, memory } = bench.pc.unclaimed();
    // What a device answered to.
    steps - (ports + memory).min(steps)
}

/// Slots that functions come to, of those that cases often look at.
const HOT: [u8; 3] = [slot::NET, slot::DISK_FIRST + 1, slot::NET_MORE];

fn step(bench: &Bench, kind: u8, only_pci: bool, input: &mut Input<'_>) {
    let pc = &bench.pc;
    let mut data = [0; 8];
    let kind = if only_pci { 4 + kind % 4 } else { kind % 8 };
    match kind {
        0 | 1 => {
            let (at, len) = (port_number(input), input.pick(&[1, 2, 4]));
            pc.port_write(at, &input.u32().to_le_bytes()[..len]);
        }
        2 => {
            let (at, len) = (port_number(input), input.pick(&[1, 2, 4]));
            pc.port_read(at, &mut data[..len]);
        }
        3 => match input.u8() % 8 {
            0 => {
                pc.pause();
                pc.resume();
            }
            1 => {
                let _ = pc.serial_input(input.take(16));
            }
            2 => {
                let _ = pc.press_power_button();
            }
            3 => {
                let _ = pc.describe_pci();
            }
            4 => {
                let _ = pc.acknowledge_extint();
                pc.end_of_interrupt(input.u8());
            }
            // Refused where there is something, or nobody listens.
            5 => {
                let slot = input.pick(&HOT);
                let _ = pc.plug(function(slot, Rng::new(Box::new(HostEntropy))));
            }
            6 => {
                let slot = input.pick(&HOT);
                let _ = pc.want_back(slot);
                if input.u8().is_multiple_of(4) {
                    pc.keep(slot);
                }
            }
            _ => pass(bench, input.u32()),
        },
        4 => {
            let (at, len) = (address(input), input.pick(&[1, 2, 4, 8]));
            pc.mmio_write(at, &input.u64().to_le_bytes()[..len]);
        }
        5 => {
            let (at, len) = (address(input), input.pick(&[1, 2, 4, 8]));
            pc.mmio_read(at, &mut data[..len]);
        }
        6 => {
            // Configuration mechanism 1.
            let (device, register) = (u32::from(input.u8() % 12), u32::from(input.u8() & 0xfc));
            pc.port_write(port::PCI_ADDRESS, &(1 << 31 | device << 11 | register).to_le_bytes());
            let len = input.pick(&[1, 2, 4]);
            pc.port_write(port::PCI_DATA, &input.u32().to_le_bytes()[..len]);
        }
        _ => {
            let at = Gpa(u64::from(input.u32()) % (4 * MIB));
            let _ = bench.memory.write(at, input.take(16));
        }
    }
}

/// Lets guest time pass, with the devices' deadlines on the way. A device that never stops asking
/// for time that has passed would hang the thread that serves it.
fn pass(bench: &Bench, nanos: u32) {
    let end = bench.clock.now().saturating_add(u64::from(nanos));
    for _ in 0..1000 {
        let next = bench.pc.timers().expire_due();
        let Some(next) = next.filter(|next| *next <= end) else { break };
        assert!(next > bench.clock.now(), "a deadline that was served stays in the past");
        bench.clock.advance_to(next);
    }
    bench.clock.advance_to(end);
    bench.pc.timers().expire_due();
}

/// A port: most have a device.
fn port_number(input: &mut Input<'_>) -> u16 {
    const KNOWN: [u16; 29] = [
        0x20, 0x21, 0xa0, 0xa1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92,
        0x3f8, 0x3f9, 0x4d0, 0x4d1, 0x600, 0x604, 0x608, 0x60c, 0x60d, 0x620, 0x624, 0x628, 0xcf8,
        0xcfc,
    ];
    match input.u8() % 8 {
        0 => input.u16(),
        1 => input.pick(&KNOWN).wrapping_add(u16::from(input.u8() % 8)),
        _ => input.pick(&KNOWN),
    }
}

/// An address that is not RAM: most have a device.
fn address(input: &mut Input<'_>) -> Gpa {
    let ecam = |input: &mut Input<'_>| {
        ECAM.0 + u64::from(input.u8() % 12) * 0x8000 + u64::from(input.u16() & 0x10ff)
    };
    Gpa(match input.u8() % 8 {
        0 | 1 => ecam(input),
        2 => IOAPIC.0 + u64::from(input.pick(&[0u8, 0x10, 0x20, 0x40])),
        3 => IOAPIC.0 + u64::from(input.u16()),
        // The window that the board places BARs in, 32 KiB each, from its beginning.
        4..=6 => {
            let bar = PCI_MMIO32.0 + u64::from(input.u8() % 6) * 0x8000;
            bar + 0x1000 * u64::from(input.u8() % 8) + u64::from(input.u8())
        }
        _ => input.u64(),
    })
}

/// Accesses at random, of every kind.
fn accesses(random: &mut Random, only_pci: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.below(60) {
        bytes.push(random.byte());
        let count = 4 + random.below(10);
        bytes.extend(random.bytes(count));
    }
    if only_pci {
        // Everything may master the bus and decode memory, as after a driver's start.
        for device in [2u8, 3, 4, 8] {
            bytes.splice(0..0, [6, device, 4, 1, 6, 0, 0, 0]);
        }
    }
    bytes
}

/// What a kernel does first: interrupt controllers, timer, serial port, clock.
fn probes() -> Vec<Vec<u8>> {
    // A write of a byte to the known port of that index.
    let out = |index: u8, value: u8| [0, 2, index, 0, value, 0, 0, 0];
    let lists: [&[(u8, u8)]; 4] = [
        &[(0, 0x11), (1, 0x30), (1, 4), (1, 1), (2, 0x11), (3, 0x38), (3, 2), (3, 1), (1, 0xfb)],
        &[(7, 0x34), (4, 0x9c), (4, 0x2e), (7, 0xb0), (6, 0xff), (6, 0xff), (9, 1)],
        &[(16, 0x80), (15, 1), (16, 0), (15, 0x41)],
        &[(11, 0x0a), (12, 0x26), (11, 0x0b), (12, 0x42), (10, 0xaa), (14, 2)],
    ];
    lists
        .iter()
        .map(|list| {
            let mut bytes: Vec<u8> =
                list.iter().flat_map(|(port, value)| out(*port, *value)).collect();
            // Ten milliseconds.
            bytes.extend([3, 5, 0x80, 0x96, 0x98, 0]);
            bytes
        })
        .collect()
}

fn lapic(bytes: &[u8]) -> u64 {
    let mut input = Input::new(bytes);
    let mut apic = Lapic::restore(LapicState::reset(u32::from(input.u8() % 3)));
    let (mut now, mut steps) = (0u64, 0);
    while !input.is_empty() {
        let value = |input: &mut Input<'_>| {
            if input.u8() & 1 == 0 { input.u32() } else { input.u8().into() }
        };
        steps += 1;
        match input.u8() % 10 {
            0 | 1 => {
                let at = u64::from(input.u8()) << 4;
                let _ = apic.mmio_write(at, value(&mut input), now);
            }
            2 => {
                let _ = apic.mmio_read(u64::from(input.u16() & 0xfff), now);
            }
            3 | 4 => {
                let register = 0x800 + u32::from(input.u8() & 0x7f);
                let _ = apic.msr_write(register, value(&mut input).into(), now);
            }
            5 => {
                let _ = apic.msr_read(0x800 + u32::from(input.u8()), now);
            }
            6 => {
                let message =
                    Message::from_msi(0xfee0_0000 | u64::from(input.u32() & 0xf_ffff), input.u32());
                if apic.is_addressed_by(&message, None) {
                    let _ = apic.accept(&message);
                }
            }
            7 => {
                let _ = apic.acknowledge();
                let _ = apic.passes_extint();
            }
            8 => {
                now = now.saturating_add(input.u32().into());
                let _ = apic.timer();
                let _ = apic.expire_timer(now);
            }
            _ => {
                let _ = apic.set_base(input.u64());
                apic.set_tsc_deadline(input.u64());
            }
        }
    }
    let state = apic.save();
    assert_eq!(Lapic::restore(state.clone()).save(), state, "its state comes back");
    steps
}
