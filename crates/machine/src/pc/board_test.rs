use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use proptest::prelude::*;
use riad_clock::{ManualClock, SharedClock};
use riad_cpu::{Engine, Vcpu};
use riad_devices::PowerEvent;
use riad_devices::pci::slot;
use riad_devices::serial::WriteHost;
use riad_devices::virtio::rng::{HostEntropy, Rng};
use riad_devices::virtio::{DeviceState, VirtioDevice};

use super::super::chipset::Function;
use super::super::map::{IRQ_COM1, MIB};
use super::super::power::power_channel;
use super::*;

/// Interrupts that would have reached processors.
struct TestEngine {
    memory: GuestMemory,
    clock: SharedClock,
    messages: Mutex<Vec<(u64, u32)>>,
    intr: AtomicBool,
}

impl Engine for TestEngine {
    fn name(&self) -> &'static str {
        "test"
    }

    fn add_vcpu(&self, _id: u32, _bus: Arc<dyn Bus>) -> Result<Box<dyn Vcpu>, riad_cpu::Error> {
        Err(riad_cpu::Error::Unavailable { engine: "test", reason: "it has none".into() })
    }

    fn send_msi(&self, address: u64, data: u32) {
        lock(&self.messages).push((address, data));
    }

    fn set_extint(&self, level: bool) {
        self.intr.store(level, Ordering::SeqCst);
    }

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn clock(&self) -> &SharedClock {
        &self.clock
    }
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A board and what is around it.
struct Bench {
    pc: Pc,
    engine: Arc<TestEngine>,
    clock: Arc<ManualClock>,
    power: Receiver<PowerEvent>,
    output: Output,
}

fn config() -> PcConfig {
    PcConfig { map: AddressMap::new(16 * MIB).unwrap(), cpus: 2, debug_exit: true }
}

fn rng() -> Box<dyn VirtioDevice> {
    Box::new(Rng::new(Box::new(HostEntropy)))
}

/// Builds a board with `make`, around `clock`.
fn bench_at(
    clock: ManualClock,
    functions: Vec<Function>,
    make: impl FnOnce(PcParts) -> Result<Pc, PcError>,
) -> Result<Bench, PcError> {
    let clock = Arc::new(clock);
    let engine = Arc::new(TestEngine {
        memory: GuestMemory::new(&config().map.runs()).unwrap(),
        clock: Arc::<ManualClock>::clone(&clock),
        messages: Mutex::default(),
        intr: AtomicBool::new(false),
    });
    let (power, events) = power_channel();
    let output = Output::default();
    let parts = PcParts {
        engine: Arc::<TestEngine>::clone(&engine),
        power,
        serial: Box::new(WriteHost(output.clone())),
        functions,
    };
    let pc = make(parts)?;
    Ok(Bench { pc, engine, clock, power: events, output })
}

fn bench() -> Bench {
    let functions = vec![Function { slot: slot::RNG, device: rng() }];
    let bench = bench_at(ManualClock::new(0), functions, |parts| Pc::new(config(), parts)).unwrap();
    bench.pc.resume();
    bench
}

impl Bench {
    fn outb(&self, port: u16, value: u8) {
        self.pc.port_write(port, &[value]);
    }

    fn inb(&self, port: u16) -> u8 {
        let mut data = [0];
        self.pc.port_read(port, &mut data);
        data[0]
    }

    fn inl(&self, port: u16) -> u32 {
        let mut data = [0; 4];
        self.pc.port_read(port, &mut data);
        u32::from_le_bytes(data)
    }

    fn readl(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        self.pc.mmio_read(Gpa(at), &mut data);
        u32::from_le_bytes(data)
    }

    fn ioapic(&self, register: u32, value: u32) {
        self.pc.mmio_write(IOAPIC, &register.to_le_bytes());
        self.pc.mmio_write(Gpa(IOAPIC.0 + 0x10), &value.to_le_bytes());
    }

    fn messages(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *lock(&self.engine.messages))
    }

    /// Both controllers at vectors 0x20 and 0x28, all requests open.
    fn init_pic(&self) {
        for (port, values) in [(0x20, [0x11, 0x20, 4, 1]), (0xa0, [0x11, 0x28, 2, 1])] {
            self.outb(port, values[0]);
            for value in &values[1..] {
                self.outb(port + 1, *value);
            }
            self.outb(port + 1, 0);
        }
    }
}

#[test]
fn nothing_answers_with_ones_and_is_counted() {
    let bench = bench();
    assert_eq!((bench.inb(0x1234), bench.inl(0x2f8)), (0xff, u32::MAX));
    assert_eq!(bench.readl(0xd000_0000), u32::MAX);
    bench.outb(0x1234, 1);
    assert_eq!(bench.pc.unclaimed(), Unclaimed { ports: 3, memory: 1 });
}

