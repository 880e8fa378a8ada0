//! The device's work: packets between the queues and the connections.
//!
//! A turn moves packets until nothing moves any more. Host sockets are watched edge-triggered, so
//! that a connection costs no system call while it waits. What the guest can make the device
//! remember is bounded: connections in number and bytes, answers to nobody in number (the transmit
//! queue waits while too many are unsent).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use riad_memory::GuestMemory;
use rustix::event::epoll;

use super::connection::{Connection, Key, Violation};
use super::handle::{Shared, Wanted};
use super::packet::{HEADER_LEN, Header, PAYLOAD_MAX, TYPE_STREAM, op};
use super::{EVENT, HOST_CID, RECEIVE, TRANSMIT};
use crate::pci::lock;
use crate::virtio::chain::{Chain, Reader};
use crate::virtio::worker::{Control, Task};
use crate::virtio::{Activation, Queue, QueueError, SharedQueue, VirtioInterrupt};

/// Packets moved in one direction before the other gets a turn and the driver is told.
const BATCH: usize = 64;
/// Resets that may wait for the guest to take them.
const MAX_RESETS: usize = 1024;
/// First port of the host for connections the host makes.
const FIRST_EPHEMERAL: u32 = 1 << 30;
/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (virtio 1.3, section 5.10.6.7).
const EVENT_TRANSPORT_RESET: u32 = 0;
/// Epoll's name for the kick; connections are numbered from 1.
const KICK: u64 = 0;

/// The worker's task.
pub(super) struct Mux {
    guest_cid: u64,
    memory: GuestMemory,
    interrupt: Arc<dyn VirtioInterrupt>,
    receive: Option<SharedQueue>,
    transmit: Option<SharedQueue>,
    event: Option<SharedQueue>,
    shared: Arc<Shared>,
    epoll: OwnedFd,
    /// The kick's descriptor is in `epoll`.
    watching: bool,
    connections: HashMap<u64, Connection>,
    /// Connections the guest knows, by their ports.
    by_key: BTreeMap<Key, u64>,
    next_id: u64,
    next_port: u32,
    /// Connections that may have a packet for the guest, in turn.
    ready: VecDeque<u64>,
    /// Connections the host's socket may take bytes of.
    writable: Vec<u64>,
    /// Resets to send.
    resets: VecDeque<Header>,
    /// The guest is to be told that all connections are gone.
    transport_reset: bool,
    max_connections: usize,
    buffer: Vec<u8>,
    broken: bool,
}

impl Mux {
    pub(super) fn new(
        guest_cid: u64,
        activation: &Activation,
        shared: Arc<Shared>,
        transport_reset: bool,
        max_connections: usize,
    ) -> std::io::Result<Self> {
        Ok(Self {
            guest_cid,
            memory: activation.memory.clone(),
            interrupt: Arc::clone(&activation.interrupt),
            receive: activation.queue(usize::from(RECEIVE)),
            transmit: activation.queue(usize::from(TRANSMIT)),
            event: activation.queue(usize::from(EVENT)),
            shared,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            watching: false,
            connections: HashMap::new(),
            by_key: BTreeMap::new(),
            next_id: KICK + 1,
            next_port: FIRST_EPHEMERAL,
            ready: VecDeque::new(),
            writable: Vec::new(),
            resets: VecDeque::new(),
            transport_reset,
            max_connections,
            buffer: vec![0; PAYLOAD_MAX],
            broken: false,
        })
    }

    /// Tells the guest that all connections are gone, if it has to be told and has a buffer for it.
    fn send_transport_reset(&mut self) -> Result<(), QueueError> {
        let Some(queue) = self.event.clone().filter(|_| self.transport_reset) else {
            return Ok(());
        };
        let mut queue = lock(&queue);
        let Some(chain) = self.pop(&mut queue)? else { return Ok(()) };
        let mut writer = chain.writer(&self.memory);
        // A buffer too short for an event says nothing, and was the driver's choice.
        let _ = writer.write_all(&EVENT_TRANSPORT_RESET.to_le_bytes());
        let written = writer.written();
        queue.add_used(chain, written)?;
        self.transport_reset = false;
        if queue.publish()? {
            self.interrupt.queue(EVENT);
        }
        Ok(())
    }

