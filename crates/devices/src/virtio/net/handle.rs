//! The host's hand on the card: its cable, and its counters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use riad_network::Mac;
use serde::{Deserialize, Serialize};

use super::Driven;
use crate::pci::lock;
use crate::virtio::VirtioInterrupt;
use crate::virtio::worker::Control;

/// Pulls a card's cable and reads its counters. Cloning shares it.
#[derive(Debug, Clone)]
pub struct NetHandle {
    shared: Arc<Shared>,
    mac: Mac,
}

/// What has gone through a card since its machine began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetCounters {
    /// Frames from the guest; one that is to be cut counts once.
    pub sent_frames: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Frames from the guest that were lost: malformed, or sent with the cable pulled.
    pub sent_dropped: u64,
    /// Frames to the guest.
    pub received_frames: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Frames to the guest that were lost: not for it, or more than its buffers take.
    pub received_dropped: u64,
}

impl NetCounters {
    /// What has gone through two cards.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            sent_frames: self.sent_frames.wrapping_add(other.sent_frames),
            sent_bytes: self.sent_bytes.wrapping_add(other.sent_bytes),
            sent_dropped: self.sent_dropped.wrapping_add(other.sent_dropped),
            received_frames: self.received_frames.wrapping_add(other.received_frames),
            received_bytes: self.received_bytes.wrapping_add(other.received_bytes),
            received_dropped: self.received_dropped.wrapping_add(other.received_dropped),
        }
    }
}

/// The counters in the making. Written by the card's thread alone.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: Direction,
    pub(super) received: Direction,
}

#[derive(Debug, Default)]
pub(super) struct Direction {
    frames: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

impl Direction {
    pub(super) fn went(&self, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// What handle, device and worker share.
pub(super) struct Shared {
    driven: Mutex<Driven>,
    plugged: AtomicBool,
    /// The link is up at its other end, as the worker saw it last.
    link_up: AtomicBool,
    pub(super) tally: Tally,
    driver: Mutex<Option<Driver>>,
}

/// Set while a driver runs.
struct Driver {
    control: Arc<Control>,
    interrupt: Arc<dyn VirtioInterrupt>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("driven", &self.driven)
            .field("plugged", &self.plugged)
            .field("link_up", &self.link_up)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(driven: Driven, plugged: bool) -> Self {
        Self {
            driven: Mutex::new(driven),
            plugged: AtomicBool::new(plugged),
            // The worker tells if it is not.
            link_up: AtomicBool::new(true),
            tally: Tally::default(),
            driver: Mutex::new(None),
        }
    }

    pub(super) fn driven(&self) -> MutexGuard<'_, Driven> {
        lock(&self.driven)
    }

    pub(super) fn plugged(&self) -> bool {
        self.plugged.load(Ordering::Relaxed)
    }

    /// Whether frames can pass.
    pub(super) fn up(&self) -> bool {
        self.plugged() && self.link_up.load(Ordering::Relaxed)
    }

    /// The worker saw the link's other end. Returns whether that changes what the guest is told.
    pub(super) fn saw_link(&self, up: bool) -> bool {
        self.link_up.swap(up, Ordering::Relaxed) != up && self.plugged()
    }

    pub(super) fn driver_runs(&self, control: Arc<Control>, interrupt: Arc<dyn VirtioInterrupt>) {
        *lock(&self.driver) = Some(Driver { control, interrupt });
    }

    pub(super) fn driver_gone(&self) {
        *lock(&self.driver) = None;
    }
}

impl NetHandle {
    pub(super) fn new(shared: Arc<Shared>, mac: Mac) -> Self {
        Self { shared, mac }
    }

    /// The card's own address, whatever its driver sends with.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Plugs the cable in, or pulls it: the guest sees its carrier come and go, and frames are lost
    /// while it is gone.
    pub fn plug(&self, plugged: bool) {
        if self.shared.plugged.swap(plugged, Ordering::Relaxed) == plugged {
            return;
        }
        if let Some(driver) = &*lock(&self.shared.driver) {
            driver.interrupt.config();
            driver.control.kick();
        }
    }

    /// Whether the cable is plugged in, and the other end is up.
    #[must_use]
    pub fn up(&self) -> bool {
        self.shared.up()
    }

    /// Whether a driver in the guest runs the card.
    #[must_use]
    pub fn driven(&self) -> bool {
        lock(&self.shared.driver).is_some()
    }

    /// The counters. They are read one after the other, while frames may pass.
    #[must_use]
    pub fn counters(&self) -> NetCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Tally { sent, received } = &self.shared.tally;
        NetCounters {
            sent_frames: read(&sent.frames),
            sent_bytes: read(&sent.bytes),
            sent_dropped: read(&sent.dropped),
            received_frames: read(&received.frames),
            received_bytes: read(&received.bytes),
            received_dropped: read(&received.dropped),
        }
    }
}
