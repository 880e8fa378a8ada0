//! One command in a guest, from request to exit status.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::output::Output;
use super::{ClientError, ControlEvent, ControlReceiver};
use crate::protocol::{
    Decoder, ExecRequest, HEADER_LEN, MAX_PAYLOAD, OutputStream, ToGuest, ToHost,
};

/// The caller's standard streams. They stay as they are: nothing is made non-blocking.
#[derive(Debug)]
pub struct SessionIo<'a> {
    /// Read only as the guest asks for it. `None` gives the command an input that is at its end
    /// (if the request asks for one at all).
    pub stdin: Option<BorrowedFd<'a>>,
    /// Also takes all output of a terminal.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this status.
    Exited(u8),
    /// A signal, by Linux's number, ended it.
    Signaled(u8),
}

impl ExitStatus {
    /// The status as a shell tells it: 128 + n for death by signal n.
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signo) => signo.saturating_add(128),
        }
    }
}

/// A session that ended as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnd {
    /// How the command ended.
    pub status: ExitStatus,
    /// Its process number in the guest.
    pub pid: u32,
    /// From the request to the command's start.
    pub started_after: Duration,
    /// From the request to the command's end, all output written.
    pub ended_after: Duration,
}

/// Runs `request` in the guest at the other end of `stream` and pumps its streams until it ends.
/// Output is on its descriptors when this returns.
///
/// `stream` is one fresh connection to the agent; it is closed on return, and if the command still
/// ran, the agent ends it.
///
/// # Errors
/// The command could not be started ([`ClientError::NotStarted`]), the stream ended early
/// ([`ClientError::Gone`]), or anything else of [`ClientError`].
pub fn run_session(
    stream: impl Into<OwnedFd>,
    request: &ExecRequest,
    io: SessionIo<'_>,
    control: Option<&ControlReceiver>,
) -> Result<SessionEnd, ClientError> {
    let stream = stream.into();
    set_nonblocking(stream.as_fd()).map_err(ClientError::Stream)?;
    let mut to_send = Vec::new();
    ToGuest::Exec(request.clone()).encode(&mut to_send)?;
    let mut pump = Pump {
        stream,
        decoder: Decoder::of_guest(),
        to_send,
        sent: 0,
        stdin: io.stdin.filter(|_| request.stdin),
        stdin_chunk: Vec::new(),
        credit: 0,
        stdout: Output::new(io.stdout),
        stderr: Output::new(io.stderr),
        control,
        began: Instant::now(),
        started: None,
        ended: None,
    };
    if pump.stdin.is_none() && request.stdin {
        pump.say(&ToGuest::StdinEof)?;
    }
    pump.run()
}

pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(())
}

/// Which descriptors are ready, as far as each was asked for.
#[derive(Debug, Default)]
struct Ready {
    stream_in: bool,
    stream_out: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    control: bool,
}

struct Pump<'a> {
    stream: OwnedFd,
    decoder: Decoder,
    to_send: Vec<u8>,
    sent: usize,
    stdin: Option<BorrowedFd<'a>>,
    stdin_chunk: Vec<u8>,
    /// How much standard input the agent takes, in bytes.
    credit: usize,
    stdout: Output<'a>,
    stderr: Output<'a>,
    control: Option<&'a ControlReceiver>,
    began: Instant,
    started: Option<(u32, Duration)>,
    ended: Option<ExitStatus>,
}

