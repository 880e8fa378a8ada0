//! A machine's state outside of the machine (wall 4): one file of JSON, and one of memory.

use std::fs::File;
use std::path::Path;

use riad_clock::ClockState;
use riad_cpu::x86::VcpuState;
use riad_machine::pc::PcState;
use riad_memory::GuestMemory;
use serde::{Deserialize, Serialize};

use crate::{CpuModel, Error};

/// All of a machine but its memory and what is on its disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`Snapshot::VERSION`] of the Riad that saved it.
    pub version: u32,
    /// The board and its devices.
    pub pc: PcState,
    /// The processors, in order.
    pub vcpus: Vec<VcpuState>,
    /// Guest time.
    pub clock: ClockState,
    /// Frequency of the processors' time stamp counters in kHz, which the guest has learnt.
    #[serde(default = "first_frequency")]
    pub tsc_khz: u32,
    /// Whose features the guest has seen. The host's own tie the snapshot to processors like it.
    #[serde(default)]
    pub cpu: CpuModel,
    /// With the host's own: what CPUID answers, as leaf, subleaf, EAX, EBX, ECX, EDX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_cpu: Option<Vec<[u32; 6]>>,
}

/// The frequency in the first snapshots, which did not name it.
fn first_frequency() -> u32 {
    crate::engine::SOFT_TSC_KHZ
}

/// What can go wrong with a snapshot on disk.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file could not be read or written.
    #[error("snapshot file {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The host's reason.
        source: std::io::Error,
    },
    /// The state is not one.
    #[error("snapshot file {path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: String,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// The state is of a newer Riad.
    #[error("the snapshot has format {0}, and this Riad reads formats up to {newest}: use a newer Riad", newest = Snapshot::VERSION)]
    Newer(u32),
    /// The memory does not fit.
    #[error(transparent)]
    Memory(#[from] riad_memory::Error),
}

impl Snapshot {
    /// Whether the guest can go on with the processor that an engine has made.
    ///
    /// # Errors
    /// [`Error::OtherHost`].
    pub(crate) fn check_host(&self, host_cpu: Option<&Vec<[u32; 6]>>) -> Result<(), Error> {
        if self.host_cpu.as_ref() == host_cpu { Ok(()) } else { Err(Error::OtherHost) }
    }

    /// The version this Riad writes.
    pub const VERSION: u32 = 1;
    /// The state's file name in a snapshot's folder.
    pub const STATE: &str = "state.json";
    /// The memory's file name in a snapshot's folder.
    pub const MEMORY: &str = "memory";

    /// Writes state and memory into a folder.
    ///
    /// # Errors
    /// When the folder cannot take it.
    pub fn write(&self, memory: &GuestMemory, folder: &Path) -> Result<(), SnapshotError> {
        let path = folder.join(Self::MEMORY);
        let at = |path: &Path| path.display().to_string();
        let file = File::create(&path)
            .map_err(|source| SnapshotError::File { path: at(&path), source })?;
        memory.write_to(&file)?;
        let path = folder.join(Self::STATE);
        let json = serde_json::to_vec(self)
            .map_err(|source| SnapshotError::Damaged { path: at(&path), source })?;
        std::fs::write(&path, json)
            .map_err(|source| SnapshotError::File { path: at(&path), source })
    }

    /// Reads state and memory from a folder. The folder is not changed, now or later.
    ///
    /// # Errors
    /// When the folder does not hold a snapshot this Riad can read.
    pub fn read(folder: &Path) -> Result<(Self, GuestMemory), SnapshotError> {
        let path = folder.join(Self::STATE);
        let at = |path: &Path| path.display().to_string();
        let json = std::fs::read(&path)
            .map_err(|source| SnapshotError::File { path: at(&path), source })?;
        let snapshot: Self = serde_json::from_slice(&json)
            .map_err(|source| SnapshotError::Damaged { path: at(&path), source })?;
        if snapshot.version > Self::VERSION {
            return Err(SnapshotError::Newer(snapshot.version));
        }
        let path = folder.join(Self::MEMORY);
        let file =
            File::open(&path).map_err(|source| SnapshotError::File { path: at(&path), source })?;
        let memory = GuestMemory::new(&snapshot.pc.config.map.runs())?;
        memory.read_from(&file)?;
        Ok((snapshot, memory))
    }
}
