//! Choosing and making the engine.

use std::sync::Arc;

use riad_clock::SharedClock;
use riad_cpu::{Engine, VcpuConfig};
use riad_cpu_soft::SoftEngine;
use riad_memory::GuestMemory;

use crate::{EngineKind, Error};

/// Frequency of the time stamp counter on the software engine: a count a nanosecond.
const SOFT_TSC_KHZ: u32 = 1_000_000;

/// The engine that a request leads to on this host.
///
/// # Errors
/// When the engine asked for cannot run here.
pub fn choose(kind: EngineKind) -> Result<EngineKind, Error> {
    match kind {
        EngineKind::Auto | EngineKind::Soft => Ok(EngineKind::Soft),
        EngineKind::Kvm => Err(riad_cpu_kvm::unavailable().into()),
    }
}

/// Makes the engine of a machine.
pub(crate) fn make(
    kind: EngineKind,
    memory: GuestMemory,
    clock: SharedClock,
    cpus: u32,
) -> Result<Arc<dyn Engine>, Error> {
    choose(kind)?;
    let config = VcpuConfig { count: cpus, tsc_khz: SOFT_TSC_KHZ };
    Ok(Arc::new(SoftEngine::new(memory, clock, config)))
}
