//! A world outside that does what a case says: it refuses, cuts off, answers with nonsense, or with
//! what it was sent.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use riad_network::user::outside::{Errno, Outside, Ready, Token};

/// Errors that sockets have.
const ERRORS: [Errno; 12] = [
    Errno::CONNREFUSED,
    Errno::CONNRESET,
    Errno::HOSTUNREACH,
    Errno::NETUNREACH,
    Errno::TIMEDOUT,
    Errno::PIPE,
    Errno::ACCESS,
    Errno::MSGSIZE,
    Errno::MFILE,
    Errno::NOBUFS,
    Errno::INTR,
    Errno::NOTCONN,
];
/// Bytes of what was written that a socket remembers.
const MEMORY: usize = 512;

/// A socket: what it was sent last.
#[derive(Debug)]
pub(super) struct Socket {
    index: usize,
}

/// The world outside.
#[derive(Debug)]
pub(super) struct World {
    script: Vec<u8>,
    at: usize,
    /// All sockets there ever were: their name, and what they were sent last.
    sockets: Vec<(Token, Vec<u8>)>,
    pub(super) events: Vec<(Token, Ready)>,
    calls: u64,
}

impl World {
    pub(super) fn new(script: &[u8]) -> Self {
        Self { script: script.to_vec(), at: 0, sockets: Vec::new(), events: Vec::new(), calls: 0 }
    }

    /// What the case says next; it is read in a circle.
    fn next(&mut self) -> u8 {
        self.calls += 1;
        let byte = self.script.get(self.at).copied().unwrap_or(self.calls as u8);
        self.at = (self.at + 1) % self.script.len().max(1);
        byte
    }

    fn error(&mut self) -> Errno {
        ERRORS[usize::from(self.next()) % ERRORS.len()]
    }

    fn socket(&mut self, token: Token) -> Result<Socket, Errno> {
        if self.next() >= 0xf0 {
            return Err(self.error());
        }
        self.sockets.push((token, Vec::new()));
        Ok(Socket { index: self.sockets.len() - 1 })
    }

    /// Something happens to a socket.
    pub(super) fn happen(&mut self, which: u8, how: u8) {
        let Some(last) = self.sockets.len().checked_sub(1) else { return };
        // Those that are new are still there.
        let (token, _) = &self.sockets[last - usize::from(which) % (last + 1).min(16)];
        let ready = Ready { read: how & 1 != 0, write: how & 2 != 0, error: how & 12 == 12 };
        self.events.push((*token, ready));
    }
}

impl Outside for World {
    type Socket = Socket;

    fn connect(&mut self, _: SocketAddr, token: Token) -> Result<Socket, Errno> {
        let socket = self.socket(token)?;
        if self.next() < 0xc0 {
            self.events.push((token, Ready { write: true, ..Ready::default() }));
        }
        Ok(socket)
    }

    fn datagrams(&mut self, _: SocketAddr, token: Token) -> Result<Socket, Errno> {
        self.socket(token)
    }

    fn pings(&mut self, _: IpAddr, token: Token) -> Result<Socket, Errno> {
        self.socket(token)
    }

    fn adopt(&mut self, _: OwnedFd, token: Token) -> Result<Socket, Errno> {
        self.socket(token)
    }

    fn accept(&mut self, _: &Socket, token: Token) -> Result<Socket, Errno> {
        // A client at times, and then none.
        if self.next() < 0x60 { self.socket(token) } else { Err(Errno::AGAIN) }
    }

    fn outcome(&mut self, _: &Socket) -> Result<(), Errno> {
        if self.next() < 0xe0 { Ok(()) } else { Err(self.error()) }
    }

    fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> Result<usize, Errno> {
        let choice = self.next();
        match choice {
            0..0x80 => Err(Errno::AGAIN),
            0x80..0x90 => Ok(0),
            0x90..0x98 => Err(self.error()),
            // Some of anything.
            0x98..0xb8 => {
                let len = usize::from(self.next()) << (choice & 7);
                let len = len.min(buffer.len());
                buffer[..len].fill(choice);
                Ok(len)
            }
            0xb8..0xc0 => {
                buffer.fill(choice);
                Ok(buffer.len())
            }
            // What it was sent last, as an answer: the bit that makes it one is set in any protocol
            // that has it there.
            _ => {
                let (_, last) = &self.sockets[socket.index];
                let len = last.len().min(buffer.len());
                buffer[..len].copy_from_slice(&last[..len]);
                if let Some(flags) = buffer[..len].get_mut(2) {
                    *flags |= 0x80 | (choice & 2);
                }
                if choice & 1 != 0 {
                    let (at, byte) = (usize::from(self.next()), self.next());
                    if let Some(place) = buffer[..len].get_mut(at) {
                        *place = byte;
                    }
                }
                Ok(len)
            }
        }
    }

    fn write(&mut self, socket: &Socket, bytes: &[u8]) -> Result<usize, Errno> {
        match self.next() {
            0xd0..0xf0 => Err(Errno::AGAIN),
            0xf0.. => Err(self.error()),
            0xc0..0xd0 => Ok(bytes.len().min(7)),
            _ => {
                let memory = &mut self.sockets[socket.index].1;
                memory.clear();
                memory.extend(&bytes[..bytes.len().min(MEMORY)]);
                Ok(bytes.len())
            }
        }
    }

    fn read_from(
        &mut self,
        socket: &Socket,
        buffer: &mut [u8],
    ) -> Result<(usize, SocketAddr), Errno> {
        let len = self.read(socket, buffer)?;
        let port = u16::from(self.next());
        Ok((len, SocketAddr::from(([192, 0, 2, 1], port))))
    }

    fn write_to(&mut self, socket: &Socket, bytes: &[u8], _: SocketAddr) -> Result<usize, Errno> {
        self.write(socket, bytes)
    }

    fn finish(&mut self, _: &Socket) {}

    fn reset(&mut self, _: Socket) {}

    fn is_own(&mut self, address: IpAddr) -> bool {
        address == IpAddr::from([192, 0, 2, 7])
    }

    fn has_ipv6(&mut self) -> bool {
        self.next() & 1 == 0
    }

    fn resolvers(&mut self) -> Vec<SocketAddr> {
        let count = usize::from(self.next() & 3);
        vec![SocketAddr::from(([192, 0, 2, 53], 53)); count]
    }

    fn random(&mut self) -> u64 {
        u64::from(self.next()) << 32 | u64::from(self.next())
    }

    fn ready(&mut self, events: &mut Vec<(Token, Ready)>) {
        events.append(&mut self.events);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
