//! A machine that hops between engines: stopped on the software processor, it goes on under KVM, is
//! stopped there, and goes back, again and again, each time on an engine of its own and by way of what
//! would be written to a file. The guest cannot tell.

use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use riad_clock::SharedClock;
use riad_cpu::x86::VcpuState;
use riad_cpu::{Bus, Engine, Exit, Limit, Vcpu, VcpuConfig};
use riad_cpu_kvm::{Capabilities, KvmEngine, Model, capabilities};
use riad_cpu_soft::SoftEngine;
use riad_memory::GuestMemory;

/// Set by who wants the guest to hop from more places than three seeds lead to: how many more seeds.
const SEEDS: &str = "RIAD_HOP_SEEDS";

/// Who lends the next machine its processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Kvm,
    Soft,
}

thread_local!(static NEXT: Cell<Who> = const { Cell::new(Who::Soft) });

#[path = "../../cpu/guests"]
mod guests {
    #![expect(dead_code, reason = "other tests use the rest of the small guests' machine")]

    /// Who lends these guests their processors.
    pub(crate) struct Lender;

    impl Lender {
        const COUNTS: bool = false;

        fn tsc_khz() -> u32 {
            super::capabilities().map_or(1_000_000, |kvm| kvm.tsc_khz)
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
            engine.add_vcpu(id, bus).expect("a processor")
        }
    }

    pub(crate) mod busy;
    pub(crate) mod machine;
    mod tables;
}

#[path = "hop/wanderer.rs"]
mod wanderer;

use guests::busy::{Outcome, outcome};
use guests::machine::Guest;

fn engine(memory: GuestMemory, clock: SharedClock, config: VcpuConfig) -> Arc<dyn Engine> {
    match NEXT.get() {
        Who::Kvm => Arc::new(KvmEngine::new(memory, clock, config, Model::Riad).expect("KVM")),
        Who::Soft => Arc::new(SoftEngine::new(memory, clock, config)),
    }
}

/// This host's KVM, or a sentence that there is none.
fn kvm() -> Option<Capabilities> {
    capabilities()
        .inspect_err(|error| {
            let _ = writeln!(std::io::stderr(), "Nothing hops here: {error}.");
        })
        .ok()
}

/// The machine on an engine of this kind, by way of a file.
fn hop(guest: Guest, to: Who) -> Guest {
    NEXT.set(to);
    let mut guest = guest.moved(1);
    let text = serde_json::to_string(&guest.state).expect("JSON");
    guest.state = serde_json::from_str(&text).expect("the same");
    guest.vcpu.set_state(&guest.state).expect("a state a processor can be in");
    guest
}

/// Runs for a time. Returns whether the guest came to its end.
fn run_for(guest: &mut Guest, time: Duration) -> bool {
    let handle = guest.vcpu.handle();
    let (done, over) = channel::<()>();
    let watch = std::thread::spawn(move || {
        if over.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            handle.stop();
        }
    });
    assert_eq!(guest.vcpu.run(Limit::None).expect("an exit"), Exit::Stopped);
    drop(done);
    watch.join().expect("the watch");
    is_over(guest)
}

/// Whether the guest came to its end, which is the only one it may come to.
fn is_over(guest: &mut Guest) -> bool {
    guest.state = guest.vcpu.state().expect("the state");
    assert_eq!(guest.trap(), None, "{:x?}", guest.state);
    wanderer::is_over(guest)
}

/// Numbers without an order (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// As many more as whoever runs the test asks for.
fn more_seeds() -> impl Iterator<Item = u64> {
    let wanted = std::env::var(SEEDS).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut numbers = Numbers(0x5eed);
    (0..wanted).map(move |_| 1 + numbers.below(u64::MAX - 1))
}

/// What a run without a hop computes.
fn undisturbed() -> Outcome {
    NEXT.set(Who::Soft);
    let mut guest = wanderer::guest();
    guest.vcpu.set_state(&guest.state).expect("state");
    assert!(run_for(&mut guest, Duration::from_secs(60)), "it ends by itself");
    outcome(&guest)
}

