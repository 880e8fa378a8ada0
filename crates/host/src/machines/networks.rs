//! Networks that have names, and the machines on them.
//!
//! ```text
//! .networks/NAME/network.json   what the network is
//! .networks/NAME/switch.sock    where its switch listens, while a machine on it runs
//! .networks/NAME/switch.log     what its switch said
//! .networks/NAME/lock           held by whoever starts the switch, or is the switch and ends
//! .networks/.new-*, .gone-*     networks that are being made or removed
//! ```
//!
//! Which machines are on a network, and with which addresses, their `machine.json` say, and nothing else
//! does: so the two cannot disagree. An address is given out while the directory's lock is held, and
//! stays the machine's until it is detached.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use riad_network::switch::{Client, Listed, MOST_MEMBERS, SwitchError};
use riad_network::user::Addresses;
pub use riad_network::user::Subnet;
use serde::{Deserialize, Serialize};

use super::config::new_id;
use super::files::{
    Versioned, bury, make_directory, names_in, read_json, sync_directory, write_json,
};
use super::name::is_name;
use super::{Folder, MachineConfig, MachineError, Machines, NEW, Name, folder, now};
use crate::journal::Event;

const NETWORK: &str = "network.json";
const LOCK: &str = "lock";
const LOG: &str = "switch.log";
/// Networks are looked for from 10.77.0.0/24 to 10.77.255.0/24 when nothing is asked for.
const USUAL: [u8; 2] = [10, 77];

/// The name of a network, which is a label of its members' names too: `web.lab.riad.internal`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetName(String);

impl NetName {
    /// Characters in the longest name.
    pub const MOST: usize = 32;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetName {
    type Err = MachineError;

    fn from_str(text: &str) -> Result<Self, MachineError> {
        match is_name(text, Self::MOST) {
            true => Ok(Self(text.to_owned())),
            false => Err(MachineError::BadNetName(text.to_owned())),
        }
    }
}

impl fmt::Display for NetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What machines on a network reach besides each other. From the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetMode {
    /// Nothing.
    Isolated,
    /// Services of this computer's that were opened to them.
    HostOnly,
    /// What they would reach without it: each by its own network.
    #[default]
    Nat,
}

impl NetMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nat, Self::Isolated, Self::HostOnly];

    /// What users call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::HostOnly => "host-only",
            Self::Nat => "nat",
        }
    }
}

impl fmt::Display for NetMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for NetMode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|mode| mode.name() == word);
        named.ok_or_else(|| {
            format!("'{word}' is no mode of a network: expected nat, isolated or host-only")
        })
    }
}

/// A network that a machine is on, as `machine.json` has it. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedNetwork {
    /// The network's name.
    pub name: String,
    /// The machine's address there.
    pub address: Ipv4Addr,
}

/// `network.json`: what a network is. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NetConfig {
    schema: u32,
    /// 32 hexadecimal digits that no other network has.
    id: String,
    /// When it was made, seconds since the Unix epoch.
    created: u64,
    /// Its addresses.
    subnet: String,
    mode: NetMode,
}

impl Versioned for NetConfig {
    const SCHEMA: u32 = 1;
}

/// What is true of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetInfo {
    /// Its name.
    pub name: NetName,
    /// 32 hexadecimal digits that no other network has.
    pub id: String,
    /// When it was made, seconds since the Unix epoch.
    pub created: u64,
    /// Its addresses.
    pub subnet: Subnet,
    /// What its members reach besides each other.
    pub mode: NetMode,
    /// The machines on it, and their addresses.
    pub members: Vec<(Name, Ipv4Addr)>,
    /// Its directory.
    pub directory: PathBuf,
}

/// A network of the directory: what is true of it, or why that cannot be told.
pub type FoundNet = (NetName, Result<NetInfo, MachineError>);

/// A network that a machine which starts is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) name: NetName,
    pub(crate) subnet: Subnet,
    pub(crate) mode: NetMode,
    pub(crate) address: Ipv4Addr,
    pub(crate) directory: PathBuf,
}

