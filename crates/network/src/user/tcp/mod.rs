//! TCP: each connection of the guest's ends here ([`flow`]), in a socket of `smoltcp`'s, and goes on as
//! one of the host's.
//!
//! * A connection is made outside first, and only then is the guest's SYN answered; so what refuses the
//!   connection is what the guest is told, and a port scan costs a few bytes each.
//! * All connections share one interface, and each has a socket set of its own: a packet costs the same
//!   whether there is one connection or thousands.
//! * Segments for the guest are made when it has room for one, straight in its frame, by turns.

mod budget;
mod flow;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smoltcp::iface::{Config as InterfaceConfig, Interface, PollIngressSingleResult};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::context::Context;
use super::events::{Event, count, gauge};
use super::outside::{Errno, Outside, Ready, Token};
use super::packet::{ETHERNET, Ip, finish_segment, ip_header, write_ip};
use super::policy::Protocol;
use super::table::{Kind, Table};
use super::trouble::{self, Trouble};
use crate::link::{Accepts, Offload};
use budget::Budget;
use flow::{Ends, Fate, Open, Peer};

use super::dns::stream::NameStream;

/// How long a connection may take to be made outside; the host's kernel mostly gives up before.
const CONNECT: Duration = Duration::from_secs(130);
/// Bytes of a SYN with its IP header: TCP's options end at 60, IPv4's at 60.
const MOST_SYN: usize = 160;
/// The first of the ports that the gateway uses for those who come in by a forward.
const FIRST_PORT: u16 = 32_768;
/// Bytes of a segment without data.
const REPLY: usize = 128;

