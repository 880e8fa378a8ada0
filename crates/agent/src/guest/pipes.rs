//! Our ends of a command's streams.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use riad_agent::protocol::{HEADER_LEN, MAX_PAYLOAD, OutputStream, ToHost};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

/// How much standard input the host may be ahead of the command, in bytes.
pub(crate) const STDIN_WINDOW: usize = 256 * 1024;

/// How much must have been taken before the host is told, in bytes: one small frame for each would
/// cost as much as the input.
const CREDIT_STEP: usize = STDIN_WINDOW / 4;

/// Standard input on its way to the command.
#[derive(Debug)]
pub(crate) struct InputPipe {
    fd: OwnedFd,
    /// Came, and not yet taken. At most [`STDIN_WINDOW`].
    queue: VecDeque<u8>,
    /// Taken, and the host was not yet told.
    taken: usize,
    ends: bool,
    terminal: bool,
}

/// The host sent more than it had credit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch;

/// What became of an [`InputPipe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputState {
    /// It is there.
    Open,
    /// It has ended, as the host said.
    Ended,
    /// The command does not want more.
    Refused,
}

impl InputPipe {
    pub(crate) fn new(fd: OwnedFd, terminal: bool) -> Self {
        Self { fd, queue: VecDeque::new(), taken: 0, ends: false, terminal }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether anything waits for the pipe to take it.
    pub(crate) fn wants_write(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes data from the host: straight into the pipe as far as it goes.
    pub(crate) fn push(&mut self, mut data: &[u8]) -> Result<InputState, TooMuch> {
        if self.queue.len() + data.len() > STDIN_WINDOW {
            return Err(TooMuch);
        }
        if self.queue.is_empty() && !data.is_empty() {
            match rustix::io::write(&self.fd, data) {
                Ok(count) => {
                    self.taken += count;
                    data = data.get(count..).unwrap_or_default();
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Ok(InputState::Refused),
            }
        }
        self.queue.extend(data);
        Ok(InputState::Open)
    }

    /// The host has no more. A terminal does not end: it is told as a person would, by Ctrl-D.
    pub(crate) fn end(&mut self) -> InputState {
        if self.terminal && !self.ends {
            self.queue.push_back(0x04);
        }
        self.ends = true;
        self.write()
    }

    /// Writes what waits, as far as it goes.
    pub(crate) fn write(&mut self) -> InputState {
        while !self.queue.is_empty() {
            let (first, second) = self.queue.as_slices();
            let parts = [IoSlice::new(first), IoSlice::new(second)];
            match rustix::io::writev(&self.fd, &parts) {
                Ok(count) => {
                    self.queue.drain(..count.min(self.queue.len()));
                    self.taken += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return InputState::Open,
                Err(_) => return InputState::Refused,
            }
        }
        if self.ends && !self.terminal { InputState::Ended } else { InputState::Open }
    }

    /// Tells the host what was taken, once it is worth a frame.
    pub(crate) fn grant(&mut self, to_host: &mut Vec<u8>) {
        if self.taken >= CREDIT_STEP && !self.ends {
            let bytes = u32::try_from(self.taken).unwrap_or(u32::MAX);
            ToHost::StdinCredit { bytes }.encode(to_host);
            self.taken = 0;
        }
    }
}

/// An output stream on its way to the host.
#[derive(Debug)]
pub(crate) struct OutputPipe {
    fd: OwnedFd,
    stream: OutputStream,
    /// How much the command had left in the pipe when it ended, and is not yet read.
    pub(crate) owed: usize,
}

/// What reading an [`OutputPipe`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputState {
    /// This many bytes, 0 if none wait.
    Read(usize),
    /// All writers are gone.
    Ended,
}

impl OutputPipe {
    pub(crate) fn new(fd: OwnedFd, stream: OutputStream) -> Self {
        Self { fd, stream, owed: 0 }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reads once, straight into a frame.
    pub(crate) fn read(&mut self, to_host: &mut Vec<u8>) -> OutputState {
        to_host.reserve(HEADER_LEN + MAX_PAYLOAD);
        let result = ToHost::encode_output(self.stream, to_host, |frame| {
            rustix::io::read(&self.fd, spare_capacity(frame)).map(drop)
        });
        match result {
            Ok(0) => OutputState::Ended,
            Ok(count) => {
                self.owed = self.owed.saturating_sub(count);
                OutputState::Read(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => OutputState::Read(0),
            // EIO is a terminal's way to say that nobody has it open.
            Err(_) => OutputState::Ended,
        }
    }

    /// The command ended: what is in the pipe now is its own, and will be delivered.
    pub(crate) fn note_owed(&mut self) {
        let waiting = rustix::io::ioctl_fionread(&self.fd).unwrap_or(0);
        self.owed = usize::try_from(waiting).unwrap_or(usize::MAX);
    }
}
