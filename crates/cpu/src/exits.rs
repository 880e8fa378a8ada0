//! Exits, counted by kind.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a processor came out of the guest to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum ExitKind {
    PortIn,
    PortOut,
    MmioRead,
    MmioWrite,
    EndOfInterrupt,
    InterruptWindow,
    Kick,
    Turn,
    Rescue,
    Other,
}

const KINDS: usize = 10;

const NAMES: [&str; KINDS] = [
    "port-in",
    "port-out",
    "mmio-read",
    "mmio-write",
    "eoi",
    "interrupt-window",
    "kick",
    "turn",
    "rescue",
    "other",
];

/// How often.
#[derive(Debug, Default)]
pub(super) struct Exits {
    counts: [AtomicU64; KINDS],
    /// Instructions that software processors ran in place of KVM.
    rescued: AtomicU64,
}

impl Exits {
    pub(super) fn count(&self, kind: ExitKind) {
        self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_rescued(&self, instructions: u64) {
        self.rescued.fetch_add(instructions, Ordering::Relaxed);
    }

    /// Kinds and counts.
    pub(super) fn list(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let rescued = ("rescued-instructions", self.rescued.load(Ordering::Relaxed));
        NAMES.into_iter().zip(counts).chain([rescued]).collect()
    }
}
