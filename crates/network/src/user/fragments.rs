//! Packets in pieces (RFC 791, RFC 8200 section 4.5): put together when the guest sends them, cut when
//! a datagram is larger than the guest's MTU.

use std::net::IpAddr;
use std::time::Duration;

use smoltcp::wire::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv6Packet};

use super::context::Context;
use super::outside::Outside;
use super::packet::{ETHERNET, Ip, ip_header, write_ip};
use crate::link::Offload;

/// Packets that are put together at a time; the oldest makes room.
const MOST: usize = 16;
/// How long the rest of a packet is waited for (RFC 8200: 60 s; on a wire of no length, less).
const PATIENCE: Duration = Duration::from_secs(15);
/// Pieces that a packet may have: at IPv6's smallest MTU the largest has 54.
const MOST_PIECES: usize = 128;
/// Bytes of an IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;

/// What pieces of one packet have in common.
type Key = (IpAddr, IpAddr, u8, u32);

/// A packet of which some pieces are there.
#[derive(Debug)]
struct Partial {
    key: Key,
    since: Duration,
    /// The payload, as far as it is known.
    bytes: Vec<u8>,
    /// Which parts of it are there: first and last byte, in order, apart from each other.
    parts: Vec<(usize, usize)>,
    /// Its length, once the last piece is there.
    len: Option<usize>,
}

/// Packets of which some pieces are there: at most [`MOST`] of 64 KiB each.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    partial: Vec<Partial>,
}

impl Fragments {
    /// Takes a piece; gives the whole packet, header included, when it was the last one that lacked.
    pub(super) fn put(&mut self, ip: &Ip<'_>, now: Duration) -> Option<Vec<u8>> {
        let fragment = ip.fragment?;
        self.partial.retain(|partial| partial.since + PATIENCE > now);
        let key = (ip.from, ip.to, ip.protocol.into(), fragment.id);
        let index = self.partial.iter().position(|partial| partial.key == key);
        let index = index.unwrap_or_else(|| {
            if self.partial.len() >= MOST {
                self.partial.remove(0);
            }
            let new = Partial { key, since: now, bytes: vec![], parts: vec![], len: None };
            self.partial.push(new);
            self.partial.len() - 1
        });
        let header = ip_header(ip.to);
        match self.partial[index].put(fragment.offset, fragment.more, ip.payload, header) {
            Some(false) => None,
            Some(true) => {
                let Partial { bytes, .. } = self.partial.remove(index);
                let mut frame = vec![0; ETHERNET + header + bytes.len()];
                frame[ETHERNET + header..].copy_from_slice(&bytes);
                let ends = (ip.from, ip.to);
                let len = header + bytes.len();
                write_ip(&mut frame, ([0; 6], [0; 6]), ends, ip.protocol, ip.hop_limit, len);
                Some(frame.split_off(ETHERNET))
            }
            // Pieces that contradict each other are an attack (RFC 5722): none of them counts.
            None => {
                self.partial.remove(index);
                None
            }
        }
    }
}

impl Partial {
    /// Puts in a piece. Whether the packet is whole; `None` if the piece does not fit the others.
    fn put(&mut self, start: usize, more: bool, piece: &[u8], header: usize) -> Option<bool> {
        let end = start + piece.len();
        let apart = self.parts.iter().all(|(first, last)| end <= *first || *last <= start);
        let fits = end + header <= usize::from(u16::MAX)
            && (!more || piece.len().is_multiple_of(8))
            && !piece.is_empty()
            && self.parts.len() < MOST_PIECES;
        if self.parts.contains(&(start, end)) && self.bytes.get(start..end) == Some(piece) {
            // The same once more.
            return Some(false);
        }
        let behind = self.parts.iter().any(|(_, last)| *last > end);
        if !apart || !fits || self.len.is_some_and(|len| end > len) || (!more && behind) {
            return None;
        }
        if !more {
            self.len = Some(end);
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(piece);
        self.parts.push((start, end));
        let there: usize = self.parts.iter().map(|(first, last)| last - first).sum();
        Some(self.len == Some(there))
    }
}

/// Cuts a frame of an IP packet into fragments, which wait for the guest.
pub(super) fn split<O: Outside>(cx: &mut Context<O>, frame: &[u8]) {
    let Some(packet) = frame.get(ETHERNET..) else { return };
    let mtu = usize::from(cx.config.mtu);
    let id = cx.outside.random() as u32;
    let v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let header = if v4 { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN };
    let headers = if v4 { header } else { header + FRAGMENT_HEADER };
    let room = (mtu - headers) & !7;
    let Some((head, payload)) = packet.split_at_checked(header) else { return };
    let pieces = payload.chunks(room);
    let last = pieces.len().saturating_sub(1);
    for (index, piece) in pieces.enumerate() {
        let (offset, more) = (index * room, index < last);
        let mut fragment = frame[..ETHERNET].to_vec();
        fragment.extend(head);
        if v4 {
            fragment.extend(piece);
            let mut packet = Ipv4Packet::new_unchecked(&mut fragment[ETHERNET..]);
            packet.set_total_len((header + piece.len()) as u16);
            packet.set_ident(id as u16);
            packet.set_dont_frag(false);
            packet.set_more_frags(more);
            packet.set_frag_offset(offset as u16);
            packet.fill_checksum();
        } else {
            let place = (offset as u16 & !7) | u16::from(more);
            fragment.extend([head[6], 0]);
            fragment.extend(place.to_be_bytes());
            fragment.extend(id.to_be_bytes());
            fragment.extend(piece);
            let mut packet = Ipv6Packet::new_unchecked(&mut fragment[ETHERNET..]);
            packet.set_payload_len((FRAGMENT_HEADER + piece.len()) as u16);
            packet.set_next_header(IpProtocol::Ipv6Frag);
        }
        cx.reply(Offload::default(), fragment);
    }
}

#[cfg(test)]
#[path = "fragments_test.rs"]
mod tests;
