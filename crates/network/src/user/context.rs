//! What all parts of the network have in common.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smoltcp::wire::IpProtocol;

use super::config::{Config, GATEWAY_MAC};
use super::events::{Counters, Event, Teller, count};
use super::fragments;
use super::names::Names;
use super::outside::Outside;
use super::packet::{self, ETHERNET, LONGEST, write_ip};
use super::policy::{Destination, Protocol, Refusal};
use super::timers::Timers;
use crate::link::{Accepts, Mac, Offload};

/// Frames that wait for the guest to take them: answers of the network's own. What a guest asks
/// without taking answers is lost.
const MOST_REPLIES: usize = 512;
/// Bytes of them all.
const MOST_REPLY_BYTES: usize = 2 << 20;

/// What all parts have in common.
pub(super) struct Context<O> {
    pub(super) config: Config,
    pub(super) outside: O,
    /// The network's time.
    pub(super) now: Duration,
    pub(super) accepts: Accepts,
    /// The guest's card as it last called itself.
    pub(super) guest_mac: Mac,
    pub(super) timers: Timers,
    pub(super) counters: Arc<Counters>,
    pub(super) teller: Teller,
    /// Which addresses stand for names in rules.
    pub(super) names: Names,
    replies: VecDeque<(Offload, Vec<u8>)>,
    reply_bytes: usize,
}

impl<O: Outside> Context<O> {
    pub(super) fn new(config: Config, outside: O, counters: Arc<Counters>, teller: Teller) -> Self {
        Self {
            guest_mac: config.mac,
            config,
            outside,
            now: Duration::ZERO,
            accepts: Accepts::default(),
            timers: Timers::default(),
            counters,
            teller,
            names: Names::default(),
            replies: VecDeque::new(),
            reply_bytes: 0,
        }
    }

    /// Source and destination of frames to the guest.
    pub(super) fn macs(&self) -> (Mac, Mac) {
        (GATEWAY_MAC, self.guest_mac)
    }

    /// Has a frame wait for the guest.
    pub(super) fn reply(&mut self, offload: Offload, frame: Vec<u8>) {
        let bytes = self.reply_bytes + frame.len();
        if self.replies.len() >= MOST_REPLIES || bytes > MOST_REPLY_BYTES {
            count(&self.counters.dropped, 1);
            return;
        }
        self.reply_bytes = bytes;
        self.replies.push_back((offload, frame));
    }

    /// Has an IP packet wait for the guest; `payload` is what is behind IP's header.
    pub(super) fn reply_ip(
        &mut self,
        ends: (IpAddr, IpAddr),
        protocol: IpProtocol,
        hop_limit: u8,
        payload: &[u8],
    ) {
        let header = packet::ip_header(ends.1);
        let mut frame = vec![0; ETHERNET + header + payload.len()];
        frame[ETHERNET + header..].copy_from_slice(payload);
        write_ip(&mut frame, self.macs(), ends, protocol, hop_limit, header + payload.len());
        self.reply_whole(frame);
    }

    /// Has a datagram wait for the guest.
    pub(super) fn reply_datagram(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let place = packet::datagram_payload(to.ip());
        if place - ETHERNET + payload.len() > LONGEST {
            count(&self.counters.dropped, 1);
            return;
        }
        let mut frame = vec![0; place + payload.len()];
        frame[place..].copy_from_slice(payload);
        // Small, and rare: a whole checksum costs nothing.
        let accepts = Accepts::default();
        let len = payload.len();
        packet::write_datagram(&mut frame, self.macs(), from, to, len, &accepts);
        self.reply_whole(frame);
    }

    /// Has a packet that lacks nothing wait for the guest, in as many frames as it takes.
    fn reply_whole(&mut self, frame: Vec<u8>) {
        if frame.len() - ETHERNET <= usize::from(self.config.mtu) {
            self.reply(Offload::default(), frame);
        } else {
            fragments::split(self, &frame);
        }
    }

    /// The frame that has waited longest.
    pub(super) fn take_reply(&mut self) -> Option<(Offload, Vec<u8>)> {
        let (offload, frame) = self.replies.pop_front()?;
        self.reply_bytes -= frame.len();
        Some((offload, frame))
    }

    /// Where a connection of the guest's is to go: the address that it names, or the host's loopback.
    ///
    /// # Errors
    /// When the policy does not let it; the refusal was counted and told.
    pub(super) fn route(
        &mut self,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<SocketAddr, Refusal> {
        let routed = self.judge(to, protocol);
        if let Err(why) = routed {
            count(&self.counters.refused, 1);
            let event = Event::Refused { to: to.ip(), port: to.port(), protocol, why };
            self.teller.tell_refusal(self.now, event);
        }
        routed
    }

    /// [`route`](Self::route), without a word.
    pub(super) fn judge(
        &mut self,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<SocketAddr, Refusal> {
        let Config { addresses, policy, .. } = &self.config;
        if addresses.is_host(to.ip()) {
            let loopback = match to.ip() {
                IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
                IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            };
            let allowed = policy.host_allows(to.port());
            return allowed.then_some(SocketAddr::new(loopback, to.port())).ok_or(Refusal::Host);
        }
        let destination = Destination { address: to.ip(), protocol, port: to.port() };
        let (outside, names, now) = (&mut self.outside, &self.names, self.now);
        policy.judge(
            &destination,
            |address| outside.is_own(address),
            |rule| names.stands_for(to.ip(), rule, now),
        )?;
        Ok(to)
    }
}
