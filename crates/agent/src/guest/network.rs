//! The network cards, set up as the host says on the kernel's command line, or in a request when they come
//! later: at once, with no program of the image's and nothing to wait for. Without those words a card is left to the image.
//!
//! The kernel is told over rtnetlink (rtnetlink(7)); name servers are told in a file in memory, which
//! `/etc/resolv.conf` is a link to in images of Riad's, or in that file itself, unless somebody made it
//! their own; and to systemd-resolved, where there is one.

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use riad_agent::protocol::CardRequest;
use rustix::fs::{Access, AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use super::journal::{Journal, Level};

/// Where `/etc/resolv.conf` leads in images that Riad builds: writing to a disk takes longer than all the
/// rest.
const IN_MEMORY: &str = "/run/riad/resolv.conf";
/// The first line of a `resolv.conf` that is Riad's to write.
const OURS: &str = "# Written by Riad";
/// What images of the first versions have in its place.
const PLACEHOLDER: &str = "# Written when a network is attached.";

/// What the command line says of the network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NetworkOptions {
    /// `riad.address=`: the machine's addresses, each with its prefix length.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
    /// `riad.gateway=`: where everything else is.
    pub(crate) gateways: Vec<IpAddr>,
    /// `riad.dns=`: who knows names.
    pub(crate) name_servers: Vec<IpAddr>,
    /// `riad.search=`: where short names are looked for.
    pub(crate) search: Vec<String>,
    /// `riad.card=`, once for each: further cards.
    pub(crate) cards: Vec<CardOptions>,
}

/// A card that leads to somebody, but not to everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CardOptions {
    /// Its hardware address, as `/sys/class/net/*/address` has it.
    pub(crate) mac: String,
    /// The machine's addresses there, each with its prefix length.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
}

/// Cards that are set up; a machine has no more.
const MOST_CARDS: usize = 16;

impl NetworkOptions {
    /// Reads a word of the command line, if it is of the network. What makes no sense is left out.
    pub(crate) fn read(&mut self, name: &str, value: &str) {
        let parts = value.split(',').filter(|part| !part.is_empty());
        match name {
            "riad.address" => self.addresses = parts.filter_map(address).collect(),
            "riad.gateway" => self.gateways = parts.filter_map(|part| part.parse().ok()).collect(),
            "riad.dns" => self.name_servers = parts.filter_map(|part| part.parse().ok()).collect(),
            "riad.search" => self.search = parts.map(str::to_owned).collect(),
            "riad.card" if self.cards.len() < MOST_CARDS => {
                let mut parts = parts;
                let Some(mac) = parts.next() else { return };
                let mac = mac.to_ascii_lowercase();
                self.cards
                    .push(CardOptions { mac, addresses: parts.filter_map(address).collect() });
            }
            _ => {}
        }
    }
}

fn address(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= most).then_some((address, prefix))
}

/// Where the kernel lists network cards. It is open, and so it is there also while `/sys` is moved to the
/// new root.
#[derive(Debug)]
pub(crate) struct Cards(rustix::io::Result<OwnedFd>);

impl Cards {
    /// Opens it; `/sys` should be mounted.
    pub(crate) fn open() -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self(rustix::fs::open("/sys/class/net", flags, Mode::empty()))
    }

    /// The machine's network cards, by their names: those that are devices, and not the kernel's own
    /// invention.
    fn names(&self) -> Option<Vec<String>> {
        let list = self.0.as_ref().ok()?;
        let is_device = |name: &String| accessat(list, format!("{name}/device")).is_ok();
        let mut names: Vec<String> = Dir::read_from(list)
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| !name.starts_with('.') && is_device(name))
            .collect();
        names.sort();
        Some(names)
    }

    /// The first of them.
    fn first(&self) -> Option<String> {
        self.names()?.into_iter().next()
    }

    /// The one with that hardware address.
    fn with_address(&self, mac: &str) -> Option<String> {
        let has = |name: &String| self.read(name, "address").is_ok_and(|text| text == mac);
        self.names()?.into_iter().find(has)
    }

    /// A card's number.
    fn index(&self, card: &str) -> io::Result<u32> {
        self.read(card, "ifindex")?.parse().map_err(io::Error::other)
    }

    /// What the kernel says of a card, a short word.
    fn read(&self, card: &str, what: &str) -> io::Result<String> {
        let list = self.0.as_ref().map_err(|error| io::Error::from(*error))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(list, format!("{card}/{what}"), flags, Mode::empty())?;
        let mut text = String::new();
        fs::File::from(file).take(32).read_to_string(&mut text)?;
        Ok(text.trim().to_owned())
    }
}

