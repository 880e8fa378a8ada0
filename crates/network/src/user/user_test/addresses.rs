//! How the guest gets its addresses and finds its neighbours.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use smoltcp::socket::{dhcpv4, icmp};
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress,
};

use super::guest::{Guest, MAC};
use super::open;
use crate::link::{Link, Offload};
use crate::user::Event;
use crate::user::packet::{Ethernet, write_datagram};

#[test]
fn a_client_gets_its_address() {
    let mut guest = Guest::new(open());
    guest.interface.update_ip_addrs(|list| list.clear());
    let handle = guest.sockets.add(dhcpv4::Socket::new());
    let mut found = None;
    guest.until(|guest| {
        let socket = guest.sockets.get_mut::<dhcpv4::Socket<'_>>(handle);
        if let Some(dhcpv4::Event::Configured(config)) = socket.poll() {
            found = Some((config.address, config.router, config.dns_servers));
        }
        found.is_some()
    });
    let (address, router, servers) = found.unwrap();
    let addresses = guest.addresses;
    assert_eq!(address.address(), addresses.guest);
    assert_eq!(address.prefix_len(), addresses.subnet.prefix());
    assert_eq!(router, Some(addresses.gateway));
    assert_eq!(servers[..], [addresses.gateway]);
    let event = guest.control.next_event(Duration::ZERO);
    assert_eq!(event, Some(Event::Leased { address: addresses.guest, hostname: None }));
}

/// Asks as a client would, and gives the answer's kind and options.
fn dhcp(guest: &mut Guest, kind: DhcpMessageType, wants: Ipv4Addr) -> (u8, Vec<(u8, Vec<u8>)>) {
    let asked = DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: EthernetAddress(MAC),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: Some(wants),
        client_identifier: Some(EthernetAddress(MAC)),
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let len = asked.buffer_len();
    let mut frame = vec![0; 42 + len];
    asked.emit(&mut DhcpPacket::new_unchecked(&mut frame[42..])).unwrap();
    let (from, to) = (([0, 0, 0, 0], 68).into(), ([255; 4], 67).into());
    write_datagram(&mut frame, (MAC, [0xff; 6]), from, to, len, &Default::default());
    guest.look = true;
    guest.seen.clear();
    guest.send_raw(&frame);
    guest.until(|guest| guest.seen.iter().any(|frame| frame.get(34..38) == Some(&[0, 67, 0, 68])));
    let reply = guest.seen.iter().find(|frame| frame[34..38] == [0, 67, 0, 68]).unwrap();
    let packet = DhcpPacket::new_checked(&reply[42..]).unwrap();
    assert_eq!(packet.transaction_id(), 0x1234_5678);
    let options: Vec<_> =
        packet.options().map(|option| (option.kind, option.data.to_vec())).collect();
    let kind = options.iter().find(|(kind, _)| *kind == 53).unwrap().1[0];
    (kind, options)
}

#[test]
fn a_client_is_told_what_it_needs_and_not_given_what_is_not_there() {
    let mut guest = Guest::new(open());
    let addresses = guest.addresses;
    let (kind, options) = dhcp(&mut guest, DhcpMessageType::Request, addresses.guest);
    assert_eq!(kind, 5);
    let option = |kind: u8| options.iter().find(|(own, _)| *own == kind).map(|(_, data)| &data[..]);
    assert_eq!(option(26), Some(&65_520u16.to_be_bytes()[..]));
    assert_eq!(option(12), Some(&b"dev"[..]));
    assert_eq!(option(15), Some(&b"riad.internal"[..]));
    assert_eq!(option(119), Some(&b"\x04riad\x08internal\0"[..]));
    assert_eq!(option(121), Some(&[&[0], &addresses.gateway.octets()[..]].concat()[..]));
    assert_eq!(option(61), Some(&[&[1], &MAC[..]].concat()[..]));
    assert_eq!(option(51), Some(&86_400u32.to_be_bytes()[..]));
    let (kind, _) = dhcp(&mut guest, DhcpMessageType::Request, Ipv4Addr::new(192, 168, 1, 9));
    assert_eq!(kind, 6);
}

/// The gateway and the host's address answer; the others are nobody's.
#[test]
fn echo_requests_are_answered() {
    let mut guest = Guest::new(open());
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let handle = guest.sockets.add(icmp::Socket::new(buffer(), buffer()));
    guest.sockets.get_mut::<icmp::Socket<'_>>(handle).bind(icmp::Endpoint::Ident(77)).unwrap();
    for to in [guest.addresses.gateway, guest.addresses.host] {
        let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(handle);
        let echo = Icmpv4Repr::EchoRequest { ident: 77, seq_no: 3, data: b"are you there?" };
        let bytes = socket.send(echo.buffer_len(), to.into()).unwrap();
        echo.emit(&mut Icmpv4Packet::new_unchecked(bytes), &Default::default());
        guest.until(|guest| guest.sockets.get_mut::<icmp::Socket<'_>>(handle).can_recv());
        let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(handle);
        let (bytes, from) = socket.recv().unwrap();
        assert_eq!(from, IpAddress::from(to));
        let packet = Icmpv4Packet::new_checked(bytes).unwrap();
        let reply = Icmpv4Repr::parse(&packet, &Default::default()).unwrap();
        let expected = Icmpv4Repr::EchoReply { ident: 77, seq_no: 3, data: b"are you there?" };
        assert_eq!(reply, expected);
    }
}

/// A guest that configures itself is told the prefix, the name server and the MTU at once.
#[test]
fn the_router_is_advertised() {
    let mut guest = Guest::new(open());
    guest.look = true;
    guest.step();
    let advert = |frame: &Vec<u8>| frame[12..14] == [0x86, 0xdd] && frame.get(54) == Some(&134);
    guest.until(|guest| guest.seen.iter().any(advert));
    let frame = guest.seen.iter().find(|frame| advert(frame)).unwrap();
    let v6 = guest.addresses.v6.unwrap();
    assert_eq!(frame[21], 255, "a neighbour's hop limit");
    let has = |octets: [u8; 16]| frame[54..].windows(16).any(|part| part == octets);
    assert!(has(v6.prefix.octets()) && has(v6.gateway.octets()));
    // Malformed, spoofed and foreign frames are counted, and answered with nothing.
    let before = guest.control.counters();
    guest.seen.clear();
    guest.network.send(&Offload::default(), &[0; 13]);
    guest.network.send(&Offload::default(), &[0xff; 1500]);
    let spoofed: [IpAddr; 2] = [guest.addresses.gateway.into(), Ipv4Addr::new(8, 8, 8, 8).into()];
    for from in spoofed {
        let mut frame = vec![0; 42 + 4];
        let to = (guest.addresses.host, 9).into();
        let macs = (MAC, crate::user::GATEWAY_MAC);
        write_datagram(&mut frame, macs, (from, 9).into(), to, 4, &Default::default());
        guest.send_raw(&frame);
    }
    let mut foreign = vec![0; 60];
    Ethernet::write(&mut foreign, [2, 9, 9, 9, 9, 9], MAC, 0x0800);
    guest.send_raw(&foreign);
    guest.step();
    assert_eq!(guest.control.counters().malformed - before.malformed, 5);
    assert!(guest.seen.is_empty());
}
