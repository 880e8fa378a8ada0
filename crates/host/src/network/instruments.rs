//! What is on a machine's cable, between its card and whatever that leads to.

use std::sync::{Mutex, PoisonError};

use riad_network::capture::{Capture, Captured};
use riad_network::faults::{FaultControl, Faulty};
use riad_network::{Cable, Link};

use super::CableFaults;

/// What is put on a machine's cable, for those who look at what goes over it, or get in its way.
#[derive(Debug)]
pub(crate) struct Instruments {
    pub(crate) capture: Capture,
    faults: FaultControl,
    /// What was set last, as it was asked for.
    set: Mutex<CableFaults>,
}

impl Instruments {
    /// A cable to a link, with instruments on it. A capture sees what the guest's card sees: what is
    /// lost on the way is lost behind it for the guest's frames, and before it for those to the guest.
    pub(super) fn on(link: impl Link + 'static) -> (Cable, Self) {
        // A machine's own, and the same at each of its starts.
        let [a, b, c, d, e, f] = link.mac();
        let (link, faults) = Faulty::new(link, u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
        let (link, capture) = Captured::new(link);
        (Cable::new(link), Self { capture, faults, set: Mutex::default() })
    }

    /// Has the cable do something to frames, if something is to be changed. What it does.
    pub(crate) fn fault(&self, wanted: Option<CableFaults>) -> CableFaults {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wanted) = wanted {
            self.faults.set(wanted.into());
            *set = wanted;
        }
        *set
    }
}
