//! The event channel: a connection to the host that is made again whenever it is lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use riad_agent::protocol::{Decoder, Hello, ShutdownMode, ToGuest, ToHost};
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::endpoint::Endpoint;

/// The waits between attempts: soon at first (a restored machine is waited for), then seldom, so
/// that a machine without a listener stays idle.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The event channel.
#[derive(Debug)]
pub(crate) struct EventLink {
    endpoint: Endpoint,
    hello: Hello,
    state: State,
    wait: Duration,
}

#[derive(Debug)]
enum State {
    Waiting(Instant),
    Connecting(OwnedFd),
    Open(OwnedFd, Box<Decoder>),
}

/// What the host orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Shutdown(ShutdownMode),
    SetTime(u64),
}

impl EventLink {
    /// Begins to connect.
    pub(crate) fn new(endpoint: Endpoint, hello: Hello) -> Self {
        let state = State::Waiting(Instant::now());
        let mut link = Self { endpoint, hello, state, wait: FIRST_WAIT };
        link.connect_late(Instant::now());
        link
    }

    /// When [`connect_late`](Self::connect_late) has work next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(until) => Some(until),
            State::Connecting(_) | State::Open(..) => None,
        }
    }

    /// Tries again, if it is time.
    pub(crate) fn connect_late(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            match self.endpoint.connect() {
                Ok(socket) => self.state = State::Connecting(socket),
                Err(_) => self.lost(),
            }
        }
    }

    fn lost(&mut self) {
        self.state = State::Waiting(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// What it waits for.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Waiting(_) => None,
            State::Connecting(socket) => Some((socket.as_fd(), PollFlags::OUT)),
            State::Open(socket, _) => Some((socket.as_fd(), PollFlags::IN)),
        }
    }

    /// Its descriptor is ready. Gives what the host orders.
    pub(crate) fn ready(&mut self) -> Vec<Order> {
        match &mut self.state {
            State::Waiting(_) => Vec::new(),
            State::Connecting(socket) => {
                // A frame this short fits into the buffer of a fresh connection, or there is none.
                let mut bytes = Vec::new();
                ToHost::Hello(self.hello.clone()).encode(&mut bytes);
                let connected = matches!(rustix::net::sockopt::socket_error(&*socket), Ok(Ok(())));
                if connected && rustix::io::write(&*socket, &bytes) == Ok(bytes.len()) {
                    let State::Connecting(socket) =
                        std::mem::replace(&mut self.state, State::Waiting(Instant::now()))
                    else {
                        return Vec::new();
                    };
                    self.state = State::Open(socket, Box::new(Decoder::of_host()));
                } else {
                    self.lost();
                }
                Vec::new()
            }
            State::Open(socket, decoder) => match rustix::io::read(&*socket, decoder.space()) {
                Ok(count) if count > 0 => {
                    decoder.filled(count);
                    match orders(decoder) {
                        Ok(orders) => {
                            // It is the host, and it listens: after the next loss, try soon.
                            self.wait = FIRST_WAIT;
                            orders
                        }
                        Err(()) => {
                            self.lost();
                            Vec::new()
                        }
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => Vec::new(),
                _ => {
                    self.lost();
                    Vec::new()
                }
            },
        }
    }
}

/// The orders that have arrived whole. A frame that is not understood ends the channel.
fn orders(decoder: &mut Decoder) -> Result<Vec<Order>, ()> {
    let mut orders = Vec::new();
    while let Some(frame) = decoder.next_frame().map_err(drop)? {
        match ToGuest::parse(frame).map_err(drop)? {
            ToGuest::Welcome { .. } => {}
            ToGuest::Shutdown { mode } => orders.push(Order::Shutdown(mode)),
            ToGuest::SetTime { unix_nanos } => orders.push(Order::SetTime(unix_nanos)),
            ToGuest::Exec(_)
            | ToGuest::Stdin(_)
            | ToGuest::StdinEof
            | ToGuest::Resize { .. }
            | ToGuest::Signal { .. }
            | ToGuest::Close { .. }
            | ToGuest::Measure
            | ToGuest::SetUpCard(_) => return Err(()),
        }
    }
    Ok(orders)
}
