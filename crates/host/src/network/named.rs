//! A machine on named networks: its cards there, the names of its neighbours, and how much of the world
//! they leave it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use riad_network::Cable;
use riad_network::switch::Member;
use riad_network::user::Policy;
use riad_network::user::policy::{HostAccess, Verdict};

use super::{Network, NetworkError, Plug, Rules, written};
use crate::Error;
use crate::machines::{Membership, Name, NetMode, NetName};

/// By the networks' names: machines and their addresses.
pub(super) type Rosters = Arc<Mutex<BTreeMap<String, Vec<(String, Ipv4Addr)>>>>;

/// A named network that a machine is on.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) network: NetName,
    pub(crate) address: Ipv4Addr,
    /// Length of the network's prefix.
    pub(crate) prefix: u8,
    pub(crate) cable: Cable,
}

impl Joined {
    /// Words for the kernel's command line, with which the guest's agent sets the card up.
    pub(super) fn words(&self) -> String {
        let Self { network: _, address, prefix, cable } = self;
        format!(" riad.card={},{address}/{prefix}", written(cable.mac()))
    }
}

impl Plug {
    /// Joins a named network, whose switch runs, as the machine `name`.
    ///
    /// # Errors
    /// [`NetworkError::NotIsolated`], [`MachineError::Switch`](crate::machines::MachineError::Switch).
    pub(crate) fn join(&mut self, membership: &Membership, name: &Name) -> Result<(), Error> {
        let Membership { name: network, subnet, mode: _, address, directory } = membership;
        let mode = self.reach;
        if mode != NetMode::Nat
            && matches!(self.network(), Network::Tap { .. } | Network::Bridge { .. })
        {
            let (network, card) = (network.clone(), self.network().to_string());
            return Err(NetworkError::NotIsolated { network, mode, card }.into());
        }
        let (control, rosters) = (self.control.clone(), Arc::clone(&self.rosters));
        let (own, of) = (name.to_string(), network.to_string());
        let told = Box::new(move |roster| {
            let mut rosters = rosters.lock().unwrap_or_else(PoisonError::into_inner);
            rosters.insert(of.clone(), roster);
            if let Some(control) = &control {
                control.set_names(names(&own, &rosters));
            }
        });
        let member = Member::join(directory, name.as_str(), *address, told)
            .map_err(|error| membership.failed(error))?;
        self.joined.push(Joined {
            network: network.clone(),
            address: *address,
            prefix: subnet.prefix(),
            cable: Cable::new(member),
        });
        Ok(())
    }
}

/// The names that a machine is told of named networks: each member by its own, but for the machine
/// itself and for what means something else already, and by its own before the network's.
fn names(own: &str, rosters: &BTreeMap<String, Vec<(String, Ipv4Addr)>>) -> Vec<(String, IpAddr)> {
    let all = rosters.iter().flat_map(|(network, roster)| {
        roster.iter().map(move |(name, address)| (network, name, IpAddr::from(*address)))
    });
    let mut names = Vec::new();
    for (network, name, address) in all {
        // The first is what an address is called.
        names.push((format!("{name}.{network}"), address));
        if name != own && !["gateway", "host"].contains(&name.as_str()) {
            names.push((name.clone(), address));
        }
    }
    names
}

impl Rules {
    /// What they come to on a machine that is on a named network which leaves it `reach`.
    pub(super) fn policy(&self, reach: NetMode) -> Policy {
        let Self { host, default, rules } = self.clone();
        match reach {
            NetMode::Nat => Policy { default, rules, host },
            NetMode::HostOnly => Policy { default: Verdict::Deny, rules: Vec::new(), host },
            NetMode::Isolated => {
                Policy { default: Verdict::Deny, rules: Vec::new(), host: HostAccess::Refused }
            }
        }
    }
}

#[cfg(test)]
#[path = "named_test.rs"]
mod tests;
