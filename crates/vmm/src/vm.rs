//! A running machine.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use riad_clock::{Clock, HostClock};
use riad_confine::Kind;
use riad_cpu::x86::VcpuState;
use riad_cpu::{Bus, Engine, Exit, Limit, Vcpu, VcpuHandle};
use riad_devices::virtio::console::ConsoleHandle;
use riad_devices::{PowerControl, PowerEvent, SharedPower};
use riad_machine::boot::{BootParams, KernelImage, Module};
use riad_machine::pc::map::AddressMap;
use riad_machine::pc::{Pc, PcConfig, PcParts};
use riad_memory::{Gatherer, GuestMemory};

use crate::devices::Lists;
use crate::engine::{Made, Wanted};
use crate::functions::Functions;
use crate::host_memory;
use crate::meter::Meter;
use crate::snapshot::Snapshot;
use crate::sys::ThreadClock;
use crate::{Console, CpuModel, Devices, Error, Guest, MAX_CPUS, VmConfig, VsockHandle};

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest wrote to the debug exit port: the status a process would exit with.
    DebugExit(u8),
    /// A processor shut down by a triple fault.
    TripleFault {
        /// Its number.
        cpu: u32,
    },
    /// The engine gave up.
    Failed(String),
}

/// What the processors' threads are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
    Ended,
}

#[derive(Debug)]
struct Control {
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Control {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        *self.phase() = phase;
        self.changed.notify_all();
    }

    /// Waits out pauses. Returns whether to run on.
    fn may_run(&self) -> bool {
        let phase = self.phase();
        let phase = self
            .changed
            .wait_while(phase, |phase| *phase == Phase::Paused)
            .unwrap_or_else(PoisonError::into_inner);
        *phase == Phase::Running
    }
}

type SharedVcpu = Arc<Mutex<Box<dyn Vcpu>>>;

fn lock(vcpu: &SharedVcpu) -> MutexGuard<'_, Box<dyn Vcpu>> {
    vcpu.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Types on a machine's console, from any thread, as long as there is a machine.
#[derive(Debug, Clone)]
pub struct Keyboard {
    pc: Weak<Pc>,
    console: Console,
    virtio_console: Option<ConsoleHandle>,
}

impl Keyboard {
    /// Types on the console that spoke last. Gives how many bytes there was room for; `None` when
    /// the machine is gone.
    #[must_use]
    pub fn type_on_console(&self, bytes: &[u8]) -> Option<usize> {
        let pc = self.pc.upgrade()?;
        Some(match &self.virtio_console {
            Some(virtio) if self.console.is_virtio() => virtio.push(bytes),
            _ => pc.serial_input(bytes),
        })
    }
}

/// A machine in this process. Dropping it ends it.
pub struct Vm {
    engine: Arc<dyn Engine>,
    tsc_khz: u32,
    /// What CPUID answers, when that is the host's own.
    host_cpu: Option<Vec<[u32; 6]>>,
    pc: Arc<Pc>,
    memory: GuestMemory,
    /// Works until the machine is dropped.
    _gatherer: Gatherer,
    clock: Arc<HostClock>,
    vcpus: Vec<SharedVcpu>,
    handles: Vec<Arc<dyn VcpuHandle>>,
    control: Arc<Control>,
    sender: SyncSender<Ending>,
    /// Until somebody takes it.
    endings: Option<Receiver<Ending>>,
    threads: Vec<JoinHandle<()>>,
    devices: Lists,
    vsock: Option<VsockHandle>,
    console: Console,
    virtio_console: Option<ConsoleHandle>,
    meter: Meter,
}

/// What the guest's own word about its end sets off: it is passed on, and the processors stop.
struct Power {
    endings: SyncSender<Ending>,
    control: Arc<Control>,
    handles: Arc<OnceLock<Vec<Arc<dyn VcpuHandle>>>>,
}

impl PowerControl for Power {
    fn power(&self, event: PowerEvent) {
        let ending = match event {
            PowerEvent::PowerOff => Ending::PowerOff,
            PowerEvent::Reset => Ending::Reset,
            PowerEvent::DebugExit { code } => Ending::DebugExit(code as u8),
        };
        // The first ending counts.
        let _ = self.endings.try_send(ending);
        self.control.set(Phase::Ended);
        for handle in self.handles.get().into_iter().flatten() {
            handle.stop();
        }
    }
}