    /// Takes a buffer, and asks for notifications when there is none.
    fn pop(&self, queue: &mut Queue) -> Result<Option<Chain>, QueueError> {
        match queue.pop()? {
            None if queue.enable_notifications()? => queue.pop(),
            taken => Ok(taken),
        }
    }

    /// Guest to host: up to [`BATCH`] packets. Returns whether any came.
    fn transmit(&mut self, control: &Control) -> Result<bool, QueueError> {
        let Some(queue) = self.transmit.clone() else { return Ok(false) };
        let mut queue = lock(&queue);
        let mut moved = false;
        for _ in 0..BATCH {
            if control.interrupted() || self.resets.len() >= MAX_RESETS {
                break;
            }
            let Some(chain) = self.pop(&mut queue)? else { break };
            moved = true;
            let memory = self.memory.clone();
            let mut reader = chain.reader(&memory);
            match reader.array::<HEADER_LEN>() {
                Some(header) => self.packet(&Header::decode(&header), &mut reader),
                None => tracing::debug!("the guest sent a vsock packet without a header"),
            }
            queue.add_used(chain, 0)?;
        }
        if queue.publish()? {
            self.interrupt.queue(TRANSMIT);
        }
        Ok(moved)
    }

    /// Handles one packet from the guest.
    fn packet(&mut self, header: &Header, reader: &mut Reader<'_>) {
        if header.src_cid != self.guest_cid {
            tracing::debug!(cid = header.src_cid, "the guest sent a vsock packet as someone else");
            return;
        }
        if header.dst_cid != HOST_CID || header.kind != TYPE_STREAM {
            self.refuse(header);
            return;
        }
        let key = Key { host_port: header.dst_port, guest_port: header.src_port };
        let known = self.by_key.get(&key).copied();
        if header.op == op::REQUEST {
            match known {
                None => self.accept(key, header),
                Some(id) => self.violated(id, header, Violation("a request for what exists")),
            }
            return;
        }
        let Some(id) = known else {
            self.refuse(header);
            return;
        };
        if header.op == op::RST {
            self.guest_gone(id);
            return;
        }
        let mut payload = std::mem::take(&mut self.buffer);
        let result = self.connected_packet(id, header, reader, &mut payload);
        self.buffer = payload;
        match result {
            Ok(()) => self.settle(id),
            Err(violation) => self.violated(id, header, violation),
        }
    }

