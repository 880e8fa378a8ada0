//! The user-mode network: frames of every layer from a guest, and a world outside that is no better.
//!
//! Sockets are replaced by a stand-in, so no case reaches a real network. A case is a list of acts;
//! a connection that the network answers is gone on with, so that cases get into every state of TCP.

mod frames;
mod outside;

use std::time::Duration;

use riad_network::link::{Accepts, Link, MAX_FRAME, Offload, Partial, SegmentKind, Segments};
use riad_network::user::policy::HostAccess;
use riad_network::user::{Config, Control, Forward, Limits, Listen, Policy, UserNetwork};

use super::Target;
use crate::input::Input;
use crate::random::Random;
use frames::{Connection, Ends, MAC};
use outside::World;

/// Frames from a guest, and what sockets do.
pub(super) const NETWORK: Target = Target {
    name: "network",
    what: "a guest's frames in the user-mode network, with a hostile world outside",
    unit: "frames back",
    run,
    seeds,
    generate: Some(generate),
    words: &[
        &[0x45, 0],
        &[0x08, 0],
        &[0x08, 6],
        &[0x86, 0xdd],
        &[2, 4, 0xff, 0xff],
        &[3, 3, 14],
        b"\x04host\x04riad\x08internal\0",
        b"\xc0\x0c",
        &[0x63, 0x82, 0x53, 0x63],
    ],
};

/// Few of each, so that bounds are met.
const LIMITS: Limits = Limits {
    tcp_flows: 8,
    tcp_connecting: 6,
    tcp_bytes: 1 << 18,
    udp_flows: 4,
    pings: 2,
    queries: 3,
};
/// Acts of a case.
const MOST_ACTS: usize = 400;
/// Ports that connections are between: few, so that acts meet.
const PORTS: [(u16, u16); 4] = [(1000, 80), (1001, 80), (1002, 53), (1003, 443)];

struct Run {
    network: UserNetwork<World>,
    control: Control,
    connections: [Connection; PORTS.len()],
    now: Duration,
    frame: Vec<u8>,
    back: u64,
}

fn run(case: &[u8]) -> u64 {
    let mut input = Input::new(case);
    let script_len = usize::from(input.u8());
    let world = World::new(input.take(script_len));
    let mode = input.u8();
    let mut config =
        Config { limits: LIMITS, hostname: Some("dev".to_owned()), ..Config::new(MAC) };
    if mode & 1 != 0 {
        config.mtu = 1280;
    }
    if mode & 2 != 0 {
        config.policy.host = HostAccess::All;
    }
    if mode & 4 != 0 {
        let rules =
            ["deny any:81", "allow *.example.com", "allow 169.254.169.254", "deny udp any:9"];
        config.policy.rules = rules.iter().filter_map(|rule| rule.parse().ok()).collect();
    }
    let Ok((network, control)) = UserNetwork::in_front_of(config, world) else { return 0 };
    let mut run = Run {
        network,
        control,
        connections: [Connection::default(); PORTS.len()],
        now: Duration::from_secs(1000),
        frame: vec![0; MAX_FRAME],
        back: 0,
    };
    for _ in 0..MOST_ACTS {
        if input.is_empty() {
            break;
        }
        run.act(&mut input);
        run.check();
    }
    run.end();
    run.back
}

impl Run {
    fn send(&mut self, frame: &[u8]) {
        self.network.send(&Offload::default(), frame);
    }