#[test]
fn a_guest_that_hops_between_engines_cannot_tell() {
    let Some(kvm) = kvm() else { return };
    let expected = undisturbed();
    for seed in [0x9e37_79b9_7f4a_7c15, 3, 0x00c0_ffee].into_iter().chain(more_seeds()) {
        let mut numbers = Numbers(seed);
        NEXT.set(Who::Soft);
        let mut guest = wanderer::guest();
        guest.vcpu.set_state(&guest.state).expect("state");
        let mut hops = 0;
        for _ in 0..200 {
            // Soft for a number of instructions, so that every kind of place is met...
            let limit = Limit::Instructions(1 + numbers.below(3000));
            guest.vcpu.run(limit).expect("an exit");
            if is_over(&mut guest) {
                break;
            }
            guest = hop(guest, Who::Kvm);
            // ... and KVM for a time, which nobody can foresee either.
            let over = run_for(&mut guest, Duration::from_micros(numbers.below(1500)));
            hops += 1;
            if over {
                break;
            }
            guest = hop(guest, Who::Soft);
        }
        assert!(is_over(&mut guest) || run_for(&mut guest, Duration::from_secs(60)), "it ends");
        assert!(hops > 5, "it ended after {hops} hops");
        assert!(outcome(&guest) == expected, "after {hops} hops from {seed:#x}");
        assert!(wanderer::timer_interrupts(&guest) > 3, "its timer went along");
        if sets_counters(&kvm) {
            assert_eq!(wanderer::counter_went_back(&guest), 0, "its counter is one");
        }
    }
}

/// Whether this KVM takes a time stamp counter. `kvm_pvm` says that it does, and shows guests the
/// host's.
fn sets_counters(kvm: &Capabilities) -> bool {
    kvm.driver.as_deref() != Some("kvm_pvm")
}

/// A state as this KVM is able to hold it.
fn held(kvm: &Capabilities, given: &VcpuState, got: &VcpuState) -> VcpuState {
    let mut held = given.clone();
    if !sets_counters(kvm) {
        held.tsc = got.tsc;
    }
    // A periodic count may have begun a number of periods ago, as well.
    let period = u64::from(given.apic.timer_initial);
    if let (Some(given), Some(got)) = (given.apic.timer_start, got.apic.timer_start) {
        assert_eq!(given.abs_diff(got) % period, 0, "{given} and {got}");
        held.apic.timer_start = Some(got);
    }
    held
}

#[test]
fn kvm_gives_back_every_state_that_it_was_given() {
    let Some(kvm) = kvm() else { return };
    NEXT.set(Who::Soft);
    let mut guest = wanderer::guest();
    guest.vcpu.set_state(&guest.state).expect("state");
    let mut numbers = Numbers(77);
    for _ in 0..100 {
        let limit = Limit::Instructions(1 + numbers.below(500));
        assert_eq!(guest.vcpu.run(limit).expect("an exit"), Exit::Limit);
        let given = guest.vcpu.state().expect("the state");
        let config = VcpuConfig { count: 1, tsc_khz: kvm.tsc_khz };
        // Its clock stands still, and so does the processor.
        let clock = Arc::new(riad_clock::ManualClock::new(0));
        clock.advance_to(guest.now());
        let engine = KvmEngine::new(guest.memory.clone(), clock, config, Model::Riad).expect("KVM");
        engine.pause();
        let mut vcpu = engine.vcpu(0, Arc::new(riad_cpu::Nowhere)).expect("a processor");
        vcpu.set_state(&given).expect("a state a processor can be in");
        let got = vcpu.state().expect("the state");
        assert_eq!(got, held(&kvm, &given, &got));
        // Asked to stop before it ran, it has not moved.
        vcpu.handle().stop();
        assert_eq!(vcpu.run(Limit::None).expect("an exit"), Exit::Stopped);
        let got = vcpu.state().expect("the state");
        assert_eq!(got, held(&kvm, &given, &got));
    }
}
