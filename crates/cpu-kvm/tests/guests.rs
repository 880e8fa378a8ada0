//! The small guests of the floor below (`crates/cpu/guests`) under KVM: the conformance suite that
//! every engine runs.
//!
//! Where there is no KVM they run on the software processor, and one sentence says so; so do guests
//! that need a feature that the host lacks. A guest that a kind of KVM is known to run wrongly is
//! [listed](differences) with the reason, and runs on the software processor, so that the list cannot
//! hide a guest that is wrong itself. With `RIAD_DIFFERENCES=1` a listed guest is also run by a process
//! of its own, on KVM, and has to fail there: one that does not is no difference any more, and its test
//! fails until it is taken off the list.

use std::cell::Cell;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock, Once};
use std::time::{Duration, Instant};

use riad_clock::SharedClock;
use riad_cpu::x86::VcpuState;
use riad_cpu::{Bus, Engine, Error, Exit, Limit, Vcpu, VcpuConfig, VcpuHandle};
use riad_cpu_kvm::{Capabilities, KvmEngine, Model, capabilities};
use riad_cpu_soft::SoftEngine;
use riad_memory::GuestMemory;

#[path = "guests/differences.rs"]
mod differences;

/// How long the longest limit in instructions is here, where nobody counts them.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a guest may run that has no limit.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a listed guest has to pass before it is said to.
const TRIES: u32 = 5;
/// Set by who wants listed guests held to their listing.
const STRICT: &str = "RIAD_DIFFERENCES";
/// Set in the process that runs a listed guest.
const LISTED: &str = "RIAD_GUESTS_LISTED";

/// This host's KVM.
static KVM: LazyLock<Result<Capabilities, Error>> = LazyLock::new(capabilities);

/// Who runs a test's guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Kvm,
    Soft,
}

/// Who runs this test's guests: decided once a test, each of which has a thread of its name.
fn who() -> Who {
    thread_local!(static WHO: Cell<Option<Who>> = const { Cell::new(None) });
    if let Some(who) = WHO.get() {
        return who;
    }
    let who = decide();
    WHO.set(Some(who));
    who
}

fn decide() -> Who {
    let kvm = match &*KVM {
        Ok(kvm) => kvm,
        Err(error) => {
            say(&format!("The guests run on the software processor: {error}."));
            return Who::Soft;
        }
    };
    let thread = std::thread::current();
    let test = thread.name().expect("a test's thread has its name");
    let name = test.strip_prefix("kvm::guests::").unwrap_or(test);
    if std::env::var_os(LISTED).is_some() {
        return Who::Kvm;
    }
    if differences::lacks(kvm, name).is_some() {
        return Who::Soft;
    }
    let Some(reason) = differences::of(kvm, name) else { return Who::Kvm };
    let driver = kvm.driver.as_deref().unwrap_or_default();
    say(&format!("{} guests are differences of {driver}, as listed.", differences::count(kvm)));
    // Some differences show now and then only, and depend on how fast the host is just now: who asks is
    // told.
    assert!(
        std::env::var_os(STRICT).is_none() || !passes(test),
        "{name} is listed as a difference of {driver} ({reason}) and passes: take it off the list"
    );
    Who::Soft
}

/// Whether a listed guest passes on KVM, every time: some differences show now and then.
fn passes(test: &str) -> bool {
    (0..TRIES).all(|_| passes_once(test))
}

/// Whether it does, in a process of its own: some end by hanging.
fn passes_once(test: &str) -> bool {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["--exact", test])
        .env(LISTED, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("its status") {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("its end");
    child.wait().expect("its status");
    false
}

/// Says a sentence once, past the harness, which keeps what tests print.
fn say(sentence: &str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = writeln!(std::io::stderr(), "{sentence}");
    });
}

/// An engine for the test that asks.
fn engine(memory: GuestMemory, clock: SharedClock, config: VcpuConfig) -> Arc<dyn Engine> {
    match who() {
        Who::Kvm => Arc::new(KvmEngine::new(memory, clock, config, Model::Riad).expect("KVM")),
        Who::Soft => Arc::new(SoftEngine::new(memory, clock, config)),
    }
}

/// Frequency of its counters, kHz.
fn tsc_khz() -> u32 {
    KVM.as_ref().map_or(1_000_000, |kvm| kvm.tsc_khz)
}

/// A processor whose limits are a time.
struct Timed(Box<dyn Vcpu>);

/// How long a processor runs under a limit.
fn time(limit: Limit) -> Duration {
    match limit {
        Limit::None => PATIENCE,
        // So few that the guest is expected to stand at them.
        Limit::Instructions(few @ ..1000) => Duration::from_millis(50 * few.min(10)),
        Limit::Instructions(_) => LIMIT,
    }
}

impl Vcpu for Timed {
    fn run(&mut self, limit: Limit) -> Result<Exit, Error> {
        let time = time(limit);
        let handle = self.0.handle();
        let (done, over) = channel::<()>();
        let reached = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&reached);
        let watch = std::thread::spawn(move || {
            if over.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                told.store(true, Ordering::SeqCst);
                handle.stop();
            }
        });
        let exit = self.0.run(Limit::None);
        drop(done);
        watch.join().expect("the watch");
        match exit {
            Ok(Exit::Stopped) if reached.load(Ordering::SeqCst) => Ok(Exit::Limit),
            exit => exit,
        }
    }

    fn state(&self) -> Result<VcpuState, Error> {
        self.0.state()
    }

    fn set_state(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.0.set_state(state)
    }

    fn handle(&self) -> Arc<dyn VcpuHandle> {
        self.0.handle()
    }

    fn instructions(&self) -> Option<u64> {
        self.0.instructions()
    }
}

#[path = "../../cpu/guests"]
mod kvm {
    /// Who lends these guests their processors.
    struct Lender;

    impl Lender {
        const COUNTS: bool = false;

        /// Instructions are run by the host's own processor.
        const NATIVE: bool = true;

        fn tsc_khz() -> u32 {
            super::tsc_khz()
        }

        fn engine(
            memory: super::GuestMemory,
            clock: super::SharedClock,
            config: super::VcpuConfig,
            _: Option<usize>,
        ) -> super::Arc<dyn super::Engine> {
            super::engine(memory, clock, config)
        }

        fn add_vcpu(
            engine: &super::Arc<dyn super::Engine>,
            id: u32,
            bus: super::Arc<dyn super::Bus>,
        ) -> Box<dyn super::Vcpu> {
            Box::new(super::Timed(engine.add_vcpu(id, bus).expect("a processor")))
        }
    }

    #[path = "every.rs"]
    mod guests;
}
