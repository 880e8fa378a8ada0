//! Network card (virtio 1.3, section 5.1), in front of a
//! [`Link`](riad_network::Link).
//!
//! * [`control`] is what the driver asks for besides frames: which frames it wants, its address;
//! * `card` is the worker, and moves frames between the queues and the link, in the link's thread;
//! * [`NetHandle`] is what the host pulls the cable with, and reads counters from.
//!
//! A frame is copied once between guest memory and the card, and never allocated for. The card
//! offers checksum and segmentation offload: a frame of up to 64 KiB crosses at the cost of one.
//!
//! Connections belong to the link and do not survive a save. A restored guest is asked to announce
//! itself (section 5.1.6.5.4), so that switches learn where it is now.

mod card;
pub mod control;
mod handle;

use std::sync::Arc;

use riad_confine::Kind;
use riad_network::{Accepts, Cable, Mac};
use serde::{Deserialize, Serialize};

pub use control::Filter;
pub use handle::{NetCounters, NetHandle};

use super::worker::{Control, Worker};
use super::{ActivateError, Activation, DeviceState, DeviceType, VirtioDevice, read_image};
use card::Card;
use handle::Shared;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const CONTROL: u16 = 2;
const QUEUE_SIZES: [u16; 3] = [256, 256, 64];
/// Bytes of `struct virtio_net_config` up to and including the MTU.
const CONFIG_LEN: usize = 12;

/// Feature bits (section 5.1.3).
mod feature {
    pub(super) const CSUM: u64 = 1 << 0;
    pub(super) const GUEST_CSUM: u64 = 1 << 1;
    pub(super) const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    pub(super) const MTU: u64 = 1 << 3;
    pub(super) const MAC: u64 = 1 << 5;
    pub(super) const GUEST_TSO4: u64 = 1 << 7;
    pub(super) const GUEST_TSO6: u64 = 1 << 8;
    pub(super) const GUEST_ECN: u64 = 1 << 9;
    pub(super) const HOST_TSO4: u64 = 1 << 11;
    pub(super) const HOST_TSO6: u64 = 1 << 12;
    pub(super) const HOST_ECN: u64 = 1 << 13;
    pub(super) const MRG_RXBUF: u64 = 1 << 15;
    pub(super) const STATUS: u64 = 1 << 16;
    pub(super) const CTRL_VQ: u64 = 1 << 17;
    pub(super) const CTRL_RX: u64 = 1 << 18;
    pub(super) const CTRL_RX_EXTRA: u64 = 1 << 20;
    pub(super) const GUEST_ANNOUNCE: u64 = 1 << 21;
    pub(super) const CTRL_MAC_ADDR: u64 = 1 << 23;

    /// What may be turned on and off while the card runs: the same bits (section 5.1.6.5.6).
    pub(super) const GUEST_OFFLOADS: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN;
    pub(super) const ALL: u64 = GUEST_OFFLOADS
        | CSUM
        | CTRL_GUEST_OFFLOADS
        | MTU
        | MAC
        | HOST_TSO4
        | HOST_TSO6
        | HOST_ECN
        | MRG_RXBUF
        | STATUS
        | CTRL_VQ
        | CTRL_RX
        | CTRL_RX_EXTRA
        | GUEST_ANNOUNCE
        | CTRL_MAC_ADDR;
}

/// Bits of the status field of the configuration (section 5.1.4).
mod status {
    pub(super) const LINK_UP: u16 = 1;
    pub(super) const ANNOUNCE: u16 = 2;
}

/// What the guest may be given, as its features (or the part of them that it left on) say.
fn accepts(features: u64) -> Accepts {
    let has = |feature: u64| features & feature != 0;
    let checksum = has(feature::GUEST_CSUM);
    // The others ask for it (section 5.1.3.1); a driver that forgot gets none of them.
    Accepts {
        checksum,
        tcp4: checksum && has(feature::GUEST_TSO4),
        tcp6: checksum && has(feature::GUEST_TSO6),
        ecn: checksum && has(feature::GUEST_ECN),
        udp: false,
    }
}

