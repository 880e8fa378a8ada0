use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::packet::{
    HEADER_LEN, Header, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM, op,
};
use super::*;
use crate::virtio::driver_test::{Choices, Guest, PATIENCE};

/// Receive buffers as Linux gives them.
const RX: u32 = 4096;
const PORT: u32 = 5000;

/// The guest's socket layer: sends and receives packets.
struct Sockets {
    guest: Guest,
    handle: VsockHandle,
    listener: Option<Receiver<UnixStream>>,
}

/// The guest's end of one stream, as far as credit goes.
#[derive(Debug, Clone, Copy)]
struct End {
    guest_port: u32,
    host_port: u32,
    alloc: u32,
    received: u32,
    sent: u32,
    host_alloc: u32,
    host_forwarded: u32,
}

impl End {
    fn header(&self, op: u16) -> Header {
        Header {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: self.guest_port,
            dst_port: self.host_port,
            kind: TYPE_STREAM,
            op,
            buf_alloc: self.alloc,
            fwd_cnt: self.received,
            ..Header::default()
        }
    }

    fn note(&mut self, header: &Header) {
        (self.host_alloc, self.host_forwarded) = (header.buf_alloc, header.fwd_cnt);
    }

    fn credit(&self) -> usize {
        (self.host_alloc - self.sent.wrapping_sub(self.host_forwarded)) as usize
    }
}

fn choices() -> Choices {
    Choices::default()
}

fn setup() -> Sockets {
    let (device, handle) = Vsock::new(GUEST_CID);
    Sockets::new(Guest::new(Box::new(device), choices()), handle)
}

impl Sockets {
    fn new(guest: Guest, handle: VsockHandle) -> Self {
        let mut this = Self { guest, handle, listener: None };
        this.refill();
        this
    }

    fn refill(&mut self) {
        while self.guest.rings[0].has_room(1) {
            self.guest.submit(RECEIVE, &[], &[RX]);
        }
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        let header = Header { len: payload.len() as u32, ..header };
        self.send_raw(&header.encode(), payload);
    }

    fn send_raw(&mut self, header: &[u8], payload: &[u8]) {
        let until = Instant::now() + PATIENCE;
        while !self.guest.rings[1].has_room(2) {
            // The device may hold transmissions back, but only until the guest takes packets.
            assert!(Instant::now() < until, "the device does not take packets");
            if self.guest.poll(TRANSMIT).is_none() {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        if payload.is_empty() {
            self.guest.submit(TRANSMIT, &[header], &[]);
        } else {
            self.guest.submit(TRANSMIT, &[header, payload], &[]);
        }
        while self.guest.poll(TRANSMIT).is_some() {}
    }

    fn poll(&mut self) -> Option<(Header, Vec<u8>)> {
        let used = self.guest.poll(RECEIVE)?;
        Some(self.received(used))
    }

    fn receive(&mut self) -> (Header, Vec<u8>) {
        let used = self.guest.wait(RECEIVE);
        self.received(used)
    }

    fn received(&mut self, used: crate::virtio::driver_test::Used) -> (Header, Vec<u8>) {
        let (header, rest) = used.data.split_first_chunk::<HEADER_LEN>().unwrap();
        let header = Header::decode(header);
        let payload = rest[..header.len as usize].to_vec();
        assert_eq!(used.len as usize, HEADER_LEN + payload.len());
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, GUEST_CID));
        self.refill();
        (header, payload)
    }

    /// The next packet that is not about credit.
    fn receive_op(&mut self, end: &mut End) -> (Header, Vec<u8>) {
        loop {
            let (header, payload) = self.receive();
            end.note(&header);
            end.received = end.received.wrapping_add(header.len);
            if !matches!(header.op, op::CREDIT_UPDATE | op::CREDIT_REQUEST) {
                return (header, payload);
            }
        }
    }

    /// Connects from the guest to a listening port of the host.
    fn connect(&mut self, guest_port: u32) -> End {
        let mut end = End {
            guest_port,
            host_port: PORT,
            alloc: 256 << 10,
            received: 0,
            sent: 0,
            host_alloc: 0,
            host_forwarded: 0,
        };
        self.send(end.header(op::REQUEST), &[]);
        let (header, _) = self.receive_op(&mut end);
        assert_eq!((header.op, header.src_port, header.dst_port), (op::RESPONSE, PORT, guest_port));
        end
    }

