//! Packets as they lie in frames: reading the guest's, which are hostile, and writing ours.
//!
//! The codecs are `smoltcp`'s; this is what is between them and the rest of the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpAddress, IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6Packet,
    TcpPacket, UDP_HEADER_LEN, UdpPacket, checksum,
};

use crate::link::{Accepts, Mac, Offload, Partial};

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
/// EtherTypes.
pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;

/// The longest packet, bytes.
pub(super) const LONGEST: usize = 65_535;

/// Extension headers of IPv6 that are looked past.
const MOST_EXTENSIONS: usize = 8;

/// A frame, by its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ethernet<'a> {
    pub(super) to: Mac,
    pub(super) from: Mac,
    pub(super) kind: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// Reads a frame; `None` if it is shorter than its header.
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let (to, rest) = frame.split_first_chunk::<6>()?;
        let (from, rest) = rest.split_first_chunk::<6>()?;
        let (kind, payload) = rest.split_first_chunk::<2>()?;
        Some(Self { to: *to, from: *from, kind: u16::from_be_bytes(*kind), payload })
    }

    /// Writes a header.
    pub(super) fn write(frame: &mut [u8], to: Mac, from: Mac, kind: u16) {
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from);
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
    }
}

/// A fragment of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) id: u32,
    /// Bytes of the payload before it.
    pub(super) offset: usize,
    pub(super) more: bool,
}

/// An IP packet, by its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ip<'a> {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: IpProtocol,
    pub(super) hop_limit: u8,
    pub(super) fragment: Option<Fragment>,
    /// From the header on, without what Ethernet adds to short frames.
    pub(super) whole: &'a [u8],
    /// Behind the headers.
    pub(super) payload: &'a [u8],
}

impl<'a> Ip<'a> {
    /// Reads an IPv4 packet; `None` if it makes no sense.
    pub(super) fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let packet = Ipv4Packet::new_checked(bytes).ok()?;
        let header = usize::from(packet.header_len());
        if packet.version() != 4 || header < IPV4_HEADER_LEN || !packet.verify_checksum() {
            return None;
        }
        let (offset, more) = (usize::from(packet.frag_offset()), packet.more_frags());
        let fragment =
            (offset > 0 || more).then(|| Fragment { id: u32::from(packet.ident()), offset, more });
        Some(Self {
            from: packet.src_addr().into(),
            to: packet.dst_addr().into(),
            protocol: packet.next_header(),
            hop_limit: packet.hop_limit(),
            fragment,
            whole: &bytes[..usize::from(packet.total_len())],
            payload: packet.payload(),
        })
    }

    /// Reads an IPv6 packet; `None` if it makes no sense.
    pub(super) fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let packet = Ipv6Packet::new_checked(bytes).ok()?;
        if packet.version() != 6 {
            return None;
        }
        let mut protocol = packet.next_header();
        let mut payload = packet.payload();
        let mut fragment = None;
        for _ in 0..MOST_EXTENSIONS {
            match protocol {
                IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {
                    let extension = Ipv6ExtHeader::new_checked(payload).ok()?;
                    let len = (usize::from(extension.header_len()) + 1) * 8;
                    protocol = extension.next_header();
                    payload = payload.get(len..)?;
                }
                IpProtocol::Ipv6Frag if fragment.is_none() => {
                    let (header, rest) = payload.split_first_chunk::<8>()?;
                    protocol = header[0].into();
                    let place = u16::from_be_bytes([header[2], header[3]]);
                    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                    let found =
                        Fragment { id, offset: usize::from(place & !7), more: place & 1 != 0 };
                    payload = rest;
                    // A packet in one piece (RFC 6946) is no fragment.
                    if found.offset > 0 || found.more {
                        fragment = Some(found);
                        break;
                    }
                }
                _ => break,
            }
        }
        Some(Self {
            from: packet.src_addr().into(),
            to: packet.dst_addr().into(),
            protocol,
            hop_limit: packet.hop_limit(),
            fragment,
            whole: &bytes[..packet.total_len()],
            payload,
        })
    }
}

/// A UDP datagram of the guest's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagram<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads the datagram in a packet; `trusted` when its checksum need not be looked at.
    pub(super) fn parse(ip: &Ip<'a>, trusted: bool) -> Option<Self> {
        let packet = UdpPacket::new_checked(ip.payload).ok()?;
        let right = trusted || packet.verify_checksum(&ip.from.into(), &ip.to.into());
        if !right || packet.src_port() == 0 || packet.dst_port() == 0 {
            return None;
        }
        Some(Self {
            from: SocketAddr::new(ip.from, packet.src_port()),
            to: SocketAddr::new(ip.to, packet.dst_port()),
            payload: packet.payload(),
        })
    }
}

/// Bytes of the IP header to that address.
pub(super) fn ip_header(to: IpAddr) -> usize {
    if to.is_ipv4() { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }
}

