//! Where the agent listens, and where it finds the host.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use riad_agent::protocol::PORT;
use rustix::net::{SocketFlags, accept_with};

use super::sys;

/// The way between host and agent.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// The machine's vsock device.
    Vsock,
    /// Two Unix sockets: one that the agent makes and listens on, one of the host's to connect to.
    /// For trying the agent without a machine.
    Unix {
        /// Where the agent listens.
        sessions: PathBuf,
        /// Where it connects to.
        events: PathBuf,
    },
}

impl Endpoint {
    /// A non-blocking listening socket.
    pub(crate) fn listen(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Vsock => sys::vsock_listen(PORT),
            Self::Unix { sessions, .. } => {
                let listener = UnixListener::bind(sessions)?;
                listener.set_nonblocking(true)?;
                Ok(listener.into())
            }
        }
    }

    /// The next connection, non-blocking. One that is not the host's is closed: whoever it is (a
    /// user through the loopback transport, a machine inside this one) would be root here.
    pub(crate) fn accept(&self, listener: &OwnedFd) -> rustix::io::Result<Option<OwnedFd>> {
        let connection = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let trusted = match self {
            Self::Vsock => sys::vsock_peer_is_host(connection.as_fd()).unwrap_or(false),
            Self::Unix { .. } => true,
        };
        Ok(trusted.then_some(connection))
    }

    /// A non-blocking socket that is, or is about to be, connected to the host: writable once it
    /// is or has failed.
    pub(crate) fn connect(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Vsock => sys::vsock_connect(PORT),
            Self::Unix { events, .. } => {
                let stream = UnixStream::connect(events)?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
        }
    }

    /// Whether the agent at this endpoint looks after a whole machine, whose clock it may set.
    pub(crate) fn owns_machine(&self) -> bool {
        matches!(self, Self::Vsock)
    }
}
