//! What a user-mode network is made from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::policy::Policy;
use crate::link::{MAX_MTU, Mac};

/// The network's own card: locally administered, the same in every network, as no two are on one wire.
pub const GATEWAY_MAC: Mac = [0x52, 0x49, 0x41, 0x44, 0x00, 0x01];
/// The network's domain: machines are names below it. `internal` is reserved for such (ICANN, 2024).
pub const DOMAIN: &str = "riad.internal";
/// Addresses of the network, unless said otherwise: few other networks are there.
const SUBNET: Subnet = Subnet { network: Ipv4Addr::new(10, 213, 47, 0), prefix: 24 };
/// A unique local prefix (RFC 4193), 64 bits.
const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd72, 0x6961, 0x6400, 0x2f, 0, 0, 0, 0);
/// The gateway's own address on the link.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// An IPv4 network: the gateway is its first address, the guest its second, the host its last but one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The network that `address` is in, with a prefix of 8 to 29 bits. `None` for other prefixes
    /// and for addresses that nobody can have.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = (8..=29).contains(&prefix).then(|| u32::MAX << (32 - prefix))?;
        let network = Ipv4Addr::from(address.to_bits() & mask);
        let taken = network.is_loopback()
            || network.is_multicast()
            || network.octets()[0] == 0
            || network.octets()[0] >= 240;
        (!taken).then_some(Self { network, prefix })
    }

    /// Its first address, which is nobody's.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// Bits that all addresses have in common.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The addresses' mask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX << (32 - self.prefix))
    }

    /// Everybody's address.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.network.to_bits() | !self.mask().to_bits())
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask().to_bits() == self.network.to_bits()
    }

    fn at(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network.to_bits() | number)
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}/{}", self.network, self.prefix))
    }
}

impl std::str::FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no network of machines: write an address and 8 to 29 bits, as in 10.77.0.0/24"
            )
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let subnet = prefix.parse().ok().and_then(|prefix| Self::new(address, prefix));
        let subnet = subnet.ok_or_else(wrong)?;
        match subnet.network == address {
            true => Ok(subnet),
            false => Err(format!("'{text}' is one address in a network: that network is {subnet}")),
        }
    }
}

/// Who has which address on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The IPv4 network.
    pub subnet: Subnet,
    /// Router, DHCP and DNS server.
    pub gateway: Ipv4Addr,
    /// What the guest is given.
    pub guest: Ipv4Addr,
    /// The host's services, where the policy allows them.
    pub host: Ipv4Addr,
    /// The same for IPv6, where there is any.
    pub v6: Option<Addresses6>,
}

/// IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses6 {
    /// The network's prefix: 64 bits.
    pub prefix: Ipv6Addr,
    /// The router's address on the link.
    pub link_local: Ipv6Addr,
    /// The router's address in the network: the DNS server.
    pub gateway: Ipv6Addr,
    /// The guest's, if it is told; one that configures itself finds another in the prefix.
    pub guest: Ipv6Addr,
    /// The host's services.
    pub host: Ipv6Addr,
}

impl Addresses6 {
    fn new(prefix: Ipv6Addr) -> Self {
        let network = prefix.to_bits() >> 64 << 64;
        let at = |number: u128| Ipv6Addr::from(network | number);
        Self { prefix: at(0), link_local: LINK_LOCAL, gateway: at(1), guest: at(2), host: at(0xfe) }
    }

    /// Whether an address is in the network.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        (address.to_bits() ^ self.prefix.to_bits()) >> 64 == 0
    }
}

/// How much a guest can make the network keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections, those that are being made included.
    pub tcp_flows: usize,
    /// TCP connections that are being made: a guest that scans has no more of them.
    pub tcp_connecting: usize,
    /// Bytes in the buffers of all TCP connections together. It bounds what is kept while one side
    /// does not read; connections share it, and each has at least [`LEAST_BUFFER`] each way.
    pub tcp_bytes: usize,
    /// UDP flows: pairs of a port of the guest's and one outside.
    pub udp_flows: usize,
    /// Addresses that the guest pings at a time.
    pub pings: usize,
    /// Questions to name servers that wait for an answer.
    pub queries: usize,
}

