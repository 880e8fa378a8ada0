//! Datagrams of the guest's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::guest::{Guest, end};
use super::{host, open};

/// A server that sends back what it is sent, backwards.
fn echo(address: std::net::IpAddr, count: usize) -> SocketAddr {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        for _ in 0..count {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            buffer[..len].reverse();
            socket.send_to(&buffer[..len], from).unwrap();
        }
    });
    at
}

#[test]
fn datagrams_go_there_and_back() {
    let mut guest = Guest::new(open());
    for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let at = echo(address, 3);
        let to = host(&guest, at);
        let handle = guest.datagrams(0);
        assert_eq!(guest.exchange(handle, to, b"abc"), (b"cba".to_vec(), to));
        assert_eq!(guest.exchange(handle, to, b""), (Vec::new(), to));
        // As large as the guest's MTU lets it be.
        let large: Vec<u8> = (0..65_000u32).map(|at| at as u8).collect();
        let (back, _) = guest.exchange(handle, to, &large);
        assert!(back.iter().eq(large.iter().rev()));
    }
    assert_eq!(guest.control.counters().udp_now, 2);
}

#[test]
fn each_port_is_its_own_flow() {
    let mut guest = Guest::new(open());
    let at = echo(Ipv4Addr::LOCALHOST.into(), 40);
    let to = host(&guest, at);
    let handles: Vec<_> = (0..20).map(|_| guest.datagrams(0)).collect();
    for round in 0..2u8 {
        for (number, handle) in handles.iter().enumerate() {
            let bytes = [round, number as u8];
            guest.udp(*handle).send_slice(&bytes, end(to)).unwrap();
        }
        for (number, handle) in handles.iter().enumerate() {
            assert_eq!(guest.hear_datagram(*handle).0, [number as u8, round]);
        }
    }
    assert_eq!(guest.control.counters().udp_opened, 20);
}

/// A port that nobody listens on is said to be one (ICMP type 3, code 3), with the datagram quoted.
#[test]
fn nobody_there_is_told() {
    let mut guest = Guest::new(open());
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let handle = guest.datagrams(5353);
    guest.look = true;
    let targets = [host(&guest, closed), (guest.addresses.gateway, 9).into()];
    for to in targets {
        guest.seen.clear();
        guest.udp(handle).send_slice(b"anybody?", end(to)).unwrap();
        guest.until(|guest| {
            guest.seen.iter().any(|frame| {
                let icmp = frame.get(34..).unwrap_or_default();
                let quoted = icmp.get(8..).unwrap_or_default();
                frame[12..14] == [8, 0]
                    && frame[23] == 1
                    && icmp[..2] == [3, 3]
                    && quoted.get(16..20)
                        == Some(&match to.ip() {
                            std::net::IpAddr::V4(to) => to.octets(),
                            std::net::IpAddr::V6(_) => unreachable!(),
                        })
                    && quoted.get(20..24)
                        == Some(&[5353u16.to_be_bytes(), to.port().to_be_bytes()].concat()[..])
            })
        });
    }
}

/// There are no more flows than there may be: the one that was quiet longest makes room.
#[test]
fn flows_make_room() {
    let mut config = open();
    config.limits.udp_flows = 4;
    let mut guest = Guest::new(config);
    let at = echo(Ipv4Addr::LOCALHOST.into(), 100);
    let to = host(&guest, at);
    for _ in 0..10 {
        let handle = guest.datagrams(0);
        guest.exchange(handle, to, b"x");
        guest.wait(Duration::from_millis(1));
    }
    let counted = guest.control.counters();
    assert_eq!((counted.udp_opened, counted.udp_now), (10, 4));
}
