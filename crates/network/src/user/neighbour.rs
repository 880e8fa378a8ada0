//! Who is at which address: ARP (RFC 826), and neighbour and router discovery (RFC 4861).
//!
//! Nobody is on the network but the guest, the gateway and the address for the host, so all answers
//! are known beforehand, and no neighbour is ever asked for.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration as WireDuration;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    NdiscNeighborFlags, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
};

use super::config::{Addresses6, GATEWAY_MAC};
use super::context::Context;
use super::outside::Outside;
use super::packet::{ARP, ETHERNET, Ethernet, Ip};
use crate::link::Offload;

/// All nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// How long the guest may rely on what a router advertisement says. It is told again before.
const LIFETIME: Duration = Duration::from_secs(1800);
/// How often it is told: three chances.
pub(super) const ADVERTISE: Duration = Duration::from_secs(600);
/// Bytes of an ARP packet for Ethernet and IPv4.
const ARP_LEN: usize = 28;

/// Answers ARP. `None` when it made no sense.
pub(super) fn arp<O: Outside>(cx: &mut Context<O>, payload: &[u8]) -> Option<()> {
    let packet = ArpPacket::new_checked(payload).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let addresses = &cx.config.addresses;
    let ours = [addresses.gateway, addresses.host].contains(&target_protocol_addr);
    if operation != ArpOperation::Request || !ours {
        return Some(());
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC),
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let mut frame = vec![0; ETHERNET + ARP_LEN];
    Ethernet::write(&mut frame, cx.guest_mac, GATEWAY_MAC, ARP);
    reply.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
    cx.reply(Offload::default(), frame);
    Some(())
}

/// Answers neighbour and router solicitations. `None` when it made no sense.
pub(super) fn discovery<O: Outside>(cx: &mut Context<O>, ip: &Ip<'_>) -> Option<()> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (ip.from, ip.to) else { return None };
    let v6 = cx.config.addresses.v6?;
    // What came through a router has a smaller one (RFC 4861, section 7.1.1).
    (ip.hop_limit == 255).then_some(())?;
    let packet = Icmpv6Packet::new_checked(ip.payload).ok()?;
    let checksums = ChecksumCapabilities::default();
    let Icmpv6Repr::Ndisc(message) = Icmpv6Repr::parse(&from, &to, &packet, &checksums).ok()?
    else {
        return None;
    };
    match message {
        NdiscRepr::RouterSolicit { .. } => advertise(cx),
        NdiscRepr::NeighborSolicit { target_addr, .. }
            if [v6.gateway, v6.link_local, v6.host].contains(&target_addr) =>
        {
            neighbour(cx, &v6, target_addr, from);
        }
        _ => {}
    }
    Some(())
}

/// Tells the guest that an address is ours.
fn neighbour<O: Outside>(cx: &mut Context<O>, v6: &Addresses6, target: Ipv6Addr, asker: Ipv6Addr) {
    // Who looks whether an address is taken has none yet, and is answered like everybody.
    let solicited = !asker.is_unspecified();
    let mut flags = NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::ROUTER, target != v6.host);
    flags.set(NdiscNeighborFlags::SOLICITED, solicited);
    let advert = NdiscRepr::NeighborAdvert {
        flags,
        target_addr: target,
        lladdr: Some(EthernetAddress(GATEWAY_MAC).into()),
    };
    send(cx, target, if solicited { asker } else { ALL_NODES }, advert, &[]);
}

/// Tells the guest its prefix, its router if there is a way out, its name server and its MTU.
pub(super) fn advertise<O: Outside>(cx: &mut Context<O>) {
    let Some(v6) = cx.config.addresses.v6 else { return };
    let lifetime = WireDuration::from_secs(LIFETIME.as_secs());
    // A guest that is told of a router where the host has none would try every server's IPv6
    // address first, in vain.
    let router = if cx.outside.has_ipv6() { lifetime } else { WireDuration::ZERO };
    let advert = NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::OTHER,
        router_lifetime: router,
        reachable_time: WireDuration::ZERO,
        retrans_time: WireDuration::ZERO,
        lladdr: Some(EthernetAddress(GATEWAY_MAC).into()),
        mtu: Some(u32::from(cx.config.mtu)),
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: 64,
            flags: NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF,
            valid_lifetime: lifetime,
            preferred_lifetime: lifetime,
            prefix: v6.prefix,
        }),
    };
    // Recursive DNS server (RFC 8106, section 5.1).
    let mut server = vec![25, 3, 0, 0];
    server.extend((LIFETIME.as_secs() as u32).to_be_bytes());
    server.extend(v6.gateway.octets());
    send(cx, v6.link_local, ALL_NODES, advert, &server);
}

/// Sends a message, with options that the codec does not have behind it.
fn send<O: Outside>(
    cx: &mut Context<O>,
    from: Ipv6Addr,
    to: Ipv6Addr,
    message: NdiscRepr<'_>,
    options: &[u8],
) {
    let message = Icmpv6Repr::Ndisc(message);
    let len = message.buffer_len();
    let mut payload = vec![0; len];
    let mut packet = Icmpv6Packet::new_unchecked(&mut payload[..]);
    message.emit(&from, &to, &mut packet, &ChecksumCapabilities::ignored());
    payload.extend(options);
    Icmpv6Packet::new_unchecked(&mut payload[..]).fill_checksum(&from, &to);
    cx.reply_ip((from.into(), to.into()), IpProtocol::Icmpv6, 255, &payload);
}
