//! The host's own sockets.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, bind,
    connect, ipproto, recvfrom, send, sendto, shutdown, socket_with, sockopt,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::Timespec;

use super::resolv::Resolv;
use super::{Errno, Outside, Ready, Token};

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Events that are taken at a time. More wait for the next look.
const EVENTS: usize = 64;

/// After how long without a word a peer is asked whether it is still there. The guest's own
/// keep-alives end at the network and reach nobody.
const KEEP_ALIVE: Duration = Duration::from_secs(120);

/// The host's sockets, all in one epoll instance.
#[derive(Debug)]
pub struct System {
    epoll: OwnedFd,
    resolv: Resolv,
    /// Instead of the file's.
    resolvers: Option<Vec<SocketAddr>>,
}

impl System {
    /// The host's sockets, with names asked for at `resolvers`, or where `/etc/resolv.conf` says.
    ///
    /// A connection takes a descriptor, and the host gives programs few of them unless they ask: so
    /// the process's soft limit is raised as far as its hard limit allows.
    ///
    /// # Errors
    /// When the host refuses a descriptor.
    pub fn new(resolvers: Option<Vec<SocketAddr>>) -> io::Result<Self> {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // As it was is worse, and no reason to have no network.
        let _ = setrlimit(Resource::Nofile, limit);
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            resolv: Resolv::new(PathBuf::from("/etc/resolv.conf")),
            resolvers,
        })
    }

    fn socket(to: IpAddr, kind: SocketType, protocol: Option<Protocol>) -> Result<OwnedFd, Errno> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        socket_with(family, kind, FLAGS, protocol)
    }

    /// Hears of a stream that can be read or written.
    fn watch_stream(&self, fd: &OwnedFd, token: Token) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, fd, EventData::new_u64(token.0), flags)
    }

    /// Hears of anything else that can be read. A datagram socket has room again after each datagram
    /// that leaves, which nobody wants to be woken for.
    fn watch(&self, fd: &OwnedFd, token: Token) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.epoll, fd, EventData::new_u64(token.0), flags)
    }
}

/// What makes a stream carry what the guest's own TCP would.
fn prepare(stream: &OwnedFd) {
    // A socket of the Unix domain has none of these, and needs none: errors are as good.
    let _ = sockopt::set_tcp_nodelay(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEP_ALIVE);
    let _ = sockopt::set_socket_keepalive(stream, true);
}

impl Outside for System {
    type Socket = OwnedFd;

    fn connect(&mut self, to: SocketAddr, token: Token) -> Result<OwnedFd, Errno> {
        let fd = Self::socket(to.ip(), SocketType::STREAM, None)?;
        prepare(&fd);
        match connect(&fd, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        // Only now: a socket that is not connecting yet reports a hang-up.
        self.watch_stream(&fd, token)?;
        Ok(fd)
    }

    fn datagrams(&mut self, to: SocketAddr, token: Token) -> Result<OwnedFd, Errno> {
        let fd = Self::socket(to.ip(), SocketType::DGRAM, None)?;
        connect(&fd, &to)?;
        self.watch(&fd, token)?;
        Ok(fd)
    }

    fn pings(&mut self, to: IpAddr, token: Token) -> Result<OwnedFd, Errno> {
        let protocol = if to.is_ipv4() { ipproto::ICMP } else { ipproto::ICMPV6 };
        let fd = Self::socket(to, SocketType::DGRAM, Some(protocol))?;
        connect(&fd, &SocketAddr::new(to, 0))?;
        self.watch(&fd, token)?;
        Ok(fd)
    }

    fn adopt(&mut self, fd: OwnedFd, token: Token) -> Result<OwnedFd, Errno> {
        self.watch(&fd, token)?;
        Ok(fd)
    }

    fn accept(&mut self, listener: &OwnedFd, token: Token) -> Result<OwnedFd, Errno> {
        let fd = rustix::net::accept_with(listener, FLAGS)?;
        prepare(&fd);
        self.watch_stream(&fd, token)?;
        Ok(fd)
    }

    fn outcome(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        sockopt::socket_error(socket)?
    }

    fn read(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
        io::read(socket, buffer)
    }

    fn write(&mut self, socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
        send(socket, bytes, SendFlags::NOSIGNAL)
    }

    fn read_from(
        &mut self,
        socket: &OwnedFd,
        buffer: &mut [u8],
    ) -> Result<(usize, SocketAddr), Errno> {
        let (len, _, from) = recvfrom(socket, buffer, RecvFlags::empty())?;
        let from = from.and_then(|from| SocketAddr::try_from(from).ok());
        // Somebody without an address cannot be answered either.
        from.map(|from| (len, from)).ok_or(Errno::AFNOSUPPORT)
    }

    fn write_to(&mut self, socket: &OwnedFd, bytes: &[u8], to: SocketAddr) -> Result<usize, Errno> {
        sendto(socket, bytes, SendFlags::NOSIGNAL, &to)
    }

    fn finish(&mut self, socket: &OwnedFd) {
        // It fails when the connection is gone, which whoever reads it finds out.
        let _ = shutdown(socket, Shutdown::Write);
    }

    fn reset(&mut self, socket: OwnedFd) {
        // With no time to linger, close(2) sends a reset (socket(7), SO_LINGER).
        let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    }

    fn is_own(&mut self, address: IpAddr) -> bool {
        // The host lets a socket have an address exactly if it is one of its own. Asking anew each
        // time is right also after an interface has come or gone.
        if address.is_unspecified() {
            return true;
        }
        Self::socket(address, SocketType::DGRAM, None)
            .is_ok_and(|fd| bind(&fd, &SocketAddr::new(address, 0)).is_ok())
    }

    fn has_ipv6(&mut self) -> bool {
        // Connecting a datagram socket looks up a route and sends nothing. Documentation's prefix
        // (RFC 3849) has no route but the default one.
        let far = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
        Self::socket(far, SocketType::DGRAM, None)
            .is_ok_and(|fd| connect(&fd, &SocketAddr::new(far, 9)).is_ok())
    }

    fn resolvers(&mut self) -> Vec<SocketAddr> {
        self.resolvers.clone().unwrap_or_else(|| self.resolv.resolvers())
    }

    fn random(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // It fails on no kernel that has epoll, once the machine is up.
        let _ = getrandom(&mut bytes, GetRandomFlags::empty());
        u64::from_ne_bytes(bytes)
    }

    fn ready(&mut self, events: &mut Vec<(Token, Ready)>) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut buffer = [const { MaybeUninit::uninit() }; EVENTS];
        let Ok((found, _)) = epoll::wait(&self.epoll, &mut buffer[..], Some(&now)) else {
            // Interrupted: the descriptor is still readable.
            return;
        };
        events.extend(found.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            let error = flags.intersects(EventFlags::ERR);
            let ended = flags.intersects(EventFlags::HUP | EventFlags::RDHUP);
            let ready = Ready {
                read: error || ended || flags.contains(EventFlags::IN),
                write: error || flags.intersects(EventFlags::OUT | EventFlags::HUP),
                error,
            };
            (Token(data.u64()), ready)
        }));
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }
}