/// A time, as `smoltcp` has it.
fn wire_time(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

#[derive(Debug)]
enum Stage<S> {
    /// Being made outside; the guest's SYN waits.
    Connecting { stream: S, syn: Vec<u8> },
    /// Made.
    Open(Box<Open<S>>),
}

#[derive(Debug)]
struct Flow<S> {
    ends: Ends,
    stage: Stage<S>,
    /// It came in by a forward.
    forwarded: bool,
    /// Whether it is in the queue of those that may have something for the guest.
    queued: bool,
    timer: Option<Duration>,
}

/// All connections.
pub(super) struct Tcp<S> {
    flows: Table<Flow<S>>,
    by_ends: HashMap<Ends, Token>,
    ready: VecDeque<Token>,
    interface: Interface,
    budget: Budget,
    connecting: usize,
    most_connecting: usize,
    next_port: u16,
    mtu: usize,
    /// Questions that came in over connections to the name server.
    asked: Vec<(Token, Vec<u8>)>,
}

impl<S: Send + std::fmt::Debug> Tcp<S> {
    pub(super) fn new<O: Outside<Socket = S>>(cx: &mut Context<O>) -> Self {
        let limits = cx.config.limits;
        let mtu = usize::from(cx.config.mtu);
        let mut config = InterfaceConfig::new(HardwareAddress::Ip);
        config.random_seed = cx.outside.random();
        let mut device = wire::Wire { incoming: None, room: &mut [], written: 0, mtu };
        let mut interface = Interface::new(config, &mut device, wire_time(cx.now));
        // Whatever address the guest speaks with is one of ours.
        interface.set_any_ip(true);
        Self {
            flows: Table::new(Kind::Tcp, limits.tcp_flows),
            by_ends: HashMap::new(),
            ready: VecDeque::new(),
            interface,
            budget: Budget::new(limits.tcp_bytes, limits.tcp_flows),
            connecting: 0,
            most_connecting: limits.tcp_connecting,
            next_port: FIRST_PORT,
            mtu,
            asked: Vec::new(),
        }
    }

    /// Takes a segment of the guest's; `trusted` when its checksum need not be looked at. `None` when it
    /// made no sense.
    pub(super) fn send<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        ip: &Ip<'_>,
        trusted: bool,
    ) -> Option<()> {
        let segment = TcpPacket::new_checked(ip.payload).ok()?;
        let (from, to) = (ip.from.into(), ip.to.into());
        (trusted || segment.verify_checksum(&from, &to)).then_some(())?;
        let (guest_port, peer_port) = (segment.src_port(), segment.dst_port());
        (guest_port != 0 && peer_port != 0).then_some(())?;
        let ends = Ends {
            guest: SocketAddr::new(ip.from, guest_port),
            peer: SocketAddr::new(ip.to, peer_port),
        };
        if let Some(token) = self.by_ends.get(&ends).copied() {
            return self.deliver(cx, token, ip, &segment);
        }
        if segment.syn() && !segment.ack() && !segment.rst() {
            self.open(cx, ends, ip);
        } else if !segment.rst() {
            // A connection that is not, or not any more.
            refuse(cx, ip);
        }
        Some(())
    }

    /// A segment for a connection that there is.
    fn deliver<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
        ip: &Ip<'_>,
        segment: &TcpPacket<&[u8]>,
    ) -> Option<()> {
        let flow = self.flows.get_mut(token)?;
        match &mut flow.stage {
            Stage::Connecting { .. } => {
                // The guest asks again, or has given up.
                if segment.rst() {
                    self.close(cx, token);
                }
            }
            Stage::Open(open) => {
                open.expects(segment.fin());
                feed(&mut self.interface, cx, open, ip.whole, self.mtu);
                open.heard(segment.rst());
                self.work(cx, token);
            }
        }
        Some(())
    }

    /// The guest begins a connection.
    fn open<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, ends: Ends, ip: &Ip<'_>) {
        let to = ends.peer;
        if cx.config.addresses.is_gateway(to.ip()) {
            if to.port() != 53 {
                return refuse(cx, ip);
            }
            return match self.insert_open(cx, ends, Peer::Names(NameStream::default()), false) {
                Some(token) => self.establish(cx, token, ip.whole),
                None => count(&cx.counters.dropped, 1),
            };
        }
        let Ok(routed) = cx.route(to, Protocol::Tcp) else {
            // A reset, not ICMP's word for it: Linux hears that only while no connect(2) is at work on
            // the socket, and would ask again a second later.
            return refuse(cx, ip);
        };
        // A guest that is not answered asks again.
        let room = self.connecting < self.most_connecting && ip.whole.len() <= MOST_SYN;
        let Some(token) = self.flows.next().filter(|_| room) else {
            return count(&cx.counters.dropped, 1);
        };
        let stream = match cx.outside.connect(routed, token) {
            Ok(stream) => stream,
            Err(error) => return self.fail(cx, ip, error),
        };
        let stage = Stage::Connecting { stream, syn: ip.whole.to_vec() };
        let flow = Flow { ends, stage, forwarded: false, queued: false, timer: None };
        let Ok(token) = self.flows.insert(flow) else { return };
        self.by_ends.insert(ends, token);
        self.connecting += 1;
        if let Some(flow) = self.flows.get_mut(token) {
            cx.timers.set(token, &mut flow.timer, Some(cx.now + CONNECT));
        }
        self.opened(cx);
    }

    /// A connection could not be made.
    fn fail<O: Outside<Socket = S>>(&self, cx: &mut Context<O>, syn: &Ip<'_>, error: Errno) {
        count(&cx.counters.tcp_failed, 1);
        match error {
            Errno::CONNREFUSED | Errno::CONNRESET => refuse(cx, syn),
            // The host's limits: a guest that is not answered asks again.
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::AGAIN => {}
            error => trouble::tell(cx, syn, Trouble::of(error)),
        }
    }

    fn opened<O: Outside<Socket = S>>(&self, cx: &mut Context<O>) {
        count(&cx.counters.tcp_opened, 1);
        self.measure(cx);
    }

    fn measure<O: Outside<Socket = S>>(&self, cx: &mut Context<O>) {
        gauge(&cx.counters.tcp_now, self.flows.len());
        gauge(&cx.counters.tcp_bytes_now, self.budget.used());
    }

    /// A connection with buffers.
    fn insert_open<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        ends: Ends,
        peer: Peer<S>,
        forwarded: bool,
    ) -> Option<Token> {
        if self.flows.is_full() {
            return None;
        }
        let size = self.budget.take()?;
        let stage = Stage::Open(Box::new(Open::new(peer, size)));
        let flow = Flow { ends, stage, forwarded, queued: false, timer: None };
        let Ok(token) = self.flows.insert(flow) else {
            self.budget.give_back(size);
            return None;
        };
        self.by_ends.insert(ends, token);
        self.opened(cx);
        Some(token)
    }

    /// Answers the guest's SYN.
    fn establish<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, token: Token, syn: &[u8]) {
        let Some(flow) = self.flows.get_mut(token) else { return };
        let peer = flow.ends.peer;
        let Stage::Open(open) = &mut flow.stage else { return };
        if flow::listens(open.socket(), peer).is_err() {
            self.close(cx, token);
            return;
        }
        feed(&mut self.interface, cx, open, syn, self.mtu);
        open.heard(false);
        self.queue(token);
    }

    /// The name that a connection from outside will have, if there is room for one.
    pub(super) fn next(&self, _guest: SocketAddr) -> Option<Token> {
        self.flows.next()
    }

    /// A connection has come in by a forward, under that name: the guest is called.
    pub(super) fn enter<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        guest: SocketAddr,
        stream: S,
    ) {
        let gateway: IpAddr = match (guest, cx.config.addresses.v6) {
            (SocketAddr::V4(_), _) => cx.config.addresses.gateway.into(),
            (SocketAddr::V6(_), Some(v6)) => v6.gateway.into(),
            (SocketAddr::V6(_), None) => return cx.outside.reset(stream),
        };
        let ends = (0..=self.flows.len()).find_map(|_| {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            let ends = Ends { guest, peer: SocketAddr::new(gateway, port) };
            (!self.by_ends.contains_key(&ends)).then_some(ends)
        });
        let Some(ends) = ends else { return cx.outside.reset(stream) };
        let Some(token) = self.insert_open(cx, ends, Peer::Stream(stream), true) else {
            // It was closed with the flow that it did not become.
            return count(&cx.counters.dropped, 1);
        };
        let Some(flow) = self.flows.get_mut(token) else { return };
        let Stage::Open(open) = &mut flow.stage else { return };
        open.calls();
        let (remote, local) = (wire_end(ends.guest), wire_end(ends.peer));
        if open.socket().connect(self.interface.context(), remote, local).is_err() {
            self.close(cx, token);
            return;
        }
        self.queue(token);
    }

    /// A stream of the host's can do something.
    pub(super) fn ready<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
        ready: Ready,
    ) {
        let Some(flow) = self.flows.get_mut(token) else { return };
        match &mut flow.stage {
            Stage::Connecting { .. } if ready.write || ready.error => self.made(cx, token),
            Stage::Connecting { .. } => {}
            Stage::Open(open) => {
                open.readable |= ready.read;
                open.writable |= ready.write;
                if ready.error
                    && let Peer::Stream(stream) = &open.peer
                    && cx.outside.outcome(stream).is_err()
                {
                    open.abort();
                }
                self.work(cx, token);
            }
        }
    }

    /// A connection was made outside, or was not.
    fn made<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, token: Token) {
        let Some(flow) = self.flows.get_mut(token) else { return };
        let Stage::Connecting { stream, .. } = &flow.stage else { return };
        let outcome = cx.outside.outcome(stream);
        let size = if outcome.is_ok() { self.budget.take() } else { None };
        let Some(size) = size else {
            let Some(flow) = self.close(cx, token) else { return };
            if let (Stage::Connecting { syn, .. }, Err(error)) = (&flow.stage, outcome)
                && let Some(syn) = reread(syn)
            {
                self.fail(cx, &syn, error);
            }
            return;
        };
        // The stage is taken apart and put together again: the stream changes rooms.
        let Some(flow) = self.flows.get_mut(token) else { return };
        cx.timers.set(token, &mut flow.timer, None);
        let open = Box::new(Open::new(Peer::Gone, size));
        if let Stage::Connecting { stream, syn } =
            std::mem::replace(&mut flow.stage, Stage::Open(open))
        {
            if let Stage::Open(open) = &mut flow.stage {
                open.peer = Peer::Stream(stream);
            }
            self.connecting -= 1;
            self.measure(cx);
            self.establish(cx, token, &syn);
        }
    }

    /// A connection's time has come.
    pub(super) fn due<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, token: Token) {
        let Some(flow) = self.flows.get_mut(token) else { return };
        flow.timer = None;
        match &flow.stage {
            Stage::Open(_) => self.queue(token),
            Stage::Connecting { .. } => {
                if let Some(Flow { stage: Stage::Connecting { syn, .. }, .. }) =
                    self.close(cx, token)
                    && let Some(syn) = reread(&syn)
                {
                    self.fail(cx, &syn, Errno::TIMEDOUT);
                }
            }
        }
    }

    /// Moves what can be moved, and lets the guest have its part.
    fn work<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, token: Token) {
        let Some(Flow { stage: Stage::Open(open), .. }) = self.flows.get_mut(token) else { return };
        open.pump(cx);
        if let Peer::Names(names) = &mut open.peer {
            self.asked.extend(names.asked().map(|question| (token, question)));
        }
        self.queue(token);
    }

    fn queue(&mut self, token: Token) {
        if let Some(flow) = self.flows.get_mut(token)
            && !flow.queued
        {
            flow.queued = true;
            self.ready.push_back(token);
        }
    }

    /// The next question to the name server that came in over a connection.
    pub(super) fn next_question(&mut self) -> Option<(Token, Vec<u8>)> {
        self.asked.pop()
    }

    /// The name server's answer to a question that came in over a connection.
    pub(super) fn answer<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
        answer: &[u8],
    ) {
        if let Some(Flow { stage: Stage::Open(open), .. }) = self.flows.get_mut(token)
            && let Peer::Names(names) = &mut open.peer
        {
            names.answer(answer);
            self.work(cx, token);
        }
    }

    /// The next segment for the guest.
    pub(super) fn receive<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        frame: &mut [u8],
    ) -> Option<(Offload, usize)> {
        while let Some(token) = self.ready.pop_front() {
            let Some(flow) = self.flows.get_mut(token) else { continue };
            flow.queued = false;
            let Stage::Open(open) = &mut flow.stage else { continue };
            open.pump(cx);
            let mut device = wire::Wire {
                incoming: None,
                room: frame.get_mut(ETHERNET..)?,
                written: 0,
                mtu: self.mtu,
            };
            if !open.lingers() {
                self.interface.poll_egress(wire_time(cx.now), &mut device, &mut open.sockets);
            }
            let written = device.written;
            if written > 0 {
                open.spoke();
                self.queue(token);
                return finish_segment(frame, cx.macs(), written, &cx.accepts);
            }
            match open.fate(cx.now) {
                Fate::Lives => {
                    if let Some(at) = open.due(&mut self.interface, cx.now) {
                        cx.timers.no_later(token, &mut flow.timer, at);
                    }
                }
                Fate::Ended => {
                    self.close(cx, token);
                }
                Fate::Cut => self.cut(cx, token),
            }
        }
        None
    }

    /// A connection was cut off: so is its other side.
    fn cut<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, token: Token) {
        let Some(flow) = self.close(cx, token) else { return };
        count(&cx.counters.tcp_failed, 1);
        if let Stage::Open(open) = flow.stage
            && let Peer::Stream(stream) = open.peer
        {
            cx.outside.reset(stream);
            if flow.forwarded {
                let event = Event::ForwardFailed { to: flow.ends.guest };
                cx.teller.tell_refusal(cx.now, event);
            }
        }
    }

    /// Forgets a connection.
    fn close<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
    ) -> Option<Flow<S>> {
        let mut flow = self.flows.remove(token)?;
        cx.timers.set(token, &mut flow.timer, None);
        self.by_ends.remove(&flow.ends);
        match &flow.stage {
            Stage::Connecting { .. } => self.connecting -= 1,
            Stage::Open(open) => self.budget.give_back(open.size),
        }
        self.measure(cx);
        Some(flow)
    }

    /// Cuts off what the policy does not let through any more.
    pub(super) fn apply_policy<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>) {
        for token in self.flows.tokens().collect::<Vec<_>>() {
            let Some(flow) = self.flows.get_mut(token) else { continue };
            let gateway = cx.config.addresses.is_gateway(flow.ends.peer.ip());
            if flow.forwarded || gateway || cx.judge(flow.ends.peer, Protocol::Tcp).is_ok() {
                continue;
            }
            match &mut flow.stage {
                Stage::Connecting { .. } => {
                    self.close(cx, token);
                }
                Stage::Open(open) => {
                    // The other side is told too.
                    if let Peer::Stream(stream) = std::mem::replace(&mut open.peer, Peer::Gone) {
                        cx.outside.reset(stream);
                    }
                    open.abort();
                    self.queue(token);
                }
            }
        }
    }
}

