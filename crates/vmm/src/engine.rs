//! Choosing and making the engine.

use std::sync::Arc;

use riad_clock::SharedClock;
use riad_cpu::{Engine, VcpuConfig};
use riad_cpu_soft::{Options, SoftEngine, Tier};
use riad_memory::GuestMemory;

use crate::{EngineKind, Error, VmConfig};

/// Frequency of the time stamp counter on the software engine: a count a nanosecond.
const SOFT_TSC_KHZ: u32 = 1_000_000;

/// The engine that a request leads to on this host.
///
/// # Errors
/// When the engine asked for cannot run here.
pub fn choose(kind: EngineKind) -> Result<EngineKind, Error> {
    match kind {
        EngineKind::Auto => Ok(EngineKind::Soft),
        EngineKind::Kvm => Err(riad_cpu_kvm::unavailable().into()),
        EngineKind::Soft | EngineKind::SoftInterpreter | EngineKind::SoftLockstep => Ok(kind),
    }
}

impl EngineKind {
    /// Whether the software engine translates guest code on this host, and not only interprets it.
    #[must_use]
    pub fn translates_here() -> bool {
        riad_cpu_soft::translates_here()
    }
}

/// How the software processors of a machine run, if its engine is made of them.
fn options(engine: EngineKind, code_cache: u64) -> Option<Options> {
    let tier = match engine {
        EngineKind::Auto | EngineKind::Soft => Tier::Translator,
        EngineKind::SoftInterpreter => Tier::Interpreter,
        EngineKind::SoftLockstep => Tier::Lockstep,
        EngineKind::Kvm => return None,
    };
    let (least, most) = VmConfig::CODE_CACHE.into_inner();
    // What is in the range fits, as its bounds come from the engine.
    let code_cache = usize::try_from(code_cache.clamp(least, most)).unwrap_or(usize::MAX);
    Some(Options { tier, code_cache })
}

/// What is asked of an engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    kind: EngineKind,
    /// Bytes of translated code.
    code_cache: u64,
}

impl From<&VmConfig> for Wanted {
    fn from(config: &VmConfig) -> Self {
        Self { kind: config.engine, code_cache: config.code_cache }
    }
}

/// Makes the engine of a machine with this many processors.
pub(crate) fn make(
    wanted: impl Into<Wanted>,
    memory: GuestMemory,
    clock: SharedClock,
    cpus: u32,
) -> Result<Arc<dyn Engine>, Error> {
    let Wanted { kind, code_cache } = wanted.into();
    let engine = choose(kind)?;
    let most = engine.most_cpus();
    if cpus > most {
        let reason = format!("{engine} runs at most {most} processor; use --cpus {most}");
        return Err(riad_cpu::Error::Unavailable { engine: "soft", reason }.into());
    }
    let vcpus = VcpuConfig { count: cpus, tsc_khz: SOFT_TSC_KHZ };
    match options(engine, code_cache) {
        Some(options) => Ok(Arc::new(SoftEngine::with_options(memory, clock, vcpus, options))),
        None => Err(riad_cpu_kvm::unavailable().into()),
    }
}

#[cfg(test)]
#[path = "engine_test.rs"]
mod tests;