/// The least bytes that a TCP connection can keep each way.
pub const LEAST_BUFFER: usize = 8 << 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_flows: 4096,
            tcp_connecting: 512,
            tcp_bytes: 128 << 20,
            udp_flows: 1024,
            pings: 64,
            queries: 256,
        }
    }
}

/// What a network is like.
#[derive(Debug, Clone)]
pub struct Config {
    /// The guest's card.
    pub mac: Mac,
    /// The largest IP packet, bytes.
    pub mtu: u16,
    /// What the machine is called: one label, told to it and answered for.
    pub hostname: Option<String>,
    /// Addresses.
    pub addresses: Addresses,
    /// Domains that the guest searches after the network's own.
    pub search: Vec<String>,
    /// More names and their addresses.
    pub names: Vec<(String, IpAddr)>,
    /// Where names are asked for; `None`: where the host asks.
    pub resolvers: Option<Vec<SocketAddr>>,
    /// Who may be reached.
    pub policy: Policy,
    /// How much is kept.
    pub limits: Limits,
}

impl Config {
    /// The network that machines have unless they ask for another.
    #[must_use]
    pub fn new(mac: Mac) -> Self {
        Self {
            mac,
            mtu: MAX_MTU,
            hostname: None,
            addresses: Addresses::new(SUBNET, Some(PREFIX)),
            search: Vec::new(),
            names: Vec::new(),
            resolvers: None,
            policy: Policy::default(),
            limits: Limits::default(),
        }
    }
}

impl Addresses {
    /// The addresses of a network. `prefix` is the first 64 bits of its IPv6 addresses.
    #[must_use]
    pub fn new(subnet: Subnet, prefix: Option<Ipv6Addr>) -> Self {
        let last = subnet.broadcast().to_bits() & !subnet.mask().to_bits();
        Self {
            subnet,
            gateway: subnet.at(1),
            guest: subnet.at(2),
            host: subnet.at(last - 1),
            v6: prefix.map(Addresses6::new),
        }
    }

    /// Whether an address is the network's own: somebody on it, or nobody.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.subnet.contains(address),
            IpAddr::V6(address) => self.v6.is_some_and(|v6| v6.contains(address)),
        }
    }

    /// Whether an address is the gateway's.
    #[must_use]
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.gateway,
            IpAddr::V6(address) => {
                self.v6.is_some_and(|v6| address == v6.gateway || address == v6.link_local)
            }
        }
    }

    /// Whether an address stands for the host.
    #[must_use]
    pub fn is_host(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.host,
            IpAddr::V6(address) => self.v6.is_some_and(|v6| address == v6.host),
        }
    }

    /// Whether a guest may send from an address: any of the network that is not somebody else's.
    #[must_use]
    pub fn may_send(&self, address: IpAddr) -> bool {
        let own = match address {
            IpAddr::V4(v4) => {
                self.subnet.contains(v4)
                    && v4 != self.subnet.broadcast()
                    && v4 != self.subnet.network
            }
            IpAddr::V6(v6) => {
                self.v6.is_some_and(|own| own.contains(v6)) || v6.is_unicast_link_local()
            }
        };
        own && !self.is_gateway(address) && !self.is_host(address)
    }

    /// The guest's addresses, each with its prefix: for who configures the guest without asking a
    /// DHCP server.
    #[must_use]
    pub fn guest_addresses(&self) -> Vec<(IpAddr, u8)> {
        let v4 = (self.guest.into(), self.subnet.prefix());
        let v6 = self.v6.map(|v6| (v6.guest.into(), 64));
        std::iter::once(v4).chain(v6).collect()
    }
}