fn accessat(list: &OwnedFd, path: String) -> rustix::io::Result<()> {
    rustix::fs::accessat(list, path, Access::EXISTS, AtFlags::empty())
}

/// Sets the cards up. What fails is told; the machine goes on without.
pub(crate) fn set_up(cards: &Cards, options: &NetworkOptions, journal: &Journal) {
    let NetworkOptions { addresses, gateways, name_servers: _, search: _, cards: more } = options;
    let set_up = |card: Option<String>, addresses: &[_], gateways: &[_]| {
        let Some(card) = card else {
            journal.say(Level::Error, "there is no network card to give an address to");
            return;
        };
        let done = cards.index(&card).and_then(|index| configure(index, addresses, gateways));
        if let Err(error) = done {
            journal
                .say(Level::Error, &format!("the network card {card} cannot be set up: {error}"));
        }
    };
    if !addresses.is_empty() {
        set_up(cards.first(), addresses, gateways);
    }
    for CardOptions { mac, addresses } in more {
        set_up(cards.with_address(mac), addresses, &[]);
    }
}

/// Sets up a card that came while the machine runs. Gives its name; nothing when the kernel has none with
/// that address yet.
///
/// # Errors
/// A sentence.
pub(crate) fn set_up_one(card: &CardRequest) -> Result<Option<String>, String> {
    let CardRequest { mac, addresses: texts } = card;
    let read = |text: &String| address(text).ok_or_else(|| format!("{text:?} is no address"));
    let addresses = texts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let cards = Cards::open();
    let Some(name) = cards.with_address(&mac.to_ascii_lowercase()) else { return Ok(None) };
    match cards.index(&name).and_then(|index| configure(index, &addresses, &[])) {
        Ok(()) => Ok(Some(name)),
        Err(error) => Err(format!("the network card {name} cannot be set up: {error}")),
    }
}

/// Tells who knows names, in the machine's own root.
pub(crate) fn tell_resolvers(options: &NetworkOptions, journal: &Journal) {
    if options.addresses.is_empty() {
        return;
    }
    if let Err(error) = write_resolvers(options) {
        journal.say(Level::Error, &format!("the name servers cannot be told: {error}"));
    }
}

/// Message types and constants (linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h).
mod rt {
    pub(super) const NEWLINK: u16 = 16;
    pub(super) const NEWADDR: u16 = 20;
    pub(super) const NEWROUTE: u16 = 24;
    pub(super) const ERROR: u16 = 2;
    pub(super) const REQUEST_ACK: u16 = 1 | 4;
    pub(super) const CREATE_REPLACE: u16 = 0x400 | 0x100;
    pub(super) const IFF_UP: u32 = 1;
    pub(super) const IFA_ADDRESS: u16 = 1;
    pub(super) const IFA_LOCAL: u16 = 2;
    pub(super) const IFA_FLAGS: u16 = 8;
    /// Nobody else can have it: it need not be asked for first.
    pub(super) const IFA_F_NODAD: u32 = 2;
    pub(super) const RTA_OIF: u16 = 4;
    pub(super) const RTA_GATEWAY: u16 = 5;
    pub(super) const RT_TABLE_MAIN: u8 = 254;
    pub(super) const RTPROT_STATIC: u8 = 4;
    pub(super) const RTN_UNICAST: u8 = 1;
}

fn configure(index: u32, addresses: &[(IpAddr, u8)], gateways: &[IpAddr]) -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let step = |what: &str, message: Message| {
        message.send(&socket).map_err(|error| io::Error::other(format!("{what}: {error}")))
    };
    step("turning it on", link_up(index))?;
    for &(address, prefix) in addresses {
        step(&format!("address {address}/{prefix}"), new_address(index, address, prefix))?;
    }
    for &gateway in gateways {
        step(&format!("gateway {gateway}"), default_route(index, gateway))?;
    }
    Ok(())
}

fn link_up(index: u32) -> Message {
    let mut message = Message::new(rt::NEWLINK, 0);
    // struct ifinfomsg: family, padding, type, index, flags, change mask.
    message.put(&[0, 0, 0, 0]);
    message.put(&index.to_ne_bytes());
    message.put(&rt::IFF_UP.to_ne_bytes());
    message.put(&rt::IFF_UP.to_ne_bytes());
    message
}