/// Where the payload of a UDP datagram to that address lies in a frame.
pub(super) fn datagram_payload(to: IpAddr) -> usize {
    ETHERNET + ip_header(to) + UDP_HEADER_LEN
}

/// Writes Ethernet's and IP's headers to the front of a frame whose payload, `len` bytes from IP's
/// header on, is there. Addresses are of one family.
pub(super) fn write_ip(
    frame: &mut [u8],
    macs: (Mac, Mac),
    (from, to): (IpAddr, IpAddr),
    protocol: IpProtocol,
    hop_limit: u8,
    len: usize,
) {
    let (from_mac, to_mac) = macs;
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            Ethernet::write(frame, to_mac, from_mac, IPV4);
            let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]);
            packet.set_version(4);
            packet.set_header_len(IPV4_HEADER_LEN as u8);
            packet.set_dscp(0);
            packet.set_ecn(0);
            packet.set_total_len(len);
            packet.set_ident(0);
            packet.clear_flags();
            packet.set_dont_frag(true);
            packet.set_frag_offset(0);
            packet.set_hop_limit(hop_limit);
            packet.set_next_header(protocol);
            packet.set_src_addr(from);
            packet.set_dst_addr(to);
            packet.fill_checksum();
        }
        (from, to) => {
            Ethernet::write(frame, to_mac, from_mac, IPV6);
            let mut packet = Ipv6Packet::new_unchecked(&mut frame[ETHERNET..]);
            packet.set_version(6);
            packet.set_traffic_class(0);
            packet.set_flow_label(0);
            packet.set_payload_len(len.saturating_sub(IPV6_HEADER_LEN as u16));
            packet.set_next_header(protocol);
            packet.set_hop_limit(hop_limit);
            packet.set_src_addr(v6(from));
            packet.set_dst_addr(v6(to));
        }
    }
}

/// An address as IPv6 has it.
fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Writes the headers of a datagram whose payload, `len` bytes, is in its place
/// ([`datagram_payload`]); gives the frame's length.
pub(super) fn write_datagram(
    frame: &mut [u8],
    macs: (Mac, Mac),
    from: SocketAddr,
    to: SocketAddr,
    len: usize,
    accepts: &Accepts,
) -> (Offload, usize) {
    let header = ip_header(to.ip());
    let udp_len = UDP_HEADER_LEN + len;
    write_ip(frame, macs, (from.ip(), to.ip()), IpProtocol::Udp, 64, header + udp_len);
    let start = ETHERNET + header;
    let mut packet = UdpPacket::new_unchecked(&mut frame[start..start + udp_len]);
    packet.set_src_port(from.port());
    packet.set_dst_port(to.port());
    packet.set_len(udp_len as u16);
    let (from, to) = (from.ip().into(), to.ip().into());
    let offload = if accepts.checksum {
        let sum = checksum::pseudo_header(&from, &to, IpProtocol::Udp, udp_len as u32);
        packet.set_checksum(sum);
        partial(start, 6)
    } else {
        packet.fill_checksum(&from, &to);
        Offload::default()
    };
    (offload, start + udp_len)
}

/// Completes the frame of a TCP segment that has all but Ethernet's header and TCP's checksum; gives
/// the frame's length.
pub(super) fn finish_segment(
    frame: &mut [u8],
    macs: (Mac, Mac),
    len: usize,
    accepts: &Accepts,
) -> Option<(Offload, usize)> {
    let packet = frame.get(ETHERNET..ETHERNET + len)?;
    let (kind, header, from, to): (_, _, IpAddress, IpAddress) = match packet.first()? >> 4 {
        4 => {
            let packet = Ipv4Packet::new_checked(packet).ok()?;
            let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
            (IPV4, usize::from(packet.header_len()), from, to)
        }
        _ => {
            let packet = Ipv6Packet::new_checked(packet).ok()?;
            (IPV6, IPV6_HEADER_LEN, packet.src_addr().into(), packet.dst_addr().into())
        }
    };
    Ethernet::write(frame, macs.1, macs.0, kind);
    let start = ETHERNET + header;
    let mut segment = TcpPacket::new_checked(&mut frame[start..ETHERNET + len]).ok()?;
    let offload = if accepts.checksum {
        let len = (len - header) as u32;
        segment.set_checksum(checksum::pseudo_header(&from, &to, IpProtocol::Tcp, len));
        partial(start, 16)
    } else {
        segment.fill_checksum(&from, &to);
        Offload::default()
    };
    Some((offload, ETHERNET + len))
}

fn partial(start: usize, offset: u16) -> Offload {
    let checksum = Some(Partial { start: start as u16, offset });
    Offload { checksum, ..Offload::default() }
}

/// Whether all addresses of a link, or a group of them, are meant.
pub(super) fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// An address that a single host can have.
pub(super) fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_multicast() && !address.is_broadcast() && address != Ipv4Addr::UNSPECIFIED
        }
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unspecified(),
    }
}