    /// Sends a frame whose checksums are not looked at.
    fn send_trusted(&mut self, frame: &[u8]) {
        self.network.send(&Offload { checksum_valid: true, ..Offload::default() }, frame);
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let addresses = riad_network::user::Config::new(MAC).addresses;
        match input.u8() % 16 {
            0 => {
                let len = usize::from(input.u16());
                let frame = input.take(len).to_vec();
                self.send(&frame);
            }
            1 => {
                // The right card, and anything for it.
                let kind = input.pick(&[0x0800, 0x0806, 0x86dd, 0x8100]);
                let len = usize::from(input.u8());
                let mut payload = input.take(len).to_vec();
                frames::fix(&mut payload);
                self.send_trusted(&frames::ethernet(kind, &payload));
            }
            2 => {
                // Any protocol.
                let ends = Ends::pick(&addresses, input);
                let (protocol, hop_limit) = (input.u8(), input.u8());
                let len = usize::from(input.u8());
                let frame = frames::ip(ends, protocol, hop_limit, input.take(len));
                self.send_trusted(&frame);
            }
            3..=5 => self.segment(input),
            6 | 7 => {
                let ends = Ends::pick(&addresses, input);
                let to = input.pick(&[53, 53, 67, 547, 9, 81, 123, 0]);
                let from = input.pick(&[68, 546, 2000, 2001, 2002, 2003, 2004, 0]);
                let len = usize::from(input.u16() & 0x1ff);
                let payload = input.take(len);
                let frame = frames::ip(ends, 17, 64, &frames::udp(from, to, payload));
                let size = input.u8();
                let segments = (size > 0).then_some(Segments {
                    kind: SegmentKind::Udp,
                    header_len: 0,
                    size: size.into(),
                    ecn: false,
                });
                let offload = Offload { checksum_valid: true, segments, checksum: None };
                self.network.send(&offload, &frame);
            }
            8 => {
                let ends = Ends::pick(&addresses, input);
                let protocol = if matches!(ends, Ends::V4(..)) { 1 } else { 58 };
                let len = usize::from(input.u8());
                let mut message = input.take(len).to_vec();
                // Mostly requests: echo, and a neighbour's.
                if let (Some(kind), choice @ 0..200) = (message.first_mut(), input.u8()) {
                    *kind = match (protocol, choice & 3) {
                        (1, _) => 8,
                        (_, 0) => 133,
                        (_, 1) => 135,
                        _ => 128,
                    };
                }
                frames::icmp(ends, &mut message);
                let hop_limit = if input.u8() & 1 == 0 { 255 } else { 64 };
                self.send(&frames::ip(ends, protocol, hop_limit, &message));
            }
            9 => self.fragment(input),
            10 => {
                let step = input.pick(&[0, 1, 5, 20, 500, 3000, 20_000, 200_000, 4_000_000]);
                // As a card's thread does: woken when it asked to be.
                let end = self.now + Duration::from_millis(step);
                for _ in 0..64 {
                    let Some(at) = self.network.deadline().filter(|at| *at < end) else { break };
                    self.now = self.now.max(at);
                    self.network.turn(self.now);
                    self.drain(4);
                }
                self.now = end;
                self.network.turn(self.now);
            }
            11 | 12 => self.drain(usize::from(input.u8() & 31) + 1),
            13 | 14 => {
                let (which, how) = (input.u8(), input.u8());
                self.network.outside().happen(which, how);
                self.network.turn(self.now);
            }
            _ => self.steer(input),
        }
    }

    /// A segment that is mostly in its place.
    fn segment(&mut self, input: &mut Input<'_>) {
        let addresses = Config::new(MAC).addresses;
        let index = input.below(PORTS.len());
        let (from, to) = PORTS[index];
        let choice = input.u8();
        let flags = match choice & 15 {
            0..=3 => 0x02,
            4..=8 => 0x10,
            9 | 10 => 0x18,
            11 | 12 => 0x11,
            13 => 0x04,
            14 => 0x14,
            _ => input.u8(),
        };
        let mut connection = self.connections[index];
        if choice & 0x10 != 0 {
            let near =
                i32::from(input.u16().cast_signed()) * if choice & 0x20 != 0 { 1 } else { 4099 };
            connection.seq = connection.seq.wrapping_add_signed(near);
        }
        if choice & 0xc0 == 0xc0 {
            let near = i32::from(input.u16().cast_signed());
            connection.ack = connection.ack.wrapping_add_signed(near);
        }
        let window = input.pick(&[0xffff, 0xffff, 1000, 1, 0, 0x8000]);
        let options = input.pick(&[0usize, 0, 4, 8, 20]);
        let options = input.take(options).to_vec();
        let len = usize::from(input.u8()) << input.pick(&[0, 0, 4, 8]);
        let some = input.take(len.min(64)).to_vec();
        let mut payload = some;
        payload.resize(len.min(65_000), 0x55);
        let host = if index == 2 { addresses.gateway } else { addresses.host };
        let ends = Ends::V4(addresses.guest.octets(), host.octets());
        let segment = frames::tcp((from, to), connection, flags, window, &options, &payload);
        let frame = frames::ip(ends, 6, 64, &segment);
        let offload =
            Offload { checksum: Some(Partial { start: 34, offset: 16 }), ..Offload::default() };
        self.network.send(&offload, &frame);
        if choice & 0x10 == 0 {
            let control = u32::from(flags & 1 != 0) + u32::from(flags & 2 != 0);
            let next = &mut self.connections[index].seq;
            *next = next.wrapping_add(payload.len() as u32).wrapping_add(control);
        }
    }