impl Vm {
    /// Builds a machine, puts the guest's kernel into its memory, and sets it running.
    ///
    /// # Errors
    /// When the configuration, the kernel or the host do not allow it.
    pub fn start(config: &VmConfig, guest: &Guest, console: &Console) -> Result<Self, Error> {
        let vm = Self::start_paused(config, guest, console)?;
        vm.resume();
        Ok(vm)
    }

    /// As [`start`](Self::start), but nothing moves before [`resume`](Self::resume) or
    /// [`advance`](Self::advance).
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_paused(
        config: &VmConfig,
        guest: &Guest,
        console: &Console,
    ) -> Result<Self, Error> {
        let map = check(config)?;
        // The kernel is looked at first: it is what is most often wrong.
        let kernel = KernelImage::parse(&guest.kernel)?;
        let memory = GuestMemory::new(&map.runs())?;
        let (vm, mut vcpus) = Self::build(config, map, memory, None, console)?;
        let modules: Vec<_> =
            guest.modules.iter().map(|(args, data)| Module { args, data }).collect();
        let params = BootParams {
            kernel_name: &guest.kernel_name,
            cmdline: &guest.cmdline,
            modules: &modules,
        };
        let state = vm.pc.boot(&kernel, &params)?;
        if let Some(first) = vcpus.first_mut() {
            first.set_state(&state)?;
        }
        vm.launch(vcpus)
    }

    /// Builds a machine from a snapshot, paused. The disks hold what they held.
    ///
    /// # Errors
    /// When the snapshot, the disks or the host do not allow it.
    pub fn restore(
        config: &VmConfig,
        snapshot: Snapshot,
        memory: GuestMemory,
        console: &Console,
    ) -> Result<Self, Error> {
        let map = snapshot.pc.config.map;
        let states = snapshot.vcpus.clone();
        let (vm, mut vcpus) = Self::build(config, map, memory, Some(snapshot), console)?;
        for (vcpu, state) in vcpus.iter_mut().zip(&states) {
            vcpu.set_state(state)?;
        }
        vm.launch(vcpus)
    }

    fn build(
        config: &VmConfig,
        map: AddressMap,
        memory: GuestMemory,
        snapshot: Option<Snapshot>,
        console: &Console,
    ) -> Result<(Self, Vec<Box<dyn Vcpu>>), Error> {
        let clock = Arc::new(match &snapshot {
            Some(snapshot) => HostClock::restore(snapshot.clock),
            None => HostClock::new(),
        });
        clock.pause();
        let cpus = snapshot.as_ref().map_or(config.cpus, |s| s.pc.config.cpus);
        let shared: Arc<dyn Clock> = clock.clone();
        let wanted = Wanted::new(config, snapshot.as_ref());
        let Made { engine, tsc_khz, host_cpu } =
            crate::engine::make(wanted, memory.clone(), shared, cpus)?;
        if let Some(snapshot) = &snapshot {
            snapshot.check_host(host_cpu.as_ref())?;
        }
        // As the clock does.
        engine.pause();
        // Two: the guest's own word, and a processor's that failed because of it.
        let (sender, endings) = sync_channel(2);
        let control =
            Arc::new(Control { phase: Mutex::new(Phase::Paused), changed: Condvar::new() });
        let known = Arc::new(OnceLock::new());
        let power: SharedPower = Arc::new(Power {
            endings: sender.clone(),
            control: Arc::clone(&control),
            handles: Arc::clone(&known),
        });
        let Functions { functions, lists: devices, vsock, virtio_console } = match &snapshot {
            Some(snapshot) => Functions::restore(config, snapshot, console)?,
            None => Functions::new(config, console)?,
        };
        let parts =
            PcParts { engine: Arc::clone(&engine), power, serial: console.host(), functions };
        let pc = match snapshot {
            Some(snapshot) => Pc::restore(snapshot.pc, parts)?,
            None => Pc::new(PcConfig { map, cpus, debug_exit: config.debug_exit }, parts)?,
        };
        let pc = Arc::new(pc);
        let mut vcpus = Vec::new();
        for id in 0..cpus {
            let bus: Arc<dyn Bus> = pc.clone();
            vcpus.push(engine.add_vcpu(id, bus)?);
        }
        let handles: Vec<_> = vcpus.iter().map(|vcpu| vcpu.handle()).collect();
        let _ = known.set(handles.clone());
        let meter = Meter::new(cpus, devices.clone(), Arc::clone(&clock));
        let mut vm = Self {
            engine,
            tsc_khz,
            host_cpu,
            pc,
            _gatherer: Gatherer::new(&memory),
            memory,
            clock,
            vcpus: Vec::new(),
            handles,
            control,
            sender,
            endings: Some(endings),
            threads: Vec::new(),
            devices,
            vsock,
            console: console.clone(),
            virtio_console,
            meter,
        };
        let timers = Arc::clone(vm.pc.timers());
        vm.spawn(Kind::Timer, "timers", move || timers.run())?;
        Ok((vm, vcpus))
    }

