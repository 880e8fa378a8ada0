//! The world's servers: HTTP and WebSocket on port 80, echo on port 7 (TCP and UDP), names on port 53.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use sha2::{Digest, Sha256};

use super::{WWW, dns, websocket};

/// Asks the program of the tests to be the servers.
pub(super) const ASKED: &str = "RIAD_E2E_SERVE";
/// What it says when it listens.
pub(super) const SERVES: &str = "the world is served";

/// Bytes of the pattern that are made at a time.
const PIECE: usize = 1 << 20;

/// Bytes of what is sent from `at` on: they differ, so that none can be lost, doubled or moved unseen.
pub(crate) fn pattern(at: u64, len: usize) -> Vec<u8> {
    let byte = |at: u64| (at ^ (at >> 8) ^ (at >> 16) ^ (at >> 24)) as u8;
    (at..at + len as u64).map(byte).collect()
}

/// Writes so much of the pattern.
pub(super) fn write_pattern(to: &mut impl Write, len: u64) -> io::Result<()> {
    for at in (0..len).step_by(PIECE) {
        to.write_all(&pattern(at, (len - at).min(PIECE as u64) as usize))?;
    }
    Ok(())
}

/// The SHA-256 of so much of the pattern, as sha256sum(1) writes it.
pub(crate) fn checksum(len: u64) -> String {
    let mut sum = Sum::default();
    // A sum takes all that is written.
    let _ = write_pattern(&mut sum, len);
    sum.written()
}

/// Sums up what is written to it.
#[derive(Default)]
struct Sum(Sha256);

impl Sum {
    fn written(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Not a test but the servers, when [`ASKED`] for: the tests' program is the only one there is.
#[test]
fn serves_the_world() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    listen(TcpListener::bind((any, 80)).unwrap(), http);
    listen(TcpListener::bind((any, 7)).unwrap(), |stream| {
        io::copy(&mut &stream, &mut &stream).map(drop)
    });
    listen(TcpListener::bind((any, 53)).unwrap(), dns::stream);
    // Answers come from the address that was asked.
    for address in WWW.map(|address| address.parse::<IpAddr>().unwrap()) {
        let bind = |port| UdpSocket::bind((address, port)).unwrap();
        answer(bind(7), |datagram| Some(datagram.to_vec()));
        answer(bind(53), |question| dns::answer(question, dns::SHORT));
    }
    println!("{SERVES}");
    // Until whoever asked for it is gone.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

/// Serves each connection in a thread of its own, of a small stack: there are thousands.
fn listen(listener: TcpListener, serve: fn(TcpStream) -> io::Result<()>) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that goes away does not harm the others.
            let body = move || drop(serve(stream));
            thread::Builder::new().stack_size(256 << 10).spawn(body).unwrap();
        }
    });
}

fn answer(socket: UdpSocket, reply: fn(&[u8]) -> Option<Vec<u8>>) {
    thread::spawn(move || {
        let mut room = vec![0; 1 << 16];
        while let Ok((len, from)) = socket.recv_from(&mut room) {
            if let Some(reply) = reply(&room[..len]) {
                let _ = socket.send_to(&reply, from);
            }
        }
    });
}

/// `GET /N` gives so many bytes of the pattern; `PUT` gives the SHA-256 of what came; `GET /ws` is a
/// WebSocket that sends back what it gets.
fn http(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut head = Vec::new();
        for line in reader.by_ref().lines() {
            match line? {
                line if line.is_empty() => break,
                line => head.push(line),
            }
        }
        let Some(request) = head.first() else { return Ok(()) };
        let header = |name: &str| {
            let is_it = |line: &&String| line.to_ascii_lowercase().starts_with(name);
            head.iter().find(is_it).and_then(|line| line.split_once(':')).map(|(_, v)| v.trim())
        };
        let path = request.split(' ').nth(1).unwrap_or_default();
        if let Some(key) = header("sec-websocket-key:") {
            return websocket::serve(reader, stream, key);
        }
        if request.starts_with("PUT") {
            let len = header("content-length:").and_then(|len| len.parse().ok());
            if header("expect:").is_some() {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let mut sum = Sum::default();
            match len {
                Some(len) => io::copy(&mut reader.by_ref().take(len), &mut sum).map(drop)?,
                None => chunks(&mut reader, &mut sum)?,
            }
            let hash = sum.written();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{hash}", hash.len())?;
            continue;
        }
        match path.trim_start_matches('/').parse() {
            Ok(len) => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n")?;
                write_pattern(&mut stream, len)?;
            }
            Err(_) => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
        }
    }
}

/// A body in chunks (RFC 9112, section 7.1).
fn chunks(reader: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let (mut head, mut end) = (String::new(), String::new());
        reader.read_line(&mut head)?;
        let len = u64::from_str_radix(head.trim_end(), 16).map_err(io::Error::other)?;
        io::copy(&mut reader.take(len), to)?;
        reader.read_line(&mut end)?;
        if len == 0 {
            return Ok(());
        }
    }
}
