//! One tier's machine, a run in it, and how two runs are compared.

use std::fmt::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use riad_clock::{HostClock, ManualClock, SharedClock};
use riad_cpu::x86::{Activity, VcpuState, rflags};
use riad_cpu::{Bus, Exit, Limit, Vcpu, VcpuConfig, VcpuHandle};
use riad_cpu_soft::{Options, SoftEngine, SoftVcpu, Tier};
use riad_memory::{Gpa, GuestMemory};

use crate::layout::{FRAME_FLAGS_AT, HANDLERS, RAM, STOP};

/// How long a program of some thousand instructions may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What both sides start from.
#[derive(Clone)]
pub(crate) struct Start {
    /// The processor.
    pub(crate) state: VcpuState,
    /// All of memory.
    pub(crate) memory: Vec<u8>,
}

/// What a guest can see of a run.
pub(crate) struct Outcome {
    /// Why it ended.
    pub(crate) exit: Exit,
    /// The processor.
    pub(crate) state: VcpuState,
    /// All of memory.
    pub(crate) memory: Vec<u8>,
    /// Reads and writes outside of memory: address, length, value written.
    pub(crate) devices: Vec<(u64, usize, Option<u64>)>,
    /// Instructions since the start.
    pub(crate) retired: u64,
}

/// Remembers, and stops the processor.
#[derive(Default)]
struct World {
    devices: Mutex<Vec<(u64, usize, Option<u64>)>>,
    handle: OnceLock<Arc<dyn VcpuHandle>>,
}

impl Bus for World {
    fn mmio_read(&self, at: Gpa, data: &mut [u8]) {
        let mut devices = self.devices.lock().expect("devices");
        devices.push((at.0, data.len(), None));
        data.fill(devices.len() as u8);
    }
    fn mmio_write(&self, at: Gpa, data: &[u8]) {
        let value = data.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        self.devices.lock().expect("devices").push((at.0, data.len(), Some(value)));
    }
    fn port_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0x5a);
    }
    fn port_write(&self, port: u16, _: &[u8]) {
        if port == u16::from(STOP) {
            self.handle.get().expect("a processor").stop();
        }
    }
    fn acknowledge_extint(&self) -> u8 {
        0xff
    }
    fn end_of_interrupt(&self, _: u8) {}
}

/// One tier's machine. It can be used again: what it keeps of code must not be seen.
pub(crate) struct Side {
    pub(crate) memory: GuestMemory,
    pub(crate) vcpu: SoftVcpu,
    world: Arc<World>,
    /// Instructions retired before.
    begun: u64,
    /// How it ended, if it did: nobody would wake it up.
    ended: Option<Exit>,
}

impl Side {
    /// A machine with one processor, whose clock is driven by instructions.
    pub(crate) fn new(tier: Tier) -> Self {
        Self::with_clock(tier, Arc::new(ManualClock::new(0).driven(10)))
    }

    /// The translator with the host's clock: nobody counts instructions.
    pub(crate) fn free() -> Self {
        Self::with_clock(Tier::Translator, Arc::new(HostClock::new()))
    }

    fn with_clock(tier: Tier, clock: SharedClock) -> Self {
        let memory = GuestMemory::new(&[(Gpa(0), RAM as u64)]).expect("memory");
        let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
        let options = Options { tier, code_cache: 1 << 20 };
        let engine = SoftEngine::with_options(memory.clone(), clock, config, options);
        let world = Arc::new(World::default());
        let vcpu = engine.vcpu(0, world.clone());
        assert!(world.handle.set(vcpu.handle()).is_ok());
        Self { memory, vcpu, world, begun: 0, ended: None }
    }

    /// Begins anew. Pages that are as they should be are not written to, so that what is known of
    /// the code on them stays known.
    pub(crate) fn load(&mut self, start: &Start) {
        let mut page = vec![0; 0x1000];
        for (n, wanted) in start.memory.chunks(0x1000).enumerate() {
            let at = Gpa(n as u64 * 0x1000);
            self.memory.read(at, &mut page).expect("memory");
            if page != wanted {
                self.memory.write(at, wanted).expect("memory");
            }
        }
        self.vcpu.set_state(&start.state).expect("a state a processor can be in");
        self.world.devices.lock().expect("devices").clear();
        self.begun = self.retired();
        self.ended = None;
    }

