//! The guest's frames: valid down to a layer that the case chooses, and hostile from there on.

use riad_network::link::Mac;
use riad_network::user::{Addresses, GATEWAY_MAC};
use smoltcp::wire::checksum;

use crate::input::Input;

/// The guest's card.
pub(super) const MAC: Mac = [2, 0, 0, 0, 0, 7];

/// A frame of that kind, from the guest to the gateway.
pub(super) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = GATEWAY_MAC.to_vec();
    frame.extend(MAC);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Where a packet goes, as its addresses are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ends {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

impl Ends {
    /// From the guest to somebody that the case chooses.
    pub(super) fn pick(addresses: &Addresses, input: &mut Input<'_>) -> Self {
        let choice = input.u8();
        if choice & 0x80 == 0 {
            let to = match choice & 7 {
                0 => addresses.gateway.octets(),
                1 => addresses.host.octets(),
                2 => [255; 4],
                3 => [169, 254, 169, 254],
                4 => [192, 0, 2, input.u8()],
                _ => [192, 0, 2, 1],
            };
            let from = if choice & 0x40 == 0 { addresses.guest.octets() } else { [0; 4] };
            return Self::V4(from, to);
        }
        let Some(v6) = addresses.v6 else { return Self::V4([0; 4], [0; 4]) };
        let world = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let to = match choice & 7 {
            0 => v6.gateway.octets(),
            1 => v6.host.octets(),
            2 => v6.link_local.octets(),
            3 => [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            4 => [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1],
            _ => world,
        };
        let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        let from = match choice & 0x60 {
            0x20 => link_local,
            0x40 => [0; 16],
            _ => v6.guest.octets(),
        };
        Self::V6(from, to)
    }
}

/// A frame of an IP packet.
pub(super) fn ip(ends: Ends, protocol: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    match ends {
        Ends::V4(from, to) => {
            let len = (payload.len() + 20) as u16;
            let mut packet = vec![0x45, 0];
            packet.extend(len.to_be_bytes());
            packet.extend([0, 0, 0x40, 0, hop_limit, protocol, 0, 0]);
            packet.extend(from);
            packet.extend(to);
            packet.extend(payload);
            fix(&mut packet);
            ethernet(0x0800, &packet)
        }
        Ends::V6(from, to) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, hop_limit]);
            packet.extend(from);
            packet.extend(to);
            packet.extend(payload);
            ethernet(0x86dd, &packet)
        }
    }
}

/// Makes an IPv4 header's checksum right again.
pub(super) fn fix(packet: &mut [u8]) {
    if packet.len() >= 20 && packet[0] == 0x45 {
        packet[10..12].fill(0);
        let sum = !checksum::data(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A datagram. Its checksum is left to the card.
pub(super) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = from.to_be_bytes().to_vec();
    datagram.extend(to.to_be_bytes());
    datagram.extend((payload.len() as u16 + 8).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// A message of ICMP's or ICMPv6's, with a checksum that is right.
pub(super) fn icmp(ends: Ends, message: &mut [u8]) {
    if message.len() < 4 {
        return;
    }
    message[2..4].fill(0);
    let sum = match ends {
        Ends::V4(..) => checksum::data(message),
        Ends::V6(from, to) => {
            let mut all = from.to_vec();
            all.extend(to);
            all.extend((message.len() as u32).to_be_bytes());
            all.extend([0, 0, 0, 58]);
            all.extend(&*message);
            checksum::data(&all)
        }
    };
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
}

/// A connection of the guest's, as far as it has to be known to go on with it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Connection {
    /// What the guest sends next, and what it has received.
    pub(super) seq: u32,
    pub(super) ack: u32,
}

/// A TCP segment of a connection.
pub(super) fn tcp(
    (from, to): (u16, u16),
    connection: Connection,
    flags: u8,
    window: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let options = &options[..options.len().min(40) & !3];
    let mut segment = from.to_be_bytes().to_vec();
    segment.extend(to.to_be_bytes());
    segment.extend(connection.seq.to_be_bytes());
    segment.extend(connection.ack.to_be_bytes());
    segment.push(((5 + options.len() / 4) as u8) << 4);
    segment.push(flags);
    segment.extend(window.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.extend(payload);
    segment
}

/// If a frame to the guest is a TCP segment: its ports, and how the connection is then.
pub(super) fn heard(frame: &[u8]) -> Option<((u16, u16), Connection, u8)> {
    let segment = match frame.get(12..14)? {
        [8, 0] if frame.get(23) == Some(&6) => frame.get(34..)?,
        [0x86, 0xdd] if frame.get(20) == Some(&6) => frame.get(54..)?,
        _ => return None,
    };
    let word = |at: usize| {
        segment
            .get(at..at + 4)
            .map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let ports = word(0)?;
    let (seq, ack, flags) = (word(4)?, word(8)?, *segment.get(13)?);
    let header = usize::from(segment.get(12)? >> 4) * 4;
    let data = segment.len().saturating_sub(header) as u32;
    let control = u32::from(flags & 1 != 0) + u32::from(flags & 2 != 0);
    let connection = Connection { seq: ack, ack: seq.wrapping_add(data).wrapping_add(control) };
    Some(((ports as u16, (ports >> 16) as u16), connection, flags))
}
