//! Names that the guest asks for.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::dns::encode_name;
use super::guest::Guest;
use super::open;
use crate::user::{Config, Event};

const A: u16 = 1;
const AAAA: u16 = 28;

fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(encode_name(name).unwrap());
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// An answer with one address.
fn answer(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2] |= 0x80;
    message[7] = 1;
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    message.extend(address.octets());
    message
}

/// A name server that hands questions to `respond`, and how many it was asked.
fn server(
    respond: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            counter.fetch_add(1, Ordering::SeqCst);
            respond(&socket, &buffer[..len], from);
        }
    });
    (at, asked)
}

fn config(resolver: SocketAddr) -> Config {
    Config { resolvers: Some(vec![resolver]), ..open() }
}

/// Asks by a datagram; gives the answer's code and addresses.
fn ask(guest: &mut Guest, id: u16, name: &str, kind: u16) -> (u8, Vec<IpAddr>) {
    let handle = guest.datagrams(0);
    let to = (guest.addresses.gateway, 53).into();
    let question = question(id, name, kind);
    let (bytes, from) = guest.exchange(handle, to, &question);
    assert_eq!((from, &bytes[..2]), (to, &id.to_be_bytes()[..]));
    parse(&question, &bytes)
}

fn parse(question: &[u8], bytes: &[u8]) -> (u8, Vec<IpAddr>) {
    assert_eq!(bytes[12..question.len()], question[12..], "the question is repeated");
    let mut rest = &bytes[question.len()..];
    let mut found = Vec::new();
    for _ in 0..bytes[7] {
        let len = usize::from(rest[11]);
        let data = &rest[12..12 + len];
        found.push(match len {
            4 => IpAddr::from(<[u8; 4]>::try_from(data).unwrap()),
            _ => IpAddr::from(<[u8; 16]>::try_from(data).unwrap()),
        });
        rest = &rest[12 + len..];
    }
    (bytes[3] & 15, found)
}

#[test]
fn the_networks_own_names_are_answered_here() {
    let (resolver, asked) = server(|_, _, _| ());
    let mut guest = Guest::new(Config {
        names: vec![("db".to_owned(), "10.9.9.9".parse().unwrap())],
        ..config(resolver)
    });
    let addresses = guest.addresses;
    let v6 = addresses.v6.unwrap();
    for (name, kind, expected) in [
        ("host.riad.internal", A, vec![addresses.host.into()]),
        ("host.riad.internal", AAAA, vec![v6.host.into()]),
        ("GATEWAY.riad.internal", A, vec![addresses.gateway.into()]),
        ("dev", A, vec![addresses.guest.into()]),
        ("dev.riad.internal", AAAA, vec![v6.guest.into()]),
        ("db", A, vec!["10.9.9.9".parse::<IpAddr>().unwrap()]),
        ("db.riad.internal", A, vec!["10.9.9.9".parse().unwrap()]),
        ("db.riad.internal", AAAA, vec![]),
    ] {
        assert_eq!(ask(&mut guest, 1, name, kind), (0, expected), "{name}");
    }
    assert_eq!(ask(&mut guest, 2, "nobody.riad.internal", A), (3, vec![]));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    guest.control.set_names(vec![("db".to_owned(), "10.9.9.8".parse().unwrap())]);
    assert_eq!(ask(&mut guest, 3, "db", A), (0, vec!["10.9.9.8".parse().unwrap()]));
}

