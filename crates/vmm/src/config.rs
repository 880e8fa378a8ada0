//! What a machine is built to.

use std::sync::Arc;

use riad_disk::Disk;
use serde::{Deserialize, Serialize};

/// Which processor runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Whichever is best on this host.
    #[default]
    Auto,
    /// The processor in software.
    Soft,
    /// The host's own, through KVM.
    Kvm,
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Soft => "soft",
            Self::Kvm => "kvm",
        })
    }
}

impl std::str::FromStr for EngineKind {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "soft" => Ok(Self::Soft),
            "kvm" => Ok(Self::Kvm),
            _ => Err(format!("{s} is not an engine: expected auto, soft or kvm")),
        }
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
    /// The disks, virtio-blk.
    pub disks: Disks,
    /// Whether there is a vsock.
    pub vsock: bool,
    /// Whether port 0xf4 ends the machine, as QEMU's `isa-debug-exit` does.
    pub debug_exit: bool,
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            cpus: 1,
            memory: 512 << 20,
            engine: EngineKind::Auto,
            disks: Vec::new(),
            vsock: false,
            debug_exit: false,
        }
    }
}
