//! Connections of the guest's.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smoltcp::socket::tcp::State;

use super::guest::Guest;
use super::{host, open};

/// Byte `at` of what is sent: whatever is lost, doubled or out of place is noticed.
fn byte(at: usize) -> u8 {
    (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[5]
}

fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(byte).collect()
}

/// A server of one connection.
fn serve(
    listener: TcpListener,
    work: impl FnOnce(TcpStream) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let at = listener.local_addr().unwrap();
    (at, std::thread::spawn(move || work(listener.accept().unwrap().0)))
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

#[test]
fn each_side_can_end_before_the_other() {
    for listener in [listener(), TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap()] {
        let mut guest = Guest::new(open());
        let (at, server) = serve(listener, |mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let to = host(&guest, at);
        let handle = guest.connected(to, 64 << 10);
        guest.say(handle, b"hello, ");
        guest.say(handle, b"world");
        guest.tcp(handle).close();
        assert_eq!(guest.hear_all(handle), b"hello, world");
        server.join().unwrap();
        guest.until(|guest| guest.control.counters().tcp_now == 0);

        // And the other way round.
        let (at, server) = serve(TcpListener::bind((at.ip(), 0)).unwrap(), |mut stream| {
            stream.write_all(b"bye").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert_eq!(all, b"not yet");
        });
        let to = host(&guest, at);
        let handle = guest.connected(to, 64 << 10);
        assert_eq!(guest.hear_all(handle), b"bye");
        guest.say(handle, b"not yet");
        guest.tcp(handle).close();
        guest.until(|_| server.is_finished());
        server.join().unwrap();
        guest.until(|guest| guest.control.counters().tcp_now == 0);
        assert_eq!(guest.control.counters().tcp_failed, 0);
    }
}

#[test]
fn what_is_refused_outside_is_refused_inside() {
    let mut guest = Guest::new(open());
    let at = listener().local_addr().unwrap();
    // The gateway refuses as well; it has no servers but one.
    for to in [host(&guest, at), (guest.addresses.gateway, 22).into()] {
        let begin = Instant::now();
        let handle = guest.connect(to, 4096);
        guest.until(|guest| guest.tcp(handle).state() == State::Closed);
        // A SYN that is not answered is sent again after a second.
        assert!(begin.elapsed() < Duration::from_secs(1));
        // The guest's stack asks for one neighbour a second.
        guest.wait(Duration::from_secs(1));
    }
    let counted = guest.control.counters();
    assert_eq!((counted.tcp_now, counted.tcp_failed), (0, 1));
}

#[test]
fn resets_are_passed_on_both_ways() {
    let mut guest = Guest::new(open());
    let (at, server) = serve(listener(), |mut stream| {
        stream.read_exact(&mut [0; 2]).unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    let to = host(&guest, at);
    let handle = guest.connected(to, 4096);
    guest.say(handle, b"hi");
    guest.until(|guest| guest.tcp(handle).state() == State::Closed);
    server.join().unwrap();

    let (at, server) = serve(listener(), |mut stream| {
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
    let to = host(&guest, at);
    let handle = guest.connected(to, 4096);
    guest.say(handle, b"hi");
    guest.tcp(handle).abort();
    guest.until(|_| server.is_finished());
    server.join().unwrap();
    guest.until(|guest| guest.control.counters().tcp_now == 0);
}

/// 64 MiB each way, at once.
#[test]
fn much_goes_through_unharmed() {
    const BYTES: usize = 64 << 20;
    const PIECE: usize = 1 << 16;
    let mut guest = Guest::new(open());
    let (at, server) = serve(listener(), |stream| {
        let mut writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            for at in (0..BYTES).step_by(PIECE) {
                writer.write_all(&pattern(at, PIECE)).unwrap();
            }
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut reader = stream;
        let (mut at, mut buffer) = (0, vec![0; PIECE]);
        loop {
            let read = reader.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            assert!(buffer[..read] == pattern(at, read), "at {at}");
            at += read;
        }
        assert_eq!(at, BYTES);
        writing.join().unwrap();
    });
    let to = host(&guest, at);
    let handle = guest.connected(to, 1 << 20);
    let (mut sent, mut heard) = (0, 0);
    guest.until(|guest| {
        let socket = guest.tcp(handle);
        while socket.can_send() && sent < BYTES {
            let piece = pattern(sent, PIECE.min(BYTES - sent));
            sent += socket.send_slice(&piece).unwrap();
        }
        if sent == BYTES {
            socket.close();
        }
        while socket.can_recv() {
            heard += socket
                .recv(|bytes| {
                    assert!(bytes == pattern(heard, bytes.len()), "at {heard}");
                    (bytes.len(), bytes.len())
                })
                .unwrap();
        }
        heard == BYTES && !socket.may_recv()
    });
    guest.until(|_| server.is_finished());
    server.join().unwrap();
}

/// Neither side makes the network keep more than its budget, and nothing is lost when it goes on.
#[test]
fn who_does_not_read_is_not_written_to() {
    let mut config = open();
    config.limits.tcp_bytes = 1 << 20;
    let budget = config.limits.tcp_bytes as u64;
    let mut guest = Guest::new(config);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (at, server) = serve(listener(), move |mut stream| {
        wait.recv().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all == pattern(0, all.len()));
        stream.write_all(&(all.len() as u64).to_le_bytes()).unwrap();
    });
    let to = host(&guest, at);
    let handle = guest.connected(to, 64 << 10);
    let mut sent = 0;
    let mut quiet = Instant::now();
    guest.until(|guest| {
        let socket = guest.tcp(handle);
        let now = socket.send_slice(&pattern(sent, 64 << 10)).unwrap();
        if now > 0 {
            (sent, quiet) = (sent + now, Instant::now());
        }
        quiet.elapsed() > Duration::from_millis(500)
    });
    // The kernel's buffers are the most of it: a megabyte or some.
    assert!(sent < 32 << 20, "{sent}");
    let counted = guest.control.counters();
    assert!(counted.tcp_bytes_now <= budget && counted.tcp_bytes_now > 0);
    go.send(()).unwrap();
    guest.tcp(handle).close();
    assert_eq!(guest.hear_all(handle), (sent as u64).to_le_bytes());
    server.join().unwrap();
}

#[test]
fn two_thousand_connections_at_once() {
    const MANY: usize = 2000;
    let mut guest = Guest::new(open());
    let listener = listener();
    let at = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut streams: Vec<_> = (0..MANY).map(|_| listener.accept().unwrap().0).collect();
        for stream in &mut streams {
            let mut number = [0; 4];
            stream.read_exact(&mut number).unwrap();
            stream.write_all(&number).unwrap();
        }
    });
    let to = host(&guest, at);
    let mut handles = Vec::new();
    // The host's backlog is 128 long.
    for _ in 0..MANY / 100 {
        let some: Vec<_> = (0..100).map(|_| guest.connect(to, 256)).collect();
        guest.until(|guest| some.iter().all(|handle| guest.tcp(*handle).may_send()));
        handles.extend(some);
    }
    assert_eq!(guest.control.counters().tcp_now, MANY as u64);
    for (number, handle) in handles.iter().enumerate() {
        guest.tcp(*handle).send_slice(&(number as u32).to_le_bytes()).unwrap();
    }
    for (number, handle) in handles.into_iter().enumerate() {
        assert_eq!(guest.hear_all(handle), (number as u32).to_le_bytes());
        guest.tcp(handle).close();
    }
    server.join().unwrap();
    guest.until(|guest| guest.control.counters().tcp_now == 0);
    assert_eq!(guest.control.counters().tcp_bytes_now, 0);
}

/// A scan of ports costs no more than the connections that may be being made.
#[test]
fn a_scan_is_bounded() {
    let mut config = open();
    config.limits.tcp_flows = 8;
    let mut guest = Guest::new(config);
    let listener = listener();
    let to = host(&guest, listener.local_addr().unwrap());
    let handles: Vec<_> = (0..20).map(|_| guest.connect(to, 256)).collect();
    guest
        .until(|guest| handles.iter().filter(|handle| guest.tcp(**handle).may_send()).count() == 8);
    guest.wait(Duration::from_millis(50));
    assert_eq!(guest.control.counters().tcp_now, 8);
    assert!(guest.control.counters().dropped >= 12);
    // When there is room again, those who are still waiting get it.
    for handle in &handles {
        if guest.tcp(*handle).may_send() {
            guest.tcp(*handle).abort();
        }
    }
    guest.until(|guest| handles.iter().any(|handle| guest.tcp(*handle).may_send()));
}