#[test]
fn configuration_ports_and_memory_show_the_same_functions() {
    let bench = bench();
    bench.pc.port_write(0xcf8, &0x8000_0000u32.to_le_bytes());
    assert_eq!(bench.inl(0xcf8), 0x8000_0000);
    assert_eq!(bench.inl(0xcfc), bench.readl(ECAM.0));
    let rng = ECAM.0 + (u64::from(slot::RNG) << 15);
    assert_eq!(bench.readl(rng), 0x1044_1af4);
    let bar = bench.readl(rng + 0x10) & !0xf;
    assert!((0xc000_0000..0xe000_0000).contains(&bar), "{bar:#x}");
    let before = bench.pc.unclaimed();
    bench.readl(bar.into());
    assert_eq!(bench.pc.unclaimed(), before, "the BAR answers");
}

#[test]
fn the_reset_register_hides_in_the_configuration_address() {
    let bench = bench();
    bench.outb(port::RESET_CONTROL, 6);
    assert_eq!(bench.power.try_recv(), Ok(PowerEvent::Reset));
    assert_eq!(bench.inb(port::RESET_CONTROL), 6);
}

#[test]
fn power_events_arrive_once() {
    let bench = bench();
    for _ in 0..1000 {
        bench.pc.port_write(port::DEBUG_EXIT, &1u32.to_le_bytes());
    }
    assert_eq!(bench.power.try_recv(), Ok(PowerEvent::DebugExit { code: 3 }));
    assert!(bench.power.try_recv().is_err());
    bench.pc.port_write(port::PM1A_CNT, &0x3401u16.to_le_bytes());
    assert_eq!(bench.power.try_recv(), Ok(PowerEvent::PowerOff), "S5 of the DSDT");
}

#[test]
fn serial_output_and_its_interrupt_go_both_ways() {
    let bench = bench();
    bench.init_pic();
    bench.ioapic(0x10 + 2 * u32::from(IRQ_COM1), 0x34);
    bench.outb(0x3f8 + 4, 0x08);
    bench.outb(0x3f8 + 1, 0x02);
    assert_eq!(bench.messages(), [(0xfee0_0000, 0x4034)]);
    assert!(bench.engine.intr.load(Ordering::SeqCst));
    assert_eq!(bench.pc.acknowledge_extint(), 0x24);
    bench.outb(0x3f8 + 2, 1);
    bench.outb(0x3f8, b'!');
    assert_eq!(*lock(&bench.output.0), b"!");
    assert_eq!(bench.pc.serial_input(&[1; 100]), 16);
    assert_eq!(bench.inb(0x3f8), 1);
}

#[test]
fn the_timer_is_on_pin_two_and_request_zero() {
    let bench = bench();
    bench.init_pic();
    bench.ioapic(0x14, 0x30);
    bench.outb(0x43, 0x34);
    bench.outb(0x40, 0xa9);
    bench.outb(0x40, 0x04); // 1193 ticks: a millisecond
    let at = bench.pc.timers().next_deadline().unwrap();
    assert!((990_000..1_010_000).contains(&at), "{at}");
    assert_eq!(bench.messages(), []);
    bench.clock.advance_to(at);
    let next = bench.pc.timers().expire_due().unwrap();
    assert!((1_990_000..2_010_000).contains(&next), "{next}");
    assert_eq!(bench.messages(), [(0xfee0_0000, 0x4030)]);
    assert_eq!(bench.pc.acknowledge_extint(), 0x20);
}

#[test]
fn the_power_button_raises_the_level_triggered_sci() {
    let bench = bench();
    assert!(!bench.pc.press_power_button());
    bench.ioapic(0x10 + 2 * 9, 0x39 | 1 << 15);
    bench.pc.port_write(port::PM1A_EVT + 2, &0x100u16.to_le_bytes());
    assert!(bench.pc.press_power_button());
    assert_eq!(bench.messages().len(), 1);
    bench.pc.end_of_interrupt(0x39);
    assert_eq!(bench.messages().len(), 1, "still raised: again");
    bench.pc.port_write(port::PM1A_EVT, &0x100u16.to_le_bytes());
    bench.pc.end_of_interrupt(0x39);
    assert_eq!(bench.messages().len(), 0);
}

