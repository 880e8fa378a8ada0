//! A guest: `smoltcp`'s own stack, at the other end of the cable.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant as WireInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};

use crate::link::{Accepts, Link, MAX_FRAME, Offload, now};
use crate::user::{Addresses, Config, Control, UserNetwork};

/// The guest's card.
pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// After how long a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The guest's card, both directions.
#[derive(Default)]
pub(super) struct Card {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    mtu: usize,
}

pub(super) struct Received(Vec<u8>);
pub(super) struct Send<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Send<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Send<'a>;

    fn receive(&mut self, _: WireInstant) -> Option<(Received, Send<'_>)> {
        Some((Received(self.received.pop_front()?), Send(&mut self.sent)))
    }

    fn transmit(&mut self, _: WireInstant) -> Option<Send<'_>> {
        (self.sent.len() < 64).then_some(Send(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // Checksums are looked at, and filled in.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// A guest on its network.
pub(super) struct Guest {
    pub(super) network: UserNetwork,
    pub(super) control: Control,
    pub(super) addresses: Addresses,
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    card: Card,
    frame: Vec<u8>,
    port: u16,
    /// Frames that the test looks at itself.
    pub(super) seen: Vec<Vec<u8>>,
    pub(super) look: bool,
}

impl Guest {
    /// A guest with the addresses that it would be told.
    pub(super) fn new(config: Config) -> Self {
        let addresses = config.addresses;
        let (mut network, control) = UserNetwork::new(config).unwrap();
        // As a driver does that takes checksums half done.
        network.accepts(Accepts { checksum: true, ..Accepts::default() });
        network.turn(now());
        let mut card = Card { mtu: network.mtu().into(), ..Card::default() };
        let mut config = InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        config.random_seed = 7;
        let mut interface = Interface::new(config, &mut card, wire_now());
        interface.update_ip_addrs(|list| {
            for (address, prefix) in addresses.guest_addresses() {
                list.push(IpCidr::new(address.into(), prefix)).unwrap();
            }
        });
        interface.routes_mut().add_default_ipv4_route(addresses.gateway).unwrap();
        if let Some(v6) = addresses.v6 {
            interface.routes_mut().add_default_ipv6_route(v6.link_local).unwrap();
        }
        Self {
            network,
            control,
            addresses,
            interface,
            sockets: SocketSet::new(Vec::new()),
            card,
            frame: vec![0; MAX_FRAME],
            port: 40_000,
            seen: Vec::new(),
            look: false,
        }
    }

    /// Lets everything happen that can happen now; whether anything did.
    pub(super) fn step(&mut self) -> bool {
        self.network.turn(now());
        let mut moved = false;
        // A ring of so many buffers.
        while self.card.received.len() < 64 {
            let Some((offload, len)) = self.network.receive(&mut self.frame) else { break };
            let mut frame = self.frame[..len].to_vec();
            finish(&offload, &mut frame);
            if self.look {
                self.seen.push(frame.clone());
            }
            self.card.received.push_back(frame);
            moved = true;
        }
        self.interface.poll(wire_now(), &mut self.card, &mut self.sockets);
        while let Some(frame) = self.card.sent.pop_front() {
            self.network.send(&Offload::default(), &frame);
            moved = true;
        }
        moved
    }

    /// Lets things happen until something is true.
    #[track_caller]
    pub(super) fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "it did not happen");
            if !self.step() {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Lets things happen for a while.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.until(|_| Instant::now() >= end);
    }

    /// Sends a frame as it is.
    pub(super) fn send_raw(&mut self, frame: &[u8]) {
        self.network.send(&Offload::default(), frame);
    }

    /// A port that was not used yet.
    fn next_port(&mut self) -> u16 {
        self.port += 1;
        self.port
    }

    /// Begins a connection, with buffers of `size` bytes.
    pub(super) fn connect(&mut self, to: SocketAddr, size: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        let port = self.next_port();
        socket.connect(self.interface.context(), end(to), port).unwrap();
        self.sockets.add(socket)
    }

    /// A connection that is made.
    #[track_caller]
    pub(super) fn connected(&mut self, to: SocketAddr, size: usize) -> SocketHandle {
        let handle = self.connect(to, size);
        self.until(|guest| guest.tcp(handle).may_send());
        handle
    }

    /// Waits for a connection on a port of the guest's.
    pub(super) fn listen(&mut self, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends all of it, and lets things happen meanwhile.
    #[track_caller]
    pub(super) fn say(&mut self, handle: SocketHandle, mut bytes: &[u8]) {
        self.until(|guest| {
            let sent = guest.tcp(handle).send_slice(bytes).unwrap();
            bytes = &bytes[sent..];
            bytes.is_empty()
        });
    }

    /// Everything that is said until there is no more.
    #[track_caller]
    pub(super) fn hear_all(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut heard = Vec::new();
        self.until(|guest| {
            let socket = guest.tcp(handle);
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).unwrap();
            }
            !socket.may_recv()
        });
        heard
    }

    /// A socket for datagrams, on a port of its own.
    pub(super) fn datagrams(&mut self, port: u16) -> SocketHandle {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 256 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        let port = if port == 0 { self.next_port() } else { port };
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends a datagram, and gives the next that comes.
    #[track_caller]
    pub(super) fn exchange(
        &mut self,
        handle: SocketHandle,
        to: SocketAddr,
        bytes: &[u8],
    ) -> (Vec<u8>, SocketAddr) {
        self.udp(handle).send_slice(bytes, end(to)).unwrap();
        self.hear_datagram(handle)
    }

    /// The next datagram that comes.
    #[track_caller]
    pub(super) fn hear_datagram(&mut self, handle: SocketHandle) -> (Vec<u8>, SocketAddr) {
        self.until(|guest| guest.udp(handle).can_recv());
        let (bytes, from) = self.udp(handle).recv().unwrap();
        let from = from.endpoint;
        (bytes.to_vec(), SocketAddr::new(IpAddr::from(from.addr), from.port))
    }
}

/// Fills in the checksum that was left to the card.
fn finish(offload: &Offload, frame: &mut [u8]) {
    assert!(offload.fits(frame.len()) && offload.segments.is_none());
    let Some(partial) = offload.checksum else { return };
    let start = usize::from(partial.start);
    let at = start + usize::from(partial.offset);
    let sum = !smoltcp::wire::checksum::data(&frame[start..]);
    // In UDP no sum is written as zero.
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn end(at: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(at.ip().into(), at.port())
}

fn wire_now() -> WireInstant {
    WireInstant::from_micros(now().as_micros() as i64)
}
