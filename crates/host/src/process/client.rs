//! Talking to a machine's process, from any command.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use riad_agent::client::{
    ClientError, ControlReceiver, ExitStatus, SessionIo, measure, run_session,
};
use riad_agent::protocol::Measures;
use rustix::fs::{Mode, OFlags};

use super::capture::Capturing;
use super::control::{Joining, Order, Reply};
use super::{Vitals, fds};
use crate::journal::this_process;
use crate::machines::{
    DiskName, Folder, MachineError, NetMode, NetName, Phase, RunState, SOCKET, State,
};
use crate::network::{CableFaults, ForwardStatus, NetworkStatus, Publish};
use crate::{Command, Error, printable};

/// How long a process that is about to be gone is given.
const GOING: Duration = Duration::from_secs(5);

/// How long a process that is well takes to say what is true, at most.
const WELL: Duration = Duration::from_secs(1);

impl Folder {
    /// The machine's last start, as its process says it if there is one, and as it is written down
    /// otherwise: a process whose disk is full cannot write down anything.
    ///
    /// # Errors
    /// As for [`run_state`](Self::run_state).
    pub fn told(&self) -> Result<Option<RunState>, MachineError> {
        match connect(self).ok().and_then(|stream| said(stream, self)) {
            Some(state) => Ok(Some(state)),
            None => self.run_state(),
        }
    }
}

/// What a process says is true, if it is well.
fn said(stream: UnixStream, folder: &Folder) -> Option<RunState> {
    stream.set_read_timeout(Some(WELL)).ok()?;
    let mut connection = Connection { reader: BufReader::new(stream), folder: folder.clone() };
    connection.send(&Order::Status).ok()?;
    let line = connection.line().ok()??;
    serde_json::from_value(connection.reply(&line).ok()?).ok()
}

/// A connection to a machine's process.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
    folder: Folder,
}

/// What is true of a machine, whenever it changes; it ends with the machine's process.
#[derive(Debug)]
pub struct News(Connection);

