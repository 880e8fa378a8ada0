//! One connection: the guest's TCP ends here, and a stream of the host's begins.
//!
//! What comes from the guest is written to the stream at once, and what the stream does not take waits
//! in the receive buffer, whose room is the window that the guest is told. What comes from the stream
//! is read when the guest has acknowledged enough to make room for it in the send buffer. So neither
//! side can make the network keep more than two buffers.

use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, Socket, SocketBuffer, State};
use smoltcp::time::Duration as WireDuration;

use super::super::context::Context;
use super::super::dns::stream::NameStream;
use super::super::outside::{Errno, Outside};

/// How long an acknowledgement waits for something to go along with.
const ACK_DELAY: WireDuration = WireDuration::from_millis(10);
/// How often a silent guest is asked whether the connection still exists,
const KEEP_ALIVE: WireDuration = WireDuration::from_secs(75);
/// and how long it may be silent then, or leave data unacknowledged.
const SILENCE: WireDuration = WireDuration::from_secs(600);
/// How long a stream has to take what the guest said last.
const LINGER: Duration = Duration::from_secs(600);
/// How long a guest has to take a connection that came in by a forward.
const CONNECT: WireDuration = WireDuration::from_secs(60);

/// The guest's end and the other, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) guest: SocketAddr,
    pub(super) peer: SocketAddr,
}

/// Who is at the other end.
#[derive(Debug)]
pub(super) enum Peer<S> {
    /// A stream of the host's.
    Stream(S),
    /// The network's own name server.
    Names(NameStream),
    /// Nobody any more: what is left is for the guest.
    Gone,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Open<S> {
    pub(super) sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(super) peer: Peer<S>,
    /// The stream may have something to read.
    pub(super) readable: bool,
    /// The stream may have room.
    pub(super) writable: bool,
    /// The stream has been told that nothing more comes.
    finished: bool,
    /// The guest has said that nothing more comes.
    ended: bool,
    /// The connection was cut off, by either side.
    cut: bool,
    /// The guest has the connection.
    established: bool,
    /// Both have ended, and the guest knows; since when what it said last is on its way out.
    over: bool,
    lingering: Option<Duration>,
    /// Bytes of each buffer.
    pub(super) size: usize,
}

/// Whether a connection is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Something may still happen.
    Lives,
    /// It came to an end.
    Ended,
    /// It was cut off.
    Cut,
}