    fn rw(&mut self, end: &mut End, payload: &[u8]) {
        end.sent = end.sent.wrapping_add(payload.len() as u32);
        self.send(end.header(op::RW), payload);
    }

    /// A connection both ends of which are open.
    fn stream(&mut self) -> (End, UnixStream) {
        let listener = self.handle.listen(PORT).unwrap();
        let end = self.connect(1000);
        let stream = listener.recv_timeout(PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        self.listener = Some(listener);
        (end, stream)
    }

    /// Nothing more comes for the guest.
    fn quiet(&mut self) {
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(self.poll(), None);
    }
}

#[test]
fn the_guest_connects_and_both_talk() {
    let mut sockets = setup();
    let (mut end, mut stream) = sockets.stream();
    sockets.rw(&mut end, b"hello host");
    let mut buf = [0; 10];
    stream.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"hello host");
    stream.write_all(b"hello guest").unwrap();
    let (header, payload) = sockets.receive_op(&mut end);
    assert_eq!((header.op, payload.as_slice()), (op::RW, &b"hello guest"[..]));
}

#[test]
fn the_host_connects_and_both_talk() {
    let mut sockets = setup();
    let handle = sockets.handle.clone();
    let caller = std::thread::spawn(move || handle.connect(77, PATIENCE));
    let (request, _) = sockets.receive();
    assert_eq!((request.op, request.dst_port), (op::REQUEST, 77));
    let mut end = End {
        guest_port: 77,
        host_port: request.src_port,
        alloc: 1 << 16,
        received: 0,
        sent: 0,
        host_alloc: request.buf_alloc,
        host_forwarded: 0,
    };
    sockets.send(end.header(op::RESPONSE), &[]);
    let mut stream = caller.join().unwrap().unwrap();
    stream.write_all(b"ping").unwrap();
    assert_eq!(sockets.receive_op(&mut end).1, b"ping");
    sockets.rw(&mut end, b"pong");
    let mut buf = [0; 4];
    stream.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"pong");
}

#[test]
fn refusals_have_a_reason() {
    let mut sockets = setup();
    let handle = sockets.handle.clone();
    let caller = std::thread::spawn(move || handle.connect(77, PATIENCE));
    let (request, _) = sockets.receive();
    sockets.send(request.reset(), &[]);
    assert_eq!(caller.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionRefused);

    let error = sockets.handle.connect(77, Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let (request, _) = sockets.receive();
    let (reset, _) = sockets.receive();
    assert_eq!((request.op, reset.op, reset.src_port), (op::REQUEST, op::RST, request.src_port));

    let _listener = sockets.handle.listen(1).unwrap();
    assert_eq!(sockets.handle.listen(1).unwrap_err().kind(), ErrorKind::AddrInUse);
    sockets.handle.unlisten(1);
    sockets.handle.listen(1).unwrap();

    let (device, handle) = Vsock::new(GUEST_CID);
    assert_eq!(handle.connect(1, PATIENCE).unwrap_err().kind(), ErrorKind::NotConnected);
    let guest = Guest::new(Box::new(device), choices());
    let caller = std::thread::spawn(move || handle.connect(1, PATIENCE));
    crate::virtio::driver_test::until(|| !guest.pci.save().common.queues.is_empty());
    std::thread::sleep(Duration::from_millis(20));
    guest.write8(0x14, 0);
    let kind = caller.join().unwrap().unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::NotConnected), "{kind}");
}

#[test]
fn what_is_not_there_is_reset() {
    let mut sockets = setup();
    let end = End {
        guest_port: 9,
        host_port: 10,
        alloc: 0,
        received: 0,
        sent: 0,
        host_alloc: 0,
        host_forwarded: 0,
    };
    let stray = [
        end.header(op::REQUEST),
        end.header(op::RW),
        end.header(op::SHUTDOWN),
        end.header(99),
        Header { kind: 2, ..end.header(op::REQUEST) },
        Header { dst_cid: 99, ..end.header(op::REQUEST) },
    ];
    for header in stray {
        sockets.send(header, &[]);
        let used = sockets.guest.wait(RECEIVE);
        let reset = Header::decode(used.data.first_chunk().unwrap());
        assert_eq!(reset, header.reset());
        sockets.refill();
    }
    // A reset is not answered, and neither is someone else's packet, nor half a header.
    sockets.send(end.header(op::RST), &[]);
    sockets.send(Header { src_cid: 99, ..end.header(op::REQUEST) }, &[]);
    sockets.send_raw(&[1; 20], &[]);
    sockets.quiet();
}

