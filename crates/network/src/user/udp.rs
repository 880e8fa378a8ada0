//! Datagrams: a socket of the host's for each pair of a guest's port and a port outside (RFC 4787).
//!
//! A flow lives as long as something goes through it; when there is no room, the one that would die
//! first makes room. What comes from outside is read when the guest takes it, straight into its frame:
//! until then it waits in the host's socket, whose bounds are the kernel's.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smoltcp::wire::IpProtocol;

use super::context::Context;
use super::events::{count, gauge};
use super::forwards::Forwards;
use super::fragments;
use super::outside::{Errno, Outside, Ready, Token};
use super::packet::{Datagram, ETHERNET, Ip, LONGEST, datagram_payload, write_datagram};
use super::policy::Protocol;
use super::table::{Kind, Table};
use super::trouble::{self, Trouble};
use crate::link::Offload;

/// How long a flow lives that nobody has answered in.
const UNANSWERED: Duration = Duration::from_secs(30);
/// How long one lives that somebody has (RFC 4787, REQ-5: at least two minutes).
const ANSWERED: Duration = Duration::from_secs(180);
/// How long a question to a name server lives: they are many, and answered once.
const NAMES: Duration = Duration::from_secs(15);
/// The first of the ports that the gateway uses for those who come in by a forward.
const FIRST_PORT: u16 = 32_768;

/// The guest's end, and the other.
type Ends = (SocketAddr, SocketAddr);

/// How datagrams of a flow leave.
#[derive(Debug)]
enum Way<S> {
    /// By a socket of its own.
    Own(S),
    /// By the socket of a forward, to whoever came in there.
    Forward { forward: Token, peer: SocketAddr },
}

#[derive(Debug)]
struct Flow<S> {
    ends: Ends,
    way: Way<S>,
    /// Whether it is in the queue of those who have something to read.
    queued: bool,
    life: Duration,
    /// When something last went through.
    last: Duration,
    timer: Option<Duration>,
}

/// All flows.
#[derive(Debug)]
pub(super) struct Udp<S> {
    flows: Table<Flow<S>>,
    by_ends: HashMap<Ends, Token>,
    by_peer: HashMap<(Token, SocketAddr), Token>,
    readable: VecDeque<Token>,
    next_port: u16,
}

