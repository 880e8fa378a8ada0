//! What a machine's network card is plugged into (`--net`), and what of its guest can be reached from
//! here ([`Publish`]).
//!
//! Whatever needs the host's leave (sockets that listen, tap devices) is opened when the network is
//! [plugged in](Network::plug), so that a machine's process can give that leave up before its guest
//! runs.

mod faults;
mod forwards;
mod instruments;
mod live;
mod named;
mod policy;
mod publish;
mod status;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use riad_network::capture::CaptureError;
use riad_network::user::policy::{MOST_RULES, PolicyError, Refusal};
use riad_network::user::{self, Control, ForwardError, UserNetwork};
use riad_network::{Cable, Mac, Tap, TapError};
use serde::{Deserialize, Serialize};

pub use faults::{CableFaults, parse_loss, parse_rate, parse_time};
pub(crate) use live::reach;
pub use policy::{Counts, RuleChange};
pub use publish::Publish;
pub use riad_network::user::Listen;
pub use riad_network::user::policy::{HostAccess, Rule, Verdict};
pub use status::{ForwardStatus, MemberStatus, NetworkStatus};

use crate::Error;
use crate::machines::{NetMode, NetName, new_id};
use instruments::Instruments;
use named::{Joined, Rosters};

/// What can go wrong with a machine's network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The tap device.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The host refuses the network's sockets.
    #[error("the host refused the machine's network: {0}")]
    Host(#[source] std::io::Error),
    /// A forward that cannot be had.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// There is nobody to forward.
    #[error(
        "ports can be forwarded on the network 'user' only, and this machine's is '{0}': there, whoever is on the network reaches the guest's own address"
    )]
    NoForwards(String),
    /// There is nobody to rule.
    #[error(
        "rules hold on the network 'user' only, and this machine's is '{0}'; on a tap device or a bridge, it is this computer's firewall that says who is reached"
    )]
    NoRules(String),
    /// There is no such rule.
    #[error(
        "there is no rule {number}: there are {count}, and `riad net policy {name}` lists them"
    )]
    NoSuchRule {
        /// The number that was asked for.
        number: usize,
        /// How many there are.
        count: usize,
        /// The machine.
        name: String,
    },
    /// There are too many.
    #[error("there are {MOST_RULES} rules already, which is the most: remove one first")]
    TooManyRules,
    /// There is nothing to be looked at.
    #[error(
        "it has no network card, so nothing goes over it: `riad set NAME --net user` has one from the next start on"
    )]
    NoCard,
    /// A capture that cannot be had.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A network that is to be shut off, and a card that is not.
    #[error(
        "the machine is on network '{network}', which is {mode}, and its first card is on '{card}', which \
         reaches others: `riad set NAME --net user` or `--net none` has it reach nobody else, or \
         `riad net detach {network} NAME` leaves the network"
    )]
    NotIsolated {
        /// The named network.
        network: NetName,
        /// What it is.
        mode: NetMode,
        /// What the card is plugged into.
        card: String,
    },
}

/// What a machine's network card is plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Network {
    /// A network of its own, in its process: the guest reaches what its user does, but for what is
    /// guarded and what the rules say.
    User(Rules),
    /// Nothing: there is no card.
    None,
    /// A tap device of the host's.
    Tap {
        /// Its name.
        name: String,
        /// What the guest's card is set to.
        own: Settings,
    },
    /// A bridge of the host's, by a tap device made for it.
    Bridge {
        /// Its name.
        name: String,
        /// What the guest's card is set to.
        own: Settings,
    },
}

/// Whom the guest reaches on the network `user`, beyond or short of what is usual
/// ([`user::Policy`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Services on this computer's loopback.
    pub host: HostAccess,
    /// What is true of whom no rule speaks of.
    pub default: Verdict,
    /// The first that matches counts. At most [`MOST_RULES`].
    pub rules: Vec<Rule>,
}

/// What a guest's card is set to, without asking anybody. With no address, the card is left to the
/// guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Addresses, and the length of their network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Where everything else is.
    pub gateways: Vec<IpAddr>,
    /// Who knows names.
    pub name_servers: Vec<IpAddr>,
    /// Where short names are looked for.
    pub search: Vec<String>,
}

/// A network that a machine can be plugged into.
#[derive(Debug)]
pub(crate) struct Plug {
    /// Its rules change while the machine runs, and nothing else of it.
    network: Mutex<Network>,
    /// What the machine gets; nothing without a network.
    pub(crate) cable: Option<Cable>,
    /// Steers the network `user`.
    pub(crate) control: Option<Control>,
    /// What is on the cable.
    instruments: Option<Instruments>,
    pub(crate) settings: Settings,
    /// Named networks that the machine is on besides, in the order in which it came to them.
    joined: Mutex<Vec<Joined>>,
    /// Who is on them.
    rosters: Rosters,
    /// What the machine is called there, once it is on one.
    own: Mutex<Option<String>>,
    /// How much of the world they leave the machine.
    reach: Mutex<NetMode>,
}

