//! The user-mode network: a router, a DHCP server and a name server in the VM's own process, and
//! behind them the host's sockets. It needs no rights, and the guest reaches what the host's user does,
//! as far as its [policy](Policy) lets it.
//!
//! Frames of the guest's are read by [`packet`], and each protocol has its room: [`neighbour`] (ARP and
//! neighbour discovery), [`dhcp`], [`dhcp6`], [`icmp`], [`dns`], [`udp`] and [`tcp`]; [`fragments`] puts
//! together what came in pieces, and [`trouble`] says what did not get through. [`forwards`] is the other
//! direction. [`outside`] is all that they know of the host.
//!
//! One thread does it all, the card's: see [`crate::link`]. What other threads want of it goes through
//! [`Control`].
//!
//! Everything is bounded: [`Limits`] says by what, and tables, queues and buffers keep to it. What there
//! is no room for is lost, and counted, as on any network.

mod config;
mod context;
mod control;
mod dhcp;
mod dhcp6;
mod dns;
mod events;
mod forwards;
mod fragments;
mod icmp;
mod names;
mod neighbour;
pub mod outside;
mod packet;
pub mod policy;
mod table;
mod tcp;
mod timers;
mod trouble;
mod udp;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use smoltcp::wire::IpProtocol;

pub use config::{
    Addresses, Addresses6, Config, DOMAIN, GATEWAY_MAC, LEAST_BUFFER, Limits, Subnet,
};
pub use control::{
    Control, Forward, ForwardError, Listen, Listening, MOST_FORWARDS, MOST_NAMES, listen,
};
pub use events::{Counted, Counters, Event};
pub use policy::Policy;

use context::Context;
use control::{Command, Shared};
use dns::{Answer, Asker, Dns};
use events::{Teller, count};
use forwards::Forwards;
use fragments::Fragments;
use icmp::Pings;
use outside::{Outside, Ready, System, Token};
use packet::{ARP, Datagram, Ethernet, IPV4, IPV6, Ip, is_group, is_unicast};
use table::Kind;
use tcp::Tcp;
use trouble::Trouble;
use udp::Udp;

use crate::link::{Accepts, Link, Mac, Offload, SegmentKind};

/// A turn that comes later than it was asked for by so much was held up: the machine was paused. Time
/// stands still for the network too, then; or every connection would have timed out.
const HELD_UP: Duration = Duration::from_secs(3);
/// Readiness that is looked at in one turn.
const EVENTS: usize = 256;

/// A network with one guest on it.
pub struct UserNetwork<O: Outside = System> {
    cx: Context<O>,
    shared: Arc<Shared>,
    tcp: Tcp<O::Socket>,
    udp: Udp<O::Socket>,
    pings: Pings<O::Socket>,
    dns: Dns<O::Socket>,
    forwards: Forwards<O::Socket>,
    fragments: Fragments,
    events: Vec<(Token, Ready)>,
    /// How much the host's time is ahead of the network's.
    behind: Duration,
    advertised: Option<Duration>,
    /// Whose turn it is to be asked first for something for the guest.
    first: usize,
    plugged: bool,
}

impl<O: Outside> fmt::Debug for UserNetwork<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserNetwork").field("config", &self.cx.config).finish_non_exhaustive()
    }
}

impl UserNetwork {
    /// A network in front of the host's own sockets, and a handle on it.
    ///
    /// # Errors
    /// When the host refuses a descriptor.
    pub fn new(config: Config) -> std::io::Result<(Self, Control)> {
        let system = System::new(config.resolvers.clone())?;
        let (mut network, control) = Self::in_front_of(config, system)?;
        // Being told of it does not end with this descriptor, but with the last one of its file.
        let wake = network.shared.wake_fd().try_clone_to_owned()?;
        network.cx.outside.adopt(wake, Kind::Control.only())?;
        Ok((network, control))
    }
}

impl<O: Outside> UserNetwork<O> {
    /// A network in front of something else: for tests and fuzzing. Commands of the control are taken
    /// in the next [`turn`](Link::turn), which nothing but the caller makes happen.
    ///
    /// # Errors
    /// When the host refuses a descriptor.
    pub fn in_front_of(mut config: Config, outside: O) -> std::io::Result<(Self, Control)> {
        config.mtu = config.mtu.clamp(1280, crate::link::MAX_MTU);
        config.names.truncate(MOST_NAMES);
        let limits = config.limits;
        let shared = Arc::new(Shared::new()?);
        let teller = Teller::new(Arc::clone(&shared.told));
        let mut cx = Context::new(config, outside, Arc::clone(&shared.counters), teller);
        let network = Self {
            tcp: Tcp::new(&mut cx),
            udp: Udp::new(limits.udp_flows),
            pings: Pings::new(limits.pings),
            dns: Dns::new(limits.queries),
            forwards: Forwards::new(MOST_FORWARDS),
            fragments: Fragments::default(),
            events: Vec::with_capacity(EVENTS),
            behind: Duration::ZERO,
            advertised: None,
            first: 0,
            plugged: true,
            shared: Arc::clone(&shared),
            cx,
        };
        Ok((network, Control::new(shared)))
    }

