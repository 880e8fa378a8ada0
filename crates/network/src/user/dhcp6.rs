//! Stateless DHCPv6 (RFC 8415, section 18.3.5): who configured its address by itself asks for the
//! name server.

use std::net::{IpAddr, SocketAddr};

use super::config::{DOMAIN, GATEWAY_MAC};
use super::context::Context;
use super::dns::encode_name;
use super::outside::Outside;
use super::packet::Datagram;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// Kinds of messages.
const REPLY: u8 = 7;
const INFORMATION_REQUEST: u8 = 11;
/// Kinds of options.
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const DNS_SERVERS: u16 = 23;
const DOMAIN_SEARCH: u16 = 24;
/// Options that are looked at.
const MOST_OPTIONS: usize = 32;
/// The longest identifier (RFC 8415, section 11.1).
const LONGEST_ID: usize = 130;

/// Whether a datagram is for the server.
pub(super) fn is_for(datagram: &Datagram<'_>) -> bool {
    datagram.to.port() == SERVER_PORT
        && datagram.from.port() == CLIENT_PORT
        && matches!(datagram.from.ip(), IpAddr::V6(from) if from.is_unicast_link_local())
}

/// Answers a client. `None` when it made no sense.
pub(super) fn serve<O: Outside>(cx: &mut Context<O>, datagram: &Datagram<'_>) -> Option<()> {
    let v6 = cx.config.addresses.v6?;
    let ([kind, transaction @ ..], mut options) = datagram.payload.split_first_chunk::<4>()?;
    if *kind != INFORMATION_REQUEST {
        // Addresses are not given here, and router advertisements say so.
        return Some(());
    }
    let mut reply = vec![REPLY];
    reply.extend(transaction);
    for _ in 0..MOST_OPTIONS {
        let Some(([a, b, c, d], rest)) = options.split_first_chunk::<4>() else { break };
        let len = usize::from(u16::from_be_bytes([*c, *d]));
        let data = rest.get(..len)?;
        options = &rest[len..];
        if u16::from_be_bytes([*a, *b]) == CLIENT_ID && len <= LONGEST_ID {
            put(&mut reply, CLIENT_ID, data);
        }
    }
    // A DUID of the link-layer kind, for Ethernet (section 11.4).
    put(&mut reply, SERVER_ID, &[&[0, 3, 0, 1], &GATEWAY_MAC[..]].concat());
    put(&mut reply, DNS_SERVERS, &v6.gateway.octets());
    put(&mut reply, DOMAIN_SEARCH, &encode_name(DOMAIN)?);
    cx.reply_datagram(SocketAddr::from((v6.link_local, SERVER_PORT)), datagram.from, &reply);
    Some(())
}

fn put(message: &mut Vec<u8>, kind: u16, data: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}
