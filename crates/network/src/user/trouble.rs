//! Telling the guest why a packet did not get through: ICMP errors (RFC 792, RFC 4443).

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol};

use super::context::Context;
use super::outside::{Errno, Outside};
use super::packet::{ETHERNET, Ip, ip_header, is_unicast, write_ip};

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no way to the network.
    Network,
    /// Nobody answers there.
    Host,
    /// Nobody speaks that protocol here.
    Protocol,
    /// Nobody listens on the port.
    Port,
    /// It is not allowed.
    Prohibited,
    /// It is too large; so many bytes would go through.
    TooLarge(u16),
    /// It has gone through too many routers.
    Expired,
}

impl Trouble {
    /// What an error of a host's socket means.
    pub(super) fn of(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED => Self::Port,
            Errno::NETUNREACH | Errno::NETDOWN | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL => {
                Self::Network
            }
            Errno::ACCESS | Errno::PERM => Self::Prohibited,
            // The path's MTU is not told along; what is smaller than any is safe.
            Errno::MSGSIZE => Self::TooLarge(1280),
            _ => Self::Host,
        }
    }

    /// Type, code and the field behind the checksum.
    fn v4(self) -> (Icmpv4Message, u8, u32) {
        match self {
            Self::Network => (Icmpv4Message::DstUnreachable, 0, 0),
            Self::Host => (Icmpv4Message::DstUnreachable, 1, 0),
            Self::Protocol => (Icmpv4Message::DstUnreachable, 2, 0),
            Self::Port => (Icmpv4Message::DstUnreachable, 3, 0),
            Self::TooLarge(mtu) => (Icmpv4Message::DstUnreachable, 4, mtu.into()),
            Self::Prohibited => (Icmpv4Message::DstUnreachable, 13, 0),
            Self::Expired => (Icmpv4Message::TimeExceeded, 0, 0),
        }
    }

    fn v6(self) -> (Icmpv6Message, u8, u32) {
        match self {
            Self::Network => (Icmpv6Message::DstUnreachable, 0, 0),
            Self::Host => (Icmpv6Message::DstUnreachable, 3, 0),
            Self::Port => (Icmpv6Message::DstUnreachable, 4, 0),
            Self::Prohibited => (Icmpv6Message::DstUnreachable, 1, 0),
            Self::TooLarge(mtu) => (Icmpv6Message::PktTooBig, 0, mtu.into()),
            Self::Expired => (Icmpv6Message::TimeExceeded, 0, 0),
            // The next header is the one at byte 6.
            Self::Protocol => (Icmpv6Message::ParamProblem, 1, 6),
        }
    }
}

/// How much of the packet is sent back: a datagram that every host takes (RFC 1812, section
/// 4.3.2.3), or one of IPv6's smallest MTU.
const MOST_V4: usize = 576 - 28;
const MOST_V6: usize = 1280 - 48;

/// Tells the guest what became of a packet.
pub(super) fn tell<O: Outside>(cx: &mut Context<O>, ip: &Ip<'_>, trouble: Trouble) {
    let later = ip.fragment.is_some_and(|fragment| fragment.offset > 0);
    // Nobody answers errors, or what was sent to many (RFC 1122, section 3.2.2).
    let error = match ip.protocol {
        IpProtocol::Icmp => !matches!(ip.payload.first(), Some(0 | 8)),
        IpProtocol::Icmpv6 => ip.payload.first().is_none_or(|kind| *kind < 128),
        _ => false,
    };
    if !later && !error && is_unicast(ip.to) {
        tell_quoted(cx, ip.from, ip.whole, trouble);
    }
}

/// Tells the guest what became of a packet of which `quote` is known.
pub(super) fn tell_quoted<O: Outside>(
    cx: &mut Context<O>,
    guest: IpAddr,
    quote: &[u8],
    trouble: Trouble,
) {
    if !is_unicast(guest) {
        return;
    }
    let addresses = &cx.config.addresses;
    match guest {
        IpAddr::V4(_) => {
            let from = addresses.gateway.into();
            let mut payload = vec![0; 8];
            payload.extend(&quote[..quote.len().min(MOST_V4)]);
            let (kind, code, word) = trouble.v4();
            payload[4..8].copy_from_slice(&word.to_be_bytes());
            let mut packet = Icmpv4Packet::new_unchecked(&mut payload[..]);
            packet.set_msg_type(kind);
            packet.set_msg_code(code);
            packet.fill_checksum();
            cx.reply_ip((from, guest), IpProtocol::Icmp, 64, &payload);
        }
        IpAddr::V6(to) => {
            let Some(v6) = addresses.v6 else { return };
            // The address on the link is for those who have no other yet.
            let from = if to.is_unicast_link_local() { v6.link_local } else { v6.gateway };
            let mut payload = vec![0; 8];
            payload.extend(&quote[..quote.len().min(MOST_V6)]);
            let (kind, code, word) = trouble.v6();
            payload[4..8].copy_from_slice(&word.to_be_bytes());
            let mut packet = Icmpv6Packet::new_unchecked(&mut payload[..]);
            packet.set_msg_type(kind);
            packet.set_msg_code(code);
            packet.fill_checksum(&from, &to);
            cx.reply_ip((from.into(), guest), IpProtocol::Icmpv6, 64, &payload);
        }
    }
}

/// A header to quote from, for a packet that is no longer there: of a UDP flow's.
pub(super) fn quote_of(from: SocketAddr, to: SocketAddr, protocol: IpProtocol) -> Vec<u8> {
    let header = ip_header(to.ip());
    let mut frame = vec![0; ETHERNET + header + 8];
    let ends = (from.ip(), to.ip());
    write_ip(&mut frame, ([0; 6], [0; 6]), ends, protocol, 64, header + 8);
    let mut packet = frame.split_off(ETHERNET);
    packet[header..header + 2].copy_from_slice(&from.port().to_be_bytes());
    packet[header + 2..header + 4].copy_from_slice(&to.port().to_be_bytes());
    if protocol == IpProtocol::Udp {
        packet[header + 4..header + 6].copy_from_slice(&8u16.to_be_bytes());
    }
    packet
}
