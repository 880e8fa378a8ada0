//! The machine's disks, whose want of room is written down: a guest that waits for room is to be helped.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use riad_confine::Kind;
use riad_disk::Disk;

use super::shared::Shared;
use crate::room::{Room, sentence};

/// Watches disks for a want of room. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    /// What the guest waits for, by the name of the disk that it does for.
    waits: Arc<Mutex<BTreeMap<String, String>>>,
    changed: SyncSender<()>,
}

impl Rooms {
    /// Begins, with a thread that may write down what is told.
    ///
    /// # Errors
    /// The host refuses the thread.
    pub(super) fn begin(shared: &Shared) -> io::Result<Self> {
        let (sender, changed) = sync_channel(1);
        let rooms = Self { waits: Arc::default(), changed: sender };
        let (waits, shared) = (Arc::clone(&rooms.waits), shared.clone());
        let body = move || {
            while changed.recv().is_ok() {
                let wait = lock(&waits).values().next().cloned();
                shared.waits(wait);
            }
        };
        riad_confine::spawn(Kind::Control, "room", body)?;
        Ok(rooms)
    }

    /// The same disk, watched.
    pub(super) fn watch(&self, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        let (rooms, name) = (self.clone(), disk.name().to_owned());
        let tell = move |why: Option<&riad_disk::Error>| match why {
            Some(why) => {
                lock(&rooms.waits).insert(name.clone(), sentence(Some(why)));
                rooms.look();
            }
            None => rooms.forget(&name),
        };
        Arc::new(Room::new(disk, Box::new(tell)))
    }

    /// Nobody waits for the disk of that name.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.waits).remove(name);
        self.look();
    }

    fn look(&self) {
        // If it is full, the thread is about to look.
        let _ = self.changed.try_send(());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