impl<S: Send + std::fmt::Debug> Udp<S> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            flows: Table::new(Kind::Udp, most),
            by_ends: HashMap::new(),
            by_peer: HashMap::new(),
            readable: VecDeque::new(),
            next_port: FIRST_PORT,
        }
    }

    /// Sends a datagram of the guest's; as several if it is to be cut into pieces of `size`.
    pub(super) fn send<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        forwards: &Forwards<S>,
        ip: &Ip<'_>,
        datagram: &Datagram<'_>,
        size: Option<u16>,
    ) {
        let ends = (datagram.from, datagram.to);
        let token = match self.by_ends.get(&ends) {
            Some(token) => *token,
            None => match self.open(cx, ends) {
                Ok(token) => token,
                Err(Some(trouble)) => return trouble::tell(cx, ip, trouble),
                Err(None) => return count(&cx.counters.dropped, 1),
            },
        };
        let Some(flow) = self.flows.get_mut(token) else { return };
        flow.last = cx.now;
        let size = size.map_or(datagram.payload.len(), usize::from).max(1);
        // An empty datagram is one too.
        let whole = [datagram.payload];
        let pieces = whole.iter().flat_map(|payload| {
            let empty: Option<&[u8]> = payload.is_empty().then_some(&[]);
            payload.chunks(size).chain(empty)
        });
        for piece in pieces {
            let mut write = || match &flow.way {
                Way::Own(socket) => cx.outside.write(socket, piece),
                Way::Forward { forward, peer } => match forwards.socket(*forward) {
                    Some(socket) => cx.outside.write_to(socket, piece, *peer),
                    None => Err(Errno::NOTCONN),
                },
            };
            // An error that an earlier datagram met is told first, and then forgotten.
            let written = match write() {
                Err(error) if error != Errno::AGAIN => {
                    let again = write();
                    trouble::tell(cx, ip, Trouble::of(error));
                    again
                }
                written => written,
            };
            if written.is_err() {
                count(&cx.counters.dropped, 1);
            }
        }
    }

    /// Opens a flow for a guest's datagram.
    fn open<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        ends: Ends,
    ) -> Result<Token, Option<Trouble>> {
        let to = ends.1;
        if cx.config.addresses.is_gateway(to.ip()) {
            return Err(Some(Trouble::Port));
        }
        let to = cx.route(to, Protocol::Udp).map_err(|_| Some(Trouble::Prohibited))?;
        self.make_room(cx);
        let token = self.flows.next().ok_or(None)?;
        let socket = cx.outside.datagrams(to, token).map_err(|error| match error {
            // The host's limits are not the destination's fault.
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => None,
            error => Some(Trouble::of(error)),
        })?;
        let life = if to.port() == 53 { NAMES } else { UNANSWERED };
        self.insert(cx, ends, Way::Own(socket), life).ok_or(None)
    }

    fn insert<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        ends: Ends,
        way: Way<S>,
        life: Duration,
    ) -> Option<Token> {
        let peer = match &way {
            Way::Own(_) => None,
            Way::Forward { forward, peer } => Some((*forward, *peer)),
        };
        let flow = Flow { ends, way, queued: false, life, last: cx.now, timer: None };
        let token = self.flows.insert(flow).ok()?;
        let flow = self.flows.get_mut(token)?;
        cx.timers.set(token, &mut flow.timer, Some(cx.now + life));
        self.by_ends.insert(ends, token);
        if let Some(peer) = peer {
            self.by_peer.insert(peer, token);
        }
        count(&cx.counters.udp_opened, 1);
        gauge(&cx.counters.udp_now, self.flows.len());
        Some(token)
    }

    /// Makes room for a flow, if there is none.
    fn make_room<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>) {
        if !self.flows.is_full() {
            return;
        }
        let flows = self.flows.tokens().filter_map(|token| {
            let flow = self.flows.get(token)?;
            Some((flow.last + flow.life, token))
        });
        if let Some((_, token)) = flows.min() {
            self.close(cx, token);
        }
    }

    fn close<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, token: Token) {
        let Some(mut flow) = self.flows.remove(token) else { return };
        cx.timers.set(token, &mut flow.timer, None);
        self.by_ends.remove(&flow.ends);
        if let Way::Forward { forward, peer } = flow.way {
            self.by_peer.remove(&(forward, peer));
        }
        gauge(&cx.counters.udp_now, self.flows.len());
    }

    /// A flow's time has come: it ends, unless something went through since.
    pub(super) fn due<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, token: Token) {
        let Some(flow) = self.flows.get_mut(token) else { return };
        flow.timer = None;
        let end = flow.last + flow.life;
        if end > cx.now {
            cx.timers.set(token, &mut flow.timer, Some(end));
        } else {
            self.close(cx, token);
        }
    }

    /// A flow's socket has something.
    pub(super) fn ready(&mut self, token: Token, ready: Ready) {
        let Some(flow) = self.flows.get_mut(token) else { return };
        if ready.read && !flow.queued {
            flow.queued = true;
            self.readable.push_back(token);
        }
    }

    /// The next datagram for the guest.
    pub(super) fn receive<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        frame: &mut [u8],
    ) -> Option<(Offload, usize)> {
        // Each round finds a frame, or one flow fewer.
        loop {
            let token = self.readable.pop_front()?;
            // A flow that is gone is still in the queue.
            let Some(flow) = self.flows.get_mut(token) else { continue };
            let Way::Own(socket) = &flow.way else { continue };
            let (guest, peer) = flow.ends;
            let place = datagram_payload(guest.ip());
            match cx.outside.read(socket, frame.get_mut(place..)?) {
                Ok(len) => {
                    flow.last = cx.now;
                    if flow.life == UNANSWERED {
                        flow.life = ANSWERED;
                    }
                    self.readable.push_back(token);
                    if let Some(done) = deliver(cx, frame, peer, guest, len) {
                        return Some(done);
                    }
                }
                Err(Errno::AGAIN) => flow.queued = false,
                Err(error) => {
                    self.readable.push_back(token);
                    let quote = trouble::quote_of(guest, peer, IpProtocol::Udp);
                    trouble::tell_quoted(cx, guest.ip(), &quote, Trouble::of(error));
                    if let Some((offload, reply)) = cx.take_reply() {
                        frame.get_mut(..reply.len())?.copy_from_slice(&reply);
                        return Some((offload, reply.len()));
                    }
                }
            }
        }
    }

    /// A datagram has come in by a forward: finds the flow of whoever sent it, and says from where it
    /// is to seem to come. `None`: there is no room.
    pub(super) fn enter<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        forward: Token,
        peer: SocketAddr,
        guest: SocketAddr,
    ) -> Option<SocketAddr> {
        if let Some(token) = self.by_peer.get(&(forward, peer)) {
            let flow = self.flows.get_mut(*token)?;
            flow.last = cx.now;
            return Some(flow.ends.1);
        }
        let gateway: IpAddr = match guest {
            SocketAddr::V4(_) => cx.config.addresses.gateway.into(),
            SocketAddr::V6(_) => cx.config.addresses.v6?.gateway.into(),
        };
        self.make_room(cx);
        // There are more ports than flows: one is free.
        for _ in 0..=self.flows.len() {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            let ends = (guest, SocketAddr::new(gateway, port));
            if !self.by_ends.contains_key(&ends) {
                self.insert(cx, ends, Way::Forward { forward, peer }, ANSWERED)?;
                return Some(ends.1);
            }
        }
        None
    }

    /// A forward is gone, and its flows with it.
    pub(super) fn forget_forward<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        gone: Token,
    ) {
        let of_it = self.by_peer.iter().filter(|((forward, _), _)| *forward == gone);
        for token in of_it.map(|(_, token)| *token).collect::<Vec<_>>() {
            self.close(cx, token);
        }
    }

    /// Cuts off what the policy does not let through any more.
    pub(super) fn apply_policy<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>) {
        for token in self.flows.tokens().collect::<Vec<_>>() {
            let Some(flow) = self.flows.get(token) else { continue };
            let to = flow.ends.1;
            if matches!(flow.way, Way::Own(_)) && cx.judge(to, Protocol::Udp).is_err() {
                self.close(cx, token);
            }
        }
    }
}

/// Makes a frame of a datagram that was read to its place in it; or several fragments, of which the
/// first is given, if it is too large for one. `None` when there is no room for those.
pub(super) fn deliver<O: Outside>(
    cx: &mut Context<O>,
    frame: &mut [u8],
    from: SocketAddr,
    to: SocketAddr,
    len: usize,
) -> Option<(Offload, usize)> {
    let place = datagram_payload(to.ip());
    let total = place - ETHERNET + len;
    if total > LONGEST {
        // From a family that has longer ones: the guest's has no room for it.
        count(&cx.counters.dropped, 1);
        return None;
    }
    if total <= usize::from(cx.config.mtu) {
        return Some(write_datagram(frame, cx.macs(), from, to, len, &cx.accepts));
    }
    // The checksum is over all fragments: it cannot be left to the guest's card.
    let complete = crate::link::Accepts::default();
    let (_, len) = write_datagram(frame, cx.macs(), from, to, len, &complete);
    fragments::split(cx, frame.get(..len)?);
    let (offload, reply) = cx.take_reply()?;
    frame[..reply.len()].copy_from_slice(&reply);
    Some((offload, reply.len()))
}