    fn connected_packet(
        &mut self,
        id: u64,
        header: &Header,
        reader: &mut Reader<'_>,
        buffer: &mut [u8],
    ) -> Result<(), Violation> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.note_credit(header);
        match header.op {
            op::RESPONSE => connection.on_response(),
            op::SHUTDOWN => connection.on_shutdown(header.flags),
            op::CREDIT_UPDATE => Ok(()),
            op::CREDIT_REQUEST => {
                connection.on_credit_request();
                Ok(())
            }
            op::RW => {
                let payload = usize::try_from(header.len)
                    .ok()
                    .and_then(|len| buffer.get_mut(..len))
                    .ok_or(Violation("payload beyond 64 KiB"))?;
                reader
                    .read_exact(payload)
                    .map_err(|_| Violation("payload shorter than its header says"))?;
                connection.on_payload(payload)
            }
            _ => Err(Violation("an unknown operation")),
        }
    }

    /// The guest asks for a connection.
    fn accept(&mut self, key: Key, header: &Header) {
        let inserted = self
            .offer(key.host_port)
            .and_then(|stream| self.insert(Connection::accepted(key, stream, header)));
        if inserted.is_none() {
            self.refuse(header);
        }
    }

    /// Gives a new stream to the listener of `port`, and its other end back.
    fn offer(&mut self, port: u32) -> Option<UnixStream> {
        if !self.shared.has_listener(port) || !self.room() {
            return None;
        }
        let (ours, theirs) = UnixStream::pair().ok()?;
        ours.set_nonblocking(true).ok()?;
        self.shared.offer(port, theirs).then_some(ours)
    }

    /// A program on the host asks for a connection.
    fn begin(&mut self, wanted: Wanted) {
        let Wanted { port, stream, outcome } = wanted;
        // Dropping the outcome refuses.
        if !self.room() || stream.set_nonblocking(true).is_err() {
            return;
        }
        let Some(host_port) = self.free_port(port) else { return };
        self.insert(Connection::asking(Key { host_port, guest_port: port }, stream, outcome));
    }

    /// Whether there is room for one more connection. One that the host has closed and the guest
    /// holds on to makes way.
    fn room(&mut self) -> bool {
        if self.connections.len() < self.max_connections {
            return true;
        }
        let stale = self.connections.iter().filter(|(_, connection)| connection.host_is_done());
        let Some(oldest) = stale.map(|(id, _)| *id).min() else { return false };
        self.abort(oldest);
        true
    }

    fn free_port(&mut self, guest_port: u32) -> Option<u32> {
        for _ in 0..=self.max_connections {
            let host_port = self.next_port;
            let next = host_port.wrapping_add(1);
            self.next_port =
                if next < u32::MAX { next.max(FIRST_EPHEMERAL) } else { FIRST_EPHEMERAL };
            if !self.by_key.contains_key(&Key { host_port, guest_port }) {
                return Some(host_port);
            }
        }
        None
    }

    fn insert(&mut self, connection: Connection) -> Option<()> {
        let id = self.next_id;
        self.next_id += 1;
        let events = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(id);
        if let Err(error) = epoll::add(&self.epoll, connection.stream(), data, events) {
            tracing::warn!(%error, "the host refused to watch a vsock connection");
            return None;
        }
        self.by_key.insert(connection.key, id);
        self.connections.insert(id, connection);
        self.settle(id);
        Some(())
    }

    /// After anything happened to a connection: it may have packets to send, or be at its end.
    fn settle(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.drained() {
            self.connections.remove(&id);
        } else if connection.guest_is_done() {
            let key = connection.key;
            self.send_reset(key);
            self.guest_gone(id);
        } else if connection.given_up() {
            self.abort(id);
        } else if connection.wants_guest() && !connection.queued {
            connection.queued = true;
            self.ready.push_back(id);
        }
    }

    /// The guest does not know the connection any more.
    fn guest_gone(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.by_key.remove(&connection.key);
        if !connection.guest_gone() {
            self.connections.remove(&id);
        }
    }

    /// Ends a connection on both sides at once.
    fn abort(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if !connection.is_draining() {
            self.by_key.remove(&connection.key);
            self.send_reset(connection.key);
        }
    }

    fn violated(&mut self, id: u64, header: &Header, violation: Violation) {
        let Violation(reason) = violation;
        tracing::debug!(reason, ?header, "a vsock connection is reset");
        self.abort(id);
    }

    /// Answers a packet that belongs to no connection; never an RST, or it would go on for ever.
    fn refuse(&mut self, header: &Header) {
        if header.op != op::RST {
            self.resets.push_back(header.reset());
        }
    }

    fn send_reset(&mut self, key: Key) {
        self.resets.push_back(Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: key.host_port,
            dst_port: key.guest_port,
            kind: TYPE_STREAM,
            op: op::RST,
            ..Header::default()
        });
    }

    /// Host to guest: up to [`BATCH`] packets. Returns whether any went.
    fn receive(&mut self, control: &Control) -> Result<bool, QueueError> {
        let Some(queue) = self.receive.clone() else { return Ok(false) };
        let mut queue = lock(&queue);
        let mut moved = false;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        for _ in 0..BATCH {
            if control.interrupted() || (self.resets.is_empty() && self.ready.is_empty()) {
                break;
            }
            match self.receive_one(&mut queue, &mut buffer) {
                Ok(true) => moved = true,
                Ok(false) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.buffer = buffer;
        result?;
        if queue.publish()? {
            self.interrupt.queue(RECEIVE);
        }
        Ok(moved)
    }

    /// Puts one packet into the guest's next buffer; `false` when there is no buffer or no packet.
    fn receive_one(&mut self, queue: &mut Queue, buffer: &mut [u8]) -> Result<bool, QueueError> {
        let Some(chain) = self.pop(queue)? else { return Ok(false) };
        let memory = self.memory.clone();
        let mut writer = chain.writer(&memory);
        let room = usize::try_from(writer.remaining()).unwrap_or(usize::MAX);
        let Some(room) = room.checked_sub(HEADER_LEN) else {
            tracing::debug!("the guest gave a vsock buffer too small for a header");
            queue.add_used(chain, 0)?;
            return Ok(true);
        };
        let Some(header) = self.next_packet(room, buffer) else {
            queue.unpop(chain);
            return Ok(false);
        };
        let payload = buffer.get(..header.len as usize).unwrap_or(&[]);
        // There is room for both.
        let _ = writer.write_all(&header.encode());
        let _ = writer.write_all(payload);
        let written = writer.written();
        queue.add_used(chain, written)?;
        Ok(true)
    }

    /// The next packet for the guest, its payload in `buffer`.
    fn next_packet(&mut self, room: usize, buffer: &mut [u8]) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.queued = false;
            let header = connection.next_packet(room, buffer);
            self.settle(id);
            if let Some(header) = header {
                return Some(Header { src_cid: HOST_CID, dst_cid: self.guest_cid, ..header });
            }
        }
        None
    }

    /// Gives host sockets what they now have room for.
    fn flush_to_host(&mut self) {
        for id in std::mem::take(&mut self.writable) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.flush_to_host();
                self.settle(id);
            }
        }
    }

    fn work(&mut self, control: &Control) -> Result<(), QueueError> {
        self.send_transport_reset()?;
        for wanted in self.shared.take_wanted() {
            self.begin(wanted);
        }
        self.flush_to_host();
        while !control.interrupted() {
            let came = self.transmit(control)?;
            let went = self.receive(control)?;
            if !came && !went {
                break;
            }
        }
        Ok(())
    }
}