/// Moves `total` bytes each way at once, through a host that echoes.
fn echo(total: usize, features: u64, pauses: bool) {
    let (device, handle) = Vsock::new(GUEST_CID);
    let guest = Guest::new(Box::new(device), Choices { features, ..choices() });
    let mut sockets = Sockets::new(guest, handle);
    let (mut end, stream) = sockets.stream();
    let echo = std::thread::spawn(move || {
        let mut stream = stream;
        let mut buf = vec![0; 100_000];
        loop {
            let len = stream.read(&mut buf).unwrap();
            if len == 0 {
                return;
            }
            stream.write_all(&buf[..len]).unwrap();
        }
    });
    let byte = |at: usize| (at * 31 + (at >> 9)) as u8;
    let (mut sent, mut got) = (0, 0);
    let mut told = end.received;
    let until = Instant::now() + Duration::from_secs(60);
    while got < total {
        assert!(Instant::now() < until, "stuck: sent {sent}, got {got}, {end:?}");
        if pauses {
            sockets.guest.pci.pause();
            sockets.guest.pci.save();
            sockets.guest.pci.resume();
        }
        let len = end.credit().min(total - sent).min(0x10000);
        // As long as less than the buffers of both sides is on the way, nobody waits for the other.
        if len > 0 && sent - got < 400_000 {
            let payload: Vec<u8> = (sent..sent + len).map(byte).collect();
            told = end.received;
            sockets.rw(&mut end, &payload);
            sent += len;
        }
        while let Some((header, payload)) = sockets.poll() {
            end.note(&header);
            assert!(
                matches!(header.op, op::RW | op::CREDIT_UPDATE | op::CREDIT_REQUEST),
                "{header:?}"
            );
            assert!(payload.iter().enumerate().all(|(n, b)| *b == byte(got + n)));
            got += payload.len();
            end.received = end.received.wrapping_add(header.len);
            if header.op == op::CREDIT_REQUEST || end.received.wrapping_sub(told) > 128 << 10 {
                told = end.received;
                sockets.send(end.header(op::CREDIT_UPDATE), &[]);
            }
        }
    }
    sockets.send(Header { flags: SHUTDOWN_BOTH, ..end.header(op::SHUTDOWN) }, &[]);
    assert_eq!(sockets.receive_op(&mut end).0.op, op::RST);
    echo.join().unwrap();
}

#[test]
fn ten_mebibytes_each_way() {
    echo(10 << 20, u64::MAX, false);
}

#[test]
fn ten_mebibytes_each_way_without_event_indices() {
    echo(10 << 20, 0, false);
}

#[test]
fn pauses_lose_nothing() {
    echo(4 << 20, u64::MAX, true);
}

#[test]
fn the_guest_may_close_its_half() {
    let mut sockets = setup();
    let (mut end, mut stream) = sockets.stream();
    sockets.rw(&mut end, b"last words");
    sockets.send(Header { flags: SHUTDOWN_SEND, ..end.header(op::SHUTDOWN) }, &[]);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last words");
    stream.write_all(b"answer").unwrap();
    assert_eq!(sockets.receive_op(&mut end).1, b"answer");
    drop(stream);
    let (header, _) = sockets.receive_op(&mut end);
    assert_eq!((header.op, header.flags & SHUTDOWN_SEND), (op::SHUTDOWN, SHUTDOWN_SEND));
    sockets.send(Header { flags: SHUTDOWN_BOTH, ..end.header(op::SHUTDOWN) }, &[]);
    while sockets.receive_op(&mut end).0.op != op::RST {}
}

#[test]
fn the_host_may_close_its_half() {
    let mut sockets = setup();
    let (mut end, mut stream) = sockets.stream();
    stream.write_all(&[7; 10_000]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = 0;
    loop {
        let (header, payload) = sockets.receive_op(&mut end);
        if header.op == op::SHUTDOWN {
            assert_eq!(header.flags, SHUTDOWN_SEND);
            break;
        }
        got += payload.len();
    }
    assert_eq!(got, 10_000, "the end comes after the data");
    sockets.rw(&mut end, b"still here");
    let mut buf = [0; 10];
    stream.read_exact(&mut buf).unwrap();
    drop(stream);
    let (header, _) = sockets.receive_op(&mut end);
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, SHUTDOWN_BOTH));
    // What the guest sends now goes nowhere, and is not an error.
    sockets.rw(&mut end, &[0; 1000]);
    sockets.send(end.header(op::RST), &[]);
    sockets.quiet();
}

