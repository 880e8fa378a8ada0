//! The small guests of the floor below (`crates/cpu/guests`) on the software processor, in every tier;
//! `cargo test translator::` picks one.
#![expect(clippy::duplicate_mod, reason = "the same guests, once for each tier")]

use std::sync::Arc;

use riad_clock::SharedClock;
use riad_cpu::{Bus, Engine, Vcpu, VcpuConfig};
use riad_cpu_soft::{Options, SoftEngine, Tier};
use riad_memory::GuestMemory;

/// A software engine of a tier, with bytes for translated code where a guest says so.
fn engine(
    tier: Tier,
    memory: GuestMemory,
    clock: SharedClock,
    config: VcpuConfig,
    code_cache: Option<usize>,
) -> Arc<dyn Engine> {
    let options = Options::default();
    let code_cache = code_cache.unwrap_or(options.code_cache);
    let options = Options { tier, code_cache };
    Arc::new(SoftEngine::with_options(memory, clock, config, options))
}

macro_rules! lender {
    ($tier:ident) => {
        /// Who lends these guests their processors.
        struct Lender;

        impl Lender {
            /// Instructions are counted, and the clock goes by them.
            const COUNTS: bool = true;

            /// Instructions are run by the host's own processor.
            const NATIVE: bool = false;

            fn tsc_khz() -> u32 {
                1_000_000
            }

            fn engine(
                memory: super::GuestMemory,
                clock: super::SharedClock,
                config: super::VcpuConfig,
                code_cache: Option<usize>,
            ) -> super::Arc<dyn super::Engine> {
                super::engine(super::Tier::$tier, memory, clock, config, code_cache)
            }

            fn add_vcpu(
                engine: &super::Arc<dyn super::Engine>,
                id: u32,
                bus: super::Arc<dyn super::Bus>,
            ) -> Box<dyn super::Vcpu> {
                engine.add_vcpu(id, bus).expect("a processor")
            }
        }
    };
}

#[path = "../../cpu/guests"]
mod interpreter {
    lender!(Interpreter);
    #[path = "busy.rs"]
    mod busy;
    #[path = "every.rs"]
    mod guests;
    #[path = "state.rs"]
    mod state;
    use guests::machine;
}

#[path = "../../cpu/guests"]
mod translator {
    lender!(Translator);
    #[path = "busy.rs"]
    mod busy;
    #[path = "every.rs"]
    mod guests;
    #[path = "state.rs"]
    mod state;
    use guests::machine;
}

#[path = "../../cpu/guests"]
mod lockstep {
    // Guests of two processors are translated and not compared.
    lender!(Lockstep);
    #[path = "busy.rs"]
    mod busy;
    #[path = "every.rs"]
    mod guests;
    #[path = "state.rs"]
    mod state;
    use guests::machine;
}