    fn fragment(&mut self, input: &mut Input<'_>) {
        let addresses = Config::new(MAC).addresses;
        let ends = Ends::pick(&addresses, input);
        let (place, id) = (input.u16(), input.u8() & 3);
        let protocol = input.pick(&[17, 6, 1, 58]);
        let len = usize::from(input.u8());
        let payload = input.take(len);
        let frame = match ends {
            Ends::V4(..) => {
                let mut frame = frames::ip(ends, protocol, 64, payload);
                frame[19] = id;
                frame[20..22].copy_from_slice(&(place & 0x20ff).to_be_bytes());
                frames::fix(&mut frame[14..]);
                frame
            }
            Ends::V6(..) => {
                let place = place & 0x7f9;
                let mut whole = vec![protocol, 0, (place >> 8) as u8, place as u8, 0, 0, 0, id];
                whole.extend(payload);
                frames::ip(ends, 44, 64, &whole)
            }
        };
        self.send(&frame);
    }

    /// What the user and the driver do.
    fn steer(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 => {
                let policy = Policy { host: HostAccess::Ports(vec![80]), ..Policy::default() };
                self.control.set_policy(policy);
            }
            1 => {
                let policy = Policy { host: HostAccess::All, ..Policy::default() };
                self.control.set_policy(policy);
            }
            2 => self.control.plug(input.u8() & 1 == 0),
            3 => self.control.set_names(vec![("db".to_owned(), [192, 0, 2, 9].into())]),
            4 | 5 => {
                let udp = input.u8() & 1 == 0;
                let at = std::net::SocketAddr::from(([127, 0, 0, 1], 7000));
                let listen = if udp { Listen::Udp(at) } else { Listen::Tcp(at) };
                // Nothing listens: the stand-in throws away what it is handed.
                let Ok(handed) = std::fs::File::open("/dev/null") else { return };
                if self.control.forwards().len() < 2 {
                    let forward = Forward { listen, address: None, port: 7 };
                    let _ = self.control.add_open(forward, handed.into());
                }
            }
            6 => {
                if let Some(first) = self.control.forwards().first() {
                    let _ = self.control.remove(first.id);
                }
            }
            _ => {
                let checksum = input.u8() & 1 == 0;
                self.network.accepts(Accepts { checksum, ..Accepts::default() });
            }
        }
        self.network.turn(self.now);
    }

    /// Takes frames, as a driver with so many buffers would.
    fn drain(&mut self, most: usize) {
        for _ in 0..most {
            let Some((offload, len)) = self.network.receive(&mut self.frame) else { return };
            assert!((14..=MAX_FRAME).contains(&len), "a frame of {len} bytes");
            assert!(offload.fits(len), "{offload:?} in {len} bytes");
            assert!(len <= 14 + usize::from(self.network.mtu()), "{len} bytes are above the MTU");
            self.back += 1;
            if let Some((ports, connection, flags)) = frames::heard(&self.frame[..len])
                && let Some(index) = PORTS.iter().position(|known| *known == ports)
            {
                let own = &mut self.connections[index];
                own.ack = connection.ack;
                // Only its answer to a SYN says where the guest is.
                if flags & 2 != 0 {
                    own.seq = connection.seq;
                }
            }
        }
    }

    /// What is true at any time.
    fn check(&self) {
        let counted = self.control.counters();
        assert!(counted.tcp_now <= LIMITS.tcp_flows as u64);
        assert!(counted.tcp_bytes_now <= LIMITS.tcp_bytes as u64);
        assert!(counted.udp_now <= LIMITS.udp_flows as u64);
    }

    /// When nothing more comes from anywhere, everything ends by itself.
    fn end(&mut self) {
        self.control.plug(true);
        for forward in self.control.forwards() {
            let _ = self.control.remove(forward.id);
        }
        self.network.turn(self.now);
        let hours = self.now + Duration::from_secs(6 * 3600);
        let mut turns = 0u32;
        while let Some(at) = self.network.deadline().filter(|at| *at < hours) {
            self.now = self.now.max(at);
            self.network.turn(self.now);
            self.drain(64);
            turns += 1;
            assert!(turns < 200_000, "it never rests");
        }
        assert_eq!(self.control.counters().udp_now, 0);
    }
}