impl Task for Mux {
    fn turn(&mut self, control: &Control) {
        if !self.watching {
            let data = epoll::EventData::new_u64(KICK);
            let added = epoll::add(&self.epoll, control.kick_fd(), data, epoll::EventFlags::IN);
            if let Err(error) = added {
                self.broken = true;
                self.interrupt.fail(&error);
            }
            self.watching = true;
        }
        if self.broken {
            // Nobody will answer them.
            drop(self.shared.take_wanted());
            return;
        }
        if let Err(error) = self.work(control) {
            self.broken = true;
            self.connections.clear();
            self.by_key.clear();
            self.interrupt.fail(&error);
        }
    }

    fn wait(&mut self, control: &Control) {
        if self.broken {
            control.wait_for_kick();
            return;
        }
        let mut events = Vec::with_capacity(64);
        let spare = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&self.epoll, spare, None).is_err() {
            // Interrupted: the next turn looks around.
            return;
        }
        for epoll::Event { flags, data } in events {
            let id = data.u64();
            if id == KICK {
                control.clear_kick();
                continue;
            }
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let has = |flag| flags.intersects(flag);
            let writable = has(epoll::EventFlags::OUT);
            let gone = has(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            let readable = has(epoll::EventFlags::IN | epoll::EventFlags::RDHUP);
            connection.host_ready(readable, writable, gone);
            if writable {
                self.writable.push(id);
            }
            self.settle(id);
        }
    }
}
