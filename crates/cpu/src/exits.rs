//! Exits, counted by kind.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a processor came out of the guest to this process; of one in software, what it came to a device for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum ExitKind {
    /// `IN`.
    PortIn,
    /// `OUT`.
    PortOut,
    /// A read of device memory.
    MmioRead,
    /// A write to device memory.
    MmioWrite,
    /// The end of an interrupt that was level-triggered.
    EndOfInterrupt,
    /// An interrupt can be taken now.
    InterruptWindow,
    /// Another thread wanted the processor out.
    Kick,
    /// Its turn is over.
    Turn,
    /// An instruction that the host gave up on.
    Rescue,
    /// Anything else.
    Other,
}

impl ExitKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::PortIn,
        Self::PortOut,
        Self::MmioRead,
        Self::MmioWrite,
        Self::EndOfInterrupt,
        Self::InterruptWindow,
        Self::Kick,
        Self::Turn,
        Self::Rescue,
        Self::Other,
    ];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PortIn => "port-in",
            Self::PortOut => "port-out",
            Self::MmioRead => "mmio-read",
            Self::MmioWrite => "mmio-write",
            Self::EndOfInterrupt => "eoi",
            Self::InterruptWindow => "interrupt-window",
            Self::Kick => "kick",
            Self::Turn => "turn",
            Self::Rescue => "rescue",
            Self::Other => "other",
        }
    }
}

/// How often, of a machine's processors together.
#[derive(Debug, Default)]
pub struct Exits([AtomicU64; ExitKind::ALL.len()]);

impl Exits {
    /// There was one more.
    pub fn count(&self, kind: ExitKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Such kinds, by name, and their counts.
    #[must_use]
    pub fn list(&self, kinds: &[ExitKind]) -> Vec<(&'static str, u64)> {
        let count = |kind: ExitKind| self.0[kind as usize].load(Ordering::Relaxed);
        kinds.iter().map(|kind| (kind.name(), count(*kind))).collect()
    }
}