#[test]
fn others_are_asked_and_only_their_answers_count() {
    let address = Ipv4Addr::new(192, 0, 2, 80);
    let (resolver, asked) = server(move |socket, question, from| {
        // Somebody who guesses, somebody who answers something else, and then the answer.
        let mut guess = answer(question, Ipv4Addr::new(192, 0, 2, 66));
        guess[1] ^= 1;
        socket.send_to(&guess, from).unwrap();
        let mut other = answer(question, Ipv4Addr::new(192, 0, 2, 67));
        other[14] ^= 1;
        socket.send_to(&other, from).unwrap();
        socket.send_to(&[1, 2, 3], from).unwrap();
        socket.send_to(&answer(question, address), from).unwrap();
    });
    let mut guest = Guest::new(config(resolver));
    for id in [0, 7, 0xffff] {
        assert_eq!(ask(&mut guest, id, "www.example.com", A), (0, vec![address.into()]));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert_eq!(guest.control.counters().queries_failed, 0);
}

#[test]
fn a_name_server_that_is_not_there_is_passed_over() {
    let address = Ipv4Addr::new(192, 0, 2, 80);
    let (resolver, _) = server(move |socket, question, from| {
        socket.send_to(&answer(question, address), from).unwrap();
    });
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut guest = Guest::new(Config { resolvers: Some(vec![gone, resolver]), ..open() });
    assert_eq!(ask(&mut guest, 1, "www.example.com", A), (0, vec![address.into()]));
    // None left: that is said.
    let mut guest = Guest::new(Config { resolvers: Some(vec![gone]), ..open() });
    assert_eq!(ask(&mut guest, 1, "www.example.com", A), (2, vec![]));
    assert_eq!(guest.control.counters().queries_failed, 1);
}

/// Over a connection: two questions at once, one of which has an answer that is too large for a
/// datagram.
#[test]
fn long_answers_come_over_a_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(at).unwrap();
    let long = Ipv4Addr::new(192, 0, 2, 81);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        let mut cut = buffer[..len].to_vec();
        cut[2] |= 0x82;
        socket.send_to(&cut, from).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut question = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut question).unwrap();
        let answer = answer(&question, long);
        stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
    });
    let mut guest = Guest::new(config(at));
    let handle = guest.connected((guest.addresses.gateway, 53).into(), 64 << 10);
    let questions = [question(1, "dev", A), question(2, "long.example.com", A)];
    for question in &questions {
        guest.say(handle, &(question.len() as u16).to_be_bytes());
        guest.say(handle, question);
    }
    guest.tcp(handle).close();
    let mut heard = &guest.hear_all(handle)[..];
    let mut found = Vec::new();
    while let [high, low, rest @ ..] = heard {
        let (message, rest) = rest.split_at(u16::from_be_bytes([*high, *low]).into());
        let question = &questions[usize::from(message[1]) - 1];
        found.extend(parse(question, message).1);
        heard = rest;
    }
    assert_eq!(found, [IpAddr::from(guest.addresses.guest), long.into()]);
    guest.until(|guest| guest.control.counters().tcp_now == 0);
}

#[test]
fn names_that_are_denied_do_not_exist() {
    let (resolver, asked) = server(|socket, question, from| {
        socket.send_to(&answer(question, Ipv4Addr::new(192, 0, 2, 80)), from).unwrap();
    });
    let mut config = config(resolver);
    config.policy.rules = vec!["deny *.example.com".parse().unwrap()];
    let mut guest = Guest::new(config);
    assert_eq!(ask(&mut guest, 1, "www.example.com", A), (3, vec![]));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let event = guest.control.next_event(std::time::Duration::ZERO);
    assert_eq!(event, Some(Event::NameRefused { name: "www.example.com".to_owned() }));
    assert_eq!(ask(&mut guest, 1, "www.example.org", A).0, 0);
}

/// Machines on the networks that this one is on: by name, and back.
#[test]
fn members_of_named_networks_are_found_by_name_and_by_address() {
    let (resolver, asked) = server(|_, _, _| {});
    let mut guest = Guest::new(config(resolver));
    let db = IpAddr::from([10, 77, 0, 3]);
    let names = ["db.lab", "db"].map(|name| (name.to_owned(), db));
    guest.control.set_names(names.to_vec());
    for name in ["db", "db.riad.internal", "db.lab", "DB.lab.riad.internal"] {
        assert_eq!(ask(&mut guest, 1, name, A), (0, vec![db]), "{name}");
        assert_eq!(ask(&mut guest, 2, name, AAAA), (0, vec![]), "{name}");
    }
    let handle = guest.datagrams(0);
    let question = question(3, "3.0.77.10.in-addr.arpa", 12);
    let (answer, _) = guest.exchange(handle, (guest.addresses.gateway, 53).into(), &question);
    let name = encode_name("db.lab.riad.internal").unwrap();
    assert!(answer.ends_with(&name), "{answer:x?}");
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody else is asked");
    guest.control.set_names(Vec::new());
    assert_eq!(ask(&mut guest, 4, "db.riad.internal", A).0, 3);
}
