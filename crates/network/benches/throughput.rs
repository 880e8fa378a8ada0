//! What the user-mode network costs by itself: `cargo bench -p riad-network`.
//!
//! A guest that does next to nothing (it writes headers and counts) sits at the cable, and a server on
//! the host's loopback at the other end. So the figures are of the network and of the host's kernel,
//! which has the server's half of the work too.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use riad_network::link::{Accepts, Link, MAX_FRAME, Offload, Partial, now};
use riad_network::user::policy::HostAccess;
use riad_network::user::{Config, GATEWAY_MAC, Policy, UserNetwork};
use smoltcp::wire::checksum;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// One connection of the guest's.
struct Guest {
    network: UserNetwork,
    ports: (u16, u16),
    addresses: (Ipv4Addr, Ipv4Addr),
    seq: u32,
    /// What the network acknowledged, and up to where it takes more.
    acked: u32,
    limit: u32,
    shift: u8,
    ack: u32,
    frame: Vec<u8>,
    out: Vec<u8>,
}

impl Guest {
    fn new() -> Self {
        let policy = Policy { host: HostAccess::All, ..Policy::default() };
        let config = Config { policy, ..Config::new(MAC) };
        let addresses = (config.addresses.guest, config.addresses.host);
        let (mut network, _) = UserNetwork::new(config).expect("a network");
        network.accepts(Accepts { checksum: true, ..Accepts::default() });
        Self {
            network,
            ports: (20_000, 0),
            addresses,
            seq: 0,
            acked: 0,
            limit: 0,
            shift: 0,
            ack: 0,
            frame: vec![0; MAX_FRAME],
            out: vec![0; MAX_FRAME],
        }
    }

    /// Sends a segment with `len` bytes of anything.
    fn send(&mut self, flags: u8, len: usize, mss: bool) {
        let options: &[u8] = if mss { &[2, 4, 0xff, 0xc8, 1, 3, 3, 7] } else { &[] };
        let tcp = 20 + options.len();
        let total = 20 + tcp + len;
        let frame = &mut self.out[..14 + total];
        frame[..6].copy_from_slice(&GATEWAY_MAC);
        frame[6..12].copy_from_slice(&MAC);
        frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        frame[16..18].copy_from_slice(&(total as u16).to_be_bytes());
        frame[18..26].copy_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame[26..30].copy_from_slice(&self.addresses.0.octets());
        frame[30..34].copy_from_slice(&self.addresses.1.octets());
        let sum = !checksum::data(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame[34..36].copy_from_slice(&self.ports.0.to_be_bytes());
        frame[36..38].copy_from_slice(&self.ports.1.to_be_bytes());
        frame[38..42].copy_from_slice(&self.seq.to_be_bytes());
        frame[42..46].copy_from_slice(&self.ack.to_be_bytes());
        frame[46] = (tcp as u8 / 4) << 4;
        frame[47] = flags;
        frame[48..50].copy_from_slice(&0xffffu16.to_be_bytes());
        frame[50..54].fill(0);
        frame[54..54 + options.len()].copy_from_slice(options);
        let checksum = Some(Partial { start: 34, offset: 16 });
        self.network.send(&Offload { checksum, ..Offload::default() }, &self.out[..14 + total]);
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.seq = self.seq.wrapping_add(len as u32 + control);
    }

    /// Takes a segment: its flags and bytes.
    fn receive(&mut self) -> Option<(u8, usize)> {
        loop {
            let (_, len) = self.network.receive(&mut self.frame)?;
            let frame = &self.frame[..len];
            if frame[12..14] != [8, 0]
                || frame[23] != 6
                || frame[36..38] != self.ports.0.to_be_bytes()
            {
                continue;
            }
            let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four"));
            let (seq, acked, flags) = (word(38), word(42), frame[47]);
            let header = usize::from(frame[46] >> 4) * 4;
            let bytes = len - 34 - header;
            if flags & SYN != 0 {
                // The window's scale is among the options.
                let mut options = &frame[54..34 + header];
                while let [kind, rest @ ..] = options {
                    match (kind, rest) {
                        (3, [3, shift, ..]) => self.shift = *shift,
                        (0 | 1, _) => {}
                        _ => {}
                    }
                    let skip = if *kind < 2 { 1 } else { rest.first().map_or(1, |len| *len) };
                    options = &options[usize::from(skip.max(1)).min(options.len())..];
                }
            }
            let window = u32::from(u16::from_be_bytes([frame[48], frame[49]]));
            let shift = if flags & SYN != 0 { 0 } else { self.shift };
            self.acked = acked;
            self.limit = acked.wrapping_add(window << shift);
            let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            self.ack = seq.wrapping_add(bytes as u32 + control);
            return Some((flags, bytes));
        }
    }

    fn next(&mut self) -> (u8, usize) {
        loop {
            self.network.turn(now());
            if let Some(found) = self.receive() {
                return found;
            }
        }
    }

    fn connect(&mut self, port: u16) {
        self.ports = (if self.ports.0 < 60_000 { self.ports.0 + 1 } else { 20_000 }, port);
        self.send(SYN, 0, true);
        loop {
            let (flags, _) = self.next();
            assert_eq!(flags & RST, 0, "the server is there");
            if flags & SYN != 0 {
                break;
            }
        }
        self.send(ACK, 0, false);
    }

    fn reset(&mut self) {
        self.send(RST | ACK, 0, false);
    }
}

/// A server; the port it is at.
fn serve(work: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(work));
    port
}

