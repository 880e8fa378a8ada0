//! Who the guest may reach.
//!
//! Rules are looked at in order, and the first that speaks of a destination decides; if none does, the
//! policy's default. Some destinations are guarded, and no general rule opens them:
//!
//! * addresses that mean this host and nobody else (loopback, unspecified), multicast, broadcast and
//!   reserved ones are never reached by their own address: nothing opens them;
//! * cloud metadata and other link-local addresses, and the host's own addresses, are reached only if a
//!   rule names them: `allow 169.254.169.254`, not `allow 0.0.0.0/0`;
//! * the host's loopback is reached through the network's address for the host
//!   (`host.riad.internal`), if [`Policy::host`] says so.
//!
//! A rule with a name speaks of the addresses that the network's own name server gave the guest for
//! that name; so a policy that allows names only lets the guest ask for those names only.

mod parse;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

pub use parse::PolicyError;

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// It goes through.
    #[default]
    Allow,
    /// It does not, and the guest is told.
    Deny,
}

/// What a packet is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A TCP connection.
    Tcp,
    /// Datagrams.
    Udp,
    /// Echo requests.
    Icmp,
}

/// Whom a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Everybody.
    Any,
    /// Addresses with a common prefix.
    Cidr(Cidr),
    /// The addresses of a name; with `*.` before it, of all names below it. Lower case.
    Name(String),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub verdict: Verdict,
    /// Of whom.
    pub target: Target,
    /// Of which protocol; `None`: of all.
    pub protocol: Option<Protocol>,
    /// Of which ports; `None`: of all, and of protocols without ports.
    pub ports: Option<RangeInclusive<u16>>,
}

/// Which of the services on the host's loopback the guest may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostAccess {
    /// None.
    #[default]
    Refused,
    /// Those on these ports.
    Ports(Vec<u16>),
    /// All.
    All,
}

/// Who may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What is true unless a rule says otherwise.
    pub default: Verdict,
    /// Rules, the first that matches counts. At most [`MOST_RULES`]; those beyond are not looked at.
    pub rules: Vec<Rule>,
    /// The host's loopback.
    pub host: HostAccess,
}

/// Rules that are looked at.
pub const MOST_RULES: usize = 1024;

impl Default for Policy {
    /// The world, and neither the host nor what is guarded.
    fn default() -> Self {
        Self { default: Verdict::Allow, rules: Vec::new(), host: HostAccess::Refused }
    }
}

/// Addresses whose first bits are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Addresses that have `prefix` bits in common with `address`; `None` when it has fewer.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Self { address, prefix })
    }

    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(a: u16, b: u16, h: u16, prefix: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, h)), prefix }
    }

    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let apart = own.to_bits() ^ other.to_bits();
                apart.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let apart = own.to_bits() ^ other.to_bits();
                apart.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// Whether all addresses of `other` are among them.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.prefix >= self.prefix && self.contains(other.address)
    }
}

/// What nobody reaches by its own address.
const CLOSED: [Cidr; 9] = [
    Cidr::v4(0, 0, 0, 0, 8),
    Cidr::v4(127, 0, 0, 0, 8),
    Cidr::v4(224, 0, 0, 0, 4),
    Cidr::v4(240, 0, 0, 0, 4),
    Cidr::v6(0, 0, 0, 128),
    Cidr::v6(0, 0, 1, 128),
    Cidr::v6(0xff00, 0, 0, 8),
    // Discarded (RFC 6666), and the deprecated site-local addresses.
    Cidr::v6(0x100, 0, 0, 64),
    Cidr::v6(0xfec0, 0, 0, 10),
];

/// What a rule must name: where clouds tell a machine its secrets, and what is on the host's own link.
const GUARDED: [Cidr; 8] = [
    // 169.254.169.254 on most clouds, 169.254.170.2 for containers' credentials.
    Cidr::v4(169, 254, 0, 0, 16),
    // Alibaba, Azure, Oracle.
    Cidr::v4(100, 100, 100, 200, 32),
    Cidr::v4(168, 63, 129, 16, 32),
    Cidr::v4(192, 0, 0, 192, 32),
    // Amazon's, Google's.
    Cidr::v6(0xfd00, 0xec2, 0x254, 128),
    Cidr::v6(0xfd00, 0xec2, 0x253, 128),
    Cidr::v6(0xfd20, 0xce, 0x254, 128),
    Cidr::v6(0xfe80, 0, 0, 10),
];

/// Why something is refused: for the event that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing opens such an address.
    Closed,
    /// A cloud's metadata or a link-local address, which no rule names.
    Guarded,
    /// One of the host's own addresses, which no rule names.
    Own,
    /// The host's loopback, which was not asked for.
    Host,
    /// A rule, or the default.
    Rule,
}

