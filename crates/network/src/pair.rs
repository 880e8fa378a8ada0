//! A cable with two ends and nothing in between: what is sent at one end comes out at the other.
//! For two cards, or for a card and a test.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::link::{Link, MAX_FRAME, Mac, Offload};

/// Frames that may be on their way in one direction; more are lost.
pub const MOST_FRAMES: usize = 256;

/// What is on its way to one end.
#[derive(Debug)]
struct Lane {
    frames: Mutex<VecDeque<(Offload, Vec<u8>)>>,
    /// Readable while the end should look.
    bell: OwnedFd,
}

impl Lane {
    fn new() -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { frames: Mutex::default(), bell }))
    }

    fn frames(&self) -> MutexGuard<'_, VecDeque<(Offload, Vec<u8>)>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end.
#[derive(Debug)]
pub struct Pair {
    incoming: Arc<Lane>,
    outgoing: Arc<Lane>,
    mac: Mac,
    mtu: u16,
}

impl Pair {
    /// Two ends, whose cards have these addresses.
    ///
    /// # Errors
    /// When the host refuses file descriptors.
    pub fn new(macs: [Mac; 2], mtu: u16) -> io::Result<[Self; 2]> {
        let (one, other) = (Lane::new()?, Lane::new()?);
        let [first, second] = macs;
        Ok([
            Self { incoming: Arc::clone(&one), outgoing: Arc::clone(&other), mac: first, mtu },
            Self { incoming: other, outgoing: one, mac: second, mtu },
        ])
    }
}

impl Link for Pair {
    fn send(&mut self, offload: &Offload, frame: &[u8]) {
        let mut frames = self.outgoing.frames();
        if frames.len() < MOST_FRAMES && frame.len() <= MAX_FRAME {
            frames.push_back((*offload, frame.to_vec()));
            // A full counter rings already.
            let _ = rustix::io::write(&self.outgoing.bell, &1u64.to_ne_bytes());
        }
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)> {
        let (offload, bytes) = self.incoming.frames().pop_front()?;
        frame.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some((offload, bytes.len()))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.incoming.bell.as_fd())
    }

    fn turn(&mut self, _now: Duration) {
        // Nothing to read is nothing rung.
        let _ = rustix::io::read(&self.incoming.bell, &mut [0; 8]);
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn mac(&self) -> Mac {
        self.mac
    }

    fn up(&self) -> bool {
        // The other end is held by somebody.
        Arc::strong_count(&self.outgoing) > 1
    }
}

#[cfg(test)]
#[path = "pair_test.rs"]
mod tests;
