//! What the guest may not reach.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use smoltcp::socket::tcp::State;

use super::guest::{Guest, end};
use super::{host, open};
use crate::user::policy::{HostAccess, Protocol, Refusal};
use crate::user::{Event, Policy};

/// Whether a frame is ICMP's word that it is prohibited.
fn prohibited(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0]) && frame[23] == 1 && frame[34..36] == [3, 13]
}

#[test]
fn the_host_and_the_metadata_service_are_refused() {
    let mut config = open();
    config.policy = Policy::default();
    let mut guest = Guest::new(config);
    guest.look = true;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let metadata: SocketAddr = ([169, 254, 169, 254], 80).into();
    let loopback = SocketAddr::from(([127, 0, 0, 1], at.port()));
    for (to, why) in [
        (host(&guest, at), Refusal::Host),
        (metadata, Refusal::Guarded),
        (loopback, Refusal::Closed),
    ] {
        let handle = guest.connect(to, 256);
        guest.until(|guest| guest.tcp(handle).state() == State::Closed);
        guest.sockets.remove(handle);
        let (ip, port) = (to.ip(), to.port());
        let event = Event::Refused { to: ip, port, protocol: Protocol::Tcp, why };
        assert_eq!(guest.control.next_event(Duration::ZERO), Some(event));
        guest.seen.clear();
        let handle = guest.datagrams(0);
        guest.udp(handle).send_slice(b"x", end(to)).unwrap();
        guest.until(|guest| guest.seen.iter().any(|frame| prohibited(frame)));
        let event = Event::Refused { to: ip, port, protocol: Protocol::Udp, why };
        assert_eq!(guest.control.next_event(Duration::ZERO), Some(event));
    }
    assert!(listener.accept().is_err());
}

/// A policy that changes cuts off what it no longer lets through, and nothing else.
#[test]
fn a_policy_can_change() {
    let mut guest = Guest::new(open());
    let servers: Vec<_> =
        (0..2).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let ports: Vec<_> = servers.iter().map(|server| server.local_addr().unwrap()).collect();
    let handles: Vec<_> = ports
        .iter()
        .map(|at| {
            let to = host(&guest, *at);
            guest.connected(to, 256)
        })
        .collect();
    let mut streams: Vec<_> = servers.iter().map(|server| server.accept().unwrap().0).collect();
    let host = HostAccess::Ports(vec![ports[1].port()]);
    guest.control.set_policy(Policy { host, ..Policy::default() });
    guest.until(|guest| guest.tcp(handles[0]).state() == State::Closed);
    guest.say(handles[1], b"on");
    guest.tcp(handles[1]).close();
    let heard = std::thread::spawn(move || {
        let mut ends = streams.drain(..).map(|mut stream| {
            let mut heard = Vec::new();
            std::io::Read::read_to_end(&mut stream, &mut heard).map(|_| heard)
        });
        assert!(ends.next().unwrap().is_err());
        assert_eq!(ends.next().unwrap().unwrap(), b"on");
    });
    guest.until(|_| heard.is_finished());
    heard.join().unwrap();
}

/// The cable pulled out, and in again: what was sent meanwhile is sent once more by who sent it.
#[test]
fn a_cable_can_be_pulled() {
    use crate::link::Link;
    let mut guest = Guest::new(open());
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = host(&guest, server.local_addr().unwrap());
    let handle = guest.connected(to, 256);
    let (mut stream, _) = server.accept().unwrap();
    guest.control.plug(false);
    guest.step();
    assert!(!guest.network.up());
    guest.tcp(handle).send_slice(b"lost").unwrap();
    guest.wait(Duration::from_millis(50));
    guest.control.plug(true);
    let reader = std::thread::spawn(move || {
        let mut heard = [0; 4];
        std::io::Read::read_exact(&mut stream, &mut heard).unwrap();
        assert_eq!(&heard, b"lost");
    });
    guest.until(|_| reader.is_finished());
    reader.join().unwrap();
}