    /// Instructions retired before the start.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    fn retired(&self) -> u64 {
        self.vcpu.cpu.retired
    }

    /// Runs until it stops itself, or for so many instructions.
    pub(crate) fn run(&mut self, most: u64) -> Outcome {
        if let Some(exit) = self.ended {
            return self.outcome(exit);
        }
        let exit = self.vcpu.run(Limit::Instructions(most)).expect("an exit");
        self.ended = (exit != Exit::Limit).then_some(exit);
        if exit == Exit::Stopped && self.vcpu.cpu.events.activity == Activity::Running {
            // Whether the request is seen before or after the HLT behind it, nobody promised.
            let exit = self.vcpu.run(Limit::Instructions(1)).expect("an exit");
            assert_eq!(exit, Exit::Limit);
        }
        self.outcome(exit)
    }

    /// Runs until it stops itself; it is stopped when that takes far too long.
    pub(crate) fn run_to_the_end(&mut self) -> Outcome {
        let handle = self.vcpu.handle();
        let (done, wait) = mpsc::channel::<()>();
        let exit = std::thread::scope(|scope| {
            scope.spawn(move || {
                if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    handle.stop();
                }
            });
            let exit = self.vcpu.run(Limit::None).expect("an exit");
            drop(done);
            exit
        });
        if exit == Exit::Stopped && self.vcpu.cpu.events.activity == Activity::Running {
            let _ = self.vcpu.run(Limit::Instructions(1));
        }
        self.ended = Some(exit);
        self.outcome(exit)
    }

    /// Whether it stopped itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// How things stand.
    pub(crate) fn outcome(&self, exit: Exit) -> Outcome {
        Outcome {
            exit,
            state: self.vcpu.state().expect("the state"),
            memory: self.memory.read_vec(Gpa(0), RAM).expect("memory"),
            devices: self.world.devices.lock().expect("devices").clone(),
            retired: self.retired() - self.begun,
        }
    }

    /// A run that was cut in a handler has asked to stop, or will at once: let it.
    pub(crate) fn settle(&mut self) {
        while self.vcpu.cpu.rip().wrapping_sub(HANDLERS) < 0x1000 && self.ended.is_none() {
            self.run(1);
        }
    }
}

/// Every difference, a line each; empty when there is none.
pub(crate) fn difference(interpreter: &Outcome, translator: &Outcome) -> String {
    let mut text = String::new();
    let mut differ = |what: &str, one: String, other: String| {
        let _ = writeln!(text, "  {what}: interpreter {one}, translator {other}");
    };
    let (a, b) = (interpreter, translator);
    if a.exit != b.exit {
        differ("exit", format!("{:?}", a.exit), format!("{:?}", b.exit));
    }
    if a.retired != b.retired {
        differ("retired", a.retired.to_string(), b.retired.to_string());
    }
    if a.devices != b.devices {
        differ("devices", format!("{:x?}", a.devices), format!("{:x?}", b.devices));
    }
    let masked =
        |state: &VcpuState| VcpuState { rflags: state.rflags & !rflags::STATUS, ..state.clone() };
    let (one, other) = (masked(&a.state), masked(&b.state));
    if one != other {
        fields(&format!("{one:#x?}"), &format!("{other:#x?}"), &mut differ);
    }
    for (at, (one, other)) in a.memory.iter().zip(&b.memory).enumerate() {
        // Flags in the frame of an exception: the status flags lie in its first two bytes.
        let mask = match at.wrapping_sub(FRAME_FLAGS_AT) {
            0 => !(rflags::STATUS as u8),
            1 => !((rflags::STATUS >> 8) as u8),
            _ => 0xff,
        };
        if (one ^ other) & mask != 0 {
            differ(&format!("memory {at:#x}"), format!("{one:02x}"), format!("{other:02x}"));
        }
    }
    if text.lines().count() > 24 {
        text = text.lines().take(24).fold(String::new(), |all, line| all + line + "\n");
    }
    text
}

/// As [`difference`], of runs with different clocks.
pub(crate) fn difference_but_time(interpreter: Outcome, mut translator: Outcome) -> String {
    translator.state.tsc = interpreter.state.tsc;
    translator.retired = interpreter.retired;
    difference(&Outcome { exit: translator.exit, ..interpreter }, &translator)
}

/// Compares what `{:#x?}` prints, which has a line for each field: names come from indentation.
fn fields(a: &str, b: &str, differ: &mut impl FnMut(&str, String, String)) {
    let mut path: Vec<&str> = Vec::new();
    for (one, other) in a.lines().zip(b.lines()) {
        let depth = (one.len() - one.trim_start().len()) / 4;
        path.truncate(depth);
        if one != other {
            differ(&path.concat(), one.trim().to_owned(), other.trim().to_owned());
        }
        path.push(one.trim().trim_end_matches(['{', '[', '(']));
    }
}