const TIME: Duration = Duration::from_secs(3);

fn report(what: &str, bytes: usize, time: Duration) {
    let rate = bytes as f64 * 8.0 / time.as_secs_f64() / 1e9;
    println!("{what:32} {rate:8.2} Gbit/s");
}

fn main() {
    for size in [65_480, 1460] {
        let port = serve(|mut stream| {
            let mut buffer = vec![0; 1 << 20];
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        let mut guest = Guest::new();
        guest.connect(port);
        let (begin, mut bytes) = (Instant::now(), 0);
        while begin.elapsed() < TIME {
            guest.network.turn(now());
            for _ in 0..16 {
                let room = guest.limit.wrapping_sub(guest.seq).cast_signed();
                if room < size as i32 {
                    break;
                }
                guest.send(ACK, size, false);
                bytes += size;
            }
            while guest.receive().is_some() {}
        }
        report(&format!("from the guest, {size} bytes"), bytes, begin.elapsed());
        guest.reset();
    }

    let port = serve(|mut stream| {
        let buffer = vec![0; 1 << 20];
        while stream.write_all(&buffer).is_ok() {}
    });
    let mut guest = Guest::new();
    guest.connect(port);
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed() < TIME {
        let (_, received) = guest.next();
        bytes += received;
        guest.send(ACK, 0, false);
    }
    report("to the guest, 65480 bytes", bytes, begin.elapsed());
    guest.reset();

    let port = serve(|mut stream| {
        let _ = stream.set_nodelay(true);
        let mut byte = [0];
        while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
    });
    let mut guest = Guest::new();
    guest.connect(port);
    let (begin, mut rounds) = (Instant::now(), 0u32);
    while begin.elapsed() < TIME {
        guest.send(ACK, 1, false);
        while guest.next().1 == 0 {}
        rounds += 1;
    }
    println!(
        "{:32} {:8.1} us",
        "a byte there and back",
        begin.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
    );
    guest.reset();

    let port = serve(drop);
    let mut guest = Guest::new();
    let (begin, mut made) = (Instant::now(), 0u32);
    while begin.elapsed() < TIME {
        guest.connect(port);
        // The server ends it at once.
        while guest.next().0 & FIN == 0 {}
        guest.send(FIN | ACK, 0, false);
        made += 1;
    }
    println!(
        "{:32} {:8.0} a second",
        "connections",
        f64::from(made) / begin.elapsed().as_secs_f64()
    );
}
