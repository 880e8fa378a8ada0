//! What a network tells: numbers that only grow, and things that happened.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::policy::{Protocol, Refusal};

/// Events that are kept for who reads them; the oldest go first.
const KEPT: usize = 256;
/// Refusals that are told in a second; more are counted only.
const REFUSALS_A_SECOND: u32 = 10;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The guest asked for its address, and has it.
    Leased {
        /// The address.
        address: Ipv4Addr,
        /// What the guest calls itself.
        hostname: Option<String>,
    },
    /// The guest was not let through.
    Refused {
        /// Where it wanted to.
        to: IpAddr,
        /// The port, 0 where there is none.
        port: u16,
        /// How.
        protocol: Protocol,
        /// Why not.
        why: Refusal,
    },
    /// The guest asked for a name that its policy does not let it ask for.
    NameRefused {
        /// The name.
        name: String,
    },
    /// A forward listens.
    ForwardAdded {
        /// Its number.
        id: u32,
    },
    /// A forward is gone.
    ForwardRemoved {
        /// Its number.
        id: u32,
    },
    /// A forward took somebody in whom the guest did not.
    ForwardFailed {
        /// The guest's address and port.
        to: SocketAddr,
    },
    /// So many refusals were not told, as there were too many at once.
    Suppressed {
        /// How many.
        count: u64,
    },
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Numbers that only grow, but for those called `..._now`.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(crate) $name: AtomicU64,)+
        }

        /// [`Counters`] at some moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counted {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            /// The numbers now.
            #[must_use]
            pub fn read(&self) -> Counted {
                Counted { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Frames from the guest.
    sent_frames,
    /// Their bytes.
    sent_bytes,
    /// Frames to the guest.
    received_frames,
    /// Their bytes.
    received_bytes,
    /// Frames of the guest's that made no sense, or that nobody was there for.
    malformed,
    /// Packets that there was no room for.
    dropped,
    /// Packets and connections that the policy refused.
    refused,
    /// TCP connections that were begun, either way.
    tcp_opened,
    /// TCP connections that could not be made, or were cut off.
    tcp_failed,
    /// TCP connections now.
    tcp_now,
    /// Bytes that TCP connections may keep now.
    tcp_bytes_now,
    /// UDP flows that were begun, either way.
    udp_opened,
    /// UDP flows now.
    udp_now,
    /// Names asked for.
    queries,
    /// Of them, those that nobody answered.
    queries_failed,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    // One thread writes: no other's addition can be lost between.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Says how many there are now.
pub(super) fn gauge(counter: &AtomicU64, now: usize) {
    counter.store(now as u64, Ordering::Relaxed);
}

/// The events that nobody has read yet.
#[derive(Debug, Default)]
pub(super) struct Told {
    events: Mutex<VecDeque<Event>>,
    more: Condvar,
}

impl Told {
    /// Tells something.
    pub(super) fn push(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= KEPT {
            events.pop_front();
        }
        events.push_back(event);
        drop(events);
        self.more.notify_one();
    }

    /// The oldest event, waiting for one if there is none.
    pub(super) fn next(&self, wait: Duration) -> Option<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let none = |events: &mut VecDeque<Event>| events.is_empty();
        let (mut events, _) = self
            .more
            .wait_timeout_while(events, wait, none)
            .unwrap_or_else(PoisonError::into_inner);
        events.pop_front()
    }
}

/// The network's side: tells, and keeps a guest that is refused all the time from filling logs.
#[derive(Debug)]
pub(super) struct Teller {
    told: Arc<Told>,
    /// The second in which refusals are counted.
    second: u64,
    refusals: u32,
    suppressed: u64,
}

impl Teller {
    pub(super) fn new(told: Arc<Told>) -> Self {
        Self { told, second: 0, refusals: 0, suppressed: 0 }
    }

    /// Tells something that a guest can make happen all the time.
    pub(super) fn tell_refusal(&mut self, now: Duration, event: Event) {
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            self.refusals = 0;
            let count = std::mem::take(&mut self.suppressed);
            if count > 0 {
                self.told.push(Event::Suppressed { count });
            }
        }
        if self.refusals < REFUSALS_A_SECOND {
            self.refusals += 1;
            self.told.push(event);
        } else {
            self.suppressed += 1;
        }
    }
}

#[cfg(test)]
#[path = "events_test.rs"]
mod tests;
