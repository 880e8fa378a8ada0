//! What other threads do with a network: its forwards, its policy, its numbers.
//!
//! A [`Control`] opens what is to listen itself, so that a port that is taken is an error of the call;
//! then it hands the socket over to the network's thread, which may be held at the time, as it is while
//! the machine is paused. What was handed over is taken when it goes on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::events::{Counted, Counters, Event, Told};
use super::policy::Policy;

/// Forwards at a time.
pub const MOST_FORWARDS: usize = 256;
/// Names that are answered for the user.
pub const MOST_NAMES: usize = 1024;

/// Where a forward listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port of the host's; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A UDP port of the host's; port 0 takes a free one.
    Udp(SocketAddr),
    /// A socket in the file system, whose streams become TCP connections.
    Unix(PathBuf),
}

/// What comes in at one place goes to the guest at another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// On the host.
    pub listen: Listen,
    /// In the guest; `None` stands for the address that the guest was given.
    pub address: Option<IpAddr>,
    /// The guest's port: not 0.
    pub port: u16,
}

/// A forward that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// What [`Control::remove`] takes.
    pub id: u32,
    /// What it does; port 0 has become the port that was taken.
    pub forward: Forward,
}

/// Why a forward cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The host does not let it listen.
    #[error("cannot listen on {at}: {source}{}", advice(.source))]
    Listen {
        /// Where.
        at: String,
        /// What the host says.
        source: io::Error,
    },
    /// There is something else than a socket.
    #[error("cannot listen on {}: there is a file that is no socket; choose another path", .0.display())]
    Occupied(PathBuf),
    /// There is no such port.
    #[error("port 0 of the guest is no port: say which one the server in the guest listens on")]
    GuestPort,
    /// There is no such forward.
    #[error("there is no forward {0}: `riad forward ls` shows those that there are")]
    Unknown(u32),
    /// There are too many.
    #[error("there are {MOST_FORWARDS} forwards already, which is the most: remove one first")]
    TooMany,
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; choose another port, or 0 for any that is free",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are the host's: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "; it is not an address of this host",
        _ => "",
    }
}

/// What is to be done by the network's thread.
#[derive(Debug)]
pub(super) enum Command {
    Add { id: u32, forward: Forward, socket: OwnedFd },
    Remove { id: u32 },
    Policy(Policy),
    Names(Vec<(String, IpAddr)>),
    Plug(bool),
}

/// What control and network share.
#[derive(Debug)]
pub(super) struct Shared {
    wake: OwnedFd,
    /// There are commands. Looked at in every turn, so it costs no lock.
    pending: AtomicBool,
    state: Mutex<State>,
    pub(super) counters: Arc<Counters>,
    pub(super) told: Arc<Told>,
}

#[derive(Debug, Default)]
struct State {
    forwards: Vec<Listening>,
    next_id: u32,
    /// Bounded by what can be commanded: forwards by their number, the rest by replacing.
    commands: Vec<Command>,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            pending: AtomicBool::new(false),
            state: Mutex::default(),
            counters: Arc::default(),
            told: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands since it was asked last. For the network's thread.
    pub(super) fn take(&self) -> Vec<Command> {
        if !self.pending.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        std::mem::take(&mut self.state().commands)
    }

