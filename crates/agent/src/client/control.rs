//! Telling a running session that the window changed, a signal came, or that it is over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};

/// Something that happened to the caller while a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlEvent {
    /// The caller's terminal has a new size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters a line.
        cols: u16,
    },
    /// A signal, by Linux's number, is to go to the command's process group.
    Signal(u8),
    /// Give the session up: its stream closes, and the agent ends the command.
    Abort,
}

/// A record in the pipe. Shorter than `PIPE_BUF`, so that it is written whole or not at all.
type Record = [u8; 5];

impl ControlEvent {
    fn to_record(self) -> Record {
        match self {
            Self::Resize { rows, cols } => {
                let ([a, b], [c, d]) = (rows.to_le_bytes(), cols.to_le_bytes());
                [0, a, b, c, d]
            }
            Self::Signal(signo) => [1, signo, 0, 0, 0],
            Self::Abort => [2, 0, 0, 0, 0],
        }
    }

    fn from_record(record: Record) -> Self {
        match record {
            [0, a, b, c, d] => {
                Self::Resize { rows: u16::from_le_bytes([a, b]), cols: u16::from_le_bytes([c, d]) }
            }
            [1, signo, ..] => Self::Signal(signo),
            _ => Self::Abort,
        }
    }
}

/// The end that tells. Clones tell the same session.
#[derive(Debug, Clone)]
pub struct ControlSender(Arc<OwnedFd>);

impl ControlSender {
    /// Tells the session. One `write(2)` and nothing else, so a signal handler may call it.
    ///
    /// # Errors
    /// The session is over, or so many events wait that the pipe is full.
    pub fn send(&self, event: ControlEvent) -> io::Result<()> {
        rustix::io::write(&self.0, &event.to_record())?;
        Ok(())
    }
}

/// The end that [`run_session`](super::run_session) listens on.
#[derive(Debug)]
pub struct ControlReceiver(OwnedFd);

impl ControlReceiver {
    /// The next event; `None` if none waits. Once every sender is gone there is nothing to hear,
    /// which is an error of kind `UnexpectedEof`.
    pub(super) fn receive(&self) -> io::Result<Option<ControlEvent>> {
        let mut record = Record::default();
        match rustix::io::read(&self.0, &mut record) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(Some(ControlEvent::from_record(record))),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for ControlReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A new pair of ends.
///
/// # Errors
/// The process has no descriptors left.
pub fn control() -> io::Result<(ControlSender, ControlReceiver)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok((ControlSender(Arc::new(writer)), ControlReceiver(reader)))
}
