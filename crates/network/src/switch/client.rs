//! Whoever is connected to a switch, on their side.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with,
};

use super::message::Hello;
use super::{Counts, SOCKET, place};

/// How long a switch has to answer.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// The longest answer, bytes: all members and all cuts.
const MOST_ANSWER: usize = 128 << 10;
/// Callers that wait to be taken.
const BACKLOG: i32 = 128;

/// What can go wrong with a switch.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// There is none.
    #[error("the network's switch does not run")]
    Gone,
    /// It does not answer as it should.
    #[error("the network's switch does not answer: {0}")]
    Silent(#[source] io::Error),
    /// It does not do what was asked.
    #[error("the network's switch refuses: {0}")]
    Refused(String),
    /// The host refuses the socket.
    #[error("the network's socket cannot be had: {0}")]
    Host(#[source] io::Error),
}

/// Listens in a network's directory, in place of a switch that is gone. To be called by who knows that
/// it is.
///
/// # Errors
/// [`SwitchError::Host`].
pub fn listen(directory: &Path) -> Result<OwnedFd, SwitchError> {
    match std::fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SwitchError::Host(error));
        }
        _ => {}
    }
    let (_directory, address) = place(directory).map_err(SwitchError::Host)?;
    let host = |errno: Errno| SwitchError::Host(errno.into());
    let socket = socket().map_err(host)?;
    bind(&socket, &address).map_err(host)?;
    rustix::net::listen(&socket, BACKLOG).map_err(host)?;
    Ok(socket)
}

fn socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connection to a switch. While it is there, the switch goes on.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

/// What is true of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// Its members that run.
    pub members: Vec<Standing>,
    /// Those that are kept apart.
    pub cuts: Vec<Cut>,
}

/// A member that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its machine.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// What went through its port.
    pub counts: Counts,
}

/// Two members that are kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut(pub String, pub String);

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Client {
    /// Connects to the switch of the network in `directory`.
    ///
    /// # Errors
    /// [`SwitchError::Gone`] when there is none.
    pub fn connect(directory: &Path) -> Result<Self, SwitchError> {
        let (_directory, address) = place(directory).map_err(SwitchError::Host)?;
        let socket = socket().map_err(|errno| SwitchError::Host(errno.into()))?;
        match connect(&socket, &address) {
            Ok(()) => Ok(Self { socket }),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Err(SwitchError::Gone),
            Err(errno) => Err(SwitchError::Host(errno.into())),
        }
    }

    /// Keeps the switch going for as long as this is there. A switch that is about to begin need not
    /// have answered.
    ///
    /// # Errors
    /// [`SwitchError::Gone`].
    pub fn hold(&self) -> Result<(), SwitchError> {
        self.say(&Hello::Hold)
    }

    /// What is true of the network.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn list(&self) -> Result<Listed, SwitchError> {
        let text = self.ask(&Hello::List)?;
        let mut listed = Listed::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["member", name, address, sent, received, lost, refused] => {
                    let count = |text: &str| text.parse().unwrap_or(0);
                    let counts = Counts {
                        sent: count(sent),
                        received: count(received),
                        lost: count(lost),
                        refused: count(refused),
                    };
                    let Ok(address) = address.parse() else { continue };
                    listed.members.push(Standing { name: name.to_owned(), address, counts });
                }
                ["cut", one, other] => listed.cuts.push(Cut(one.to_owned(), other.to_owned())),
                _ => {}
            }
        }
        Ok(listed)
    }

    /// Keeps two members apart, from now on: frames between them are lost.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn cut(&self, one: &str, other: &str) -> Result<(), SwitchError> {
        self.ask(&Hello::Cut(one.to_owned(), other.to_owned())).map(drop)
    }

    /// Keeps nobody apart any more.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn heal(&self) -> Result<(), SwitchError> {
        self.ask(&Hello::Heal).map(drop)
    }

    /// Becomes the connection of the member `name`, for [`Member::over`](super::Member::over).
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn join(self, name: &str, address: Ipv4Addr) -> Result<OwnedFd, SwitchError> {
        self.ask(&Hello::Join { name: name.to_owned(), address })?;
        Ok(self.socket)
    }

    fn say(&self, hello: &Hello) -> Result<(), SwitchError> {
        match send(&self.socket, hello.text().as_bytes(), SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(SwitchError::Gone),
            Err(errno) => Err(SwitchError::Silent(errno.into())),
        }
    }

    fn ask(&self, hello: &Hello) -> Result<String, SwitchError> {
        self.say(hello)?;
        let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut ready, Some(&PATIENCE)) {
            Ok(0) => return Err(SwitchError::Silent(io::ErrorKind::TimedOut.into())),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(SwitchError::Silent(errno.into())),
        }
        let mut answer = vec![0; MOST_ANSWER];
        let len = match recv(&self.socket, answer.as_mut_slice(), RecvFlags::empty()) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Err(SwitchError::Gone),
            Ok((_, len)) => len,
            Err(errno) => return Err(SwitchError::Silent(errno.into())),
        };
        let text = String::from_utf8_lossy(answer.get(..len).unwrap_or_default()).into_owned();
        match text.split_once('\n') {
            Some(("ok", rest)) => Ok(rest.to_owned()),
            Some(("no", why)) => Err(SwitchError::Refused(why.to_owned())),
            _ => Err(SwitchError::Silent(io::ErrorKind::InvalidData.into())),
        }
    }
}
