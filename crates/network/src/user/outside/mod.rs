//! The world outside, as the network sees it: what it asks of the host's sockets.
//!
//! [`System`] is the host's. Tests and the fuzzer put a stand-in in its place, so that hostile input
//! reaches no real network.

mod resolv;
mod sys;

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

pub use rustix::io::Errno;
pub use sys::System;

/// Names one of the network's sockets when the outside reports it ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What can be done with a socket now, and could not before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// There is something to read, be it an end or an error.
    pub read: bool,
    /// There is room to write.
    pub write: bool,
    /// The socket has an error.
    pub error: bool,
}

/// Sockets, as the host gives them. None of these calls waits for anything.
///
/// Readiness is told once, when it changes (as with `EPOLLET`): whoever is told reads or writes until
/// [`Errno::AGAIN`], or remembers that there is more.
pub trait Outside: Send {
    /// A socket; dropping it closes it.
    type Socket: Send + Debug;

    /// Begins a TCP connection. It is made, or has failed, when the socket is ready to write:
    /// [`outcome`](Self::outcome) says which.
    ///
    /// # Errors
    /// What connect(2) says, except that the connection is in progress.
    fn connect(&mut self, to: SocketAddr, token: Token) -> Result<Self::Socket, Errno>;

    /// A UDP socket that speaks with `to` alone.
    ///
    /// # Errors
    /// What socket(2) and connect(2) say.
    fn datagrams(&mut self, to: SocketAddr, token: Token) -> Result<Self::Socket, Errno>;

    /// A socket that sends ICMP echo requests to `to`, and reads the replies; from the ICMP header
    /// on, with an identifier of the host's choosing.
    ///
    /// # Errors
    /// [`Errno::ACCESS`] where the host does not let everybody do so.
    fn pings(&mut self, to: IpAddr, token: Token) -> Result<Self::Socket, Errno>;

    /// Takes over a socket that was opened elsewhere: a listener, or one for datagrams.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    fn adopt(&mut self, fd: OwnedFd, token: Token) -> Result<Self::Socket, Errno>;

    /// The next connection of a listener.
    ///
    /// # Errors
    /// [`Errno::AGAIN`] when there is none; what accept(2) says.
    fn accept(&mut self, listener: &Self::Socket, token: Token) -> Result<Self::Socket, Errno>;

    /// What became of a connection that was begun, or the error that a socket is said to have.
    ///
    /// # Errors
    /// The connection's.
    fn outcome(&mut self, socket: &Self::Socket) -> Result<(), Errno>;

    /// Reads a stream, or the next datagram. 0 from a stream is its end.
    ///
    /// # Errors
    /// [`Errno::AGAIN`] when there is nothing yet; the connection's.
    fn read(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> Result<usize, Errno>;

    /// Writes to a stream, or a datagram.
    ///
    /// # Errors
    /// [`Errno::AGAIN`] when there is no room; the connection's.
    fn write(&mut self, socket: &Self::Socket, bytes: &[u8]) -> Result<usize, Errno>;

    /// The next datagram of a socket that speaks with everybody.
    ///
    /// # Errors
    /// [`Errno::AGAIN`] when there is none.
    fn read_from(
        &mut self,
        socket: &Self::Socket,
        buffer: &mut [u8],
    ) -> Result<(usize, SocketAddr), Errno>;

    /// A datagram to `to`.
    ///
    /// # Errors
    /// What sendto(2) says.
    fn write_to(
        &mut self,
        socket: &Self::Socket,
        bytes: &[u8],
        to: SocketAddr,
    ) -> Result<usize, Errno>;

    /// Nothing more will be written: the other side reads an end.
    fn finish(&mut self, socket: &Self::Socket);

    /// Closes a connection so that the other side knows that it was cut off.
    fn reset(&mut self, socket: Self::Socket);

    /// Whether an address is one of the host's own.
    fn is_own(&mut self, address: IpAddr) -> bool;

    /// Whether the host has a way to IPv6 addresses of the world.
    fn has_ipv6(&mut self) -> bool;

    /// Where the host asks for names, the best first.
    fn resolvers(&mut self) -> Vec<SocketAddr>;

    /// A number that nobody can guess.
    fn random(&mut self) -> u64;

    /// Adds which sockets became ready to `events`.
    fn ready(&mut self, events: &mut Vec<(Token, Ready)>);

    /// Readable when [`ready`](Self::ready) has something to say.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}