/// The beginnings of what a guest does.
fn seeds() -> Vec<Vec<u8>> {
    // A world that mostly goes along.
    let begin = |mode: u8| [&[4, 0x10, 0xc1, 0x10, 0xa0, mode][..]].concat();
    let connect = [3, 0, 0, 0, 0, 0, 0, 10, 0, 11, 8, 3, 0, 4, 0, 0, 0, 0, 11, 8];
    let say = [3, 0, 9, 0, 0, 5, 0, b'h', b'e', b'l', b'l', b'o', 13, 0, 3, 11, 8];
    let end = [3, 0, 11, 0, 0, 0, 0, 13, 0, 3, 11, 8, 10, 4];
    let mut ask = vec![6, 0, 0, 2, 0, 29];
    ask.extend([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7]);
    ask.extend(b"example\x03com\0\0\x01\0\x01");
    ask.extend([0, 13, 0, 1, 11, 8]);
    let neighbours = [8, 0xa2, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        [&begin(2)[..], &connect, &say, &say, &end].concat(),
        [&begin(3)[..], &connect, &say, &end].concat(),
        [&begin(6)[..], &ask, &ask].concat(),
        [&begin(0)[..], &neighbours, &[11, 31]].concat(),
    ]
}

/// Acts by chance, with a script that mostly goes along.
fn generate(random: &mut Random) -> Vec<u8> {
    let script = random.below(64);
    let mut case = vec![script as u8];
    for _ in 0..script {
        let kind = random.below(4);
        case.push(if kind == 0 { random.byte() } else { random.byte() & 0xbf });
    }
    case.push(random.byte());
    let acts = random.below(120);
    for _ in 0..acts {
        // Connections, drains and events most of all.
        let act = match random.below(12) {
            0..=4 => 3,
            5 | 6 => 11,
            7 => 13,
            8 => 10,
            9 => 6,
            _ => random.byte(),
        };
        case.push(act);
        match act {
            3 => {
                case.push(random.byte() & 3);
                let choice = random.byte();
                // Mostly where it should be.
                case.push(if random.one_in(4) { choice } else { choice & 0x0f });
                if random.one_in(3) {
                    let some = random.below(12);
                    case.extend(random.bytes(some));
                } else {
                    case.extend([0, 0, random.byte() & 31, random.byte() & 3]);
                }
            }
            6 => {
                let mut question = vec![0, random.byte() & 7, random.byte() & 7, 0, 29];
                question.extend([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7]);
                question.extend(b"example\x03com\0\0\x01\0\x01\0");
                if random.one_in(3) {
                    let at = random.below(question.len());
                    question[at] = random.byte();
                }
                case.extend(question);
            }
            10 => case.push(random.byte() & 7),
            11 => case.push(8),
            13 => case.extend([random.byte() & 7, random.byte() & 3]),
            _ => {
                let some = random.below(40);
                case.extend(random.bytes(some));
            }
        }
    }
    case
}
