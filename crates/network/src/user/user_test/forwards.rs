//! What comes in from outside.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::guest::{Guest, end};
use super::open;
use crate::user::{Forward, ForwardError, Listen, MOST_FORWARDS};

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Says something over a stream, and hears it backwards.
fn converse(mut stream: impl Read + Write, finish: impl FnOnce()) {
    stream.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"olleh");
    finish();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn streams_come_in_by_tcp_and_by_a_file() {
    let mut guest = Guest::new(open());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let tcp = Forward { listen: Listen::Tcp(loopback()), address: None, port: 80 };
    let tcp = guest.control.add(tcp).unwrap();
    let Listen::Tcp(at) = tcp.forward.listen else { unreachable!() };
    assert_ne!(at.port(), 0);
    let unix = Forward { listen: Listen::Unix(path.clone()), address: None, port: 80 };
    let unix = guest.control.add(unix).unwrap();
    assert_eq!(guest.control.forwards(), [tcp.clone(), unix.clone()]);
    for by_file in [false, true] {
        let handle = guest.listen(80);
        let path = path.clone();
        let client = std::thread::spawn(move || {
            if by_file {
                let stream = UnixStream::connect(path).unwrap();
                let other = stream.try_clone().unwrap();
                converse(stream, move || other.shutdown(std::net::Shutdown::Write).unwrap());
            } else {
                let stream = TcpStream::connect(at).unwrap();
                let other = stream.try_clone().unwrap();
                converse(stream, move || other.shutdown(std::net::Shutdown::Write).unwrap());
            }
        });
        guest.until(|guest| guest.tcp(handle).recv_queue() >= 5);
        let remote = guest.tcp(handle).remote_endpoint().unwrap().addr;
        assert_eq!(remote, guest.addresses.gateway.into());
        let mut heard = [0; 5];
        guest.tcp(handle).recv_slice(&mut heard).unwrap();
        heard.reverse();
        guest.say(handle, &heard);
        guest.until(|guest| !guest.tcp(handle).may_recv());
        guest.tcp(handle).close();
        guest.until(|_| client.is_finished());
        client.join().unwrap();
    }
    guest.control.remove(unix.id).unwrap();
    assert!(!path.exists());
    guest.control.remove(tcp.id).unwrap();
    assert!(matches!(guest.control.remove(tcp.id), Err(ForwardError::Unknown(_))));
    guest.until(|guest| {
        guest.step();
        TcpStream::connect(at).is_err()
    });
    guest.until(|guest| guest.control.counters().tcp_now == 0);
}

/// Nobody listens in the guest: who came in is cut off, not left waiting.
#[test]
fn a_port_that_is_closed_in_the_guest_is_closed_outside() {
    let mut guest = Guest::new(open());
    let forward = Forward { listen: Listen::Tcp(loopback()), address: None, port: 80 };
    let Listen::Tcp(at) = guest.control.add(forward).unwrap().forward.listen else {
        unreachable!()
    };
    let client = std::thread::spawn(move || {
        let error = TcpStream::connect(at).unwrap().read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
    guest.until(|_| client.is_finished());
    client.join().unwrap();
}

#[test]
fn datagrams_come_in_and_go_back_to_who_sent_them() {
    let mut guest = Guest::new(open());
    let forward = Forward { listen: Listen::Udp(loopback()), address: None, port: 53 };
    let forward = guest.control.add(forward).unwrap();
    let Listen::Udp(at) = forward.forward.listen else { unreachable!() };
    guest.step();
    let handle = guest.datagrams(53);
    let clients: Vec<_> = (0..3).map(|_| UdpSocket::bind(loopback()).unwrap()).collect();
    for round in 0..2u8 {
        for (number, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.send_to(&[number as u8, round], at).unwrap();
            let (bytes, from) = guest.hear_datagram(handle);
            assert_eq!(bytes, [number as u8, round]);
            guest.udp(handle).send_slice(&[round, number as u8], end(from)).unwrap();
            guest.wait(Duration::from_millis(5));
            let mut back = [0; 8];
            let (len, by) = client.recv_from(&mut back).unwrap();
            assert_eq!((&back[..len], by), (&[round, number as u8][..], at));
        }
    }
    assert_eq!(guest.control.counters().udp_now, 3);
    guest.control.remove(forward.id).unwrap();
    guest.until(|guest| guest.control.counters().udp_now == 0);
}

#[test]
fn what_cannot_listen_says_why() {
    let guest = Guest::new(open());
    let add = |listen, port| guest.control.add(Forward { listen, address: None, port });
    let taken = std::net::TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let _taken = std::net::TcpListener::bind(taken).unwrap();
    let error = add(Listen::Tcp(taken), 80).unwrap_err().to_string();
    assert!(error.contains(&taken.to_string()) && error.contains("another port"), "{error}");
    assert!(matches!(add(Listen::Tcp(loopback()), 0), Err(ForwardError::GuestPort)));
    let file = tempfile::NamedTempFile::new().unwrap();
    let occupied = add(Listen::Unix(file.path().to_owned()), 80);
    assert!(matches!(occupied, Err(ForwardError::Occupied(_))));
    // A socket that was left over is nobody's.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("left");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    add(Listen::Unix(path), 80).unwrap();
    for _ in 1..MOST_FORWARDS {
        add(Listen::Udp(loopback()), 80).unwrap();
    }
    assert!(matches!(add(Listen::Udp(loopback()), 80), Err(ForwardError::TooMany)));
}