#[test]
fn firmware_tables_are_in_memory_and_the_kernel_is_entered() {
    let bench = bench();
    let memory = &bench.engine.memory;
    assert_eq!(memory.read_vec(FIRMWARE_TABLES, 8).unwrap(), b"RSD PTR ");
    let magic = 0x1bad_b002u32;
    let header = [magic, 1 << 16, 0u32.wrapping_sub(magic + (1 << 16))];
    let addresses = [0x10_0000u32, 0x10_0000, 0, 0, 0x10_0020];
    let file: Vec<u8> = header.iter().chain(&addresses).flat_map(|w| w.to_le_bytes()).collect();
    let kernel = KernelImage::parse(&file).unwrap();
    let state = bench.pc.boot(&kernel, &BootParams::default()).unwrap();
    assert_eq!((state.rip, state.gpr[0]), (0x10_0020, 0x2bad_b002));
    assert_eq!(memory.read_u32(Gpa(state.gpr[3])).unwrap() & 1, 1, "Multiboot information");
    assert_eq!(state.gdtr.limit, 31);
    let code = memory.read_u64(Gpa(state.gdtr.base + u64::from(state.segments.cs.selector)));
    assert_eq!(code.unwrap(), Entry::GDT[2]);
}

#[test]
fn a_board_goes_on_from_its_saved_state() {
    let bench = bench();
    bench.init_pic();
    bench.ioapic(0x10 + 2 * u32::from(IRQ_COM1), 0x34);
    bench.outb(0x43, 0x34);
    bench.outb(0x40, 0xa9);
    bench.outb(0x40, 0x04);
    bench.outb(0x3f8 + 4, 0x08);
    bench.outb(0x3f8 + 1, 0x02);
    bench.pc.port_write(0xcf8, &0x8000_2010u32.to_le_bytes());
    bench.pc.port_write(0xcfc, &0xc124_0000u32.to_le_bytes());
    bench.clock.advance(100_000_000);
    bench.pc.pause();
    let state = bench.pc.save();
    let text = serde_json::to_string(&state).unwrap();
    let read: PcState = serde_json::from_str(&text).unwrap();
    assert_eq!(read, state);

    let DeviceState::Rng(saved) = &read.functions[0].function.device else { panic!("no rng") };
    let device = Box::new(Rng::restore(Box::new(HostEntropy), saved));
    let functions = vec![Function { slot: slot::RNG, device }];
    let clock = ManualClock::restore(bench.clock.save(), 0);
    let other = bench_at(clock, functions, |parts| Pc::restore(read, parts)).unwrap();
    assert_eq!(other.pc.save(), state);
    assert_eq!(other.messages(), [], "restoring interrupts nobody");
    assert_eq!(other.engine.intr.load(Ordering::SeqCst), bench.engine.intr.load(Ordering::SeqCst));
    assert_eq!(other.pc.describe_pci(), bench.pc.describe_pci());
    assert!(other.pc.describe_pci().contains("0xc1240000"));
    let deadline = bench.pc.timers().next_deadline();
    assert_eq!(other.pc.timers().next_deadline(), deadline);
    assert_eq!(other.pc.acknowledge_extint(), bench.pc.acknowledge_extint());
}

/// Does what the DSDT's `_E01` does, with what it finds at a register: gives the slots.
fn seen(bench: &Bench, register: u16) -> u32 {
    let slots = bench.inl(port::HOTPLUG + register);
    bench.pc.port_write(port::HOTPLUG + register, &slots.to_le_bytes());
    slots
}

#[test]
fn a_function_is_plugged_in_told_and_ejected() {
    const NOW: Duration = Duration::ZERO;
    let bench = bench();
    let plug = |slot| bench.pc.plug(Function { slot, device: rng() });
    assert!(matches!(plug(28), Err(PcError::Deaf)), "nobody listens yet");
    bench.ioapic(0x10 + 2 * 9, 0x39 | 1 << 15);
    bench.outb(port::GPE0 + 1, 1 << 1);
    assert!(matches!(plug(8), Err(PcError::FixedSlot(8))));
    assert!(matches!(bench.pc.want_back(slot::RNG), Err(PcError::FixedSlot(slot::RNG))));
    plug(28).unwrap();
    assert!(matches!(plug(28), Err(PcError::Pci(PciError::SlotTaken(28)))));
    assert_eq!(bench.messages().len(), 1, "the SCI");
    bench.outb(port::GPE0, 1 << 1);
    bench.pc.end_of_interrupt(0x39);
    assert_eq!(bench.messages().len(), 0);
    assert_eq!((seen(&bench, 0), seen(&bench, 0)), (1 << 28, 0));
    let id = ECAM.0 + (28 << 15);
    assert_eq!(bench.readl(id), 0x1044_1af4);

    // It is saved like any other, and comes back with its slot.
    bench.pc.pause();
    let state = bench.pc.save();
    assert_eq!(state.functions.iter().map(|f| f.slot).collect::<Vec<_>>(), [slot::RNG, 28]);
    let functions = [slot::RNG, 28].map(|slot| Function { slot, device: rng() }).into();
    let clock = ManualClock::restore(bench.clock.save(), 0);
    let other = bench_at(clock, functions, |parts| Pc::restore(state.clone(), parts)).unwrap();
    assert_eq!(other.pc.save(), state);

    for bench in [&bench, &other] {
        bench.pc.resume();
        bench.pc.port_write(port::HOTPLUG + 8, &u32::MAX.to_le_bytes());
        assert!(bench.pc.is_taken(28, NOW), "nobody wants it back");
        bench.pc.want_back(28).unwrap();
        assert_eq!(bench.messages().len(), 1);
        assert_eq!(seen(bench, 4), 1 << 28);
        assert!(bench.pc.is_taken(28, Duration::from_millis(1)));
        bench.pc.port_write(port::HOTPLUG + 8, &(1u32 << 28).to_le_bytes());
        assert!(!bench.pc.is_taken(28, NOW));
        assert_eq!(bench.readl(id), u32::MAX);
        assert_eq!(bench.pc.save().functions.len(), 1);
    }
}

