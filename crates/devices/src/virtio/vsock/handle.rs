//! The host's end of the socket device: where programs on the host connect and listen.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::MAX_CONNECTIONS;
use crate::pci::lock;
use crate::virtio::worker::Control;

/// Connections from the guest that may wait to be taken from a listener.
const BACKLOG: usize = 128;

/// Connects to the guest, and listens for it. Cloning shares it.
#[derive(Clone)]
pub struct VsockHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for VsockHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VsockHandle").finish_non_exhaustive()
    }
}

/// What handles, device and worker share.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: HashMap<u32, SyncSender<UnixStream>>,
    /// Connections the worker has not begun yet.
    wanted: Vec<Wanted>,
    /// Set while a driver runs.
    control: Option<Arc<Control>>,
}

/// A connection that a program on the host wants to a port of the guest.
pub(super) struct Wanted {
    /// The guest's port.
    pub(super) port: u32,
    /// The device's end of the stream.
    pub(super) stream: UnixStream,
    /// Where the outcome goes.
    pub(super) outcome: Outcome,
}

/// Tells a waiting [`VsockHandle::connect`] how it went. Dropping it refuses.
pub(super) struct Outcome(SyncSender<()>);

impl Outcome {
    pub(super) fn connected(self) {
        // The other side may have lost patience; its end of the stream tells.
        let _ = self.0.try_send(());
    }
}

impl VsockHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Connects to `port` of the guest and waits for its answer, for `patience` at most.
    ///
    /// # Errors
    /// `NotConnected` when the guest has no vsock driver running (yet), `ConnectionRefused` when
    /// nobody listens on the port, `TimedOut` when the guest did not answer in time,
    /// `QuotaExceeded` when too many connections are being made, and the host's reasons.
    pub fn connect(&self, port: u32, patience: Duration) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let (sender, answer) = sync_channel(1);
        {
            let mut state = lock(&self.shared.state);
            let Some(control) = state.control.clone() else {
                return Err(error(
                    io::ErrorKind::NotConnected,
                    "the guest's vsock driver is not running",
                ));
            };
            if state.wanted.len() >= MAX_CONNECTIONS {
                return Err(error(
                    io::ErrorKind::QuotaExceeded,
                    "too many vsock connections to the guest are waiting",
                ));
            }
            state.wanted.push(Wanted { port, stream: theirs, outcome: Outcome(sender) });
            control.kick();
        }
        use std::sync::mpsc::RecvTimeoutError;
        match answer.recv_timeout(patience) {
            Ok(()) => Ok(ours),
            Err(RecvTimeoutError::Timeout) => {
                Err(error(io::ErrorKind::TimedOut, "the guest did not answer on vsock in time"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(error(
                io::ErrorKind::ConnectionRefused,
                "the guest refused the vsock connection: nothing listens on that port",
            )),
        }
    }

    /// Listens for the guest on `port` of the host (CID 2). Dropping the receiver stops listening.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there already.
    pub fn listen(&self, port: u32) -> io::Result<Receiver<UnixStream>> {
        use std::collections::hash_map::Entry;
        let (sender, receiver) = sync_channel(BACKLOG);
        match lock(&self.shared.state).listeners.entry(port) {
            Entry::Occupied(_) => Err(error(
                io::ErrorKind::AddrInUse,
                "this vsock port of the host already has a listener",
            )),
            Entry::Vacant(room) => {
                room.insert(sender);
                Ok(receiver)
            }
        }
    }

    /// Stops listening on `port`; a later [`listen`](Self::listen) may take it.
    pub fn unlisten(&self, port: u32) {
        lock(&self.shared.state).listeners.remove(&port);
    }
}

impl Shared {
    /// A driver runs, or (`None`) does not any more: what waited for it is refused.
    pub(super) fn set_control(&self, control: Option<Arc<Control>>) {
        let mut state = lock(&self.state);
        if control.is_none() {
            state.wanted.clear();
        }
        state.control = control;
    }

    /// Takes the connections to begin.
    pub(super) fn take_wanted(&self) -> Vec<Wanted> {
        std::mem::take(&mut lock(&self.state).wanted)
    }

    /// Gives a connection from the guest to the listener of `port`; `false` when there is none, or
    /// it does not keep up.
    pub(super) fn offer(&self, port: u32, stream: UnixStream) -> bool {
        let mut state = lock(&self.state);
        let Some(listener) = state.listeners.get(&port) else { return false };
        match listener.try_send(stream) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => {
                state.listeners.remove(&port);
                false
            }
        }
    }

    /// Whether anybody listens on `port`.
    pub(super) fn has_listener(&self, port: u32) -> bool {
        lock(&self.state).listeners.contains_key(&port)
    }
}

fn error(kind: io::ErrorKind, message: &'static str) -> io::Error {
    io::Error::new(kind, message)
}