    /// What it is in front of.
    pub fn outside(&mut self) -> &mut O {
        &mut self.cx.outside
    }

    /// Takes a frame of the guest's. `None` when it made no sense.
    fn take(&mut self, offload: &Offload, frame: &[u8]) -> Option<()> {
        let ethernet = Ethernet::parse(frame)?;
        if !is_group(ethernet.from) {
            self.cx.guest_mac = ethernet.from;
        }
        // Somebody else's: there is nobody else.
        (is_group(ethernet.to) || ethernet.to == GATEWAY_MAC).then_some(())?;
        let ip = match ethernet.kind {
            ARP => return neighbour::arp(&mut self.cx, ethernet.payload),
            IPV4 => Ip::parse_v4(ethernet.payload)?,
            IPV6 => {
                self.cx.config.addresses.v6?;
                Ip::parse_v6(ethernet.payload)?
            }
            _ => return None,
        };
        // What the guest's card was to fill in is not there to be looked at, and what came through
        // the guest's memory is as it was.
        let trusted = offload.checksum.is_some() || offload.checksum_valid;
        if ip.fragment.is_none() {
            return self.take_ip(offload, &ip, trusted);
        }
        self.cx.config.addresses.may_send(ip.from).then_some(())?;
        let whole = self.fragments.put(&ip, self.cx.now);
        let Some(whole) = whole else { return Some(()) };
        let ip = match ethernet.kind {
            IPV4 => Ip::parse_v4(&whole)?,
            _ => Ip::parse_v6(&whole)?,
        };
        self.take_ip(&Offload::default(), &ip, false)
    }

    fn take_ip(&mut self, offload: &Offload, ip: &Ip<'_>, trusted: bool) -> Option<()> {
        let cx = &mut self.cx;
        if ip.protocol == IpProtocol::Udp {
            let datagram = Datagram::parse(ip, trusted)?;
            // Who asks for an address has none.
            if dhcp::is_for(&datagram) {
                return dhcp::serve(cx, &datagram);
            }
            if dhcp6::is_for(&datagram) {
                return dhcp6::serve(cx, &datagram);
            }
        }
        // So has who looks whether its address is taken.
        let icmp6 = ip.protocol == IpProtocol::Icmpv6;
        if icmp6 && ip.payload.first().is_some_and(|kind| (133..=137).contains(kind)) {
            return neighbour::discovery(cx, ip);
        }
        if !is_unicast(ip.to) {
            // Groups: nobody else is in them.
            return Some(());
        }
        cx.config.addresses.may_send(ip.from).then_some(())?;
        let here = cx.config.addresses.contains(ip.to);
        let ours = cx.config.addresses.is_gateway(ip.to) || cx.config.addresses.is_host(ip.to);
        if here && !ours {
            trouble::tell(cx, ip, Trouble::Host);
            return Some(());
        }
        if !ours && ip.hop_limit <= 1 {
            trouble::tell(cx, ip, Trouble::Expired);
            return Some(());
        }
        match ip.protocol {
            IpProtocol::Tcp => {
                self.tcp.send(cx, ip, trusted)?;
                self.ask_from_streams();
            }
            IpProtocol::Udp => {
                let datagram = Datagram::parse(ip, trusted)?;
                if datagram.to.port() == 53 && cx.config.addresses.is_gateway(datagram.to.ip()) {
                    let asker = Asker::Datagram { guest: datagram.from, ours: datagram.to };
                    let answer = self.dns.ask(cx, asker, datagram.payload);
                    self.tell(answer);
                } else {
                    let cut = offload.segments.filter(|cut| cut.kind == SegmentKind::Udp);
                    let size = cut.map(|cut| cut.size);
                    self.udp.send(cx, &self.forwards, ip, &datagram, size);
                }
            }
            IpProtocol::Icmp | IpProtocol::Icmpv6 => self.pings.send(cx, ip)?,
            _ => trouble::tell(cx, ip, Trouble::Protocol),
        }
        Some(())
    }

    /// Asks what came in over connections to the name server.
    fn ask_from_streams(&mut self) {
        while let Some((token, question)) = self.tcp.next_question() {
            let answer = self.dns.ask(&mut self.cx, Asker::Stream(token), &question);
            self.tell(answer);
        }
    }

    /// Gives an answer to whoever asked.
    fn tell(&mut self, answer: Option<Answer>) {
        let Some(Answer { asker, message }) = answer else { return };
        match asker {
            Asker::Datagram { .. } if message.is_empty() => {}
            Asker::Datagram { guest, ours } => self.cx.reply_datagram(ours, guest, &message),
            Asker::Stream(token) => self.tcp.answer(&mut self.cx, token, &message),
        }
    }

