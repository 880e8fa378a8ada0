//! What a machine uses: read while it runs, and never in its way.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use riad_clock::{Clock, HostClock};
use riad_devices::virtio::blk::BlkCounts;
use riad_devices::virtio::net::NetCounters;

use crate::devices::Lists;
use crate::sys::ThreadClock;

/// Reads what a machine uses. It works from any thread, also while the machine is paused; of one
/// that is gone it shows the last.
#[derive(Debug, Clone)]
pub struct Meter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Set once each thread runs.
    vcpus: Vec<OnceLock<ThreadClock>>,
    devices: Lists,
    clock: Arc<HostClock>,
}

/// What a machine has used since it was built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// Guest time since power-on.
    pub uptime: Duration,
    /// How long each of its processors has run on one of the host's.
    pub vcpus: Vec<Duration>,
    /// What each of the disks that it has now has served.
    pub disks: Vec<BlkCounts>,
    /// What has gone through its network cards together, those that are gone included, if it ever had any.
    pub net: Option<NetCounters>,
}

impl Meter {
    pub(crate) fn new(cpus: u32, devices: Lists, clock: Arc<HostClock>) -> Self {
        let vcpus = (0..cpus).map(|_| OnceLock::new()).collect();
        Self(Arc::new(Inner { vcpus, devices, clock }))
    }

    /// A processor runs on the thread of that clock.
    pub(crate) fn vcpu_runs_here(&self, id: usize, clock: Option<ThreadClock>) {
        if let (Some(place), Some(clock)) = (self.0.vcpus.get(id), clock) {
            // A processor has one thread as long as it lives.
            let _ = place.set(clock);
        }
    }

    /// What it shows now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let Inner { vcpus, devices, clock } = &*self.0;
        let time = |vcpu: &OnceLock<ThreadClock>| vcpu.get().and_then(|clock| clock.time());
        Reading {
            uptime: Duration::from_nanos(clock.now()),
            vcpus: vcpus.iter().map(|vcpu| time(vcpu).unwrap_or_default()).collect(),
            disks: devices.disks().iter().map(|disk| disk.counts()).collect(),
            net: devices.traffic(),
        }
    }
}