#[test]
fn a_guest_that_stops_receiving_breaks_the_hosts_pipe() {
    let mut sockets = setup();
    let (end, mut stream) = sockets.stream();
    sockets.send(Header { flags: SHUTDOWN_RECEIVE, ..end.header(op::SHUTDOWN) }, &[]);
    crate::virtio::driver_test::until(|| stream.write(b"x").is_err());
}

#[test]
fn a_guest_that_closes_is_done_at_once_and_its_data_arrives() {
    let mut sockets = setup();
    let (mut end, mut stream) = sockets.stream();
    // More than the host's socket takes.
    let data: Vec<u8> = (0..400_000u32).map(|n| (n % 253) as u8).collect();
    for chunk in data.chunks(0x8000) {
        while end.credit() < chunk.len() {
            let (header, _) = sockets.receive();
            end.note(&header);
        }
        sockets.rw(&mut end, chunk);
    }
    sockets.send(Header { flags: SHUTDOWN_BOTH, ..end.header(op::SHUTDOWN) }, &[]);
    assert_eq!(sockets.receive_op(&mut end).0.op, op::RST);
    // The guest may use the ports again while the host still reads.
    let again = sockets.connect(1000);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all == data);
    sockets.send(again.header(op::RST), &[]);
}

#[test]
fn a_flood_without_credit_is_reset() {
    let mut sockets = setup();
    let (mut end, _stream) = sockets.stream();
    for _ in 0..64 {
        sockets.rw(&mut end, &[0; 0x10000]);
    }
    assert_eq!(sockets.receive_op(&mut end).0.op, op::RST);
}

#[test]
fn the_device_respects_the_guests_credit() {
    let mut sockets = setup();
    let (mut end, mut stream) = sockets.stream();
    end.alloc = 1000;
    sockets.send(end.header(op::CREDIT_UPDATE), &[]);
    // Until the update is seen the old credit holds.
    sockets.send(end.header(op::CREDIT_REQUEST), &[]);
    assert_eq!(sockets.receive().0.op, op::CREDIT_UPDATE);
    stream.write_all(&[1; 2500]).unwrap();
    let (header, _) = sockets.receive();
    assert_eq!((header.op, header.len), (op::RW, 1000));
    assert_eq!(sockets.receive().0.op, op::CREDIT_REQUEST);
    sockets.quiet();
    end.received = 700;
    sockets.send(end.header(op::CREDIT_UPDATE), &[]);
    assert_eq!(sockets.receive().0.len, 700);
    // A guest that takes its promise back, or counts nonsense, gets nothing.
    end.received = 5000;
    sockets.send(end.header(op::CREDIT_UPDATE), &[]);
    end.alloc = 10;
    sockets.send(end.header(op::CREDIT_UPDATE), &[]);
    assert_eq!(sockets.receive().0.op, op::CREDIT_REQUEST);
    sockets.quiet();
}

#[test]
fn packets_that_lie_about_their_length_reset_the_connection() {
    for (len, payload) in [(100u32, 10usize), (u32::MAX, 10), (0x10001, 0x10001)] {
        let mut sockets = setup();
        let (mut end, mut stream) = sockets.stream();
        let header = Header { len, ..end.header(op::RW) };
        sockets.send_raw(&header.encode(), &vec![0; payload]);
        assert_eq!(sockets.receive_op(&mut end).0.op, op::RST, "{len}");
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    }
}