impl NetInfo {
    /// What is true now of the members that run; nothing when none does.
    ///
    /// # Errors
    /// [`MachineError::Switch`].
    pub fn running(&self) -> Result<Option<Listed>, MachineError> {
        match self.switch().and_then(|switch| switch.list()) {
            Ok(listed) => Ok(Some(listed)),
            Err(SwitchError::Gone) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Keeps members apart from each other, from now on: each of them from each. Frames between them
    /// are lost, until they are [healed](Self::heal) or the last member stops.
    ///
    /// # Errors
    /// One is no member, or none runs.
    pub fn partition(&self, names: &[Name]) -> Result<(), MachineError> {
        for name in names {
            if !self.members.iter().any(|(member, _)| member == name) {
                let (network, machine) = (self.name.clone(), name.clone());
                return Err(MachineError::NotOnNetwork { network, machine });
            }
        }
        for (at, one) in names.iter().enumerate() {
            for other in names.iter().skip(at + 1).filter(|other| *other != one) {
                let cut = self.switch().and_then(|s| s.cut(one.as_str(), other.as_str()));
                cut.map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }

    /// Keeps nobody apart any more.
    ///
    /// # Errors
    /// No member runs.
    pub fn heal(&self) -> Result<(), MachineError> {
        self.switch().and_then(|switch| switch.heal()).map_err(|error| self.failed(error))
    }

    fn switch(&self) -> Result<Client, SwitchError> {
        Client::connect(&self.directory)
    }

    fn failed(&self, source: SwitchError) -> MachineError {
        MachineError::Switch { network: self.name.clone(), source }
    }
}

impl Membership {
    pub(crate) fn failed(&self, source: SwitchError) -> MachineError {
        MachineError::Switch { network: self.name.clone(), source }
    }
}

/// Opens what a switch holds while it begins or ends.
pub(crate) fn switch_lock(directory: &Path) -> Result<fs::File, MachineError> {
    folder::lock_file(&directory.join(LOCK))
}

/// Where a switch says what it has to say.
pub(crate) fn switch_log(directory: &Path) -> PathBuf {
    directory.join(LOG)
}

impl Machines {
    /// Networks that one machine can be on.
    pub const MOST_NETWORKS: usize = 4;

    fn networks_directory(&self) -> PathBuf {
        self.root().join(".networks")
    }

    fn network_directory(&self, name: &NetName) -> PathBuf {
        self.networks_directory().join(name.as_str())
    }

    /// Makes a network. With no `subnet`, it gets one that no other has.
    ///
    /// # Errors
    /// The name is taken, the addresses are another network's, or the host refuses.
    pub fn create_network(
        &self,
        name: &NetName,
        subnet: Option<Subnet>,
        mode: NetMode,
    ) -> Result<NetInfo, MachineError> {
        let directory = self.networks_directory();
        make_directory(&directory)?;
        let guard = self.guard()?;
        let place = self.network_directory(name);
        if place.exists() {
            return Err(MachineError::NetworkExists(name.clone()));
        }
        let subnet = self.free_subnet(subnet)?;
        let draft = directory.join(format!("{NEW}{}", new_id()));
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).create(&draft).map_err(MachineError::io("create", &draft))?;
        let config = NetConfig {
            schema: NetConfig::SCHEMA,
            id: new_id(),
            created: now(),
            subnet: subnet.to_string(),
            mode,
        };
        let made = write_json(&draft.join(NETWORK), &config).and_then(|()| {
            fs::rename(&draft, &place).map_err(MachineError::io("create", &place))?;
            sync_directory(&directory)
        });
        // Not there any more if all went well.
        let _ = fs::remove_dir_all(&draft);
        drop(guard);
        made?;
        self.network(name)
    }

    /// Addresses that are nobody else's: those that are asked for, or some.
    fn free_subnet(&self, wanted: Option<Subnet>) -> Result<Subnet, MachineError> {
        let own = riad_network::user::Config::new([0; 6]).addresses;
        let mut taken = vec![("every machine's own network".to_owned(), own)];
        for (name, info) in self.networks()? {
            let subnet = info.map(|info| info.subnet);
            taken.extend(subnet.map(|s| (format!("network {name}"), Addresses::new(s, None))));
        }
        let holder = |subnet: &Subnet| {
            taken.iter().find(|(_, own)| own.subnet.overlaps(subnet)).map(|(name, _)| name.clone())
        };
        if let Some(subnet) = wanted {
            return match holder(&subnet) {
                None => Ok(subnet),
                Some(name) => {
                    let reason = format!("{name} has some of these addresses: choose others");
                    Err(MachineError::Subnet { subnet: subnet.to_string(), reason })
                }
            };
        }
        let [a, b] = USUAL;
        let usual = (0..=255).filter_map(|c| Subnet::new(Ipv4Addr::new(a, b, c, 0), 24));
        usual.into_iter().find(|subnet| holder(subnet).is_none()).ok_or_else(|| {
            let reason = "all of them are other networks': choose others with --subnet".to_owned();
            MachineError::Subnet { subnet: format!("{a}.{b}.0.0/16"), reason }
        })
    }

    /// What is true of a network.
    ///
    /// # Errors
    /// [`MachineError::NoSuchNetwork`]; its files are damaged or cannot be read.
    pub fn network(&self, name: &NetName) -> Result<NetInfo, MachineError> {
        let directory = self.network_directory(name);
        let path = directory.join(NETWORK);
        let config: NetConfig = match read_json(&path) {
            Err(error) if error.is_missing() && !directory.exists() => {
                return Err(MachineError::NoSuchNetwork(name.clone()));
            }
            config => config?,
        };
        let NetConfig { schema: _, id, created, subnet, mode } = config;
        let subnet = subnet.parse().map_err(|reason| MachineError::Damaged { path, reason })?;
        let members = self.members(name)?;
        Ok(NetInfo { name: name.clone(), id, created, subnet, mode, members, directory })
    }

    /// All networks, in the order of their names; of one that cannot be understood, why not.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn networks(&self) -> Result<Vec<FoundNet>, MachineError> {
        let all = names_in::<NetName>(&self.networks_directory())?.into_iter().map(|name| {
            let info = self.network(&name);
            (name, info)
        });
        Ok(all.filter(|(_, info)| !matches!(info, Err(MachineError::NoSuchNetwork(_)))).collect())
    }

    /// The machines on a network. A machine that cannot be understood counts for none.
    fn members(&self, name: &NetName) -> Result<Vec<(Name, Ipv4Addr)>, MachineError> {
        let mut members = Vec::new();
        for folder in self.all()? {
            let folder = folder?;
            let config = folder.config();
            let networks = config.iter().flat_map(|config| &config.networks);
            let ours = networks.filter(|network| network.name == name.as_str());
            members.extend(ours.map(|network| (folder.name().clone(), network.address)));
        }
        Ok(members)
    }

    /// Removes a network that no machine is on.
    ///
    /// # Errors
    /// There is none, machines are on it, one that was detached runs on it still, or the host refuses.
    pub fn remove_network(&self, name: &NetName) -> Result<(), MachineError> {
        let _guard = self.guard()?;
        let place = self.network_directory(name);
        if !place.exists() {
            return Err(MachineError::NoSuchNetwork(name.clone()));
        }
        let members = self.members(name)?;
        if !members.is_empty() {
            let to = members.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
            let (network, to) = (name.clone(), to.join(", "));
            return Err(MachineError::NetworkAttached { network, to });
        }
        if Client::connect(&place).is_ok() {
            return Err(MachineError::NetworkInUse(name.clone()));
        }
        bury(&self.networks_directory(), &place)
    }

    /// Puts a machine on a network, from its next start on, with that address or one that is free.
    /// Gives its folder, and the address.
    ///
    /// # Errors
    /// There is no such network or machine, it is on it already or on too many, or the address cannot
    /// be its.
    pub fn attach_network(
        &self,
        name: &NetName,
        machine: &Name,
        address: Option<Ipv4Addr>,
    ) -> Result<(Folder, Ipv4Addr), MachineError> {
        let folder = self.get(machine)?;
        let _lock = folder.lock()?;
        // Nobody attaches or removes it meanwhile.
        let _guard = self.guard()?;
        let info = self.network(name)?;
        let (network, of) = (name.clone(), machine.clone());
        if info.members.iter().any(|(member, _)| member == machine) {
            return Err(MachineError::OnNetwork { network, machine: of });
        }
        let mut config = folder.config()?;
        if config.networks.len() >= Self::MOST_NETWORKS {
            return Err(MachineError::TooManyNetworks(of));
        }
        if info.members.len() >= MOST_MEMBERS {
            return Err(MachineError::NetworkFull(network));
        }
        let address = free_address(&info, address)?;
        config.networks.push(AttachedNetwork { name: name.to_string(), address });
        folder.write_config(&config)?;
        let (network, address_text) = (name.to_string(), address.to_string());
        folder.record_of(&config.id, &Event::Joined { network, address: address_text });
        Ok((folder, address))
    }

    /// Takes a machine off a network, from its next start on. A network that is not there any more can
    /// be left.
    ///
    /// # Errors
    /// There is no such machine, or it is not on it.
    pub fn detach_network(&self, name: &NetName, machine: &Name) -> Result<Folder, MachineError> {
        let folder = self.get(machine)?;
        let _lock = folder.lock()?;
        let old = folder.config()?;
        let stays = |network: &&AttachedNetwork| network.name != name.as_str();
        let networks: Vec<_> = old.networks.iter().filter(stays).cloned().collect();
        if networks.len() == old.networks.len() {
            let (network, machine) = (name.clone(), machine.clone());
            return Err(MachineError::NotOnNetwork { network, machine });
        }
        let config = MachineConfig { networks, ..old };
        folder.write_config(&config)?;
        folder.record_of(&config.id, &Event::Left { network: name.to_string() });
        Ok(folder)
    }

    /// The networks of a machine that starts.
    pub(crate) fn networks_of(
        folder: &Folder,
        config: &MachineConfig,
    ) -> Result<Vec<Membership>, MachineError> {
        let root = folder.path().parent().unwrap_or(Path::new("/"));
        let machines = Self::in_directory(root.to_owned());
        let find = |attached: &AttachedNetwork| {
            let info = machines.network(&attached.name.parse()?)?;
            let NetInfo { name, subnet, mode, directory, .. } = info;
            Ok(Membership { name, subnet, mode, address: attached.address, directory })
        };
        let broken = |attached: &AttachedNetwork, error| MachineError::Attached {
            network: attached.name.clone(),
            machine: folder.name().clone(),
            source: Box::new(error),
        };
        let all = config.networks.iter();
        all.map(|attached| find(attached).map_err(|error| broken(attached, error))).collect()
    }
}

/// An address for a new member. The network's first is left to whoever means to route there, and is
/// given only when it is asked for.
fn free_address(info: &NetInfo, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, MachineError> {
    let NetInfo { name, subnet, members, .. } = info;
    let first = subnet.network().to_bits();
    let last = subnet.broadcast().to_bits();
    // One that was detached has its address until it is stopped; a switch that cannot be asked tells
    // of nobody, and refuses who comes with another's address.
    let running = info.running().ok().flatten().unwrap_or_default().members;
    let all = members.iter().map(|(name, address)| (name.to_string(), *address));
    let all = all.chain(running.into_iter().map(|member| (member.name, member.address)));
    let taken: BTreeMap<Ipv4Addr, String> = all.map(|(name, address)| (address, name)).collect();
    let Some(address) = wanted else {
        let mut all = (first + 2..last).map(Ipv4Addr::from);
        return all
            .find(|address| !taken.contains_key(address))
            .ok_or_else(|| MachineError::NetworkFull(name.clone()));
    };
    let reason = if !(first + 1..last).contains(&address.to_bits()) {
        format!("the network's are {} to {}", Ipv4Addr::from(first + 1), Ipv4Addr::from(last - 1))
    } else if let Some(machine) = taken.get(&address) {
        format!("it is machine {machine}'s")
    } else {
        return Ok(address);
    };
    Err(MachineError::Address { network: name.clone(), address, reason })
}

#[cfg(test)]
#[path = "networks_test.rs"]
mod tests;
