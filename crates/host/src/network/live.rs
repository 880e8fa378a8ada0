//! A machine that comes to a named network, or leaves it, while it runs.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use riad_network::switch::Client;

use super::Counts;
use crate::Error;
use crate::machines::{Folder, MachineError, Machines, Membership, Name, NetMode, NetName, State};
use crate::process::{Connection, Joining, hold_switch};

impl Machines {
    /// Puts a machine on a network, with that address or one that is free: at once if it runs, and from
    /// its next start on in any case. `program` is what a network's switch is started with. Gives the
    /// machine's folder, its address, and from when on it counts.
    ///
    /// # Errors
    /// Nothing has changed then: there is no such network or machine, it is on it already or on too many,
    /// the address cannot be its, or the machine that runs cannot have the card.
    pub fn join_network(
        &self,
        name: &NetName,
        machine: &Name,
        address: Option<Ipv4Addr>,
        program: &OsStr,
    ) -> Result<(Folder, Ipv4Addr, Counts), Error> {
        let (folder, address) = self.attach_network(name, machine, address)?;
        // One that was detached and runs on it still does so with the card that it had.
        if folder.state()? != State::Running || is_on(&folder, name)? {
            return Ok((folder, address, Counts::NextStart));
        }
        if let Err(error) = join_now(&folder, name, program) {
            self.detach_network(name, machine)?;
            return Err(error);
        }
        Ok((folder, address, Counts::Now))
    }

    /// Takes a machine off a network: at once if it runs, and from its next start on in any case. One
    /// that was taken off it, and runs on it still, is asked again.
    ///
    /// # Errors
    /// There is no such machine, or it is not on it; or it runs and keeps the card, and is off the network
    /// from its next start on.
    pub fn leave_network(&self, name: &NetName, machine: &Name) -> Result<(Folder, Counts), Error> {
        let folder = match self.detach_network(name, machine) {
            Ok(folder) => folder,
            Err(error @ MachineError::NotOnNetwork { .. }) => {
                let folder = self.get(machine)?;
                match is_on(&folder, name)? {
                    true => folder,
                    false => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        if !is_on(&folder, name)? {
            return Ok((folder, Counts::NextStart));
        }
        let reach = reach(&memberships(&folder)?);
        match Connection::open(&folder)?.leave(name, reach) {
            Ok(()) => Ok((folder, Counts::Now)),
            Err(MachineError::Refused { name: machine, reason }) => {
                let network = name.clone();
                Err(MachineError::StillOnNetwork { network, machine, reason }.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a machine runs on a network.
fn is_on(folder: &Folder, network: &NetName) -> Result<bool, MachineError> {
    if folder.state()? != State::Running {
        return Ok(false);
    }
    let networks = Connection::open(folder)?.network()?.networks;
    Ok(networks.iter().any(|on| on.network == network.as_str()))
}

/// The machine's process may connect to nobody: whoever asks brings the connection to the switch, which
/// is held until the machine has it.
fn join_now(folder: &Folder, name: &NetName, program: &OsStr) -> Result<(), Error> {
    let memberships = memberships(folder)?;
    let is_it = |membership: &&Membership| membership.name == *name;
    let Some(membership) = memberships.iter().find(is_it) else {
        let (network, machine) = (name.clone(), folder.name().clone());
        return Err(MachineError::NotOnNetwork { network, machine }.into());
    };
    let _held = hold_switch(membership, program)?;
    let socket = Client::connect(&membership.directory)
        .and_then(|switch| switch.join(folder.name().as_str(), membership.address))
        .map_err(|error| membership.failed(error))?;
    let joining = Joining {
        network: name.to_string(),
        address: membership.address,
        prefix: membership.subnet.prefix(),
        reach: reach(&memberships),
    };
    Ok(Connection::open(folder)?.join(&joining, socket.as_fd())?)
}

fn memberships(folder: &Folder) -> Result<Vec<Membership>, MachineError> {
    Machines::networks_of(folder, &folder.config()?)
}

/// How much of the world networks leave a machine: as much as the one that leaves it least.
pub(crate) fn reach(networks: &[Membership]) -> NetMode {
    networks.iter().map(|network| network.mode).min().unwrap_or_default()
}
