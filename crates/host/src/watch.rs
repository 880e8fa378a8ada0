//! Hearing of everything that happens to a machine in one place.
//!
//! News come from the guest's console, from its first disk read, from its agent's event channel and
//! from the monitor. Each kind is told once, so that a guest cannot fill the channel.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use riad_agent::client::{ClientError, Events};
use riad_agent::protocol::PORT;
use riad_confine::Kind;
use riad_disk::Disk;
use riad_vmm::{ConsoleLine, Ending, Vm};

use crate::limits::Limits;
use crate::observed::Observed;
use crate::{Error, Stage, printable};

/// What the kernel's last words begin with.
const PANIC: &str = "Kernel panic - not syncing";
/// What the agent's last words begin with.
const FATAL: &str = "riad-agent: fatal: ";

/// Something that happened to a machine.
#[derive(Debug)]
pub(crate) enum News {
    /// The guest read from its first disk.
    DiskRead,
    /// The agent opened its event channel.
    Connected,
    /// The agent introduced itself, or failed to.
    Hello(Box<Result<Events, ClientError>>),
    /// The kernel panicked.
    Panic(String),
    /// The agent gave up.
    Fatal(String),
    /// The machine ended.
    Ended(Ending),
    /// The session whose end was waited for is over.
    SessionOver,
    /// Somebody wants the machine to stop in an orderly way.
    Stop,
    /// Somebody pulls the machine's plug.
    Unplug,
}

/// The end that tells. Kinds of news are few and each is told once, so there is always room.
#[derive(Debug, Clone)]
pub(crate) struct Teller(SyncSender<News>);

/// A new channel for news.
pub(crate) fn channel() -> (Teller, Receiver<News>) {
    let (sender, receiver) = sync_channel(16);
    (Teller(sender), receiver)
}

impl Teller {
    /// Tells. News for which there is no room, or nobody to hear them, are lost.
    pub(crate) fn tell(&self, news: News) {
        if let Err(lost) = self.0.try_send(news) {
            tracing::debug!(%lost, "news of a machine that nobody hears");
        }
    }

    /// Reads console lines for last words.
    pub(crate) fn console_line(&self) -> ConsoleLine {
        let teller = self.clone();
        let mut told = false;
        Box::new(move |line| {
            if told {
                return;
            }
            if let Some((_, rest)) = line.split_once(PANIC) {
                told = true;
                teller.tell(News::Panic(printable(rest.trim_start_matches(':').trim())));
            } else if let Some((_, rest)) = line.split_once(FATAL) {
                told = true;
                teller.tell(News::Fatal(printable(rest.trim())));
            }
        })
    }

    /// A disk whose first read is told.
    pub(crate) fn observe(&self, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        let teller = self.clone();
        Arc::new(Observed::new(disk, Box::new(move || teller.tell(News::DiskRead))))
    }

    /// Waits for the machine's end and for its agent, each in a thread that ends when its source
    /// does: with the machine, at the latest.
    pub(crate) fn attend(&self, vm: &mut Vm, limits: Limits) -> Result<(), Error> {
        let host = |source| Error::Host { what: "a thread", source };
        if let Some(endings) = vm.take_endings() {
            let teller = self.clone();
            let body = move || {
                if let Ok(ending) = endings.recv() {
                    teller.tell(News::Ended(ending));
                }
            };
            riad_confine::spawn(Kind::Listener, "endings", body).map_err(host)?;
        }
        if let Some(vsock) = vm.vsock() {
            let what = "a vsock port to listen on";
            let calls = vsock.listen(PORT).map_err(|source| Error::Host { what, source })?;
            let teller = self.clone();
            let body = move || {
                // Later calls are refused: the machine has one event channel.
                let Ok(stream) = calls.recv() else { return };
                drop(calls);
                teller.tell(News::Connected);
                let events = Events::accept(stream, limits.of(Stage::Agent));
                teller.tell(News::Hello(Box::new(events)));
            };
            riad_confine::spawn(Kind::Listener, "agent", body).map_err(host)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