/// Gives a packet to a connection's end of TCP; what it replies waits for the guest.
fn feed<O: Outside>(
    interface: &mut Interface,
    cx: &mut Context<O>,
    open: &mut Open<O::Socket>,
    packet: &[u8],
    mtu: usize,
) {
    let mut frame = [0; ETHERNET + REPLY];
    let mut device =
        wire::Wire { incoming: Some(packet), room: &mut frame[ETHERNET..], written: 0, mtu };
    let now = wire_time(cx.now);
    let result = interface.poll_ingress_single(now, &mut device, &mut open.sockets);
    let written = device.written;
    if result != PollIngressSingleResult::None && written > 0 {
        let complete = Accepts::default();
        if let Some((offload, len)) = finish_segment(&mut frame, cx.macs(), written, &complete) {
            cx.reply(offload, frame[..len].to_vec());
        }
    }
}

/// The packet that was kept of a SYN.
fn reread(syn: &[u8]) -> Option<Ip<'_>> {
    if syn.first()? >> 4 == 4 { Ip::parse_v4(syn) } else { Ip::parse_v6(syn) }
}

fn wire_end(end: SocketAddr) -> smoltcp::wire::IpEndpoint {
    smoltcp::wire::IpEndpoint::new(end.ip().into(), end.port())
}

