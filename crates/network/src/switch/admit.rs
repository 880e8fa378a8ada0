//! What a member may send: frames of its own card, with its own address. IPv4 and ARP (RFC 826), and
//! nothing else: other protocols have other ways to speak for somebody, and no names lead to them here.

use std::net::Ipv4Addr;

use crate::link::Mac;

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_KIND: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// Whether the member with that card and address may send `frame`.
pub(super) fn admits(frame: &[u8], mac: Mac, address: Ipv4Addr) -> bool {
    let Some((ethernet, payload)) = frame.split_at_checked(14) else { return false };
    if ethernet[6..12] != mac {
        return false;
    }
    let address = address.octets();
    if ethernet[12..14] == IPV4 {
        let is_whole = payload.len() >= 20 && payload[0] >> 4 == 4;
        return is_whole && payload[12..16] == address;
    }
    if ethernet[12..14] == ARP && payload.len() >= 28 && payload[..6] == ARP_KIND {
        // Who looks whether its address is taken has none yet (RFC 5227, section 1.1).
        let from = &payload[14..18];
        return payload[8..14] == mac && (from == address || from == [0; 4]);
    }
    false
}

#[cfg(test)]
#[path = "admit_test.rs"]
mod tests;