    /// Does what other threads asked for.
    fn obey(&mut self) {
        for command in self.shared.take() {
            match command {
                Command::Add { id, forward, socket } => {
                    let Some(token) = self.forwards.next() else { continue };
                    match self.cx.outside.adopt(socket, token) {
                        Ok(socket) => self.forwards.add(id, forward, socket),
                        Err(error) => tracing::warn!(id, %error, "a forward does not listen"),
                    }
                }
                Command::Remove { id } => {
                    if let Some(token) = self.forwards.remove(&mut self.cx, id) {
                        self.udp.forget_forward(&mut self.cx, token);
                    }
                }
                Command::Policy(policy) => {
                    self.cx.config.policy = policy;
                    self.cx.names.forget();
                    self.tcp.apply_policy(&mut self.cx);
                    self.udp.apply_policy(&mut self.cx);
                    self.pings.apply_policy(&mut self.cx);
                }
                Command::Names(names) => self.cx.config.names = names,
                Command::Plug(plugged) => self.plugged = plugged,
            }
        }
    }

    /// Something outside can be done.
    fn ready(&mut self, token: Token, ready: Ready) {
        let cx = &mut self.cx;
        match Kind::of(token) {
            Some(Kind::Tcp) => {
                self.tcp.ready(cx, token, ready);
                self.ask_from_streams();
            }
            Some(Kind::Udp) => self.udp.ready(token, ready),
            Some(Kind::Ping) => self.pings.ready(token, ready),
            Some(Kind::Query) => {
                let answer = self.dns.ready(cx, token, ready);
                self.tell(answer);
            }
            Some(Kind::Forward) => self.forwards.ready(token, ready),
            // Its commands are taken in every turn.
            Some(Kind::Control) | None => {}
        }
    }

    /// Somebody's time has come.
    fn due(&mut self, token: Token) {
        let cx = &mut self.cx;
        match Kind::of(token) {
            Some(Kind::Tcp) => self.tcp.due(cx, token),
            Some(Kind::Udp) => self.udp.due(cx, token),
            Some(Kind::Ping) => self.pings.due(cx, token),
            Some(Kind::Query) => {
                let answer = self.dns.due(cx, token);
                self.tell(answer);
            }
            Some(Kind::Forward) => self.forwards.due(token),
            Some(Kind::Control) | None => {}
        }
    }

    /// The next frame for the guest, from whoever's turn it is.
    fn next(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)> {
        if let Some((offload, reply)) = self.cx.take_reply() {
            frame.get_mut(..reply.len())?.copy_from_slice(&reply);
            return Some((offload, reply.len()));
        }
        const SOURCES: usize = 4;
        for step in 0..SOURCES {
            let source = (self.first + step) % SOURCES;
            let found = match source {
                0 => self.tcp.receive(&mut self.cx, frame),
                1 => self.udp.receive(&mut self.cx, frame),
                2 => self.forwards.receive(&mut self.cx, &mut self.udp, frame),
                _ => self.pings.receive(&mut self.cx, frame),
            };
            if found.is_some() {
                self.first = (source + 1) % SOURCES;
                return found;
            }
        }
        None
    }
}

impl<O: Outside> Link for UserNetwork<O> {
    fn send(&mut self, offload: &Offload, frame: &[u8]) {
        let counters = &self.cx.counters;
        count(&counters.sent_frames, 1);
        count(&counters.sent_bytes, frame.len() as u64);
        if !self.plugged {
            count(&counters.dropped, 1);
        } else if self.take(offload, frame).is_none() {
            count(&self.cx.counters.malformed, 1);
        }
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)> {
        if !self.plugged {
            return None;
        }
        let (offload, len) = self.next(frame)?;
        count(&self.cx.counters.received_frames, 1);
        count(&self.cx.counters.received_bytes, len as u64);
        Some((offload, len))
    }

    fn accepts(&mut self, accepts: Accepts) {
        self.cx.accepts = accepts;
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.cx.outside.descriptor()
    }

    fn deadline(&self) -> Option<Duration> {
        let next = [self.cx.timers.next(), self.advertised].into_iter().flatten().min();
        next.map(|at| at + self.behind)
    }

    fn turn(&mut self, now: Duration) {
        if let Some(deadline) = self.deadline()
            && now > deadline + HELD_UP
        {
            self.behind += now - deadline;
        }
        // Time does not go backwards.
        self.cx.now = now.saturating_sub(self.behind).max(self.cx.now);
        self.obey();
        let mut events = std::mem::take(&mut self.events);
        self.cx.outside.ready(&mut events);
        for (token, ready) in events.drain(..) {
            self.ready(token, ready);
        }
        self.events = events;
        // Bounded: whoever is due is not due again at once.
        for _ in 0..EVENTS {
            let Some(token) = self.cx.timers.take_due(self.cx.now) else { break };
            self.due(token);
        }
        self.forwards.accept(&mut self.cx, &mut self.tcp);
        if self.cx.config.addresses.v6.is_some()
            && self.advertised.is_none_or(|at| at <= self.cx.now)
        {
            self.advertised = Some(self.cx.now + neighbour::ADVERTISE);
            neighbour::advertise(&mut self.cx);
        }
    }

    fn mtu(&self) -> u16 {
        self.cx.config.mtu
    }

    fn mac(&self) -> Mac {
        self.cx.config.mac
    }

    fn up(&self) -> bool {
        self.plugged
    }
}

#[cfg(test)]
#[path = "user_test/mod.rs"]
mod tests;
