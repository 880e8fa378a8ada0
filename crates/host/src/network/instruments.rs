//! What is on a machine's cable, between its card and whatever that leads to.

use riad_network::capture::{Capture, Captured};
use riad_network::{Cable, Link};

/// What is put on a machine's cable, for those who look at what goes over it.
#[derive(Debug)]
pub(crate) struct Instruments {
    pub(crate) capture: Capture,
}

impl Instruments {
    /// A cable to a link, with instruments on it. A capture sees what the guest's card sees.
    pub(super) fn on(link: impl Link + 'static) -> (Cable, Self) {
        let (link, capture) = Captured::new(link);
        (Cable::new(link), Self { capture })
    }
}
