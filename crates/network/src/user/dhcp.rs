//! The DHCP server (RFC 2131, RFC 2132): there is one address to give, and it is always free.

use std::net::{Ipv4Addr, SocketAddr};

use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
};

use super::config::DOMAIN;
use super::context::Context;
use super::events::Event;
use super::outside::Outside;
use super::packet::Datagram;

/// How long the guest may keep its address, seconds: a day. It is asked for at half of that.
const LEASE: u32 = 24 * 3600;
/// Options that the codec does not know (RFC 2132, RFC 3397, RFC 3442).
const HOST_NAME: u8 = 12;
const DOMAIN_NAME: u8 = 15;
const INTERFACE_MTU: u8 = 26;
const BROADCAST: u8 = 28;
const CLIENT_ID: u8 = 61;
const DOMAIN_SEARCH: u8 = 119;
const CLASSLESS_ROUTES: u8 = 121;
/// Bytes of the shortest message (RFC 951, RFC 1542 section 2.1).
const LEAST: usize = 300;
/// The longest name that is taken from a guest.
const LONGEST_NAME: usize = 63;

/// Whether a datagram is for the server.
pub(super) fn is_for(datagram: &Datagram<'_>) -> bool {
    datagram.to.port() == DHCP_SERVER_PORT && datagram.from.port() == DHCP_CLIENT_PORT
}

/// Answers a client. `None` when it made no sense.
pub(super) fn serve<O: Outside>(cx: &mut Context<O>, datagram: &Datagram<'_>) -> Option<()> {
    let packet = DhcpPacket::new_checked(datagram.payload).ok()?;
    let asked = DhcpRepr::parse(&packet).ok()?;
    let addresses = cx.config.addresses;
    let another = asked.server_identifier.is_some_and(|server| server != addresses.gateway);
    let wants = asked.requested_ip.unwrap_or(asked.client_ip);
    let kind = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        // The client took another server's offer: there is none, but so it says.
        DhcpMessageType::Request if another => return Some(()),
        DhcpMessageType::Request if wants == addresses.guest => DhcpMessageType::Ack,
        // It remembers another network's address.
        DhcpMessageType::Request => DhcpMessageType::Nak,
        DhcpMessageType::Inform => DhcpMessageType::Ack,
        _ => return Some(()),
    };
    let option = |kind: u8| packet.options().find(|option| option.kind == kind);
    let client_id = option(CLIENT_ID).map(|option| option.data.to_vec());
    let called = option(HOST_NAME).and_then(|option| readable(option.data));

    let inform = asked.message_type == DhcpMessageType::Inform;
    let options = if kind == DhcpMessageType::Nak { Vec::new() } else { options(cx) };
    // A server says whom it answers in the client's own words (RFC 6842).
    let client_id = client_id.map(|id| (CLIENT_ID, id));
    let options: Vec<_> = options.into_iter().chain(client_id).collect();
    let extra: Vec<_> =
        options.iter().map(|(kind, data)| DhcpOption { kind: *kind, data }).collect();
    let granted = kind != DhcpMessageType::Nak;
    let reply = DhcpRepr {
        message_type: kind,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: if inform { asked.client_ip } else { Ipv4Addr::UNSPECIFIED },
        your_ip: if granted && !inform { addresses.guest } else { Ipv4Addr::UNSPECIFIED },
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: granted.then_some(addresses.gateway),
        subnet_mask: granted.then(|| addresses.subnet.mask()),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: asked.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(addresses.gateway),
        parameter_request_list: None,
        dns_servers: granted.then(|| [addresses.gateway].into_iter().collect()),
        max_size: None,
        lease_duration: (granted && !inform).then_some(LEASE),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &extra,
    };
    // BOOTP's clients expect at least so much.
    let mut bytes = vec![0; reply.buffer_len().max(LEAST)];
    reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).ok()?;
    // Section 4.1: to the client's address if it has one; else to the one it is given, unless it
    // cannot take packets for that yet.
    let to = if !granted || (asked.client_ip.is_unspecified() && asked.broadcast) {
        Ipv4Addr::BROADCAST
    } else if asked.client_ip.is_unspecified() {
        addresses.guest
    } else {
        asked.client_ip
    };
    let from = SocketAddr::from((addresses.gateway, DHCP_SERVER_PORT));
    cx.reply_datagram(from, SocketAddr::from((to, DHCP_CLIENT_PORT)), &bytes);
    if kind == DhcpMessageType::Ack && !inform {
        cx.teller
            .tell_refusal(cx.now, Event::Leased { address: addresses.guest, hostname: called });
    }
    Some(())
}

/// What the guest is told beside its address.
fn options<O: Outside>(cx: &Context<O>) -> Vec<(u8, Vec<u8>)> {
    let config = &cx.config;
    let addresses = &config.addresses;
    let mut options = vec![
        (INTERFACE_MTU, config.mtu.to_be_bytes().to_vec()),
        (BROADCAST, addresses.subnet.broadcast().octets().to_vec()),
        (DOMAIN_NAME, DOMAIN.as_bytes().to_vec()),
    ];
    if let Some(hostname) = &config.hostname {
        let end = hostname.len().min(LONGEST_NAME);
        options.push((HOST_NAME, hostname.as_bytes()[..end].to_vec()));
    }
    let mut search = Vec::new();
    for domain in std::iter::once(DOMAIN).chain(config.search.iter().map(String::as_str)) {
        let Some(encoded) = super::dns::encode_name(domain) else { continue };
        if search.len() + encoded.len() <= 255 {
            search.extend(encoded);
        }
    }
    options.push((DOMAIN_SEARCH, search));
    // A client that takes this option takes no router from the other one: everything by the gateway.
    let mut routes = vec![0];
    routes.extend(addresses.gateway.octets());
    options.push((CLASSLESS_ROUTES, routes));
    options
}

/// A name from the guest, if people can be shown it.
fn readable(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let short = (1..=LONGEST_NAME).contains(&name.len());
    (short && name.chars().all(plain)).then(|| name.to_owned())
}
