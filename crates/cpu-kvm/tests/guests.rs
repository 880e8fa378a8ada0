//! The small guests of the floor below (`crates/cpu/guests`) under KVM, where the host has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use riad_clock::SharedClock;
use riad_cpu::x86::VcpuState;
use riad_cpu::{Bus, Engine, Error, Exit, Limit, Vcpu, VcpuConfig, VcpuHandle};
use riad_cpu_kvm::{KvmEngine, Model, capabilities};
use riad_memory::GuestMemory;

/// How long a limit in instructions is here, where nobody counts them.
const LIMIT: Duration = Duration::from_secs(3);

/// A processor whose limits are a time.
struct Timed(Box<dyn Vcpu>);

impl Vcpu for Timed {
    fn run(&mut self, limit: Limit) -> Result<Exit, Error> {
        if limit == Limit::None {
            return self.0.run(limit);
        }
        let handle = self.0.handle();
        let (done, over) = channel::<()>();
        let reached = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&reached);
        let watch = std::thread::spawn(move || {
            if over.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
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

        fn tsc_khz() -> u32 {
            super::capabilities().expect("KVM").tsc_khz
        }

        fn engine(
            memory: super::GuestMemory,
            clock: super::SharedClock,
            config: super::VcpuConfig,
            _: Option<usize>,
        ) -> super::Arc<dyn super::Engine> {
            let model = super::Model::Riad;
            super::Arc::new(super::KvmEngine::new(memory, clock, config, model).expect("KVM"))
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