/// A destination, as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Where to.
    pub address: IpAddr,
    /// How.
    pub protocol: Protocol,
    /// The port; 0 where there is none.
    pub port: u16,
}

impl Rule {
    /// Whether it speaks of that protocol and port.
    fn fits(&self, to: &Destination) -> bool {
        self.protocol.is_none_or(|protocol| protocol == to.protocol)
            && self.ports.as_ref().is_none_or(|ports| ports.contains(&to.port))
    }

    /// Whether it speaks of that name.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        let Target::Name(pattern) = &self.target else { return false };
        match pattern.strip_prefix("*.") {
            Some(parent) => {
                name.strip_suffix(parent).is_some_and(|below| below.ends_with('.') && below != ".")
            }
            None => name == pattern,
        }
    }
}

impl Policy {
    /// Whether the guest may reach a destination in the world. `own` says whether the address is one
    /// of the host's, and `named` whether the guest was given it for the name of that rule.
    ///
    /// # Errors
    /// With the reason, when it may not.
    pub fn judge(
        &self,
        to: &Destination,
        mut own: impl FnMut(IpAddr) -> bool,
        named: impl Fn(usize) -> bool,
    ) -> Result<(), Refusal> {
        // An IPv6 address that stands for an IPv4 one leads where that one leads.
        let addresses = [Some(to.address), embedded(to.address).map(IpAddr::V4)];
        let any = |list: &[Cidr]| {
            list.iter().any(|cidr| addresses.iter().flatten().any(|ip| cidr.contains(*ip)))
        };
        if any(&CLOSED) {
            return Err(Refusal::Closed);
        }
        let guard = if any(&GUARDED) {
            Some(Refusal::Guarded)
        } else if addresses.iter().flatten().any(|ip| own(*ip)) {
            Some(Refusal::Own)
        } else {
            None
        };
        let rules = self.rules.iter().take(MOST_RULES).enumerate();
        for (index, rule) in rules.filter(|(_, rule)| rule.fits(to)) {
            let speaks = match &rule.target {
                Target::Any => true,
                Target::Cidr(cidr) => cidr.contains(to.address),
                Target::Name(_) => named(index),
            };
            // What is guarded is opened by who names it, and closed by anybody.
            let opens = match (guard, &rule.target) {
                (None, _) => true,
                (Some(Refusal::Guarded), Target::Cidr(cidr)) => {
                    GUARDED.iter().any(|guarded| guarded.covers(cidr))
                }
                (Some(_), Target::Cidr(cidr)) => {
                    cidr.prefix == if cidr.address.is_ipv4() { 32 } else { 128 }
                }
                (Some(_), _) => false,
            };
            match rule.verdict {
                Verdict::Allow if speaks && opens => return Ok(()),
                Verdict::Deny if speaks => return Err(Refusal::Rule),
                _ => {}
            }
        }
        match (guard, self.default) {
            (Some(refusal), _) => Err(refusal),
            (None, Verdict::Allow) => Ok(()),
            (None, Verdict::Deny) => Err(Refusal::Rule),
        }
    }

    /// Whether the guest may use a port on the host's loopback.
    #[must_use]
    pub fn host_allows(&self, port: u16) -> bool {
        match &self.host {
            HostAccess::Refused => false,
            HostAccess::Ports(ports) => ports.contains(&port),
            HostAccess::All => true,
        }
    }

    /// Whether the guest may ask for a name.
    #[must_use]
    pub fn may_ask(&self, name: &str) -> bool {
        let rules = self.rules.iter().take(MOST_RULES);
        // Who denies a port of a name does not deny the name.
        let of_all = |rule: &&Rule| {
            rule.verdict == Verdict::Allow || (rule.ports.is_none() && rule.protocol.is_none())
        };
        let verdict = rules.filter(of_all).find(|rule| rule.names(name)).map(|rule| rule.verdict);
        verdict.unwrap_or(self.default) == Verdict::Allow
    }

    /// The rules that speak of a name.
    pub fn rules_of(&self, name: &str) -> impl Iterator<Item = usize> {
        let rules = self.rules.iter().take(MOST_RULES).enumerate();
        rules.filter(move |(_, rule)| rule.names(name)).map(|(index, _)| index)
    }
}

/// The IPv4 address inside of an IPv6 address: mapped, translated (RFC 6052) or tunnelled (RFC 3056).
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, g, h] = address.segments();
    let from = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff | 0] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(from(g, h)),
        [0x2002, ..] => Some(from(b, c)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "policy_test.rs"]
mod tests;
