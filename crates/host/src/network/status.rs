//! What is true of a running machine's network, as programs are told of it.

use riad_network::Cable;
use riad_vmm::{NetCounters, NetHandle};
use serde::{Deserialize, Serialize};

use super::{Plug, Publish, written};

/// What is true of a machine's network. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// What the card is plugged into, as `--net` takes it.
    pub network: String,
    /// The card's address.
    pub mac: Option<String>,
    /// The largest packet, bytes.
    pub mtu: Option<u16>,
    /// Whether the guest sees a network at the other end of its cable.
    pub up: bool,
    /// Addresses that the guest's card was given, with the length of their prefix. Where Riad gives
    /// none, the guest knows.
    pub addresses: Vec<String>,
    /// Where everything else is.
    pub gateways: Vec<String>,
    /// Who knows names.
    pub name_servers: Vec<String>,
    /// What went through the card since the machine started.
    pub counters: NetCounters,
    /// What comes in here and goes to the guest.
    pub forwards: Vec<ForwardStatus>,
    /// Named networks that the machine is on.
    #[serde(default)]
    pub networks: Vec<MemberStatus>,
}

/// What is true of a machine on a named network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The network's name.
    pub network: String,
    /// The machine's address there, with the length of the prefix.
    pub address: String,
    /// The card's address.
    pub mac: String,
    /// Whether the guest sees a network at the other end of its cable.
    pub up: bool,
    /// What went through the card since the machine started.
    pub counters: NetCounters,
}

/// A forward that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// Its number in the machine's process.
    pub id: u32,
    /// What it is, as `riad forward add` takes it; port 0 has become the port that was free.
    pub forward: Publish,
}

impl NetworkStatus {
    pub(crate) fn new(plug: &Plug, cards: &[NetHandle]) -> Self {
        let Plug { cable, control, settings, .. } = plug;
        let text = |list: &[std::net::IpAddr]| list.iter().map(ToString::to_string).collect();
        let find = |cable: &Cable| cards.iter().find(|card| card.mac() == cable.mac());
        let card = cable.as_ref().and_then(find);
        let joined = plug.joined();
        let networks = joined.iter().map(|joined| {
            let card = find(&joined.cable);
            MemberStatus {
                network: joined.network.to_string(),
                address: format!("{}/{}", joined.address, joined.prefix),
                mac: written(joined.cable.mac()),
                up: card.is_some_and(NetHandle::up),
                counters: card.map(NetHandle::counters).unwrap_or_default(),
            }
        });
        let networks = networks.collect();
        let forwards = control.as_ref().map(|control| control.forwards()).unwrap_or_default();
        Self {
            network: plug.network().to_string(),
            mac: cable.as_ref().map(|cable| written(cable.mac())),
            mtu: cable.as_ref().map(|cable| cable.mtu()),
            up: card.is_some_and(NetHandle::up),
            addresses: settings
                .addresses
                .iter()
                .map(|(a, prefix)| format!("{a}/{prefix}"))
                .collect(),
            gateways: text(&settings.gateways),
            name_servers: text(&settings.name_servers),
            counters: card.map(NetHandle::counters).unwrap_or_default(),
            forwards: forwards
                .into_iter()
                .map(|listening| ForwardStatus {
                    id: listening.id,
                    forward: listening.forward.into(),
                })
                .collect(),
            networks,
        }
    }
}
