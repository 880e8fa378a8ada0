//! What two looks at a machine tell: what it has used, and how fast.

use riad_host::machines::State;
use riad_host::process::{DiskVitals, NetCounters};
use riad_host::{Measures, Size, printable};
use serde::Serialize;

use super::Sample;

/// What a machine uses, as a program is told of it; keys are only ever added. What is not known is
/// null. `docs/machines.md` says what each is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Usage {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) pid: u32,
    /// From the look before to this one.
    pub(crate) interval_seconds: f64,
    pub(crate) uptime_seconds: f64,
    pub(crate) cpu: Cpu,
    pub(crate) memory: Memory,
    pub(crate) disks: Vec<DiskUsage>,
    /// What goes through the network card; null where there is none.
    pub(crate) network: Option<NetUsage>,
    /// What the guest says of itself.
    pub(crate) guest: Option<Guest>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Cpu {
    /// Hundredths of one of this computer's processors, over the interval.
    pub(crate) percent: f64,
    /// Since the process began.
    pub(crate) seconds: f64,
    pub(crate) vcpus: Vec<Vcpu>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Vcpu {
    pub(crate) percent: f64,
    /// Since the guest's last start.
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Memory {
    /// What the process holds of this computer's.
    pub(crate) resident_bytes: u64,
    pub(crate) resident_most_bytes: u64,
    /// What the guest was given.
    pub(crate) configured_bytes: u64,
}

/// Counts since the guest's last start, and rates over the interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DiskUsage {
    #[serde(flatten)]
    counts: DiskVitals,
    pub(crate) read_bytes_per_second: f64,
    pub(crate) written_bytes_per_second: f64,
    requests_per_second: f64,
}

/// Counts since the guest's last start, as the guest sees them, and rates over the interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NetUsage {
    #[serde(flatten)]
    counts: NetCounters,
    pub(crate) received_bytes_per_second: f64,
    pub(crate) sent_bytes_per_second: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Guest {
    memory_total_bytes: u64,
    memory_used_bytes: u64,
    memory_available_bytes: u64,
    swap_total_bytes: u64,
    swap_used_bytes: u64,
    load: [f64; 3],
    tasks: u32,
    file_systems: Vec<FileSystemUsage>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct FileSystemUsage {
    mounted_on: String,
    size_bytes: u64,
    used_bytes: u64,
    available_bytes: u64,
}

/// What the cells of a line are.
pub(crate) const HEAD: [&str; 12] = [
    "NAME",
    "CPU %",
    "VCPUS",
    "MEMORY",
    "GUEST USES",
    "DISK IN",
    "DISK OUT",
    "NET IN",
    "NET OUT",
    "ROOT",
    "LOAD",
    "UP",
];

impl Usage {
    /// What machines used between two looks. One that was not there at the first is told of as if
    /// it had begun then.
    pub(crate) fn between(before: &[Sample], now: &[Sample]) -> Vec<Self> {
        let of = |sample: &Sample| {
            // A process with another number is another start.
            let before = before.iter().find(|b| b.name == sample.name && b.pid == sample.pid);
            Self::new(before, sample)
        };
        now.iter().map(of).collect()
    }

    fn new(before: Option<&Sample>, now: &Sample) -> Self {
        let vitals = &now.vitals;
        let old = before.map(|before| before.vitals.clone()).unwrap_or_default();
        let interval = seconds(vitals.at_ns.saturating_sub(old.at_ns));
        let percent = |now: u64, before: u64| {
            hundredths(seconds(now.saturating_sub(before)) / interval.max(1e-9) * 100.0)
        };
        let vcpus = vitals.vcpu_ns.iter().enumerate().map(|(id, ns)| {
            let before = old.vcpu_ns.get(id).copied().unwrap_or(0);
            Vcpu { percent: percent(*ns, before), seconds: seconds(*ns) }
        });
        let disks = vitals.disks.iter().enumerate().map(|(id, counts)| {
            let before = old.disks.get(id).copied().unwrap_or_default();
            DiskUsage::new(*counts, before, interval)
        });
        Self {
            name: now.name.to_string(),
            state: now.state,
            pid: now.pid,
            interval_seconds: interval,
            uptime_seconds: seconds(vitals.guest_uptime_ns),
            cpu: Cpu {
                percent: percent(vitals.cpu_ns, old.cpu_ns),
                seconds: seconds(vitals.cpu_ns),
                vcpus: vcpus.collect(),
            },
            memory: Memory {
                resident_bytes: vitals.resident_bytes,
                resident_most_bytes: vitals.resident_most_bytes,
                configured_bytes: now.memory,
            },
            disks: disks.collect(),
            network: vitals
                .network
                .map(|counts| NetUsage::new(counts, old.network.unwrap_or_default(), interval)),
            guest: now.guest.as_ref().map(Guest::new),
        }
    }

    /// Bytes read and written a second, by all disks.
    pub(crate) fn disk_rate(&self) -> (f64, f64) {
        let sum = |of: fn(&DiskUsage) -> f64| self.disks.iter().map(of).sum();
        (sum(|disk| disk.read_bytes_per_second), sum(|disk| disk.written_bytes_per_second))
    }

    /// Bytes that the guest receives and sends a second.
    pub(crate) fn network_rate(&self) -> (f64, f64) {
        let rates = |net: &NetUsage| (net.received_bytes_per_second, net.sent_bytes_per_second);
        self.network.as_ref().map(rates).unwrap_or_default()
    }

    /// The machine as a line of cells.
    pub(crate) fn line(&self) -> [String; 12] {
        let rate = |bytes: f64| format!("{}/s", Size(bytes as u64));
        let (read, written) = self.disk_rate();
        let vcpus = self.cpu.vcpus.iter().map(|vcpu| format!("{:.0}", vcpu.percent));
        let guest = self.guest.as_ref();
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        let root = guest.and_then(|guest| guest.file_systems.first());
        let of = |used: u64, all: u64| format!("{} of {}", Size(used), Size(all));
        [
            self.name.clone(),
            format!("{:.1}", self.cpu.percent),
            vcpus.collect::<Vec<_>>().join(" "),
            Size(self.memory.resident_bytes).to_string(),
            or_dash(guest.map(|guest| of(guest.memory_used_bytes, guest.memory_total_bytes))),
            rate(read),
            rate(written),
            or_dash(self.network.as_ref().map(|net| rate(net.received_bytes_per_second))),
            or_dash(self.network.as_ref().map(|net| rate(net.sent_bytes_per_second))),
            or_dash(root.map(|root| of(root.used_bytes, root.size_bytes))),
            or_dash(guest.map(|guest| format!("{:.2}", guest.load[0]))),
            match self.state {
                State::Running => duration(self.uptime_seconds),
                state => state.name().to_owned(),
            },
        ]
    }
}

impl DiskUsage {
    fn new(counts: DiskVitals, before: DiskVitals, interval: f64) -> Self {
        let rate = |of: fn(&DiskVitals) -> u64| {
            hundredths(of(&counts).saturating_sub(of(&before)) as f64 / interval.max(1e-9))
        };
        Self {
            counts,
            read_bytes_per_second: rate(|disk| disk.read_bytes),
            written_bytes_per_second: rate(|disk| disk.written_bytes),
            requests_per_second: rate(|d| {
                [d.reads, d.writes, d.flushes, d.discards].into_iter().fold(0, u64::saturating_add)
            }),
        }
    }
}

impl NetUsage {
    fn new(counts: NetCounters, before: NetCounters, interval: f64) -> Self {
        let rate = |now: u64, before: u64| {
            hundredths(now.saturating_sub(before) as f64 / interval.max(1e-9))
        };
        Self {
            counts,
            received_bytes_per_second: rate(counts.received_bytes, before.received_bytes),
            sent_bytes_per_second: rate(counts.sent_bytes, before.sent_bytes),
        }
    }
}

impl Guest {
    /// A guest may say what it likes; nothing here overflows, and nothing drives a terminal.
    fn new(measures: &Measures) -> Self {
        let Measures {
            uptime: _,
            memory_total,
            memory_available,
            swap_total,
            swap_free,
            load,
            tasks,
            file_systems,
        } = measures;
        let file_systems = file_systems.iter().map(|fs| FileSystemUsage {
            mounted_on: printable(&fs.mounted_on),
            size_bytes: fs.size,
            used_bytes: fs.used,
            available_bytes: fs.available,
        });
        Self {
            memory_total_bytes: *memory_total,
            memory_used_bytes: memory_total.saturating_sub(*memory_available),
            memory_available_bytes: *memory_available,
            swap_total_bytes: *swap_total,
            swap_used_bytes: swap_total.saturating_sub(*swap_free),
            load: load.map(|load| f64::from(load) / 100.0),
            tasks: *tasks,
            file_systems: file_systems.collect(),
        }
    }
}

fn seconds(ns: u64) -> f64 {
    (ns as f64 / 1e6).round() / 1e3
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// A time as people say it: `42s`, `3m07s`, `5h02m`, `12d03h`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
#[path = "usage_test.rs"]
mod tests;
