//! Echo requests: answered for the network's own addresses, and passed on to others by sockets for
//! which no rights are needed (icmp(7), `ping_group_range`), where the host has them for everybody.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol};

use super::context::Context;
use super::events::count;
use super::outside::{Errno, Outside, Ready, Token};
use super::packet::{ETHERNET, Ip, ip_header, write_ip};
use super::policy::Protocol;
use super::table::{Kind, Table};
use super::trouble::{self, Trouble};
use crate::link::Offload;

/// How long a pinged address is listened to after the last request.
const LIFE: Duration = Duration::from_secs(30);
/// Bytes of an echo's header.
const HEADER: usize = 8;

/// Who pings whom, and by which identifier.
type Key = (IpAddr, IpAddr, u16);

#[derive(Debug)]
struct Ping<S> {
    key: Key,
    socket: S,
    queued: bool,
    last: Duration,
    timer: Option<Duration>,
}

/// Addresses that are being pinged.
#[derive(Debug)]
pub(super) struct Pings<S> {
    pings: Table<Ping<S>>,
    by_key: HashMap<Key, Token>,
    readable: VecDeque<Token>,
}

impl<S: Send + std::fmt::Debug> Pings<S> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            pings: Table::new(Kind::Ping, most),
            by_key: HashMap::new(),
            readable: VecDeque::new(),
        }
    }

    /// Takes an ICMP message that is no discovery of neighbours. `None` when it made no sense.
    pub(super) fn send<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        ip: &Ip<'_>,
    ) -> Option<()> {
        let (request, id) = match (ip.from, ip.to) {
            (IpAddr::V4(_), IpAddr::V4(_)) if ip.protocol == IpProtocol::Icmp => {
                let packet = Icmpv4Packet::new_checked(ip.payload).ok()?;
                packet.verify_checksum().then_some(())?;
                let echo = packet.msg_type() == Icmpv4Message::EchoRequest;
                (echo, echo.then(|| packet.echo_ident()))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) if ip.protocol == IpProtocol::Icmpv6 => {
                let packet = Icmpv6Packet::new_checked(ip.payload).ok()?;
                packet.verify_checksum(&from, &to).then_some(())?;
                let echo = packet.msg_type() == Icmpv6Message::EchoRequest;
                (echo, echo.then(|| packet.echo_ident()))
            }
            _ => return None,
        };
        // Errors of the guest's concern flows that end by themselves.
        let Some(id) = id.filter(|_| request && ip.payload.len() >= HEADER) else {
            return Some(());
        };
        let addresses = &cx.config.addresses;
        if addresses.is_gateway(ip.to) || addresses.is_host(ip.to) {
            let mut reply = ip.payload.to_vec();
            finish(&mut reply, ip.to, ip.from, id);
            cx.reply_ip((ip.to, ip.from), ip.protocol, 64, &reply);
            return Some(());
        }
        let key = (ip.from, ip.to, id);
        let token = match self.by_key.get(&key) {
            Some(token) => *token,
            None => match self.open(cx, key) {
                Ok(token) => token,
                Err(trouble) => {
                    if let Some(trouble) = trouble {
                        trouble::tell(cx, ip, trouble);
                    }
                    return Some(());
                }
            },
        };
        let ping = self.pings.get_mut(token)?;
        ping.last = cx.now;
        if let Err(error) = cx.outside.write(&ping.socket, ip.payload)
            && error != Errno::AGAIN
        {
            trouble::tell(cx, ip, Trouble::of(error));
        }
        Some(())
    }

    fn open<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        key: Key,
    ) -> Result<Token, Option<Trouble>> {
        let to = cx.route((key.1, 0).into(), Protocol::Icmp);
        let to = to.map_err(|_| Some(Trouble::Prohibited))?;
        let token = self.pings.next().ok_or(None)?;
        let socket = cx.outside.pings(to.ip(), token).map_err(|error| Some(Trouble::of(error)))?;
        let ping = Ping { key, socket, queued: false, last: cx.now, timer: None };
        let token = self.pings.insert(ping).map_err(|_| None)?;
        self.by_key.insert(key, token);
        if let Some(ping) = self.pings.get_mut(token) {
            cx.timers.set(token, &mut ping.timer, Some(cx.now + LIFE));
        }
        Ok(token)
    }

    /// A socket has something.
    pub(super) fn ready(&mut self, token: Token, ready: Ready) {
        let Some(ping) = self.pings.get_mut(token) else { return };
        if ready.read && !ping.queued {
            ping.queued = true;
            self.readable.push_back(token);
        }
    }

    /// The time of one has come: it ends, unless there was a request since.
    pub(super) fn due<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, token: Token) {
        let Some(ping) = self.pings.get_mut(token) else { return };
        ping.timer = None;
        let end = ping.last + LIFE;
        if end > cx.now {
            cx.timers.set(token, &mut ping.timer, Some(end));
        } else if let Some(ping) = self.pings.remove(token) {
            self.by_key.remove(&ping.key);
        }
    }

    /// The next reply for the guest.
    pub(super) fn receive<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        frame: &mut [u8],
    ) -> Option<(Offload, usize)> {
        // Each round finds a frame, or uses up something that the host has.
        loop {
            let token = self.readable.pop_front()?;
            let Some(ping) = self.pings.get_mut(token) else { continue };
            let (guest, peer, id) = ping.key;
            let place = ETHERNET + ip_header(guest);
            match cx.outside.read(&ping.socket, frame.get_mut(place..)?) {
                Ok(len) => {
                    self.readable.push_back(token);
                    let payload = &mut frame[place..place + len];
                    let total = place - ETHERNET + len;
                    // Only what the kernel says it reads: replies, whole.
                    if len < HEADER || total > usize::from(cx.config.mtu) {
                        count(&cx.counters.dropped, 1);
                        continue;
                    }
                    finish(payload, peer, guest, id);
                    let protocol =
                        if guest.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
                    write_ip(frame, cx.macs(), (peer, guest), protocol, 64, total);
                    return Some((Offload::default(), ETHERNET + total));
                }
                Err(Errno::AGAIN) => ping.queued = false,
                Err(error) => {
                    self.readable.push_back(token);
                    let (from, to) = ((guest, 0).into(), (peer, 0).into());
                    let protocol =
                        if guest.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
                    let mut quote = trouble::quote_of(from, to, protocol);
                    let header = ip_header(guest);
                    quote[header] = if guest.is_ipv4() { 8 } else { 128 };
                    quote[header + 4..header + 6].copy_from_slice(&id.to_be_bytes());
                    trouble::tell_quoted(cx, guest, &quote, Trouble::of(error));
                    let (offload, reply) = cx.take_reply()?;
                    frame.get_mut(..reply.len())?.copy_from_slice(&reply);
                    return Some((offload, reply.len()));
                }
            }
        }
    }

    /// Cuts off what the policy does not let through any more.
    pub(super) fn apply_policy<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>) {
        for token in self.pings.tokens().collect::<Vec<_>>() {
            let Some(ping) = self.pings.get(token) else { continue };
            if cx.judge((ping.key.1, 0).into(), Protocol::Icmp).is_err()
                && let Some(mut ping) = self.pings.remove(token)
            {
                cx.timers.set(token, &mut ping.timer, None);
                self.by_key.remove(&ping.key);
            }
        }
    }
}

/// Makes a message an echo reply, by the guest's identifier.
fn finish(message: &mut [u8], from: IpAddr, to: IpAddr, id: u16) {
    match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = Icmpv6Packet::new_unchecked(message);
            packet.set_msg_type(Icmpv6Message::EchoReply);
            packet.set_msg_code(0);
            packet.set_echo_ident(id);
            packet.fill_checksum(&from, &to);
        }
        _ => {
            let mut packet = Icmpv4Packet::new_unchecked(message);
            packet.set_msg_type(Icmpv4Message::EchoReply);
            packet.set_msg_code(0);
            packet.set_echo_ident(id);
            packet.fill_checksum();
        }
    }
}
