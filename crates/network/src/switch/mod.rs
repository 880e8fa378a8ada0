//! A network that several machines are on: the switch between their cards, a process of its own.
//!
//! Members come over a Unix socket in the network's directory, and each message on it is one thing
//! ([`message`]): a frame, whole, with what is still to be done to it before it, so that a large one
//! crosses at the cost of one. [`Switch`] moves frames between members; [`Member`] is a machine's end,
//! a [`Link`](crate::Link); [`Client`] is how commands hold a switch, ask it, and cut members apart.
//!
//! The switch learns nothing: it is told who a member is when it joins, before any of its guest runs,
//! and takes from it only what that member can say ([`admit`]). So its tables are as large as the
//! network, a guest that speaks for another is not heard, and a frame for nobody goes nowhere. A member
//! that does not take its frames loses them, and nobody else does.
//!
//! Whoever is connected keeps the switch going; when the last is gone, [`Switch::serve`] returns.

mod admit;
mod client;
mod member;
mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

pub use client::{Client, Cut, Listed, Standing, SwitchError, listen};
pub use member::{Member, Told};

use crate::header;
use crate::link::Mac;
use message::{HEAD, Hello, MOST, kind};

/// The socket's name in the network's directory.
pub const SOCKET: &str = "switch.sock";
/// Members of one network.
pub const MOST_MEMBERS: usize = 128;
/// Connections of members, and of commands.
const MOST_PORTS: usize = 256;
/// Pairs of members that are kept apart at a time: their list fits into one message.
const MOST_CUTS: usize = 512;
/// Messages taken from one before the next has its turn.
const BATCH: usize = 32;
/// What epoll says of the listener.
const LISTENER: u64 = 0;

/// The address of the card of the member with this address: local, to one card, and like no other on
/// its network.
#[must_use]
pub fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x72, a, b, c, d]
}

/// A connection.
#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    station: Option<Station>,
    /// It is yet to be told who is on the network.
    stale: bool,
}

/// A member.
#[derive(Debug)]
struct Station {
    name: String,
    address: Ipv4Addr,
    mac: Mac,
    counts: Counts,
}

/// What went through a member's port. Frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// From it.
    pub sent: u64,
    /// To it.
    pub received: u64,
    /// To it, and it did not take them.
    pub lost: u64,
    /// From it, and not its to send.
    pub refused: u64,
}

/// The switch.
#[derive(Debug)]
pub struct Switch {
    listener: OwnedFd,
    epoll: OwnedFd,
    ports: BTreeMap<u64, Port>,
    /// Members' ports, by the addresses of their cards.
    stations: BTreeMap<Mac, u64>,
    /// Pairs of names, the lesser first.
    cuts: BTreeSet<(String, String)>,
    next: u64,
    buffer: Box<[u8]>,
}

/// What to do with a port after a message.
enum Then {
    Stay,
    Close,
}

