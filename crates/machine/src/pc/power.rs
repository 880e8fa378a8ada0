//! Power events on their way from the guest to the monitor.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use riad_devices::{PowerControl, PowerEvent, SharedPower};

/// What the guest asked for arrives at the receiver.
///
/// The first event counts: those that follow before it was received are dropped, so that a guest
/// cannot fill the queue.
#[must_use]
pub fn power_channel() -> (SharedPower, Receiver<PowerEvent>) {
    let (sender, receiver) = sync_channel(1);
    (Arc::new(PowerSender(sender)), receiver)
}

struct PowerSender(SyncSender<PowerEvent>);

impl PowerControl for PowerSender {
    fn power(&self, event: PowerEvent) {
        if self.0.try_send(event).is_err() {
            tracing::debug!(?event, "a power event follows another one");
        }
    }
}
