//! A machine on named networks: its cards there, the names of its neighbours, and how much of the world
//! they leave it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use riad_network::switch::{Member, Told};
use riad_network::user::Policy;
use riad_network::user::policy::{HostAccess, Verdict};
use riad_network::{Cable, Mac};

use super::{Network, NetworkError, Plug, Rules, written};
use crate::Error;
use crate::machines::{Membership, Name, NetMode, NetName};
use crate::process::Joining;

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
    pub(super) fn joined(&self) -> MutexGuard<'_, Vec<Joined>> {
        lock(&self.joined)
    }

    /// How much of the world the named networks leave the machine.
    pub(crate) fn reach(&self) -> NetMode {
        *lock(&self.reach)
    }

    /// Joins a named network, whose switch runs, as the machine `name`.
    ///
    /// # Errors
    /// [`NetworkError::NotIsolated`], [`MachineError::Switch`](crate::machines::MachineError::Switch).
    pub(crate) fn join(&self, membership: &Membership, name: &Name) -> Result<(), Error> {
        let Membership { name: network, subnet, mode: _, address, directory } = membership;
        self.check(network, self.reach())?;
        let told = self.told(network, name);
        let member = Member::join(directory, name.as_str(), *address, told)
            .map_err(|error| membership.failed(error))?;
        self.add(network, *address, subnet.prefix(), member);
        Ok(())
    }

    /// Joins a named network while the machine `name` runs, by a connection that the switch knows as the
    /// machine's already. Gives the cable to it. From now on the machine reaches no more than `reach`.
    ///
    /// # Errors
    /// [`NetworkError::NotIsolated`]; the host refuses descriptors.
    pub(crate) fn join_with(
        &self,
        joining: &Joining,
        name: &Name,
        socket: OwnedFd,
    ) -> Result<Cable, Error> {
        let Joining { network, address, prefix, reach } = joining;
        let network: NetName = network.parse()?;
        self.check(&network, *reach)?;
        let told = self.told(&network, name);
        let member = Member::over(socket, *address, told).map_err(NetworkError::Host)?;
        self.set_reach(*reach);
        Ok(self.add(&network, *address, *prefix, member))
    }

    /// Leaves a named network. From now on the machine reaches as much as `reach`.
    pub(crate) fn leave(&self, network: &str, reach: NetMode) {
        self.joined().retain(|joined| joined.network.as_str() != network);
        lock(&self.rosters).remove(network);
        if let (Some(control), Some(own)) = (&self.control, lock(&self.own).as_deref()) {
            control.set_names(names(own, &lock(&self.rosters)));
        }
        self.set_reach(reach);
    }

    /// The address of the card on a named network.
    pub(crate) fn mac_on(&self, network: &str) -> Option<Mac> {
        let joined = self.joined();
        let mut on = joined.iter().filter(|joined| joined.network.as_str() == network);
        on.next().map(|joined| joined.cable.mac())
    }

    /// Whether the machine may be on a network that leaves it so much of the world.
    fn check(&self, network: &NetName, mode: NetMode) -> Result<(), NetworkError> {
        if mode != NetMode::Nat
            && matches!(self.network(), Network::Tap { .. } | Network::Bridge { .. })
        {
            let (network, card) = (network.clone(), self.network().to_string());
            return Err(NetworkError::NotIsolated { network, mode, card });
        }
        Ok(())
    }

    /// Hears who is on a network, for the machine `name`.
    fn told(&self, network: &NetName, name: &Name) -> Told {
        *lock(&self.own) = Some(name.to_string());
        let (control, rosters) = (self.control.clone(), Arc::clone(&self.rosters));
        let (own, of) = (name.to_string(), network.to_string());
        Box::new(move |roster| {
            let mut rosters = lock(&rosters);
            rosters.insert(of.clone(), roster);
            if let Some(control) = &control {
                control.set_names(names(&own, &rosters));
            }
        })
    }

    fn add(&self, network: &NetName, address: Ipv4Addr, prefix: u8, member: Member) -> Cable {
        let (network, cable) = (network.clone(), Cable::new(member));
        self.joined().push(Joined { network, address, prefix, cable: cable.clone() });
        cable
    }

    fn set_reach(&self, reach: NetMode) {
        // As `rule` does: the last of the two to come sees what both have set.
        let network = lock(&self.network);
        *lock(&self.reach) = reach;
        if let (Network::User(rules), Some(control)) = (&*network, &self.control) {
            control.set_policy(rules.policy(reach));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