impl Network {
    /// Opens the network for a machine. `identity` is 32 hexadecimal digits that no other machine
    /// has: the card's address comes of it. `hostname` is what the network calls the machine, and
    /// `reach` how much of the world it may show it.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub(crate) fn plug(
        &self,
        identity: &str,
        hostname: Option<&str>,
        publish: &[Publish],
        reach: NetMode,
    ) -> Result<Plug, NetworkError> {
        let mac = mac(identity);
        let (mut control, mut settings) = (None, Settings::default());
        let laid = match self {
            Self::None => None,
            Self::User(rules) => {
                let (hostname, policy) = (hostname.map(str::to_owned), rules.policy(reach));
                let config = user::Config { hostname, policy, ..user::Config::new(mac) };
                settings = Settings::of(&config);
                let (network, handle) = UserNetwork::new(config).map_err(NetworkError::Host)?;
                control = Some(handle);
                Some(Instruments::on(network))
            }
            Self::Tap { name, own } => {
                settings = own.clone();
                Some(Instruments::on(Tap::open(name, mac)?))
            }
            Self::Bridge { name, own } => {
                settings = own.clone();
                Some(Instruments::on(Tap::on_bridge(name, mac)?))
            }
        };
        let (cable, instruments) = laid.unzip();
        let network = Mutex::new(self.clone());
        let (joined, rosters, reach) = (Mutex::default(), Rosters::default(), Mutex::new(reach));
        let own = Mutex::default();
        let plug =
            Plug { network, cable, control, instruments, settings, joined, rosters, own, reach };
        for publish in publish {
            plug.control()?.add(publish.forward().clone())?;
        }
        Ok(plug)
    }
}

impl Network {
    /// The cable of a machine that nobody knows more of.
    ///
    /// # Errors
    /// [`Error::Network`].
    pub fn cable(&self) -> Result<Option<Cable>, Error> {
        Ok(self.plug(&new_id(), None, &[], NetMode::Nat)?.cable)
    }
}

impl Plug {
    /// The machine's cables, in the order of its cards.
    pub(crate) fn cables(&self) -> Vec<Cable> {
        let joined = self.joined();
        self.cable.iter().chain(joined.iter().map(|joined| &joined.cable)).cloned().collect()
    }

    /// The handle on a network that forwards.
    pub(crate) fn control(&self) -> Result<&Control, NetworkError> {
        let none = || NetworkError::NoForwards(self.network().to_string());
        self.control.as_ref().ok_or_else(none)
    }

    /// What is on the cable.
    ///
    /// # Errors
    /// [`NetworkError::NoCard`].
    pub(crate) fn instruments(&self) -> Result<&Instruments, NetworkError> {
        self.instruments.as_ref().ok_or(NetworkError::NoCard)
    }

    /// What the card is plugged into, with the rules that hold now.
    pub(crate) fn network(&self) -> Network {
        self.network.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has other rules hold from now on: what they do not let through is cut off.
    ///
    /// # Errors
    /// [`NetworkError::NoRules`].
    pub(crate) fn rule(&self, rules: &Rules) -> Result<(), NetworkError> {
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *network, &self.control) {
            (Network::User(now), Some(control)) => {
                control.set_policy(rules.policy(self.reach()));
                now.clone_from(rules);
                Ok(())
            }
            (other, _) => Err(NetworkError::NoRules(other.to_string())),
        }
    }

    /// Words for the kernel's command line, with which the guest's agent sets the card up.
    pub(crate) fn words(&self) -> String {
        let joined = self.joined();
        if self.cable.is_none() && joined.is_empty() {
            return String::new();
        }
        // Cards have the same names in every guest.
        let mut words = format!("net.ifnames=0{}", self.settings.words());
        joined.iter().for_each(|joined| words.push_str(&joined.words()));
        words
    }
}

/// A card's address as people write it.
pub(crate) fn written(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Why a guest was not let through, as a part of a sentence.
pub(crate) fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::Closed => "nothing opens such an address",
        Refusal::Guarded => {
            "link-local addresses and clouds' metadata are opened by a rule that names them"
        }
        Refusal::Own => "this computer's own addresses are opened by a rule that names them",
        Refusal::Host => "this computer's services are opened by --net user,host=PORT",
        Refusal::Rule => "its rules say so",
    }
}

/// A card's address: locally administered, to one card (IEEE 802, section 8.4), and otherwise a
/// machine's identity's first bytes.
fn mac(identity: &str) -> Mac {
    let mut mac = [0x02; 6];
    for (byte, digits) in mac.iter_mut().zip(identity.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0x02);
    }
    mac[0] = (mac[0] & 0xfc) | 0x02;
    mac
}

impl Settings {
    /// What the user-mode network would tell by DHCP and router advertisements.
    fn of(config: &user::Config) -> Self {
        let user::Addresses { subnet, gateway, guest, host: _, v6 } = config.addresses;
        let mut settings = Self {
            addresses: vec![(guest.into(), subnet.prefix())],
            gateways: vec![gateway.into()],
            name_servers: vec![gateway.into()],
            search: std::iter::once(user::DOMAIN.to_owned())
                .chain(config.search.iter().cloned())
                .collect(),
        };
        if let Some(v6) = v6 {
            settings.addresses.push((v6.guest.into(), 64));
            settings.gateways.push(v6.link_local.into());
        }
        settings
    }

