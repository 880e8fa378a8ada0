//! One command while it runs: its streams, its signals, its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use riad_agent::protocol::{ExecRequest, Failure, OutputStream, ToHost};

use super::launch::{self, Launched};
use super::pipes::{InputPipe, InputState, OutputPipe, OutputState, STDIN_WINDOW, TooMuch};
use super::sys::{self, ChildFailure};

/// How long after the command's end its streams must be quiet, if something else (a background
/// process it left) still holds them, before the session ends without them.
const QUIET: Duration = Duration::from_millis(100);

/// How long a background process that is not quiet may keep the session after the command's end.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(u8),
    Signal(u8),
}

/// A command that was launched.
#[derive(Debug)]
pub(crate) struct Process {
    request: ExecRequest,
    pid: i32,
    /// There until it is known whether the exec succeeded.
    status: Option<OwnedFd>,
    stdin: Option<InputPipe>,
    stdout: Option<OutputPipe>,
    stderr: Option<OutputPipe>,
    exit: Option<Ended>,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    exit: Exit,
    at: Instant,
    last_output: Instant,
}

/// What the status pipe told.
pub(crate) enum Start {
    Unknown,
    Succeeded,
    Failed(Failure),
}

impl Process {
    /// Launches what is requested.
    pub(crate) fn launch(request: ExecRequest) -> Result<Self, Failure> {
        let Launched { pid, status, stdin, stdout, stderr } = launch::launch(&request)?;
        let stdin =
            stdin.filter(|_| request.stdin).map(|fd| InputPipe::new(fd, request.tty.is_some()));
        Ok(Self {
            request,
            pid,
            status: Some(status),
            stdin,
            stdout: Some(OutputPipe::new(stdout, OutputStream::Stdout)),
            stderr: stderr.map(|fd| OutputPipe::new(fd, OutputStream::Stderr)),
            exit: None,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the process was not reaped yet.
    pub(crate) fn is_alive(&self) -> bool {
        self.exit.is_none()
    }

    /// The pipe that tells whether the exec succeeded, until it did.
    pub(crate) fn status_fd(&self) -> Option<BorrowedFd<'_>> {
        self.status.as_ref().map(AsFd::as_fd)
    }

    /// Standard input's pipe, if something waits for it.
    pub(crate) fn stdin_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().filter(|pipe| pipe.wants_write()).map(InputPipe::fd)
    }

    /// An output's pipe, once the command runs.
    pub(crate) fn output_fd(&self, stream: OutputStream) -> Option<BorrowedFd<'_>> {
        if self.status.is_some() {
            return None;
        }
        match stream {
            OutputStream::Stdout => self.stdout.as_ref(),
            OutputStream::Stderr => self.stderr.as_ref(),
        }
        .map(OutputPipe::fd)
    }

    /// Reads the status pipe.
    pub(crate) fn read_status(&mut self) -> Start {
        let Some(status) = self.status.take() else { return Start::Unknown };
        let mut bytes = [0; ChildFailure::LEN];
        match rustix::io::read(&status, &mut bytes) {
            Ok(ChildFailure::LEN) => {
                Start::Failed(launch::explain(ChildFailure::from_bytes(bytes), &self.request))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                self.status = Some(status);
                Start::Unknown
            }
            _ => Start::Succeeded,
        }
    }

    /// The first words of a command that runs.
    pub(crate) fn announce(&self, to_host: &mut Vec<u8>) {
        ToHost::Started { pid: self.pid.unsigned_abs() }.encode(to_host);
        if self.stdin.is_some() {
            let bytes = u32::try_from(STDIN_WINDOW).unwrap_or(u32::MAX);
            ToHost::StdinCredit { bytes }.encode(to_host);
        }
    }

    /// Standard input from the host.
    pub(crate) fn feed(&mut self, data: &[u8], to_host: &mut Vec<u8>) -> Result<(), TooMuch> {
        let Some(pipe) = &mut self.stdin else { return Ok(()) };
        let state = pipe.push(data)?;
        pipe.grant(to_host);
        self.after_input(state, to_host);
        Ok(())
    }

    /// The host has no more standard input.
    pub(crate) fn end_stdin(&mut self, to_host: &mut Vec<u8>) {
        if let Some(pipe) = &mut self.stdin {
            let state = pipe.end();
            self.after_input(state, to_host);
        }
    }

    /// Standard input's pipe has room.
    pub(crate) fn write_stdin(&mut self, to_host: &mut Vec<u8>) {
        if let Some(pipe) = &mut self.stdin {
            let state = pipe.write();
            pipe.grant(to_host);
            self.after_input(state, to_host);
        }
    }

    fn after_input(&mut self, state: InputState, to_host: &mut Vec<u8>) {
        match state {
            InputState::Open => {}
            InputState::Ended => self.stdin = None,
            InputState::Refused => {
                self.stdin = None;
                ToHost::StdinClosed.encode(to_host);
            }
        }
    }

    /// Reads an output's pipe, once, into frames.
    pub(crate) fn read_output(&mut self, stream: OutputStream, to_host: &mut Vec<u8>) {
        let slot = self.output_slot(stream);
        let Some(pipe) = slot else { return };
        match pipe.read(to_host) {
            OutputState::Read(0) => {}
            OutputState::Read(_) => {
                if let Some(ended) = &mut self.exit {
                    ended.last_output = Instant::now();
                }
            }
            OutputState::Ended => *slot = None,
        }
    }

    /// Nobody on the host reads this output any more. A terminal has no such half.
    pub(crate) fn close_output(&mut self, stream: OutputStream) {
        if self.request.tty.is_none() {
            *self.output_slot(stream) = None;
        }
    }

    fn output_slot(&mut self, stream: OutputStream) -> &mut Option<OutputPipe> {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// The host's window changed.
    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        if let (Some(_), Some(pipe)) = (&self.request.tty, &self.stdout) {
            // A terminal that is gone needs no size.
            let _ = launch::resize(pipe.fd(), rows, cols);
        }
    }

    /// Signals the command's process group.
    pub(crate) fn signal(&self, signo: i32) {
        if self.is_alive() && sys::kill(-self.pid, signo).is_err() {
            // Not yet the leader of a group: the child is between fork and setsid.
            let _ = sys::kill(self.pid, signo);
        }
    }

    /// The process was reaped.
    pub(crate) fn ended(&mut self, exit: Exit) {
        let now = Instant::now();
        self.exit = Some(Ended { exit, at: now, last_output: now });
        for pipe in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            pipe.note_owed();
        }
    }

    /// When the session may end without the streams that something else still holds; `None` if
    /// that is not a question of time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let Ended { at, last_output, .. } = self.exit?;
        let owes = [&self.stdout, &self.stderr].into_iter().flatten().any(|pipe| pipe.owed > 0);
        (!owes && self.status.is_none()).then(|| (last_output + QUIET).min(at + PATIENCE))
    }

    /// How the command ended, once all its output was read.
    pub(crate) fn finished(&self, now: Instant) -> Option<Exit> {
        let Ended { exit, .. } = self.exit?;
        if self.status.is_some() {
            return None;
        }
        let drained = self.stdout.is_none() && self.stderr.is_none();
        (drained || self.deadline().is_some_and(|deadline| deadline <= now)).then_some(exit)
    }
}
