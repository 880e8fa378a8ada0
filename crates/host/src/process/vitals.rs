//! What a machine uses of this computer: counted by its process, told on the control socket.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use riad_vmm::{BlkCounts, Meter, NetCounters};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Bytes of `/proc/self/status` that are read; it has some 1500.
const STATUS: usize = 4096;

/// What a machine has used at one time. Counts grow from the process's beginning, those of the guest
/// from its last start. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Vitals {
    /// When, in nanoseconds since the process began.
    pub at_ns: u64,
    /// How long the guest has run since its last start, in nanoseconds.
    pub guest_uptime_ns: u64,
    /// Processor time of the whole process, in nanoseconds: processors, devices, and all else.
    pub cpu_ns: u64,
    /// Of each of the guest's processors.
    pub vcpu_ns: Vec<u64>,
    /// Memory of this computer's that the process holds: the guest's that is in use, translated
    /// code, and its own.
    pub resident_bytes: u64,
    /// The most it ever held.
    pub resident_most_bytes: u64,
    /// What the guest's disks have served, the root's first.
    pub disks: Vec<DiskVitals>,
    /// What has gone through the guest's network card; nothing where there is none.
    #[serde(default)]
    pub network: Option<NetCounters>,
}

/// What a disk has served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskVitals {
    /// Read requests, and the bytes they read.
    pub reads: u64,
    /// See [`reads`](Self::reads).
    pub read_bytes: u64,
    /// Write requests, and the bytes they wrote.
    pub writes: u64,
    /// See [`writes`](Self::writes).
    pub written_bytes: u64,
    /// Requests to make what was written last.
    pub flushes: u64,
    /// Requests to give space back, or to fill it with zeros.
    pub discards: u64,
    /// Requests that failed.
    pub failures: u64,
}

impl From<BlkCounts> for DiskVitals {
    fn from(counts: BlkCounts) -> Self {
        let BlkCounts { reads, read_bytes, writes, written_bytes, flushes, discards, failures } =
            counts;
        Self { reads, read_bytes, writes, written_bytes, flushes, discards, failures }
    }
}

/// What a process measures itself with. It is opened before the process is confined, and can open
/// nothing any more.
#[derive(Debug)]
pub(super) struct Gauges {
    began: Instant,
    status: Option<File>,
}

impl Gauges {
    pub(super) fn open(began: Instant) -> Self {
        Self { began, status: File::open("/proc/self/status").ok() }
    }

    /// Reads everything; of the guest, nothing where there is none.
    pub(super) fn read(&self, meter: Option<&Meter>) -> Vitals {
        let guest = meter.map(Meter::read).unwrap_or_default();
        let mut text = [0; STATUS];
        let status = self.status.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        let status = String::from_utf8_lossy(text.get(..status.unwrap_or(0)).unwrap_or_default());
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Vitals {
            at_ns: nanos(self.began.elapsed()),
            guest_uptime_ns: nanos(guest.uptime),
            cpu_ns: nanos(Duration::try_from(cpu).unwrap_or_default()),
            vcpu_ns: guest.vcpus.into_iter().map(nanos).collect(),
            resident_bytes: bytes(&status, "VmRSS:"),
            resident_most_bytes: bytes(&status, "VmHWM:"),
            disks: guest.disks.into_iter().map(DiskVitals::from).collect(),
            network: guest.net,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A field of `/proc/self/status` (proc(5)), which counts KiB; 0 where there is none.
fn bytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
#[path = "vitals_test.rs"]
mod tests;