/// The network card.
pub struct Net {
    cable: Cable,
    shared: Arc<Shared>,
    /// The card's own address, which a reset brings back.
    mac: Mac,
    /// What the guest was told is the largest packet.
    mtu: u16,
    /// The driver was restored along with the card, and has peers that look for it elsewhere.
    restored: bool,
    worker: Option<Worker<Card>>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net")
            .field("cable", &self.cable)
            .field("shared", &self.shared)
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .field("restored", &self.restored)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// What the driver has set up, and a reset forgets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driven {
    /// The address that the driver gave the card, or the card's own.
    pub mac: Mac,
    /// Which frames it wants.
    pub filter: Filter,
    /// Offloads that it left on, as feature bits; `None` before it said anything: all that it
    /// accepted.
    pub offloads: Option<u64>,
    /// It is asked to announce itself.
    pub announce: bool,
}

impl Driven {
    fn new(mac: Mac) -> Self {
        Self { mac, filter: Filter::default(), offloads: None, announce: false }
    }
}

/// Saved network card. What is behind it is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    /// The card's own address.
    pub mac: Mac,
    /// The largest packet, bytes.
    pub mtu: u16,
    /// Whether the cable was plugged in.
    pub plugged: bool,
    /// What the driver set up.
    pub driven: Driven,
}

impl Net {
    /// A card at one end of `cable`, with the address and MTU that the link gives it.
    #[must_use]
    pub fn new(cable: Cable) -> (Self, NetHandle) {
        let (mac, mtu) = (cable.mac(), cable.mtu());
        let state = NetState { mac, mtu, plugged: true, driven: Driven::new(mac) };
        let (device, handle) = Self::restore(cable, &state);
        (Self { restored: false, ..device }, handle)
    }

    /// A card as saved, at one end of another cable. The address and MTU that the guest knows stay.
    #[must_use]
    pub fn restore(cable: Cable, state: &NetState) -> (Self, NetHandle) {
        let NetState { mac, mtu, plugged, driven } = state.clone();
        let shared = Arc::new(Shared::new(driven, plugged));
        let handle = NetHandle::new(Arc::clone(&shared), mac);
        (Self { cable, shared, mac, mtu, restored: true, worker: None }, handle)
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }

    fn features(&self) -> u64 {
        feature::ALL
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_len(&self) -> u32 {
        CONFIG_LEN as u32
    }

    /// `struct virtio_net_config`, section 5.1.4.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let driven = self.shared.driven();
        let mut status = if self.shared.up() { status::LINK_UP } else { 0 };
        if driven.announce {
            status |= status::ANNOUNCE;
        }
        let mut image = [0; CONFIG_LEN];
        image[..6].copy_from_slice(&driven.mac);
        drop(driven);
        image[6..8].copy_from_slice(&status.to_le_bytes());
        // One pair of queues.
        image[8..10].copy_from_slice(&1u16.to_le_bytes());
        image[10..].copy_from_slice(&self.mtu.to_le_bytes());
        read_image(&image, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let announce = std::mem::take(&mut self.restored)
            && activation.has(feature::GUEST_ANNOUNCE)
            && activation.has(feature::CTRL_VQ);
        let paused = activation.paused;
        let interrupt = Arc::clone(&activation.interrupt);
        let card = Card::new(&self.cable, &self.shared, &activation, announce);
        let worker = Worker::spawn(Kind::Network, "virtio-net", card, paused)?;
        self.shared.driver_runs(Arc::clone(worker.control()), interrupt);
        self.worker = Some(worker);
        Ok(())
    }

    fn control(&self) -> Option<&Control> {
        self.worker.as_ref().map(Worker::control).map(Arc::as_ref)
    }

    fn reset(&mut self) {
        self.shared.driver_gone();
        // The link is told what the next driver accepts by the next worker, whose thread may.
        self.worker = None;
        *self.shared.driven() = Driven::new(self.mac);
        self.restored = false;
    }

    fn save(&self) -> DeviceState {
        let Self { cable: _, shared, mac, mtu, restored: _, worker: _ } = self;
        DeviceState::Net(NetState {
            mac: *mac,
            mtu: *mtu,
            plugged: shared.plugged(),
            driven: shared.driven().clone(),
        })
    }
}

#[cfg(test)]
#[path = "net_test.rs"]
mod tests;