    /// Readable when there are commands.
    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// A handle on a network, for any thread.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn command(&self, state: &mut State, command: Command) {
        // What replaces something makes what it replaces pointless.
        let kind = std::mem::discriminant(&command);
        if matches!(command, Command::Policy(_) | Command::Names(_) | Command::Plug(_)) {
            state.commands.retain(|old| std::mem::discriminant(old) != kind);
        }
        state.commands.push(command);
        self.shared.pending.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }

    fn check(&self, forward: &Forward) -> Result<(), ForwardError> {
        if forward.port == 0 {
            return Err(ForwardError::GuestPort);
        }
        if self.shared.state().forwards.len() >= MOST_FORWARDS {
            return Err(ForwardError::TooMany);
        }
        Ok(())
    }

    /// Listens, and has what comes in go to the guest.
    ///
    /// # Errors
    /// When the host does not let it listen there; when there are [`MOST_FORWARDS`].
    pub fn add(&self, mut forward: Forward) -> Result<Listening, ForwardError> {
        self.check(&forward)?;
        let socket = listen(&mut forward.listen)?;
        self.add_open(forward, socket)
    }

    /// The same, with a socket that listens already (or, of UDP, is bound), and does not block: for
    /// who may not open one, and is handed it.
    ///
    /// # Errors
    /// When there are [`MOST_FORWARDS`].
    pub fn add_open(&self, forward: Forward, socket: OwnedFd) -> Result<Listening, ForwardError> {
        self.check(&forward)?;
        let mut state = self.shared.state();
        let id = state.next_id;
        state.next_id = id.wrapping_add(1);
        let listening = Listening { id, forward: forward.clone() };
        state.forwards.push(listening.clone());
        self.command(&mut state, Command::Add { id, forward, socket });
        drop(state);
        self.shared.told.push(Event::ForwardAdded { id });
        Ok(listening)
    }

    /// Stops listening. Connections that were made go on.
    ///
    /// # Errors
    /// When there is no such forward.
    pub fn remove(&self, id: u32) -> Result<(), ForwardError> {
        let mut state = self.shared.state();
        let at = state.forwards.iter().position(|forward| forward.id == id);
        let gone = state.forwards.remove(at.ok_or(ForwardError::Unknown(id))?);
        // One that the network has not taken yet is closed right here.
        let waiting = state.commands.len();
        state.commands.retain(|old| !matches!(old, Command::Add { id: added, .. } if *added == id));
        if waiting == state.commands.len() {
            self.command(&mut state, Command::Remove { id });
        }
        drop(state);
        if let Listen::Unix(path) = &gone.forward.listen {
            // Somebody else may have put something there since; then it is theirs.
            if is_socket(path) {
                let _ = std::fs::remove_file(path);
            }
        }
        self.shared.told.push(Event::ForwardRemoved { id });
        Ok(())
    }

    /// The forwards, the oldest first.
    #[must_use]
    pub fn forwards(&self) -> Vec<Listening> {
        self.shared.state().forwards.clone()
    }

    /// Has another policy from now on. Connections and flows that it would not let through are cut off.
    pub fn set_policy(&self, policy: Policy) {
        self.command(&mut self.shared.state(), Command::Policy(policy));
    }

    /// Answers for these names too, instead of those before: at most [`MOST_NAMES`].
    pub fn set_names(&self, mut names: Vec<(String, IpAddr)>) {
        names.truncate(MOST_NAMES);
        self.command(&mut self.shared.state(), Command::Names(names));
    }

    /// Plugs the cable in, or pulls it out: then nothing goes either way.
    pub fn plug(&self, plugged: bool) {
        self.command(&mut self.shared.state(), Command::Plug(plugged));
    }

    /// The network's numbers.
    #[must_use]
    pub fn counters(&self) -> Counted {
        self.shared.counters.read()
    }

    /// The next thing that happened, waiting for at most `wait`. Of those that nobody asks for, the
    /// last few hundred are kept.
    #[must_use]
    pub fn next_event(&self, wait: Duration) -> Option<Event> {
        self.shared.told.next(wait)
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// Opens a socket that listens, and says which port it has become: for [`Control::add_open`].
///
/// # Errors
/// When the host does not let it.
pub fn listen(listen: &mut Listen) -> Result<OwnedFd, ForwardError> {
    let failed = |at: String| move |source| ForwardError::Listen { at, source };
    match listen {
        Listen::Tcp(at) => {
            let failed = failed(format!("tcp {at}"));
            let listener = std::net::TcpListener::bind(*at).and_then(|listener| {
                listener.set_nonblocking(true)?;
                *at = listener.local_addr()?;
                Ok(listener)
            });
            Ok(listener.map_err(failed)?.into())
        }
        Listen::Udp(at) => {
            let failed = failed(format!("udp {at}"));
            let socket = std::net::UdpSocket::bind(*at).and_then(|socket| {
                socket.set_nonblocking(true)?;
                *at = socket.local_addr()?;
                Ok(socket)
            });
            Ok(socket.map_err(failed)?.into())
        }
        Listen::Unix(path) => {
            use std::os::unix::net::{UnixListener, UnixStream};
            if path.symlink_metadata().is_ok() {
                // A socket that nobody listens on is left over from a machine that was killed.
                if !is_socket(path) {
                    return Err(ForwardError::Occupied(path.clone()));
                }
                if UnixStream::connect(&path).is_err() {
                    let _ = std::fs::remove_file(&path);
                }
            }
            let failed = failed(format!("{}", path.display()));
            let listener = UnixListener::bind(path).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            Ok(listener.map_err(failed)?.into())
        }
    }
}
