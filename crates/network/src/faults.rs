//! A cable that misbehaves, for those who test what runs in machines: it delays, loses, throttles and
//! cuts.
//!
//! A frame is what the card hands over: up to 64 KiB of a connection at once, where the guest leaves the
//! cutting to others. So loss is of frames, and a guest whose frames are to be a wire's has a smaller MTU.
//!
//! What it does is a function of its seed and of the frames and times that it sees, so a test that
//! fails fails again. While no fault is set, it is not in the way.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::link::{Accepts, Link, MAX_FRAME, Mac, Offload};

/// Bytes that are on their way, each way; what is more is lost, as in a router's queue.
const MOST_BYTES: usize = 8 << 20;
/// How long it can take until somebody sees that faults have changed, while frames are on their way.
const LOOK: Duration = Duration::from_millis(20);

/// What a cable does to frames, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// How long a frame takes.
    pub delay: Duration,
    /// And how much longer some take, at most: frames keep their order.
    pub jitter: Duration,
    /// Of a million frames, so many are lost.
    pub loss: u32,
    /// Bytes a second, each way; 0 does not limit.
    pub rate: u64,
    /// Nothing goes through.
    pub cut: bool,
}

/// Sets a cable's faults; for any thread.
#[derive(Debug, Clone, Default)]
pub struct FaultControl {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// There are faults, or frames on their way.
    on: AtomicBool,
    /// They are others than they were.
    changed: AtomicBool,
    faults: Mutex<Faults>,
}

impl FaultControl {
    /// Has the cable do this from now on. What is on its way arrives, or on a cable that is cut, does
    /// not: nothing of what was true before holds up what comes.
    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
        self.shared.changed.store(true, Ordering::Release);
        self.shared.on.store(true, Ordering::Release);
    }

    /// What it does.
    #[must_use]
    pub fn get(&self) -> Faults {
        *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame on its way.
#[derive(Debug)]
struct Flying {
    due: Duration,
    offload: Offload,
    frame: Vec<u8>,
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    flying: VecDeque<Flying>,
    bytes: usize,
    /// When the wire is free again.
    free: Duration,
}

impl Lane {
    fn put(
        &mut self,
        faults: &Faults,
        random: &mut Random,
        now: Duration,
        offload: Offload,
        frame: Vec<u8>,
    ) {
        let lost = random.below(1_000_000) < u64::from(faults.loss);
        let late = random.below(1_000_000);
        if faults.cut || lost || self.bytes + frame.len() > MOST_BYTES {
            return;
        }
        let nanos = (frame.len() as u64).saturating_mul(1_000_000_000).checked_div(faults.rate);
        self.free = self.free.max(now) + Duration::from_nanos(nanos.unwrap_or(0));
        let jitter = faults.jitter.mul_f64(late as f64 / 1e6);
        let last = self.flying.back().map_or(Duration::ZERO, |flying| flying.due);
        let due = (self.free + faults.delay + jitter).max(last);
        self.bytes += frame.len();
        self.flying.push_back(Flying { due, offload, frame });
    }

    fn take(&mut self, now: Duration) -> Option<Flying> {
        let flying = self.flying.pop_front_if(|flying| flying.due <= now)?;
        self.bytes -= flying.frame.len();
        Some(flying)
    }

    /// The faults are others than they were.
    fn change(&mut self, faults: &Faults, now: Duration) {
        self.free = now;
        if faults.cut {
            self.flying.clear();
            self.bytes = 0;
        }
        self.flying.iter_mut().for_each(|flying| flying.due = flying.due.min(now));
    }

    fn due(&self) -> Option<Duration> {
        self.flying.front().map(|flying| flying.due)
    }
}

/// Numbers that look random: xorshift64* (Marsaglia, Vigna), for which no seed is bad but 0.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }
}

/// A link behind a cable that can misbehave.
#[derive(Debug)]
pub struct Faulty<L> {
    link: L,
    control: FaultControl,
    random: Random,
    now: Duration,
    /// From the guest, and to it.
    out: Lane,
    back: Lane,
    buffer: Vec<u8>,
}

impl<L: Link> Faulty<L> {
    /// Puts such a cable before a link.
    #[must_use]
    pub fn new(link: L, seed: u64) -> (Self, FaultControl) {
        let control = FaultControl::default();
        let faulty = Self {
            link,
            control: control.clone(),
            random: Random(seed | 1),
            now: Duration::ZERO,
            out: Lane::default(),
            back: Lane::default(),
            buffer: Vec::new(),
        };
        (faulty, control)
    }

    /// What is to be done, if anything is.
    fn faults(&mut self) -> Option<Faults> {
        if !self.control.shared.on.load(Ordering::Acquire) {
            return None;
        }
        let faults = self.control.get();
        if self.control.shared.changed.swap(false, Ordering::AcqRel) {
            self.out.change(&faults, self.now);
            self.back.change(&faults, self.now);
        }
        let empty = self.out.flying.is_empty() && self.back.flying.is_empty();
        if faults == Faults::default() && empty {
            self.control.shared.on.store(false, Ordering::Release);
            self.buffer = Vec::new();
            // Somebody may have set some in between.
            if self.control.get() == faults {
                return None;
            }
            self.control.shared.on.store(true, Ordering::Release);
        }
        Some(self.control.get())
    }
}

impl<L: Link> Link for Faulty<L> {
    fn send(&mut self, offload: &Offload, frame: &[u8]) {
        let Some(faults) = self.faults() else { return self.link.send(offload, frame) };
        if self.out.bytes + frame.len() <= MOST_BYTES {
            self.out.put(&faults, &mut self.random, self.now, *offload, frame.to_vec());
            self.deliver();
        }
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)> {
        let Some(faults) = self.faults() else { return self.link.receive(frame) };
        self.buffer.resize(MAX_FRAME, 0);
        // What there is no room for stays where it is: a network that waits loses nothing.
        while self.back.bytes + MAX_FRAME <= MOST_BYTES {
            let Some((offload, len)) = self.link.receive(&mut self.buffer) else { break };
            let next = self.buffer.get(..len).unwrap_or_default().to_vec();
            self.back.put(&faults, &mut self.random, self.now, offload, next);
        }
        let Flying { offload, frame: next, .. } = self.back.take(self.now)?;
        frame.get_mut(..next.len())?.copy_from_slice(&next);
        Some((offload, next.len()))
    }

    fn accepts(&mut self, accepts: Accepts) {
        self.link.accepts(accepts);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.link.descriptor()
    }

    fn deadline(&self) -> Option<Duration> {
        let due = [self.out.due(), self.back.due()].into_iter().flatten().min();
        let look = self.now + LOOK;
        let due = due.map(|due| due.min(look));
        [self.link.deadline(), due].into_iter().flatten().min()
    }

    fn turn(&mut self, now: Duration) {
        self.now = now;
        self.link.turn(now);
        // Has what was changed hold for what is on its way, too.
        self.faults();
        self.deliver();
    }

    fn mtu(&self) -> u16 {
        self.link.mtu()
    }

    fn mac(&self) -> Mac {
        self.link.mac()
    }

    fn up(&self) -> bool {
        self.link.up()
    }
}

impl<L: Link> Faulty<L> {
    /// Hands on what has arrived.
    fn deliver(&mut self) {
        while let Some(flying) = self.out.take(self.now) {
            self.link.send(&flying.offload, &flying.frame);
        }
    }
}

#[cfg(test)]
#[path = "faults_test.rs"]
mod tests;
