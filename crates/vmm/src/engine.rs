//! Choosing and making the engine.

use std::sync::Arc;

use riad_clock::SharedClock;
use riad_cpu::{Engine, VcpuConfig};
use riad_cpu_kvm::{KvmEngine, Model};
use riad_cpu_soft::{Options, SoftEngine, Tier};
use riad_memory::GuestMemory;

use crate::{CpuModel, EngineKind, Error, Snapshot, VmConfig};

/// Frequency of the time stamp counter on the software engine: a count a nanosecond.
pub(crate) const SOFT_TSC_KHZ: u32 = 1_000_000;

/// The engine that a request leads to on this host. `auto` is the one that was
/// [measured](crate::measured) to be faster, if it can be used right now and programs run on it.
///
/// # Errors
/// When the engine asked for cannot run here.
pub fn choose(kind: EngineKind) -> Result<EngineKind, Error> {
    match kind {
        EngineKind::Auto => Ok(auto(crate::measured().choice(), || {
            riad_cpu_kvm::capabilities().is_ok_and(|kvm| kvm.runs_programs())
        })),
        EngineKind::Kvm => Ok(riad_cpu_kvm::capabilities().map(|_| kind)?),
        EngineKind::Soft | EngineKind::SoftInterpreter | EngineKind::SoftLockstep => Ok(kind),
    }
}

/// What `auto` leads to where an engine was measured to be faster; `is_fit` tells whether KVM is.
fn auto(faster: EngineKind, is_fit: impl FnOnce() -> bool) -> EngineKind {
    match faster {
        EngineKind::Kvm if is_fit() => EngineKind::Kvm,
        _ => EngineKind::Soft,
    }
}

/// Whether an engine has this model.
pub(crate) fn check_model(engine: EngineKind, cpu: CpuModel) -> Result<(), Error> {
    match (cpu, engine) {
        (CpuModel::Riad, _) | (CpuModel::Host, EngineKind::Kvm) => Ok(()),
        (CpuModel::Host, engine) => Err(Error::CpuModel(engine)),
    }
}

impl EngineKind {
    /// Whether the software engine translates guest code on this host, and not only interprets it.
    #[must_use]
    pub fn translates_here() -> bool {
        riad_cpu_soft::translates_here()
    }

    /// What this host's KVM is.
    ///
    /// # Errors
    /// When it cannot be used, with what to do.
    pub fn kvm_capabilities() -> Result<riad_cpu_kvm::Capabilities, Error> {
        Ok(riad_cpu_kvm::capabilities()?)
    }

    /// Whether KVM runs guests by the processor's own virtualisation here, and not by emulation.
    #[must_use]
    pub fn virtualises_here() -> bool {
        riad_cpu_kvm::capabilities().is_ok_and(|kvm| kvm.is_hardware())
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
    /// Whose features guests see.
    cpu: CpuModel,
    /// Bytes of translated code.
    code_cache: u64,
    /// Frequency of the time stamp counter in kHz, where the guest knows it already.
    tsc_khz: Option<u32>,
}

impl Wanted {
    /// As a configuration has it, for a guest that is yet to learn what it runs on, or for the one of
    /// a snapshot, which knows its processor and the frequency of its time stamp counter.
    pub(crate) fn new(config: &VmConfig, snapshot: Option<&Snapshot>) -> Self {
        let VmConfig { engine, cpu, code_cache, .. } = config;
        Self {
            kind: *engine,
            cpu: snapshot.map_or(*cpu, |snapshot| snapshot.cpu),
            code_cache: *code_cache,
            tsc_khz: snapshot.map(|snapshot| snapshot.tsc_khz),
        }
    }
}

/// An engine, and what a snapshot has to know of it.
pub(crate) struct Made {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) tsc_khz: u32,
    /// What CPUID answers, when that is the host's own.
    pub(crate) host_cpu: Option<Vec<[u32; 6]>>,
}

/// Makes the engine of a machine with this many processors.
pub(crate) fn make(
    wanted: Wanted,
    memory: GuestMemory,
    clock: SharedClock,
    cpus: u32,
) -> Result<Made, Error> {
    let Wanted { kind, cpu, code_cache, tsc_khz } = wanted;
    let engine = choose(kind)?;
    check_model(engine, cpu)?;
    let most = engine.most_cpus();
    if cpus > most {
        let reason = format!("{engine} runs at most {most} processor; use --cpus {most}");
        return Err(riad_cpu::Error::Unavailable { engine: "soft", reason }.into());
    }
    let vcpus = |tsc_khz| VcpuConfig { count: cpus, tsc_khz };
    match options(engine, code_cache) {
        Some(options) => {
            let tsc_khz = tsc_khz.unwrap_or(SOFT_TSC_KHZ);
            let engine = SoftEngine::with_options(memory, clock, vcpus(tsc_khz), options);
            Ok(Made { engine: Arc::new(engine), tsc_khz, host_cpu: None })
        }
        None => {
            // The host's own frequency, which takes no scaling.
            let tsc_khz = match tsc_khz {
                Some(known) => known,
                None => riad_cpu_kvm::capabilities()?.tsc_khz,
            };
            let model = match cpu {
                CpuModel::Riad => Model::Riad,
                CpuModel::Host => Model::Host,
            };
            let engine = KvmEngine::new(memory, clock, vcpus(tsc_khz), model)?;
            let host_cpu = engine.host_cpu();
            Ok(Made { engine: Arc::new(engine), tsc_khz, host_cpu })
        }
    }
}

#[cfg(test)]
#[path = "engine_test.rs"]
mod tests;
