//! The machine's network cards and disks, of which some come and go while it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use riad_devices::virtio::VirtioDevice;
use riad_devices::virtio::blk::{Blk, BlkHandle};
use riad_devices::virtio::net::{Net, NetCounters, NetHandle};
use riad_disk::Disk;
use riad_machine::pc::hotplug::{card_slots, disk_slots};
use riad_machine::pc::{Function, Pc};
use riad_network::{Cable, Mac};

use crate::Error;

/// How long one waits before one looks whether the machine is there still.
const LOOK: Duration = Duration::from_millis(100);

/// A machine's network cards and disks: which there are, and the way to plug others in and out while it
/// runs. Cloning shares it; it works from any thread, as long as there is a machine.
///
/// A guest hears of both by ACPI, and has to do its part: a card or disk that it does not let go stays.
#[derive(Debug, Clone)]
pub struct Devices {
    pc: Weak<Pc>,
    lists: Lists,
}

/// Which devices there are, without the way to the board.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// With their slots.
    cards: Vec<(u8, NetHandle)>,
    disks: Vec<(u8, Attached)>,
    /// What went through cards that are gone.
    gone: Option<NetCounters>,
}

#[derive(Debug)]
struct Attached {
    label: Option<String>,
    handle: BlkHandle,
}

impl Lists {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_card(&self, slot: u8, handle: NetHandle) {
        self.inner().cards.push((slot, handle));
    }

    pub(crate) fn add_disk(&self, slot: u8, disk: &Arc<dyn Disk>, handle: BlkHandle) {
        let label = disk.label().map(str::to_owned);
        self.inner().disks.push((slot, Attached { label, handle }));
    }

    pub(crate) fn cards(&self) -> Vec<NetHandle> {
        self.inner().cards.iter().map(|(_, card)| card.clone()).collect()
    }

    pub(crate) fn disks(&self) -> Vec<BlkHandle> {
        self.inner().disks.iter().map(|(_, disk)| disk.handle.clone()).collect()
    }

    /// What went through all cards that there are and were; nothing where there never was one.
    pub(crate) fn traffic(&self) -> Option<NetCounters> {
        let inner = self.inner();
        let cards = inner.cards.iter().map(|(_, card)| card.counters());
        cards.chain(inner.gone).reduce(NetCounters::plus)
    }
}

impl Devices {
    pub(crate) fn new(pc: &Arc<Pc>, lists: Lists) -> Self {
        Self { pc: Arc::downgrade(pc), lists }
    }

    /// The network cards, in the order in which they came.
    #[must_use]
    pub fn cards(&self) -> Vec<NetHandle> {
        self.lists.cards()
    }

    /// The host's ends of the disks, in the order in which they came.
    #[must_use]
    pub fn disks(&self) -> Vec<BlkHandle> {
        self.lists.disks()
    }

    /// The host's end of the disk with a label.
    #[must_use]
    pub fn disk(&self, label: &str) -> Option<BlkHandle> {
        let inner = self.lists.inner();
        let mut disks = inner.disks.iter();
        let found = disks.find(|(_, disk)| disk.label.as_deref() == Some(label));
        found.map(|(_, disk)| disk.handle.clone())
    }

    /// Plugs in a network card with that cable.
    ///
    /// # Errors
    /// [`Error::NoSlot`], [`Error::Ended`]; the guest does not listen.
    pub fn plug_card(&self, cable: Cable) -> Result<NetHandle, Error> {
        let (card, handle) = Net::new(cable);
        let mut inner = self.lists.inner();
        let taken = inner.cards.iter().map(|(slot, _)| *slot);
        let slot = self.plug("network card", card_slots(), taken, card)?;
        inner.cards.push((slot, handle.clone()));
        Ok(handle)
    }

    /// Has the guest let the network card with that address go, which may take `limit`.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Held`], [`Error::Ended`]; the guest does not listen.
    pub fn unplug_card(&self, mac: Mac, limit: Duration) -> Result<(), Error> {
        let found = self.lists.inner().cards.iter().find(|(_, card)| card.mac() == mac).cloned();
        let (slot, handle) = found.ok_or(Error::NoDevice("network card"))?;
        self.unplug("network card", slot, limit)?;
        let mut inner = self.lists.inner();
        inner.cards.retain(|(at, _)| *at != slot);
        let counters = handle.counters();
        inner.gone = Some(inner.gone.map_or(counters, |gone| gone.plus(counters)));
        Ok(())
    }

    /// Plugs in a disk. The guest knows it by its label, as its serial number.
    ///
    /// # Errors
    /// As for [`plug_card`](Self::plug_card).
    pub fn plug_disk(&self, disk: &Arc<dyn Disk>) -> Result<BlkHandle, Error> {
        let device = Blk::new(Arc::clone(disk), disk.label().unwrap_or("riad-disk"));
        let handle = device.handle();
        let mut inner = self.lists.inner();
        let taken = inner.disks.iter().map(|(slot, _)| *slot);
        let slot = self.plug("disk", disk_slots(), taken, device)?;
        let label = disk.label().map(str::to_owned);
        inner.disks.push((slot, Attached { label, handle: handle.clone() }));
        Ok(handle)
    }

    /// Has the guest let the disk with that label go, which may take `limit`. What it wrote is with the
    /// disk then, which is the caller's to flush.
    ///
    /// # Errors
    /// As for [`unplug_card`](Self::unplug_card).
    pub fn unplug_disk(&self, label: &str, limit: Duration) -> Result<(), Error> {
        let is_it = |(_, disk): &&(u8, Attached)| disk.label.as_deref() == Some(label);
        let slot = self.lists.inner().disks.iter().find(is_it).map(|(slot, _)| *slot);
        let slot = slot.ok_or(Error::NoDevice("disk"))?;
        self.unplug("disk", slot, limit)?;
        self.lists.inner().disks.retain(|(at, _)| *at != slot);
        Ok(())
    }

    /// Puts a device into the first slot that is free.
    fn plug(
        &self,
        what: &'static str,
        mut slots: impl Iterator<Item = u8>,
        taken: impl Iterator<Item = u8>,
        device: impl VirtioDevice + 'static,
    ) -> Result<u8, Error> {
        let pc = self.pc.upgrade().ok_or(Error::Ended)?;
        let taken: Vec<u8> = taken.collect();
        let slot = slots.find(|slot| !taken.contains(slot)).ok_or(Error::NoSlot(what))?;
        pc.plug(Function { slot, device: Box::new(device) })?;
        Ok(slot)
    }

    fn unplug(&self, what: &'static str, slot: u8, limit: Duration) -> Result<(), Error> {
        self.pc.upgrade().ok_or(Error::Ended)?.want_back(slot)?;
        let mut left = limit;
        loop {
            // Not held while nobody looks: a machine that ends is not waited for.
            let pc = self.pc.upgrade().ok_or(Error::Ended)?;
            let wait = left.min(LOOK);
            if !pc.is_taken(slot, wait) {
                return Ok(());
            }
            left -= wait;
            if left.is_zero() {
                pc.keep(slot);
                // It may have gone at the last moment.
                return match pc.is_taken(slot, Duration::ZERO) {
                    true => Err(Error::Held { what, seconds: limit.as_secs() }),
                    false => Ok(()),
                };
            }
        }
    }
}