impl Switch {
    /// A switch behind a socket that [listens](listen).
    ///
    /// # Errors
    /// When the host refuses descriptors.
    pub fn new(listener: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Self {
            listener,
            epoll,
            ports: BTreeMap::new(),
            stations: BTreeMap::new(),
            cuts: BTreeSet::new(),
            next: LISTENER + 1,
            buffer: vec![0; MOST].into_boxed_slice(),
        })
    }

    /// Moves frames until nobody is connected any more.
    ///
    /// # Errors
    /// When the host's kernel does not say what is ready.
    pub fn serve(&mut self) -> io::Result<()> {
        while !self.is_idle() {
            self.turn(None)?;
        }
        Ok(())
    }

    /// Whether nobody is connected, those included who wait to be taken.
    pub fn is_idle(&mut self) -> bool {
        if self.ports.is_empty() {
            self.accept();
        }
        self.ports.is_empty()
    }

    /// Waits until something is ready, for at most `limit`, and does what is to be done.
    ///
    /// # Errors
    /// As for [`serve`](Self::serve).
    pub fn turn(&mut self, limit: Option<rustix::event::Timespec>) -> io::Result<()> {
        let mut events = Vec::<epoll::Event>::with_capacity(64);
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, spare, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let token = event.data.u64();
            if token == LISTENER {
                self.accept();
                continue;
            }
            if { event.flags }.contains(epoll::EventFlags::OUT) {
                self.tell(token);
            }
            self.take(token);
        }
        Ok(())
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Whoever comes when there is no room is sent away.
        while let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
            let token = self.next;
            if self.ports.len() >= MOST_PORTS || self.watch(&socket, token, false).is_err() {
                continue;
            }
            self.next += 1;
            self.ports.insert(token, Port { socket, station: None, stale: false });
        }
    }

    fn watch(&self, socket: &OwnedFd, token: u64, write: bool) -> rustix::io::Result<()> {
        let out = if write { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        let (data, flags) = (epoll::EventData::new_u64(token), epoll::EventFlags::IN | out);
        match self.ports.contains_key(&token) {
            true => epoll::modify(&self.epoll, socket, data, flags),
            false => epoll::add(&self.epoll, socket, data, flags),
        }
    }

    /// Takes what a port has to say, a batch of it.
    fn take(&mut self, token: u64) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..BATCH {
            let Some(port) = self.ports.get(&token) else { break };
            let then = match rustix::net::recv(&port.socket, &mut *buffer, RecvFlags::TRUNC) {
                Ok((_, 0)) => Then::Close,
                Ok((_, len)) => match buffer.get_mut(..len) {
                    Some(message) => self.handle(token, message),
                    // Longer than any message of ours.
                    None => self.refuse(token),
                },
                Err(Errno::INTR) => Then::Stay,
                Err(Errno::AGAIN) => break,
                Err(_) => Then::Close,
            };
            if let Then::Close = then {
                self.close(token);
            }
        }
        self.buffer = buffer;
    }

    /// A message that a member has no right to, or that makes no sense.
    fn refuse(&mut self, token: u64) -> Then {
        match self.ports.get_mut(&token).and_then(|port| port.station.as_mut()) {
            Some(station) => {
                station.counts.refused += 1;
                Then::Stay
            }
            None => Then::Close,
        }
    }

    fn handle(&mut self, token: u64, message: &[u8]) -> Then {
        match self.ports.get(&token).map(|port| port.station.as_ref()) {
            Some(Some(station)) => match allows(message, station.address) {
                true => self.forward(token, message),
                // Guests try it on every card: that says nothing of them.
                false if is_ipv6(message) => Then::Stay,
                false => self.refuse(token),
            },
            Some(None) => self.hello(token, message),
            None => Then::Stay,
        }
    }

    /// Passes a member's frame on to whom it is for.
    fn forward(&mut self, token: u64, message: &[u8]) -> Then {
        let Some(to) = message.get(HEAD..HEAD + 6).and_then(|mac| Mac::try_from(mac).ok()) else {
            return self.refuse(token);
        };
        let Some(Port { station: Some(station), .. }) = self.ports.get_mut(&token) else {
            return Then::Stay;
        };
        station.counts.sent += 1;
        // Seldom is anybody kept apart.
        let from = (!self.cuts.is_empty()).then(|| station.name.clone());
        let group = to[0] & 1 != 0;
        let one = self.stations.get(&to).copied().filter(|_| !group);
        let all: Vec<u64> = match group {
            true => self.stations.values().copied().filter(|other| *other != token).collect(),
            false => one.into_iter().filter(|other| *other != token).collect(),
        };
        for other in all {
            let Some(Port { socket, station: Some(station), .. }) = self.ports.get_mut(&other)
            else {
                continue;
            };
            if from.as_ref().is_some_and(|from| self.cuts.contains(&pair(from, &station.name))) {
                continue;
            }
            match rustix::net::send(&*socket, message, SendFlags::NOSIGNAL) {
                Ok(_) => station.counts.received += 1,
                // It does not take what it has, or is gone, which it will be heard of.
                Err(_) => station.counts.lost += 1,
            }
        }
        Then::Stay
    }

    /// Somebody says what they come for.
    fn hello(&mut self, token: u64, message: &[u8]) -> Then {
        let answer = match Hello::parse(message) {
            Some(Hello::Hold) => String::new(),
            Some(Hello::Join { name, address }) => match self.join(token, &name, address) {
                Ok(()) => String::new(),
                Err(why) => return self.answer(token, &format!("no\n{why}")),
            },
            Some(Hello::List) => self.list(),
            Some(Hello::Cut(one, other)) => {
                if self.cuts.len() >= MOST_CUTS {
                    return self
                        .answer(token, "no\ntoo many members are cut apart: heal them first");
                }
                self.cuts.insert(pair(&one, &other));
                String::new()
            }
            Some(Hello::Heal) => {
                self.cuts.clear();
                String::new()
            }
            None => return Then::Close,
        };
        let then = self.answer(token, &format!("ok\n{answer}"));
        if self.ports.get(&token).is_some_and(|port| port.station.is_some()) {
            self.changed();
        }
        then
    }

    fn answer(&mut self, token: u64, text: &str) -> Then {
        let Some(port) = self.ports.get(&token) else { return Then::Stay };
        // A socket that is new has room.
        match rustix::net::send(&port.socket, text.as_bytes(), SendFlags::NOSIGNAL) {
            Ok(_) => Then::Stay,
            Err(_) => Then::Close,
        }
    }

    fn join(&mut self, token: u64, name: &str, address: Ipv4Addr) -> Result<(), String> {
        let mac = mac_of(address);
        let of_name = self.members().find(|(_, station)| station.name == name);
        // A machine's new process, while the end of its last one has not been heard of.
        let old = of_name.map(|(token, _)| *token);
        if let Some(holder) = self.stations.get(&mac)
            && Some(*holder) != old
            && let Some(Port { station: Some(station), .. }) = self.ports.get(holder)
        {
            return Err(format!("{address} is {}'s", station.name));
        }
        if old.is_none() && self.stations.len() >= MOST_MEMBERS {
            return Err(format!("the network has {MOST_MEMBERS} members, and takes no more"));
        }
        if let Some(old) = old {
            self.close(old);
        }
        let Some(port) = self.ports.get_mut(&token) else { return Ok(()) };
        let counts = Counts::default();
        port.station = Some(Station { name: name.to_owned(), address, mac, counts });
        self.stations.insert(mac, token);
        Ok(())
    }

    fn members(&self) -> impl Iterator<Item = (&u64, &Station)> {
        self.ports.iter().filter_map(|(token, port)| Some((token, port.station.as_ref()?)))
    }

    fn close(&mut self, token: u64) {
        let Some(port) = self.ports.remove(&token) else { return };
        if let Some(station) = port.station {
            self.stations.remove(&station.mac);
            self.changed();
        }
    }

    /// Who is on the network has changed: all members are told.
    fn changed(&mut self) {
        let members: Vec<u64> = self.stations.values().copied().collect();
        for token in members {
            if let Some(port) = self.ports.get_mut(&token) {
                port.stale = true;
            }
            self.tell(token);
        }
    }

    /// Tells a member who is on the network; when there is no room for that, once there is.
    fn tell(&mut self, token: u64) {
        let members = self.members().map(|(_, station)| (station.name.as_str(), station.address));
        let roster = message::roster(members);
        let Some(port) = self.ports.get_mut(&token).filter(|port| port.stale) else { return };
        let sent = rustix::net::send(&port.socket, &roster, SendFlags::NOSIGNAL);
        port.stale = sent == Err(Errno::AGAIN);
        let stale = port.stale;
        if let Some(port) = self.ports.get(&token) {
            // What cannot be watched is told at the next change.
            let _ = self.watch(&port.socket, token, stale);
        }
    }

    fn list(&self) -> String {
        let mut text = String::new();
        for (_, Station { name, address, mac: _, counts }) in self.members() {
            let Counts { sent, received, lost, refused } = counts;
            text.push_str(&format!("member {name} {address} {sent} {received} {lost} {refused}\n"));
        }
        for (one, other) in &self.cuts {
            text.push_str(&format!("cut {one} {other}\n"));
        }
        text
    }
}