fn new_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    let mut message = Message::new(rt::NEWADDR, rt::CREATE_REPLACE);
    // struct ifaddrmsg: family, prefix length, flags, scope (everywhere), index.
    message.put(&[family(address), prefix, 0, 0]);
    message.put(&index.to_ne_bytes());
    let bytes = octets(address);
    message.attribute(rt::IFA_LOCAL, &bytes);
    message.attribute(rt::IFA_ADDRESS, &bytes);
    if address.is_ipv6() {
        message.attribute(rt::IFA_FLAGS, &rt::IFA_F_NODAD.to_ne_bytes());
    }
    message
}

fn default_route(index: u32, gateway: IpAddr) -> Message {
    let mut message = Message::new(rt::NEWROUTE, rt::CREATE_REPLACE);
    // struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, and
    // flags.
    message.put(&[family(gateway), 0, 0, 0]);
    message.put(&[rt::RT_TABLE_MAIN, rt::RTPROT_STATIC, 0, rt::RTN_UNICAST]);
    message.put(&0u32.to_ne_bytes());
    message.attribute(rt::RTA_GATEWAY, &octets(gateway));
    message.attribute(rt::RTA_OIF, &index.to_ne_bytes());
    message
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    family.as_raw() as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A message to the kernel: `struct nlmsghdr`, a structure, and attributes (netlink(7)).
struct Message(Vec<u8>);

impl Message {
    const HEADER: usize = 16;

    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((rt::REQUEST_ACK | flags).to_ne_bytes());
        // Sequence number and sender, of which there is one each.
        bytes.extend([0; 8]);
        Self(bytes)
    }

    /// Adds a part whose length is a multiple of 4.
    fn put(&mut self, part: &[u8]) {
        self.0.extend(part);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Sends it, and waits for the kernel's word.
    fn send(mut self, socket: &OwnedFd) -> io::Result<()> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        send(socket, &self.0, SendFlags::empty())?;
        let mut answer = [0; 1024];
        let (_, len) = recv(socket, answer.as_mut_slice(), RecvFlags::empty())?;
        // An error message, in which zero stands for success.
        let answer = answer.get(..len).unwrap_or_default();
        let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        let code = answer.get(Self::HEADER..Self::HEADER + 4).and_then(|code| code.try_into().ok());
        match (kind, code.map(i32::from_ne_bytes)) {
            (Some(rt::ERROR), Some(0)) => Ok(()),
            (Some(rt::ERROR), Some(code)) => {
                Err(Errno::from_raw_os_error(code.wrapping_neg()).into())
            }
            _ => Err(io::Error::other("the kernel's answer makes no sense")),
        }
    }
}

fn write_resolvers(options: &NetworkOptions) -> io::Result<()> {
    if options.name_servers.is_empty() {
        return Ok(());
    }
    let path = Path::new("/etc/resolv.conf");
    match fs::read_link(path) {
        Ok(target) if target == Path::new(IN_MEMORY) => {
            fs::create_dir_all("/run/riad")?;
            fs::write(IN_MEMORY, resolv_conf(options))?;
        }
        // Somebody else's to fill.
        Ok(_) => {}
        Err(_) => {
            let old = fs::read_to_string(path).unwrap_or_default();
            let new = resolv_conf(options);
            if is_ours(&old) && new != old {
                fs::write(path, new)?;
            }
        }
    }
    // Read by systemd-resolved, if it is there (resolved.conf(5)).
    if Path::new("/usr/lib/systemd/systemd-resolved").exists() {
        fs::create_dir_all("/run/systemd/resolved.conf.d")?;
        fs::write("/run/systemd/resolved.conf.d/riad.conf", resolved_conf(options))?;
    }
    Ok(())
}

/// Whether a `resolv.conf` is nobody's, or was written here.
fn is_ours(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    text.trim().is_empty() || first.starts_with(OURS) || text.trim() == PLACEHOLDER
}

fn resolv_conf(options: &NetworkOptions) -> String {
    let mut text = format!("{OURS}; without this line the file is left as it is.\n");
    for server in &options.name_servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.search.is_empty() {
        text.push_str(&format!("search {}\n", options.search.join(" ")));
    }
    text
}

fn resolved_conf(options: &NetworkOptions) -> String {
    let servers: Vec<String> = options.name_servers.iter().map(ToString::to_string).collect();
    let domains = options.search.join(" ");
    format!("[Resolve]\nDNS={}\nDomains={domains}\n", servers.join(" "))
}

#[cfg(test)]
#[path = "network_test.rs"]
mod tests;