#[test]
fn connections_are_limited_and_dead_ones_make_way() {
    let (device, handle) = Vsock::new(GUEST_CID);
    let device = Vsock { max_connections: 3, ..device };
    let mut sockets = Sockets::new(Guest::new(Box::new(device), choices()), handle);
    let listener = sockets.handle.listen(PORT).unwrap();
    let mut streams = Vec::new();
    let mut end = sockets.connect(1);
    for port in 2..=3 {
        sockets.connect(port);
    }
    for _ in 0..3 {
        streams.push(listener.recv_timeout(PATIENCE).unwrap());
    }
    let request = End { guest_port: 4, ..end }.header(op::REQUEST);
    sockets.send(request, &[]);
    assert_eq!(sockets.receive().0.op, op::RST);
    // The host closes one; the guest does not react; the next connection takes its place.
    streams.remove(0);
    assert_eq!(sockets.receive_op(&mut end).0.op, op::SHUTDOWN);
    sockets.send(request, &[]);
    let (reset, _) = sockets.receive();
    assert_eq!((reset.op, reset.dst_port), (op::RST, 1));
    let (response, _) = sockets.receive();
    assert_eq!((response.op, response.dst_port), (op::RESPONSE, 4));
}

#[test]
fn a_listener_that_is_gone_refuses() {
    let mut sockets = setup();
    drop(sockets.handle.listen(PORT).unwrap());
    let request = Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: 1,
        dst_port: PORT,
        kind: TYPE_STREAM,
        op: op::REQUEST,
        ..Header::default()
    };
    sockets.send(request, &[]);
    assert_eq!(sockets.receive().0.op, op::RST);
    sockets.handle.listen(PORT).unwrap();
}

#[test]
fn a_reset_of_the_driver_ends_all_connections() {
    let mut sockets = setup();
    let (_, mut stream) = sockets.stream();
    sockets.guest.write8(0x14, 0);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn after_a_restore_the_guest_is_told() {
    let mut sockets = setup();
    let (_, mut stream) = sockets.stream();
    sockets.guest.submit(EVENT, &[], &[4]);
    sockets.guest.pci.pause();
    let state = sockets.guest.pci.save();
    let DeviceState::Vsock(vsock) = &state.device else { panic!("{state:?}") };
    let (device, handle) = Vsock::restore(vsock);
    let guest = sockets.guest.restored(Box::new(device), &state);
    assert_eq!(guest.pci.save(), state);
    let mut again = Sockets { guest, handle, listener: None };
    again.guest.pci.resume();
    let event = again.guest.wait(EVENT);
    assert_eq!((event.len, event.data), (4, vec![0; 4]));
    again.refill();
    let _listener = again.handle.listen(PORT).unwrap();
    again.connect(1234);
    // The machine that was only saved goes on with its connections.
    sockets.guest.pci.resume();
    stream.write_all(b"x").unwrap();
    assert_eq!(sockets.receive().0.op, op::RW);
    assert_eq!(sockets.guest.poll(EVENT), None);
}

#[test]
fn configuration_is_the_context_id() {
    let sockets = setup();
    assert_eq!((sockets.guest.read32(0x2000), sockets.guest.read32(0x2004)), (3, 0));
    assert_eq!(sockets.guest.read32(0x2008), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any packets in any order: the device lives, and serves an honest connection afterwards.
    #[test]
    fn hostile_packets_are_harmless(
        packets in proptest::collection::vec(
            (0u16..9, 1u32..4, prop_oneof![Just(PORT), 1u32..3], 0u32..5, 0u32..3000, any::<u32>(), any::<u32>(), 0usize..3000),
            1..120,
        ),
    ) {
        let mut sockets = setup();
        let listener = sockets.handle.listen(PORT).unwrap();
        let mut kept = Vec::new();
        for (op, src_port, dst_port, flags, len, buf_alloc, fwd_cnt, payload) in packets {
            let header = Header {
                src_cid: GUEST_CID, dst_cid: HOST_CID, src_port, dst_port, len,
                kind: TYPE_STREAM, op, flags, buf_alloc, fwd_cnt,
            };
            sockets.send_raw(&header.encode(), &vec![0xab; payload]);
            if let Ok(mut stream) = listener.try_recv() {
                stream.set_nonblocking(true).unwrap();
                let _ = stream.write(&[1; 5000]);
                if fwd_cnt % 2 == 0 {
                    kept.push(stream);
                } else {
                    drop(stream);
                }
            }
            while sockets.poll().is_some() {}
        }
        let header = Header {
            src_cid: GUEST_CID, dst_cid: HOST_CID, src_port: 999, dst_port: PORT,
            kind: TYPE_STREAM, op: op::REQUEST, ..Header::default()
        };
        sockets.send(header, &[]);
        loop {
            let (header, _) = sockets.receive();
            if header.dst_port == 999 {
                prop_assert_eq!(header.op, op::RESPONSE);
                break;
            }
        }
    }
}