    /// Starts the processors' threads, which wait for the machine to be resumed.
    fn launch(mut self, vcpus: Vec<Box<dyn Vcpu>>) -> Result<Self, Error> {
        let sender = self.sender.clone();
        for (id, vcpu) in vcpus.into_iter().enumerate() {
            let vcpu = Arc::new(Mutex::new(vcpu));
            self.vcpus.push(Arc::clone(&vcpu));
            let (control, sender) = (Arc::clone(&self.control), sender.clone());
            let meter = self.meter.clone();
            self.spawn(Kind::Vcpu, &format!("vcpu{id}"), move || {
                meter.vcpu_runs_here(id, ThreadClock::of_this_thread());
                run_vcpu(id as u32, &vcpu, &control, &sender)
            })?;
        }
        Ok(self)
    }

    fn spawn(
        &mut self,
        kind: Kind,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        self.threads.push(riad_confine::spawn(kind, name, body).map_err(Error::Thread)?);
        Ok(())
    }

    /// Waits for the machine's end, for `limit` at most. Asked again after the end, or after
    /// [`take_endings`](Self::take_endings), it gives `None`.
    #[must_use]
    pub fn wait(&self, limit: Option<Duration>) -> Option<Ending> {
        let endings = self.endings.as_ref()?;
        match limit {
            None => endings.recv().ok(),
            Some(limit) => endings.recv_timeout(limit).ok(),
        }
    }

    /// Hands the news of the machine's end to another thread: it comes out of the receiver, which
    /// is closed once the machine is dropped. `None` when somebody has it already.
    pub fn take_endings(&mut self) -> Option<Receiver<Ending>> {
        self.endings.take()
    }

    /// The machine's network cards and disks, and the way to plug others in and out while it runs.
    #[must_use]
    pub fn devices(&self) -> Devices {
        Devices::new(&self.pc, self.devices.clone())
    }

    /// The way to talk to the guest, when the machine has a vsock.
    #[must_use]
    pub fn vsock(&self) -> Option<&VsockHandle> {
        self.vsock.as_ref()
    }

    /// Types on the console that spoke last. Returns how many bytes there was room for.
    #[must_use]
    pub fn type_on_console(&self, bytes: &[u8]) -> usize {
        self.keyboard().type_on_console(bytes).unwrap_or(0)
    }

    /// A way to type on the console from another thread.
    #[must_use]
    pub fn keyboard(&self) -> Keyboard {
        Keyboard {
            pc: Arc::downgrade(&self.pc),
            console: self.console.clone(),
            virtio_console: self.virtio_console.clone(),
        }
    }

    /// Presses the power button. Returns whether the guest listens to it.
    pub fn press_power_button(&self) -> bool {
        self.pc.press_power_button()
    }

    /// Instructions all processors retired, where the engine counts them. Waits for processors to
    /// stand still, so ask a paused or ended machine.
    #[must_use]
    pub fn instructions(&self) -> Option<u64> {
        self.vcpus.iter().map(|vcpu| lock(vcpu).instructions()).sum()
    }