    fn words(&self) -> String {
        let Self { addresses, gateways, name_servers, search } = self;
        let addresses: Vec<_> =
            addresses.iter().map(|(a, prefix)| format!("{a}/{prefix}")).collect();
        let text = |list: &[IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        [
            ("riad.address", addresses),
            ("riad.gateway", text(gateways)),
            ("riad.dns", text(name_servers)),
            ("riad.search", search.clone()),
        ]
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| format!(" {name}={}", values.join(",")))
        .collect()
    }

    /// Reads `KEY=VALUE` as users write it.
    fn read(&mut self, word: &str) -> Result<(), String> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let address = |text: &str| {
            text.parse::<IpAddr>()
                .map_err(|_| format!("'{text}' is no address, as in {key}=192.0.2.1"))
        };
        match key {
            "ip" => {
                let wrong = || {
                    format!("'{value}' is no address with a prefix length, as in ip=192.0.2.5/24")
                };
                let (text, prefix) = value.split_once('/').ok_or_else(wrong)?;
                let ip: IpAddr = text.parse().map_err(|_| wrong())?;
                let most = if ip.is_ipv4() { 32 } else { 128 };
                let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most);
                self.addresses.push((ip, prefix.ok_or_else(wrong)?));
            }
            "gateway" => self.gateways.push(address(value)?),
            "dns" => self.name_servers.push(address(value)?),
            _ => return Err(format!("'{word}' is none of ip=, gateway= and dns=")),
        }
        Ok(())
    }

    /// As users write them, each after a comma.
    fn written(&self) -> String {
        let mut text = String::new();
        for (address, prefix) in &self.addresses {
            text.push_str(&format!(",ip={address}/{prefix}"));
        }
        for (key, list) in [("gateway", &self.gateways), ("dns", &self.name_servers)] {
            for address in list {
                text.push_str(&format!(",{key}={address}"));
            }
        }
        text
    }
}

impl Rules {
    /// Reads `KEY=VALUE` as users write it.
    fn read(&mut self, word: &str) -> Result<(), String> {
        match word.split_once('=') {
            Some(("host", "all")) => self.host = HostAccess::All,
            Some(("host", port)) => {
                let port = port.parse().map_err(|_| {
                    format!("'{port}' is no port of this computer's: write host=8080, or host=all")
                })?;
                match &mut self.host {
                    HostAccess::Ports(ports) => ports.push(port),
                    HostAccess::All => {}
                    HostAccess::Refused => self.host = HostAccess::Ports(vec![port]),
                }
            }
            Some(("default", verdict)) => self.default = verdict.parse()?,
            Some(("allow" | "deny", _)) if self.rules.len() >= MOST_RULES => {
                return Err(NetworkError::TooManyRules.to_string());
            }
            Some((verdict @ ("allow" | "deny"), whom)) => {
                let rule = format!("{verdict} {whom}").parse();
                self.rules.push(rule.map_err(|error: PolicyError| error.to_string())?);
            }
            _ => return Err(format!("'{word}' is none of host=, default=, allow= and deny=")),
        }
        Ok(())
    }

    /// As users write them, each after a comma.
    fn written(&self) -> String {
        let mut text = String::new();
        match &self.host {
            HostAccess::Refused => {}
            HostAccess::All => text.push_str(",host=all"),
            HostAccess::Ports(ports) => {
                ports.iter().for_each(|port| text.push_str(&format!(",host={port}")));
            }
        }
        if self.default != Verdict::default() {
            text.push_str(&format!(",default={}", self.default));
        }
        for rule in &self.rules {
            text.push_str(&format!(",{}", rule.to_string().replacen(' ', "=", 1)));
        }
        text
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::User(Rules::default())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(rules) => f.pad(&format!("user{}", rules.written())),
            Self::None => f.pad("none"),
            Self::Tap { name, own } => f.pad(&format!("tap={name}{}", own.written())),
            Self::Bridge { name, own } => f.pad(&format!("bridge={name}{}", own.written())),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let first = words.next().unwrap_or_default();
        if first == "user" {
            let mut rules = Rules::default();
            words.try_for_each(|word| rules.read(word))?;
            return Ok(Self::User(rules));
        }
        let mut own = Settings::default();
        words.try_for_each(|word| own.read(word))?;
        match first.split_once('=') {
            Some(("tap", name)) if !name.is_empty() => Ok(Self::Tap { name: name.to_owned(), own }),
            Some(("bridge", name)) if !name.is_empty() => {
                Ok(Self::Bridge { name: name.to_owned(), own })
            }
            _ if first != "none" => Err(format!(
                "'{first}' is no network: expected user, none, tap=NAME or bridge=NAME"
            )),
            _ if own != Settings::default() => {
                Err("the network 'none' has no addresses: leave out what follows it".to_owned())
            }
            _ => Ok(Self::None),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
#[path = "network_test.rs"]
mod tests;
