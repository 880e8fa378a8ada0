//! How long each stage may take.
//!
//! The limits are there so that nobody waits for ever, not to measure: each is many times what the
//! stage takes on a host that does nothing else.

use std::time::Duration;

use riad_vmm::EngineKind;

use crate::Stage;

/// The variable that stretches the limits.
pub(crate) const PATIENCE: &str = "RIAD_PATIENCE";

/// The most a limit can be stretched.
const MOST_PATIENCE: u32 = 1000;

/// What may take how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How many times slower than the host's own processor the engine may be.
    scale: u32,
    /// What the user asked for, for hosts that are slow or busy.
    patience: u32,
}

impl Limits {
    /// The limits on an engine, with the patience the environment asks for.
    pub(crate) fn new(engine: EngineKind) -> Self {
        let patience = std::env::var(PATIENCE).ok().and_then(|text| text.trim().parse().ok());
        // Asked only where it matters: it opens the device.
        let virtualises = engine == EngineKind::Kvm && EngineKind::virtualises_here();
        Self::on(engine, virtualises, patience.unwrap_or(1))
    }

    /// The limits on an engine, on a host whose KVM virtualises, or only emulates.
    fn on(engine: EngineKind, virtualises: bool, patience: u32) -> Self {
        let scale = match engine {
            EngineKind::Kvm if virtualises => 1,
            // A KVM that emulates kernel code: some hundred times slower than one that does not.
            EngineKind::Kvm => 200,
            // Measured for the interpreter: it runs what is not translated, and all there is on
            // hosts that translate nothing.
            EngineKind::Soft | EngineKind::Auto => 10,
            // Asked for to be sure, rather than quick.
            EngineKind::SoftInterpreter => 20,
            // Every block runs twice, and all state is compared.
            EngineKind::SoftLockstep => 200,
        };
        Self { scale, patience: patience.clamp(1, MOST_PATIENCE) }
    }

    /// How much slower everything in the guest may be: what `riad.timescale` tells the agent.
    pub(crate) fn scale(self) -> u32 {
        self.scale.saturating_mul(self.patience)
    }

    /// How long a stage may take. `None` for those that take what they take.
    pub(crate) fn of(self, stage: Stage) -> Option<Duration> {
        let seconds = match stage {
            Stage::Kernel => 12,
            // The agent waits for the root device itself, up to 30 s times the scale, and then says
            // what it missed: that says more than this limit would.
            Stage::Userland => 33,
            Stage::Agent => 6,
            // A dozen programs, beside an init system that starts a hundred.
            Stage::Setup => 20,
            // From the request to the first instruction of the command.
            Stage::Command => 6,
            Stage::Teardown => 6,
            // Downloads and disks have limits of their own.
            Stage::Start | Stage::Image | Stage::Machine | Stage::Running => return None,
        };
        Some(Duration::from_secs(seconds).saturating_mul(self.scale()))
    }

    /// How long the second stage of an image may be silent: its slowest single step rebuilds the
    /// certificate store, with a thousand processes.
    pub(crate) fn silence(self) -> Duration {
        Duration::from_secs(60).saturating_mul(self.scale())
    }
}

#[cfg(test)]
#[path = "limits_test.rs"]
mod tests;