/// Whether a message of the member with this address is a frame that it may send.
#[must_use]
pub fn allows(message: &[u8], address: Ipv4Addr) -> bool {
    let Some((head, frame)) = message.split_at_checked(HEAD) else { return false };
    let (Some((&kind::FRAME, header)), true) = (head.split_first(), frame.len() >= 14) else {
        return false;
    };
    let Ok(header) = <&[u8; header::LEN]>::try_from(header) else { return false };
    header::decode(header, frame.len()).is_some() && admit::admits(frame, mac_of(address), address)
}

/// Whether a message is a frame with IPv6 in it, which is not carried.
fn is_ipv6(message: &[u8]) -> bool {
    message.first() == Some(&kind::FRAME)
        && message.get(HEAD + 12..HEAD + 14) == Some(&[0x86, 0xdd][..])
}

/// Two names in the order in which they are kept.
fn pair(one: &str, other: &str) -> (String, String) {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}

/// A directory by a descriptor: the address of a socket has 108 bytes (unix(7)), and paths are longer.
fn place(directory: &Path) -> io::Result<(OwnedFd, rustix::net::SocketAddrUnix)> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    let address = rustix::net::SocketAddrUnix::new(path)?;
    Ok((directory, address))
}

#[cfg(test)]
#[path = "switch_test.rs"]
mod tests;