impl Connection {
    /// Finds the machine's process.
    ///
    /// # Errors
    /// [`MachineError::NotRunning`] when it has none.
    pub fn open(folder: &Folder) -> Result<Self, MachineError> {
        match connect(folder) {
            Ok(stream) => Ok(Self { reader: BufReader::new(stream), folder: folder.clone() }),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                // The folder tells what is true; a process that is just born has no socket yet.
                let (name, state) = (folder.name().clone(), folder.state()?);
                Err(MachineError::NotRunning { name, state })
            }
            Err(error) => Err(MachineError::io("connect to", &folder.path().join(SOCKET))(error)),
        }
    }

    fn failed(&self, reason: impl ToString) -> MachineError {
        MachineError::Process { name: self.folder.name().clone(), reason: reason.to_string() }
    }

    fn send(&mut self, order: &Order) -> Result<(), MachineError> {
        let sent = self.reader.get_ref().write_all(order.to_line().as_bytes());
        sent.map_err(|error| self.failed(error))
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, MachineError> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn reply(&self, line: &[u8]) -> Result<serde_json::Value, MachineError> {
        match Reply::parse(line) {
            Ok(Reply::Ok(value)) => Ok(value),
            Ok(Reply::Error(sentence)) => Err(self.failed(sentence)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn ask(&mut self, order: &Order) -> Result<serde_json::Value, MachineError> {
        let line = self.answer(order)?;
        self.reply(&line)
    }

    /// The same, of what is often refused, for reasons that need no more looking into.
    fn ask_leave(&mut self, order: &Order) -> Result<serde_json::Value, MachineError> {
        let line = self.answer(order)?;
        self.refused_or(&line)
    }

    fn refused_or(&self, line: &[u8]) -> Result<serde_json::Value, MachineError> {
        match Reply::parse(line) {
            Ok(Reply::Error(reason)) => {
                Err(MachineError::Refused { name: self.folder.name().clone(), reason })
            }
            _ => self.reply(line),
        }
    }

    /// The line that comes back.
    fn answer(&mut self, order: &Order) -> Result<Vec<u8>, MachineError> {
        if self.send(order).is_ok()
            && let Some(line) = self.line()?
        {
            return Ok(line);
        }
        Err(self.gone()?)
    }

    /// The error when the process ended before it answered.
    fn gone(&self) -> Result<MachineError, MachineError> {
        let deadline = Instant::now() + GOING;
        while self.folder.is_alive()? && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let (name, state) = (self.folder.name().clone(), self.folder.state()?);
        Ok(match state.is_alive() {
            true => self.failed("it closed the connection"),
            false => MachineError::NotRunning { name, state },
        })
    }

    /// What is true of the machine.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub fn status(mut self) -> Result<RunState, MachineError> {
        let value = self.ask(&Order::Status)?;
        serde_json::from_value(value).map_err(|error| self.failed(error))
    }

    /// What the machine uses.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub fn vitals(mut self) -> Result<Vitals, MachineError> {
        let value = self.ask(&Order::Stats)?;
        serde_json::from_value(value).map_err(|error| self.failed(error))
    }

    /// Has provisioning scripts of the machine's run. How they go is in its folder:
    /// [`Folder::provisioning`].
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub fn provision(mut self, scripts: Vec<String>) -> Result<(), MachineError> {
        self.ask(&Order::Provision { scripts }).map(drop)
    }

    /// Makes the machine's root disk larger while it runs, and the file system on it. Gives what is to
    /// be said about that besides, if anything.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub fn grow(mut self, size: u64) -> Result<Option<String>, MachineError> {
        let note = self.ask(&Order::Grow { size })?;
        Ok(note.as_str().filter(|note| !note.is_empty()).map(printable))
    }

    /// Makes a disk that is attached to the machine larger while it runs.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub fn grow_disk(mut self, disk: &DiskName, size: u64) -> Result<(), MachineError> {
        let disk = disk.to_string();
        self.ask(&Order::GrowDisk { disk, size }).map(drop)
    }

    /// What is true of the machine, now and whenever it changes.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub fn news(mut self) -> Result<News, MachineError> {
        self.ask(&Order::Events)?;
        Ok(News(self))
    }

    /// Has the machine stopped, and waits until it is, for `limit` at most. `by` is what wants it,
    /// for the record: `riad stop`.
    ///
    /// # Errors
    /// [`MachineError::NotStoppedInTime`], [`MachineError::Process`].
    pub fn stop(mut self, force: bool, limit: Duration, by: &str) -> Result<(), MachineError> {
        let deadline = Instant::now().checked_add(limit);
        let by = Some(format!("{by}, {}", this_process()));
        match self.ask(&Order::Stop { force, by }) {
            // It went by itself.
            Ok(_) | Err(MachineError::NotRunning { .. }) => {}
            Err(error) => return Err(error),
        }
        let folder = self.folder.clone();
        let timeout = Some(limit).filter(|limit| !limit.is_zero());
        self.reader.get_ref().set_read_timeout(timeout).map_err(|error| self.failed(error))?;
        // The end of the connection is the end of the process; or else the time is over.
        let _ = self.line();
        while folder.is_alive()? {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let (name, seconds) = (folder.name().clone(), limit.as_secs());
                return Err(MachineError::NotStoppedInTime { name, seconds });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The machine's console: what the guest writes can be read, and what is written is typed.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub fn console(mut self) -> Result<(impl io::Read + use<>, UnixStream), MachineError> {
        self.ask(&Order::Console)?;
        let writer = self.reader.get_ref().try_clone().map_err(|error| self.failed(error))?;
        Ok((self.reader, writer))
    }

    /// What is true of the machine's network.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub fn network(mut self) -> Result<NetworkStatus, MachineError> {
        let value = self.ask(&Order::Network)?;
        serde_json::from_value(value).map_err(|error| self.failed(error))
    }

    /// Has what comes in at `socket`, which listens as `forward` says, go to the guest.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub(crate) fn forward(
        mut self,
        forward: &Publish,
        socket: BorrowedFd<'_>,
    ) -> Result<ForwardStatus, MachineError> {
        self.ask(&Order::Forward { forward: forward.clone() })?;
        fds::send(self.reader.get_ref(), b"socket\n", socket)
            .map_err(|error| self.failed(error))?;
        let Some(line) = self.line()? else { return Err(self.gone()?) };
        let value = self.reply(&line)?;
        serde_json::from_value(value).map_err(|error| self.failed(error))
    }

    /// Puts the machine on a named network while it runs; `socket` is its connection to the switch.
    ///
    /// # Errors
    /// [`MachineError::Refused`], [`MachineError::Process`].
    pub(crate) fn join(
        mut self,
        joining: &Joining,
        socket: BorrowedFd<'_>,
    ) -> Result<(), MachineError> {
        self.ask_leave(&Order::Join { joining: joining.clone() })?;
        self.hand_over(socket)
    }

    /// Takes the machine off a named network while it runs.
    ///
    /// # Errors
    /// [`MachineError::Refused`], also when the guest keeps the card; [`MachineError::Process`].
    pub(crate) fn leave(mut self, network: &NetName, reach: NetMode) -> Result<(), MachineError> {
        self.ask_leave(&Order::Leave { network: network.to_string(), reach }).map(drop)
    }

    /// Plugs a disk in while the machine runs; `file` is open, and locked.
    ///
    /// # Errors
    /// [`MachineError::Refused`], [`MachineError::Process`].
    pub(crate) fn attach(
        mut self,
        disk: &DiskName,
        read_only: bool,
        file: BorrowedFd<'_>,
    ) -> Result<(), MachineError> {
        self.ask_leave(&Order::Attach { disk: disk.to_string(), read_only })?;
        self.hand_over(file)
    }

    /// Unplugs a disk while the machine runs.
    ///
    /// # Errors
    /// [`MachineError::Refused`], also when the guest has it in use or keeps it;
    /// [`MachineError::Process`].
    pub(crate) fn detach(mut self, disk: &DiskName) -> Result<(), MachineError> {
        self.ask_leave(&Order::Detach { disk: disk.to_string() }).map(drop)
    }

    /// Sends a descriptor that was asked for, and hears whether it was taken.
    fn hand_over(&mut self, fd: BorrowedFd<'_>) -> Result<(), MachineError> {
        fds::send(self.reader.get_ref(), b"it\n", fd).map_err(|error| self.failed(error))?;
        let Some(line) = self.line()? else { return Err(self.gone()?) };
        self.refused_or(&line).map(drop)
    }

    /// Ends a forward.
    ///
    /// # Errors
    /// [`MachineError::Process`], also when there is none of that number.
    pub(crate) fn unforward(mut self, id: u32) -> Result<(), MachineError> {
        self.ask(&Order::Unforward { id }).map(drop)
    }

    /// Has the rules hold that the machine's folder has for its network.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub(crate) fn policy(mut self) -> Result<(), MachineError> {
        self.ask(&Order::Policy).map(drop)
    }

    /// Captures what goes over the machine's cable.
    ///
    /// # Errors
    /// [`MachineError::Refused`], [`MachineError::Process`].
    pub fn capture(mut self) -> Result<Capturing, MachineError> {
        self.ask_leave(&Order::Capture)?;
        let stream = self.reader.get_ref().try_clone().map_err(|error| self.failed(error))?;
        Ok(Capturing::new(self.folder.name().clone(), self.reader, stream))
    }

    /// What the machine's cable does to frames; from now on, what is to be `set`.
    ///
    /// # Errors
    /// [`MachineError::Refused`], [`MachineError::Process`].
    pub(crate) fn fault(mut self, set: Option<CableFaults>) -> Result<CableFaults, MachineError> {
        let value = self.ask_leave(&Order::Fault { set })?;
        serde_json::from_value(value).map_err(|error| self.failed(error))
    }

    /// A connection to the agent in the guest.
    fn session(mut self) -> Result<OwnedFd, MachineError> {
        let sent = self.send(&Order::Session);
        let received = sent.is_ok().then(|| fds::receive(self.reader.get_ref()));
        let Some(Ok((line, fd))) = received else { return Err(self.gone()?) };
        self.reply(&line)?;
        fd.ok_or_else(|| self.failed("it sent no connection to the agent"))
    }
}

