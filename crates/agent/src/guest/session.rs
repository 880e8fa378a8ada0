//! One connection from the host: one command, or one question.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use riad_agent::protocol::{Decoder, Frame, OutputStream, ProtocolError, ToGuest, ToHost};
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::measure::measure;
use super::network;
use super::process::{Exit, Process, Start};

/// Which of a session's descriptors is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Connection,
    Status,
    Stdin,
    Output(OutputStream),
}

/// A connection from the host.
#[derive(Debug)]
pub(crate) struct Session {
    connection: OwnedFd,
    decoder: Decoder,
    /// Frames for the host, of which `sent` bytes are gone. Output is read only while this is
    /// empty, so it stays under a few frames however slowly the host reads.
    to_host: Vec<u8>,
    sent: usize,
    process: Option<Process>,
    /// The last frame is in `to_host`.
    closing: bool,
    /// The host is gone, or everything was said.
    over: bool,
}

impl Session {
    /// `connection` is non-blocking.
    pub(crate) fn new(connection: OwnedFd) -> Self {
        Self {
            connection,
            decoder: Decoder::of_host(),
            to_host: Vec::new(),
            sent: 0,
            process: None,
            closing: false,
            over: false,
        }
    }

    /// Whether the session can be dropped.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The process number of a command that still runs, to be ended with the session.
    pub(crate) fn survivor(&self) -> Option<i32> {
        self.process.as_ref().filter(|process| process.is_alive()).map(Process::pid)
    }

    /// Whether this session's command has this process number.
    pub(crate) fn runs(&self, pid: i32) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_alive() && process.pid() == pid)
    }

    /// When it wants [`settle`](Self::settle) called, at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.closing { None } else { self.process.as_ref()?.deadline() }
    }

    /// What it waits for. A descriptor of which nothing is wanted is left out: its hang-up would
    /// otherwise keep the loop awake.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let waiting = self.sent < self.to_host.len();
        let mut connection = PollFlags::IN;
        connection.set(PollFlags::OUT, waiting);
        let process = self.process.as_ref().filter(|_| !self.closing);
        let output = |stream| {
            let fd = process.filter(|_| !waiting)?.output_fd(stream)?;
            Some((Source::Output(stream), fd, PollFlags::IN))
        };
        [
            Some((Source::Connection, self.connection.as_fd(), connection)),
            process.and_then(Process::status_fd).map(|fd| (Source::Status, fd, PollFlags::IN)),
            process.and_then(Process::stdin_fd).map(|fd| (Source::Stdin, fd, PollFlags::OUT)),
            output(OutputStream::Stdout),
            output(OutputStream::Stderr),
        ]
        .into_iter()
        .flatten()
    }

    /// A descriptor is ready.
    pub(crate) fn ready(&mut self, source: Source, events: PollFlags) {
        match source {
            Source::Connection => {
                if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.receive();
                }
            }
            Source::Status => self.start(),
            Source::Stdin => {
                if let Some(process) = &mut self.process {
                    process.write_stdin(&mut self.to_host);
                }
            }
            Source::Output(stream) => {
                if let Some(process) = &mut self.process {
                    process.read_output(stream, &mut self.to_host);
                }
            }
        }
        self.send();
    }

    /// The command was reaped.
    pub(crate) fn ended(&mut self, exit: Exit) {
        if let Some(process) = &mut self.process {
            process.ended(exit);
        }
    }

    /// Says the last word once it is time.
    pub(crate) fn settle(&mut self, now: Instant) {
        if self.closing || self.over {
            return;
        }
        let Some(exit) = self.process.as_ref().and_then(|process| process.finished(now)) else {
            return;
        };
        self.conclude(match exit {
            Exit::Code(code) => ToHost::Exited { code },
            Exit::Signal(signo) => ToHost::Signaled { signo },
        });
        self.send();
    }

    fn conclude(&mut self, last: ToHost<'_>) {
        last.encode(&mut self.to_host);
        self.closing = true;
    }

    fn start(&mut self) {
        let Some(process) = &mut self.process else { return };
        match process.read_status() {
            Start::Unknown => {}
            Start::Succeeded => process.announce(&mut self.to_host),
            Start::Failed(failure) => self.conclude(ToHost::Failed(failure)),
        }
    }

    fn receive(&mut self) {
        match rustix::io::read(&self.connection, self.decoder.space()) {
            Ok(0) => self.over = true,
            Ok(count) => {
                self.decoder.filled(count);
                if let Err(error) = self.take_frames() {
                    self.conclude(ToHost::Error { message: error.to_string() });
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.over = true,
        }
    }

    fn take_frames(&mut self) -> Result<(), SessionError> {
        let Self { decoder, process, to_host, closing, .. } = self;
        while let Some(frame) = decoder.next_frame()? {
            // Whatever else was on its way is of no use any more.
            if *closing {
                continue;
            }
            match process {
                Some(process) => obey(process, frame, to_host)?,
                None => match ToGuest::parse(frame)? {
                    ToGuest::Exec(request) => match Process::launch(request) {
                        Ok(launched) => *process = Some(launched),
                        Err(failure) => {
                            ToHost::Failed(failure).encode(to_host);
                            *closing = true;
                        }
                    },
                    ToGuest::Measure => {
                        ToHost::Measures(measure()).encode(to_host);
                        *closing = true;
                    }
                    ToGuest::SetUpCard(card) => {
                        let answer = match network::set_up_one(&card) {
                            Ok(name) => ToHost::Card { name },
                            Err(message) => ToHost::Error { message },
                        };
                        answer.encode(to_host);
                        *closing = true;
                    }
                    _ => return Err(SessionError::NotExec),
                },
            }
        }
        Ok(())
    }

    /// Sends what waits, as far as it goes.
    fn send(&mut self) {
        let rest = self.to_host.get(self.sent..).unwrap_or_default();
        if !rest.is_empty() {
            match rustix::io::write(&self.connection, rest) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.over = true,
            }
        }
        if self.sent >= self.to_host.len() {
            self.to_host.clear();
            self.sent = 0;
            self.over |= self.closing;
        }
    }
}

/// What a running command is told.
fn obey(
    process: &mut Process,
    frame: Frame<'_>,
    to_host: &mut Vec<u8>,
) -> Result<(), SessionError> {
    match ToGuest::parse(frame)? {
        ToGuest::Stdin(data) => {
            process.feed(data, to_host).map_err(|_| SessionError::BeyondCredit)?;
        }
        ToGuest::StdinEof => process.end_stdin(to_host),
        ToGuest::Resize { rows, cols } => process.resize(rows, cols),
        ToGuest::Signal { signo } => process.signal(signo.into()),
        ToGuest::Close { stream } => process.close_output(stream),
        ToGuest::Exec(_)
        | ToGuest::Welcome { .. }
        | ToGuest::Shutdown { .. }
        | ToGuest::SetTime { .. }
        | ToGuest::Measure
        | ToGuest::SetUpCard(_) => return Err(SessionError::Misplaced),
    }
    Ok(())
}

/// What the host did wrong.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("a session begins with a request")]
    NotExec,
    #[error("the host sent more standard input than it had credit for")]
    BeyondCredit,
    #[error("the message has no place in a session that runs")]
    Misplaced,
}
