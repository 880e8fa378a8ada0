//! What a machine is built to.

use std::ops::RangeInclusive;
use std::sync::Arc;

use riad_cpu_soft::options;
use riad_disk::Disk;
use riad_network::Cable;
use serde::{Deserialize, Serialize};

use crate::{CpuModel, MAX_CPUS};

/// Which processor runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EngineKind {
    /// Whichever is best on this host.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// The processor in software, as fast as it can be on this host.
    #[serde(rename = "soft")]
    Soft,
    /// The processor in software, which interprets every instruction: slow, and the same on every
    /// host.
    #[serde(rename = "soft:interp")]
    SoftInterpreter,
    /// The processor in software, which translates and interprets everything and compares: for those
    /// who work on it, and for one processor.
    #[serde(rename = "soft:lockstep")]
    SoftLockstep,
    /// The host's own, through KVM.
    #[serde(rename = "kvm")]
    Kvm,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Auto, Self::Soft, Self::SoftInterpreter, Self::SoftLockstep, Self::Kvm];

    /// What users call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Soft => "soft",
            Self::SoftInterpreter => "soft:interp",
            Self::SoftLockstep => "soft:lockstep",
            Self::Kvm => "kvm",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Auto => "whichever is best on this computer",
            Self::Soft => "Riad's own processor, which translates where it can",
            Self::SoftInterpreter => "the same, which only interprets: slow",
            Self::SoftLockstep => "the same, which does both and compares: for Riad's developers",
            Self::Kvm => "the computer's own processor, through KVM",
        }
    }

    /// How many processors it can run in one machine.
    #[must_use]
    pub const fn most_cpus(self) -> u32 {
        match self {
            // What another processor writes between the two runs of a block is no difference.
            Self::SoftLockstep => 1,
            Self::Auto | Self::Soft | Self::SoftInterpreter | Self::Kvm => MAX_CPUS,
        }
    }

    /// Whether it is of use to those alone who work on Riad, and so is not offered.
    #[must_use]
    pub const fn is_for_developers(self) -> bool {
        matches!(self, Self::SoftLockstep)
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The engines that are offered, as a sentence lists them.
fn offered() -> String {
    let offered = EngineKind::ALL.into_iter().filter(|engine| !engine.is_for_developers());
    let names: Vec<_> = offered.map(EngineKind::name).collect();
    match names.split_last() {
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

impl std::str::FromStr for EngineKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|engine| engine.name() == word);
        named.ok_or_else(|| format!("'{word}' is not an engine: expected {}", offered()))
    }
}

/// What the machine starts with.
#[derive(Debug, Clone, Default)]
pub struct Guest {
    /// The kernel's name, for messages and for Multiboot kernels that want it.
    pub kernel_name: String,
    /// The kernel image: bzImage, ELF with a PVH note, or Multiboot.
    pub kernel: Vec<u8>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Initial RAM disks (joined), or Multiboot modules: arguments and contents.
    pub modules: Vec<(String, Vec<u8>)>,
}

/// The machine's disks, in the order the guest finds them.
pub type Disks = Vec<Arc<dyn Disk>>;

/// What a machine is built to.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// Processors, 1 to [`MAX_CPUS`](crate::MAX_CPUS).
    pub cpus: u32,
    /// Bytes of memory; rounded up to a MiB.
    pub memory: u64,
    /// Which processor.
    pub engine: EngineKind,
    /// Whose features it sees.
    pub cpu: CpuModel,
    /// Bytes of translated code that the software processors keep, in [`CODE_CACHE`](Self::CODE_CACHE);
    /// values outside are moved into it. Engines that translate nothing take no notice.
    pub code_cache: u64,
    /// The disks, virtio-blk.
    pub disks: Disks,
    /// The network cards' cables, virtio-net, in the order the guest finds the cards.
    pub cables: Vec<Cable>,
    /// Whether there is a vsock.
    pub vsock: bool,
    /// Whether port 0xf4 ends the machine, as QEMU's `isa-debug-exit` does.
    pub debug_exit: bool,
}

impl VmConfig {
    /// Bytes of translated code that can be kept.
    pub const CODE_CACHE: RangeInclusive<u64> =
        options::LEAST_CODE_CACHE as u64..=options::MOST_CODE_CACHE as u64;
    /// Bytes of translated code that are kept when nothing is said.
    pub const DEFAULT_CODE_CACHE: u64 = options::DEFAULT_CODE_CACHE as u64;
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            cpus: 1,
            memory: 512 << 20,
            engine: EngineKind::Auto,
            cpu: CpuModel::Riad,
            code_cache: Self::DEFAULT_CODE_CACHE,
            disks: Vec::new(),
            cables: Vec::new(),
            vsock: false,
            debug_exit: false,
        }
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