    /// How often processors left the guest, by kind, where the engine counts that.
    #[must_use]
    pub fn exits(&self) -> Vec<(&'static str, u64)> {
        self.engine.exits()
    }

    /// What it uses, to be read at any time and from any thread.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Guest time since power-on, nanoseconds.
    #[must_use]
    pub fn uptime(&self) -> u64 {
        self.clock.now()
    }

    /// Stops processors, devices and guest time. When it returns, nothing of the machine moves.
    pub fn pause(&self) {
        if *self.control.phase() != Phase::Running {
            return;
        }
        self.control.set(Phase::Paused);
        for handle in &self.handles {
            handle.stop();
        }
        for vcpu in &self.vcpus {
            drop(lock(vcpu));
        }
        self.pc.pause();
        self.clock.pause();
        self.engine.pause();
    }

    /// Lets a paused machine go on.
    pub fn resume(&self) {
        if *self.control.phase() == Phase::Ended {
            return;
        }
        self.clock.resume();
        self.engine.resume();
        self.pc.resume();
        self.control.set(Phase::Running);
    }

    /// Lets a paused machine with one processor run for about this many instructions, and pauses it
    /// again. Returns whether the limit was reached; otherwise the machine came to its end.
    ///
    /// # Errors
    /// When the engine gives up, or cannot count, or the machine has more processors.
    pub fn advance(&self, instructions: u64) -> Result<bool, Error> {
        let [vcpu] = self.vcpus.as_slice() else {
            return Err(Error::CannotCount(self.vcpus.len()));
        };
        self.clock.resume();
        self.engine.resume();
        self.pc.resume();
        let exit = lock(vcpu).run(Limit::Instructions(instructions));
        self.pc.pause();
        self.clock.pause();
        self.engine.pause();
        Ok(exit? == Exit::Limit)
    }

    /// The state of a paused machine; its memory is [`memory`](Self::memory).
    ///
    /// # Errors
    /// When the engine cannot read a processor's state.
    pub fn save(&self) -> Result<Snapshot, Error> {
        let vcpus: Result<Vec<VcpuState>, _> =
            self.vcpus.iter().map(|vcpu| lock(vcpu).state()).collect();
        Ok(Snapshot {
            version: Snapshot::VERSION,
            pc: self.pc.save(),
            vcpus: vcpus?,
            clock: self.clock.save(),
            tsc_khz: self.tsc_khz,
            cpu: if self.host_cpu.is_some() { CpuModel::Host } else { CpuModel::Riad },
            host_cpu: self.host_cpu.clone(),
        })
    }

    /// The machine's memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.control.set(Phase::Ended);
        for handle in &self.handles {
            handle.stop();
        }
        self.pc.timers().stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; the machine ends all the same.
            let _ = thread.join();
        }
        self.pc.pause();
    }
}

fn run_vcpu(id: u32, vcpu: &SharedVcpu, control: &Control, endings: &SyncSender<Ending>) {
    while control.may_run() {
        let exit = lock(vcpu).run(Limit::None);
        let ending = match exit {
            Ok(Exit::Stopped | Exit::Limit) => continue,
            Ok(Exit::Shutdown) => Ending::TripleFault { cpu: id },
            Err(error) => Ending::Failed(error.to_string()),
        };
        let _ = endings.try_send(ending);
        return;
    }
}

/// Looks a configuration over, and lays its memory out.
fn check(config: &VmConfig) -> Result<AddressMap, Error> {
    if config.cpus == 0 || config.cpus > MAX_CPUS {
        return Err(Error::Cpus(config.cpus));
    }
    let map = AddressMap::new(config.memory.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX))?;
    host_memory::check(config.memory, host_memory::total())?;
    Ok(map)
}

impl VmConfig {
    /// Looks the configuration over, without building anything.
    ///
    /// # Errors
    /// When no machine can be built to it on this host.
    pub fn check(&self) -> Result<(), Error> {
        let engine = crate::engine::choose(self.engine)?;
        crate::engine::check_model(engine, self.cpu)?;
        check(self).map(drop)
    }
}