impl<S> Open<S> {
    /// A connection with nobody at the guest's end yet, and buffers of `size` bytes.
    pub(super) fn new(peer: Peer<S>, size: usize) -> Self {
        let buffer = || SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(), buffer());
        // Whoever sends has decided already what goes together.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(ACK_DELAY));
        socket.set_timeout(Some(SILENCE));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            sockets,
            handle,
            peer,
            // Neither is known: trying tells.
            readable: true,
            writable: true,
            finished: false,
            ended: false,
            cut: false,
            established: false,
            over: false,
            lingering: None,
            size,
        }
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Makes it one that waits for the guest to take it.
    pub(super) fn calls(&mut self) {
        self.socket().set_timeout(Some(CONNECT));
    }

    /// A segment with these flags is about to come in.
    pub(super) fn expects(&mut self, fin: bool) {
        if fin {
            // What ends a connection is acknowledged at once: then it can be forgotten.
            self.socket().set_ack_delay(None);
        }
    }

    /// A segment came in.
    pub(super) fn heard(&mut self, reset: bool) {
        let state = self.socket().state();
        match state {
            // A guest that changes its mind makes the socket wait for another connection.
            State::Listen => self.cut = true,
            State::Closed if reset => self.cut = true,
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait => {
                self.ended = true;
            }
            _ => {}
        }
        if !self.established && matches!(state, State::Established | State::CloseWait) {
            self.established = true;
            let socket = self.socket();
            socket.set_timeout(Some(SILENCE));
            socket.set_keep_alive(Some(KEEP_ALIVE));
        }
    }

    /// Cuts the connection off, as the other side was.
    pub(super) fn abort(&mut self) {
        self.cut = true;
        self.peer = Peer::Gone;
        self.socket().abort();
    }

    /// Moves what can be moved.
    pub(super) fn pump<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>) {
        if self.cut {
            return;
        }
        let moved = match &self.peer {
            Peer::Stream(_) => self.write_stream(cx).and_then(|()| self.read_stream(cx)),
            Peer::Names(_) => {
                self.pump_names();
                Ok(())
            }
            Peer::Gone => Ok(()),
        };
        if moved.is_err() {
            self.abort();
        }
    }

    /// From the guest to the stream.
    fn write_stream<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>) -> Result<(), Errno> {
        let Peer::Stream(stream) = &self.peer else { return Ok(()) };
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.writable && socket.can_recv() {
            let written = socket.recv(|bytes| match cx.outside.write(stream, bytes) {
                Ok(written) => (written.min(bytes.len()), Ok(written)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(_)) => {}
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(error)) => return Err(error),
                // In a state in which nothing is received: before the guest has the connection.
                Err(_) => break,
            }
        }
        if self.ended && !self.finished && !socket.can_recv() {
            self.finished = true;
            cx.outside.finish(stream);
        }
        Ok(())
    }

    /// From the stream to the guest.
    fn read_stream<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>) -> Result<(), Errno> {
        let Peer::Stream(stream) = &self.peer else { return Ok(()) };
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.readable && socket.can_send() {
            let read = socket.send(|room| match cx.outside.read(stream, room) {
                Ok(read) => (read.min(room.len()), Ok(read)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(0)) => {
                    self.readable = false;
                    socket.close();
                }
                Ok(Ok(_)) => {}
                Ok(Err(Errno::AGAIN)) => self.readable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Between the guest and the network's name server.
    fn pump_names(&mut self) {
        let Peer::Names(names) = &mut self.peer else { return };
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while socket.can_recv() && names.wants() {
            if socket.recv(|bytes| (names.put(bytes), ())).is_err() {
                break;
            }
        }
        while socket.can_send() && !names.answers().is_empty() {
            let Ok(sent) = socket.send_slice(names.answers()) else { break };
            names.sent(sent);
        }
        // Somebody who speaks nonsense, or who has said all and been told all.
        if names.is_broken() || (self.ended && !socket.can_recv() && names.is_idle()) {
            socket.close();
            self.finished = true;
        }
    }

    /// The guest was sent a segment.
    pub(super) fn spoke(&mut self) {
        self.over = self.socket().state() == State::TimeWait;
    }

    /// Whether all that is left is to write what the guest said last. The guest's end is left alone
    /// then: after a while it would forget that too.
    pub(super) fn lingers(&mut self) -> bool {
        self.over && !self.cut && !self.finished && self.socket().can_recv()
    }

    /// What has become of it; asked when the guest's end has nothing to send.
    pub(super) fn fate(&mut self, now: Duration) -> Fate {
        let state = self.socket().state();
        let pending = self.socket().can_recv();
        match state {
            _ if self.cut => Fate::Cut,
            State::TimeWait | State::Closed if self.ended && pending && !self.finished => {
                let since = *self.lingering.get_or_insert(now);
                if now < since + LINGER { Fate::Lives } else { Fate::Cut }
            }
            State::TimeWait | State::Closed if self.ended => Fate::Ended,
            // A guest that fell silent.
            State::Closed | State::Listen => Fate::Cut,
            _ => Fate::Lives,
        }
    }

    /// When it has something to do by itself, in the network's time.
    pub(super) fn due(
        &mut self,
        interface: &mut smoltcp::iface::Interface,
        now: Duration,
    ) -> Option<Duration> {
        if let Some(since) = self.lingering {
            return Some(since + LINGER);
        }
        let at = interface.poll_at(super::wire_time(now), &self.sockets)?;
        let at = Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0));
        // Something it cannot do although it is due is tried again soon, not at once.
        Some(at.max(now + Duration::from_millis(5)))
    }
}

/// The socket of a connection that begins in the guest.
pub(super) fn listens(socket: &mut Socket<'_>, peer: SocketAddr) -> Result<(), tcp::ListenError> {
    socket.listen((smoltcp::wire::IpAddress::from(peer.ip()), peer.port()))
}