#[test]
fn a_board_saved_before_there_was_hot_plug_is_restored() {
    let bench = bench();
    bench.pc.pause();
    let mut old = serde_json::to_value(bench.pc.save()).unwrap();
    old.as_object_mut().unwrap().remove("hotplug").unwrap();
    let state: PcState = serde_json::from_value(old).unwrap();
    let functions = vec![Function { slot: slot::RNG, device: rng() }];
    let clock = ManualClock::restore(bench.clock.save(), 0);
    let other = bench_at(clock, functions, |parts| Pc::restore(state, parts)).unwrap();
    assert_eq!(other.pc.save(), bench.pc.save());
    assert!(matches!(other.pc.want_back(28), Err(PcError::Deaf)));
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let bench = bench();
    bench.pc.pause();
    let state = bench.pc.save();
    let restore = |state: PcState, functions| {
        bench_at(ManualClock::new(0), functions, |parts| Pc::restore(state, parts)).err().unwrap()
    };
    let newer = PcState { version: PcState::VERSION + 1, ..state.clone() };
    assert!(matches!(restore(newer, Vec::new()), PcError::NewerState(_)));
    let error = restore(state.clone(), Vec::new());
    assert!(matches!(error, PcError::Functions { saved: 1, given: 0 }));
    let error = restore(state.clone(), vec![Function { slot: 9, device: rng() }]);
    assert!(matches!(error, PcError::Slot { saved: slot::RNG, given: 9 }));
    let larger = PcConfig { map: AddressMap::new(32 * MIB).unwrap(), ..state.config };
    let error = restore(PcState { config: larger, ..state }, Vec::new());
    assert!(matches!(error, PcError::MemoryLayout));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_accesses_never_panic(
        steps in prop::collection::vec(
            (any::<u8>(), any::<u16>(), any::<u64>(), 0usize..4, 0u64..3_000_000),
            0..200,
        ),
    ) {
        let bench = bench();
        let places = [ECAM.0, IOAPIC.0, 0xc000_0000, 0xffff_ffff_ffff_fff0];
        for (kind, port, value, size, time) in steps {
            let len = 1 << size;
            let mut data = value.to_le_bytes();
            // Half of the ports are those that somebody is likely to be at.
            let port = if kind & 8 == 0 { port } else { port % 0x640 };
            let place = places[usize::from(kind >> 4) % places.len()];
            let at = Gpa(place.wrapping_add(value % 0x2_0000));
            match kind % 5 {
                0 => bench.pc.port_write(port, &data[..len.min(4)]),
                1 => bench.pc.port_read(port, &mut data[..len.min(4)]),
                2 => bench.pc.mmio_write(at, &data[..len]),
                3 => bench.pc.mmio_read(at, &mut data[..len]),
                _ => {
                    bench.clock.advance(time);
                    bench.pc.timers().expire_due();
                    bench.pc.end_of_interrupt(value as u8);
                    bench.pc.acknowledge_extint();
                }
            }
        }
        bench.pc.pause();
        let state = bench.pc.save();
        let functions = vec![Function { slot: slot::RNG, device: rng() }];
        let clock = ManualClock::restore(bench.clock.save(), 0);
        let other = bench_at(clock, functions, |parts| Pc::restore(state.clone(), parts)).unwrap();
        prop_assert_eq!(other.pc.save(), state);
    }
}
