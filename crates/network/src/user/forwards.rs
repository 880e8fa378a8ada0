//! What listens on the host for the guest.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::context::Context;
use super::control::{Forward, Listen};
use super::events::count;
use super::outside::{Errno, Outside, Ready, Token};
use super::packet::datagram_payload;
use super::table::{Kind, Table};
use super::tcp::Tcp;
use super::udp::{Udp, deliver};
use crate::link::Offload;

/// Connections that are taken in at a time, so that one forward does not hold up everything else.
const ACCEPTS: usize = 64;
/// When those are looked at again for which there was no room.
const AGAIN: Duration = Duration::from_millis(100);
/// Datagrams that are thrown away in a row, when there is no room for their flows.
const LOOKS: usize = 64;

#[derive(Debug)]
struct Entry<S> {
    id: u32,
    forward: Forward,
    socket: S,
    /// Whether it is in the queue of those that have something.
    queued: bool,
    timer: Option<Duration>,
}

/// All forwards.
#[derive(Debug)]
pub(super) struct Forwards<S> {
    entries: Table<Entry<S>>,
    /// Those that have connections.
    accepting: VecDeque<Token>,
    /// Those that have datagrams.
    readable: VecDeque<Token>,
}

impl<S: Send + std::fmt::Debug> Forwards<S> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: Table::new(Kind::Forward, most),
            accepting: VecDeque::new(),
            readable: VecDeque::new(),
        }
    }

    /// The name that the next one will have.
    pub(super) fn next(&self) -> Option<Token> {
        self.entries.next()
    }

    /// A forward that listens.
    pub(super) fn add(&mut self, id: u32, forward: Forward, socket: S) {
        let entry = Entry { id, forward, socket, queued: false, timer: None };
        // Who controls the network keeps to the same bound.
        let _ = self.entries.insert(entry);
    }

    /// One that does so no longer.
    pub(super) fn remove<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        id: u32,
    ) -> Option<Token> {
        let of_it = |token: &Token| self.entries.get(*token).is_some_and(|entry| entry.id == id);
        let token = self.entries.tokens().find(of_it)?;
        let mut entry = self.entries.remove(token)?;
        cx.timers.set(token, &mut entry.timer, None);
        Some(token)
    }

    /// The socket of one that takes datagrams.
    pub(super) fn socket(&self, token: Token) -> Option<&S> {
        Some(&self.entries.get(token)?.socket)
    }

    /// A listener has something.
    pub(super) fn ready(&mut self, token: Token, ready: Ready) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        if ready.read && !entry.queued {
            entry.queued = true;
            match entry.forward.listen {
                Listen::Udp(_) => self.readable.push_back(token),
                Listen::Tcp(_) | Listen::Unix(_) => self.accepting.push_back(token),
            }
        }
    }

    /// One that there was no room for is looked at again.
    pub(super) fn due(&mut self, token: Token) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.timer = None;
            self.ready(token, Ready { read: true, ..Ready::default() });
        }
    }

    /// Takes in connections.
    pub(super) fn accept<O: Outside<Socket = S>>(&mut self, cx: &mut Context<O>, tcp: &mut Tcp<S>) {
        for _ in 0..ACCEPTS {
            let Some(token) = self.accepting.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(token) else { continue };
            entry.queued = false;
            let Some(guest) = guest(cx, &entry.forward) else { continue };
            let taken = match tcp.next(guest) {
                Some(flow) => match cx.outside.accept(&entry.socket, flow) {
                    Ok(socket) => {
                        tcp.enter(cx, guest, socket);
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                None => Err(Errno::MFILE),
            };
            match taken {
                // There may be another.
                Ok(()) | Err(Errno::CONNABORTED | Errno::INTR) => {
                    entry.queued = true;
                    self.accepting.push_back(token);
                }
                Err(Errno::AGAIN) => {}
                // There is no room: the connection waits, and the kernel does not tell of it twice.
                Err(_) => cx.timers.set(token, &mut entry.timer, Some(cx.now + AGAIN)),
            }
        }
        // More wait: they are looked at in the next turn, which is at once.
        if let Some(token) = self.accepting.pop_front()
            && let Some(entry) = self.entries.get_mut(token)
        {
            entry.queued = false;
            cx.timers.set(token, &mut entry.timer, Some(cx.now));
        }
    }

    /// The next datagram for the guest.
    pub(super) fn receive<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        udp: &mut Udp<S>,
        frame: &mut [u8],
    ) -> Option<(Offload, usize)> {
        let mut lost = 0;
        loop {
            let token = self.readable.pop_front()?;
            let Some(entry) = self.entries.get_mut(token) else { continue };
            let Some(guest) = guest(cx, &entry.forward) else { continue };
            let place = datagram_payload(guest.ip());
            match cx.outside.read_from(&entry.socket, frame.get_mut(place..)?) {
                Ok((len, peer)) => {
                    self.readable.push_back(token);
                    match udp.enter(cx, token, peer, guest) {
                        Some(from) => {
                            if let Some(done) = deliver(cx, frame, from, guest, len) {
                                return Some(done);
                            }
                        }
                        None => {
                            count(&cx.counters.dropped, 1);
                            lost += 1;
                        }
                    }
                }
                Err(Errno::AGAIN) => entry.queued = false,
                // An answer of the guest's met nobody: the error is of that, and now it is told.
                Err(_) => {
                    self.readable.push_back(token);
                    lost += 1;
                }
            }
            if lost >= LOOKS {
                // Somebody floods it: everybody else has their turn first.
                if let Some(token) = self.readable.pop_back()
                    && let Some(entry) = self.entries.get_mut(token)
                {
                    entry.queued = false;
                    cx.timers.set(token, &mut entry.timer, Some(cx.now));
                }
                return None;
            }
        }
    }
}

/// Where what comes in is to go.
fn guest<O: Outside>(cx: &Context<O>, forward: &Forward) -> Option<SocketAddr> {
    let address = forward.address.unwrap_or(IpAddr::V4(cx.config.addresses.guest));
    (address.is_ipv4() || cx.config.addresses.v6.is_some())
        .then(|| SocketAddr::new(address, forward.port))
}
