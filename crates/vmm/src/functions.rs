//! The machine's virtio devices, and the host's ends of them.

use std::sync::Arc;

use riad_devices::pci::slot;
use riad_devices::virtio::blk::Blk;
use riad_devices::virtio::console::{Console as VirtioConsole, ConsoleHandle};
use riad_devices::virtio::net::Net;
use riad_devices::virtio::rng::{HostEntropy, Rng};
use riad_devices::virtio::vsock::Vsock;
use riad_devices::virtio::{DeviceState, VirtioDevice};
use riad_disk::Disk;
use riad_machine::pc::Function;
use riad_machine::pc::hotplug::card_slots;

use crate::devices::Lists;
use crate::snapshot::Snapshot;
use crate::{Console, Error, GUEST_CID, VmConfig, VsockHandle};

/// Network cards that a machine can have.
pub(crate) const MOST_CARDS: usize = 1 + (slot::LAST - slot::NET_MORE + 1) as usize;

/// The devices, and the host's ends of those that have one.
#[derive(Default)]
pub(crate) struct Functions {
    pub(crate) functions: Vec<Function>,
    /// Its network cards and disks, in their order.
    pub(crate) lists: Lists,
    pub(crate) vsock: Option<VsockHandle>,
    pub(crate) virtio_console: Option<ConsoleHandle>,
}

impl Functions {
    /// New devices for a machine.
    pub(crate) fn new(config: &VmConfig, console: &Console) -> Result<Self, Error> {
        let most = usize::from(slot::DISK_LAST - slot::DISK_FIRST) + 1;
        if config.disks.len() > most {
            return Err(Error::Disks(config.disks.len(), most));
        }
        if config.cables.len() > MOST_CARDS {
            return Err(Error::Cables(config.cables.len(), MOST_CARDS));
        }
        let mut all = Self::default();
        for (cable, at) in config.cables.iter().zip(card_slots()) {
            let (device, handle) = Net::new(cable.clone());
            all.lists.add_card(at, handle);
            all.add(at, device);
        }
        if config.vsock {
            let (device, handle) = Vsock::new(GUEST_CID);
            all.vsock = Some(handle);
            all.add(slot::VSOCK, device);
        }
        let (device, handle) = VirtioConsole::new(console.virtio_sink());
        all.virtio_console = Some(handle);
        all.add(slot::CONSOLE, device);
        all.add(slot::RNG, Rng::new(Box::new(HostEntropy)));
        for (disk, at) in config.disks.iter().zip(slot::DISK_FIRST..) {
            let place = || format!("riad-disk{}", at - slot::DISK_FIRST);
            let serial = disk.label().map_or_else(place, str::to_owned);
            all.add_disk(at, disk, Blk::new(Arc::clone(disk), &serial));
        }
        Ok(all)
    }

    /// The devices of a snapshot, in its order. A machine that was saved without a network card has
    /// none, whatever there is to plug it into; cards take their cables in order.
    pub(crate) fn restore(
        config: &VmConfig,
        snapshot: &Snapshot,
        console: &Console,
    ) -> Result<Self, Error> {
        let (disks, saved) = (&config.disks, &snapshot.pc.functions);
        let is_disk = |state: &DeviceState| matches!(state, DeviceState::Blk(_));
        let wanted = saved.iter().filter(|f| is_disk(&f.function.device)).count();
        if wanted != disks.len() {
            return Err(Error::Disks(disks.len(), wanted));
        }
        let is_card = |state: &DeviceState| matches!(state, DeviceState::Net(_));
        let cards = saved.iter().filter(|f| is_card(&f.function.device)).count();
        let mut disks = disks.iter();
        let mut cables = config.cables.iter();
        let mut all = Self::default();
        for function in saved {
            let at = function.slot;
            match &function.function.device {
                DeviceState::Blk(state) => match disks.next() {
                    Some(disk) => all.add_disk(at, disk, Blk::restore(Arc::clone(disk), state)?),
                    None => return Err(Error::Disks(0, wanted)),
                },
                DeviceState::Net(state) => {
                    let cable = cables.next().ok_or(Error::NoCable(cards))?;
                    let (device, handle) = Net::restore(cable.clone(), state);
                    all.lists.add_card(at, handle);
                    all.add(at, device);
                }
                DeviceState::Rng(state) => all.add(at, Rng::restore(Box::new(HostEntropy), state)),
                DeviceState::Vsock(state) => {
                    let (device, handle) = Vsock::restore(state);
                    all.vsock = Some(handle);
                    all.add(at, device);
                }
                DeviceState::Console(state) => {
                    let (device, handle) = VirtioConsole::restore(console.virtio_sink(), state);
                    all.virtio_console = Some(handle);
                    all.add(at, device);
                }
            }
        }
        Ok(all)
    }

    fn add_disk(&mut self, slot: u8, disk: &Arc<dyn Disk>, device: Blk) {
        self.lists.add_disk(slot, disk, device.handle());
        self.add(slot, device);
    }

    fn add(&mut self, slot: u8, device: impl VirtioDevice + 'static) {
        self.functions.push(Function { slot, device: Box::new(device) });
    }
}