fn connect(folder: &Folder) -> io::Result<UnixStream> {
    // As the server does it: a socket's address is short, and paths are long.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(folder.path(), flags, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

impl Iterator for News {
    type Item = Result<RunState, MachineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match self.0.line() {
            Ok(line) => line?,
            Err(error) => return Some(Err(error)),
        };
        Some(serde_json::from_slice(&line).map_err(|error| self.0.failed(error)))
    }
}

impl News {
    /// Waits until something is true of the machine; `None` when its process ended before.
    ///
    /// # Errors
    /// [`MachineError::Process`].
    pub fn until(
        &mut self,
        mut is_true: impl FnMut(&RunState) -> bool,
    ) -> Result<Option<RunState>, MachineError> {
        for state in self {
            let state = state?;
            if is_true(&state) {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }
}

impl Folder {
    /// Waits until the machine's agent answers, if it is on its way there.
    ///
    /// # Errors
    /// [`MachineError::NotRunning`] when it is off, or goes off.
    pub fn wait_ready(&self) -> Result<(), MachineError> {
        let ready = Connection::open(self)?
            .news()?
            .until(|state| matches!(state.phase, Phase::Running | Phase::Stopping))?;
        match ready {
            Some(_) => Ok(()),
            None => {
                Err(MachineError::NotRunning { name: self.name().clone(), state: self.state()? })
            }
        }
    }

    /// How much of the machine is in use, as its guest sees it. `None` when it is not there, or does
    /// not answer within about `limit`: a guest that is busy with itself is no failure.
    #[must_use]
    pub fn measures(&self, limit: Duration) -> Option<Measures> {
        let mut connection = Connection::open(self).ok()?;
        // The process waits longer for a guest.
        connection.reader.get_ref().set_read_timeout(Some(limit)).ok()?;
        connection.send(&Order::Session).ok()?;
        let (line, fd) = fds::receive(connection.reader.get_ref()).ok()?;
        connection.reply(&line).ok()?;
        measure(fd?, limit).inspect_err(|error| tracing::debug!(%error, "no measures")).ok()
    }

    /// A connection to the agent; of a machine that is on its way there, once it answers.
    fn session(&self) -> Result<OwnedFd, MachineError> {
        // Asked at once, and not first whether it can be: most can, and are waited for by people.
        match Connection::open(self)?.session() {
            Err(MachineError::Process { .. }) if self.state()? == State::Starting => {
                self.wait_ready()?;
                Connection::open(self)?.session()
            }
            connected => connected,
        }
    }

    /// Runs a command in the machine, which must run, or be about to.
    ///
    /// # Errors
    /// [`Error::NotStarted`] when there is no such command, [`Error::Aborted`] when the caller gave
    /// it up, and whatever happens to machines.
    pub fn run(
        &self,
        command: &Command,
        io: SessionIo<'_>,
        control: Option<&ControlReceiver>,
    ) -> Result<ExitStatus, Error> {
        command.run(io, |request, io| {
            let stream = self.session()?;
            match run_session(stream, request, io, control) {
                Ok(end) => Ok(end.status),
                Err(error @ ClientError::NotStarted(_)) => Err(Error::NotStarted(error)),
                Err(ClientError::Aborted) => Err(Error::Aborted),
                Err(source) => Err(self.session_failed(source).into()),
            }
        })
    }

    /// Why a session ended early: because the machine did, or for a reason of its own.
    fn session_failed(&self, source: ClientError) -> MachineError {
        let name = self.name().clone();
        // The process may be about to write down what happened.
        let deadline = Instant::now() + GOING;
        while Instant::now() < deadline {
            match self.state() {
                Ok(State::Running) if !matches!(source, ClientError::Gone) => break,
                Ok(State::Running) => std::thread::sleep(Duration::from_millis(50)),
                Ok(state) => return MachineError::WentAway { name, state },
                Err(error) => return error,
            }
        }
        MachineError::Process { name, reason: source.to_string() }
    }
}