impl Pump<'_> {
    fn run(mut self) -> Result<SessionEnd, ClientError> {
        loop {
            self.take_frames()?;
            if let (Some(status), true) = (self.ended, self.outputs_idle()) {
                let (pid, started_after) =
                    self.started.ok_or(ClientError::Unexpected { what: "an exit status" })?;
                let ended_after = self.began.elapsed();
                return Ok(SessionEnd { status, pid, started_after, ended_after });
            }
            let ready = self.wait().map_err(ClientError::Stream)?;
            if ready.control {
                self.hear_control()?;
            }
            if ready.stdout {
                let alive = stdio("standard output", self.stdout.write())?;
                self.close_unless(alive, OutputStream::Stdout)?;
            }
            if ready.stderr {
                let alive = stdio("standard error", self.stderr.write())?;
                self.close_unless(alive, OutputStream::Stderr)?;
            }
            if ready.stdin {
                self.read_stdin()?;
            }
            if ready.stream_out {
                self.send();
            }
            if ready.stream_in {
                self.receive()?;
            }
        }
    }

    fn outputs_idle(&self) -> bool {
        self.stdout.is_idle() && self.stderr.is_idle()
    }

    fn has_to_send(&self) -> bool {
        self.sent < self.to_send.len()
    }

    /// Handles what was received, as long as its output can be taken.
    fn take_frames(&mut self) -> Result<(), ClientError> {
        while self.ended.is_none() && self.outputs_idle() {
            let Some(frame) = self.decoder.next_frame()? else { break };
            let message = ToHost::parse(frame)?;
            if self.started.is_none() {
                match message {
                    ToHost::Started { pid } => self.started = Some((pid, self.began.elapsed())),
                    ToHost::Failed(failure) => return Err(ClientError::NotStarted(failure)),
                    ToHost::Error { message } => return Err(ClientError::Refused { message }),
                    _ => return Err(ClientError::Unexpected { what: "an early message" }),
                }
                continue;
            }
            match message {
                ToHost::Stdout(data) => self.stdout.put(data),
                ToHost::Stderr(data) => self.stderr.put(data),
                ToHost::StdinCredit { bytes } => {
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                    self.credit = self.credit.saturating_add(bytes);
                }
                ToHost::StdinClosed => self.stdin = None,
                ToHost::Exited { code } => self.ended = Some(ExitStatus::Exited(code)),
                ToHost::Signaled { signo } => self.ended = Some(ExitStatus::Signaled(signo)),
                ToHost::Error { message } => return Err(ClientError::Refused { message }),
                ToHost::Started { .. } | ToHost::Failed(_) | ToHost::Hello(_) => {
                    return Err(ClientError::Unexpected { what: "a second beginning" });
                }
                ToHost::Measures(_) | ToHost::Card { .. } => {
                    return Err(ClientError::Unexpected { what: "an answer to a question" });
                }
            }
        }
        Ok(())
    }

    /// Waits until one of the descriptors that something is wanted of is ready. A descriptor of
    /// which nothing is wanted is not polled at all: its hang-up would never let the wait sleep.
    fn wait(&self) -> io::Result<Ready> {
        enum Who {
            Stream,
            Stdin,
            Stdout,
            Stderr,
            Control,
        }
        let mut who = Vec::with_capacity(5);
        let mut fds = Vec::with_capacity(5);
        let mut stream = PollFlags::empty();
        stream.set(PollFlags::IN, self.ended.is_none() && self.outputs_idle());
        stream.set(PollFlags::OUT, self.has_to_send());
        if !stream.is_empty() {
            who.push(Who::Stream);
            fds.push(PollFd::new(&self.stream, stream));
        }
        if let (Some(stdin), true) = (&self.stdin, self.credit > 0 && !self.has_to_send()) {
            who.push(Who::Stdin);
            fds.push(PollFd::from_borrowed_fd(*stdin, PollFlags::IN));
        }
        for (output, name) in [(&self.stdout, Who::Stdout), (&self.stderr, Who::Stderr)] {
            if !output.is_idle() {
                who.push(name);
                fds.push(PollFd::from_borrowed_fd(output.fd(), PollFlags::OUT));
            }
        }
        if let Some(control) = self.control {
            who.push(Who::Control);
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let mut ready = Ready::default();
        for (who, fd) in who.iter().zip(&fds) {
            let events = fd.revents();
            let any = !events.is_empty();
            match who {
                // An error or hang-up is found by the read or write that it makes possible.
                Who::Stream => {
                    ready.stream_in = any && stream.contains(PollFlags::IN);
                    ready.stream_out = any && stream.contains(PollFlags::OUT);
                }
                Who::Stdin => ready.stdin = any,
                Who::Stdout => ready.stdout = any,
                Who::Stderr => ready.stderr = any,
                Who::Control => ready.control = any,
            }
        }
        Ok(ready)
    }

    fn say(&mut self, message: &ToGuest<'_>) -> Result<(), ClientError> {
        Ok(message.encode(&mut self.to_send)?)
    }

    fn close_unless(&mut self, alive: bool, stream: OutputStream) -> Result<(), ClientError> {
        if alive { Ok(()) } else { self.say(&ToGuest::Close { stream }) }
    }

    fn hear_control(&mut self) -> Result<(), ClientError> {
        let Some(control) = self.control else { return Ok(()) };
        match control.receive() {
            Ok(None) => Ok(()),
            Ok(Some(ControlEvent::Abort)) => Err(ClientError::Aborted),
            Ok(Some(ControlEvent::Resize { rows, cols })) => {
                self.say(&ToGuest::Resize { rows, cols })
            }
            Ok(Some(ControlEvent::Signal(signo))) => self.say(&ToGuest::Signal { signo }),
            // No sender is left: nothing more to hear.
            Err(_) => {
                self.control = None;
                Ok(())
            }
        }
    }

    fn read_stdin(&mut self) -> Result<(), ClientError> {
        let Some(stdin) = self.stdin else { return Ok(()) };
        let most = self.credit.min(MAX_PAYLOAD - HEADER_LEN);
        self.stdin_chunk.resize(most, 0);
        match rustix::io::read(stdin, &mut self.stdin_chunk[..]) {
            Ok(0) => {
                self.stdin = None;
                self.say(&ToGuest::StdinEof)
            }
            Ok(count) => {
                self.credit = self.credit.saturating_sub(count);
                let data = self.stdin_chunk.get(..count).unwrap_or_default();
                Ok(ToGuest::Stdin(data).encode(&mut self.to_send)?)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            // The terminal hung up.
            Err(Errno::IO) => {
                self.stdin = None;
                self.say(&ToGuest::StdinEof)
            }
            Err(error) => stdio("standard input", Err(error.into())),
        }
    }

    /// Sends what waits. A stream that takes nothing more is no failure yet: the exit status may
    /// already be on its way, and if it is not, reading finds the end.
    fn send(&mut self) {
        let rest = self.to_send.get(self.sent..).unwrap_or_default();
        match rustix::io::write(&self.stream, rest) {
            Ok(count) => self.sent += count,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => {
                self.sent = self.to_send.len();
                self.stdin = None;
            }
        }
        if !self.has_to_send() {
            self.to_send.clear();
            self.sent = 0;
        }
    }

    fn receive(&mut self) -> Result<(), ClientError> {
        match rustix::io::read(&self.stream, self.decoder.space()) {
            Ok(0) | Err(Errno::CONNRESET | Errno::PIPE) => Err(ClientError::Gone),
            Ok(count) => {
                self.decoder.filled(count);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(ClientError::Stream(error.into())),
        }
    }
}

fn stdio<T>(stream: &'static str, result: io::Result<T>) -> Result<T, ClientError> {
    result.map_err(|source| ClientError::Stdio { stream, source })
}