/// Refuses a segment: nobody has such a connection (RFC 9293, section 3.10.7.1).
fn refuse<O: Outside>(cx: &mut Context<O>, ip: &Ip<'_>) {
    let Ok(segment) = TcpPacket::new_checked(ip.payload) else { return };
    if !super::packet::is_unicast(ip.to) || !super::packet::is_unicast(ip.from) {
        return;
    }
    let len = segment.payload().len() + usize::from(segment.syn()) + usize::from(segment.fin());
    let (seq_number, ack_number) = if segment.ack() {
        (segment.ack_number(), None)
    } else {
        (TcpSeqNumber(0), Some(segment.seq_number() + len))
    };
    let reply = TcpRepr {
        src_port: segment.dst_port(),
        dst_port: segment.src_port(),
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let header = ip_header(ip.from);
    let len = header + reply.buffer_len();
    let mut frame = vec![0; ETHERNET + len];
    write_ip(&mut frame, cx.macs(), (ip.to, ip.from), IpProtocol::Tcp, 64, len);
    let (from, to) = (ip.to.into(), ip.from.into());
    let mut packet = TcpPacket::new_unchecked(&mut frame[ETHERNET + header..]);
    reply.emit(&mut packet, &from, &to, &smoltcp::phy::ChecksumCapabilities::default());
    cx.reply(Offload::default(), frame);
}
