//! The event channel: the agent's first word, and the host's orders to the machine as a whole.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::ClientError;
use super::session::set_nonblocking;
use crate::protocol::{Decoder, Hello, ShutdownMode, ToGuest, ToHost, VERSION};

/// How long an order may take to leave: it is a few bytes, so a guest that does not take them is
/// not listening.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// The event channel of a machine whose agent is ready.
#[derive(Debug)]
pub struct Events {
    stream: OwnedFd,
    hello: Hello,
}

impl Events {
    /// Hears the agent's first word on a connection that the guest opened, and answers it. Waits
    /// for `limit` at most, or forever.
    ///
    /// # Errors
    /// The connection ended or was silent, or its first frame is not a hello.
    pub fn accept(
        stream: impl Into<OwnedFd>,
        limit: Option<Duration>,
    ) -> Result<Self, ClientError> {
        let stream = stream.into();
        set_nonblocking(stream.as_fd()).map_err(ClientError::Stream)?;
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut decoder = Decoder::of_guest();
        let hello = loop {
            if let Some(frame) = decoder.next_frame()? {
                match ToHost::parse(frame)? {
                    ToHost::Hello(hello) => break hello,
                    _ => return Err(ClientError::Unexpected { what: "no hello" }),
                }
            }
            wait(stream.as_fd(), PollFlags::IN, deadline)?;
            match rustix::io::read(&stream, decoder.space()) {
                Ok(0) => return Err(ClientError::Gone),
                Ok(count) => decoder.filled(count),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(ClientError::Stream(error.into())),
            }
        };
        let events = Self { stream, hello };
        events.say(&ToGuest::Welcome { version: VERSION })?;
        Ok(events)
    }

    /// What the agent said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks for an orderly stop: processes are told, file systems written and unmounted.
    ///
    /// # Errors
    /// The channel is gone, or the guest does not take the order.
    pub fn shutdown(&self, mode: ShutdownMode) -> Result<(), ClientError> {
        self.say(&ToGuest::Shutdown { mode })
    }

    /// Sets the guest's clock, in nanoseconds since 1970 UTC: after a restore, for example.
    ///
    /// # Errors
    /// The channel is gone, or the guest does not take the order.
    pub fn set_time(&self, unix_nanos: u64) -> Result<(), ClientError> {
        self.say(&ToGuest::SetTime { unix_nanos })
    }

    /// Waits until the guest closes the channel (it is off, or its agent died), for `limit` at
    /// most; gives whether it did. What the guest says meanwhile is dropped.
    ///
    /// # Errors
    /// Polling failed.
    pub fn wait_closed(&self, limit: Option<Duration>) -> Result<bool, ClientError> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut scrap = [0; 512];
        loop {
            match wait(self.stream.as_fd(), PollFlags::IN, deadline) {
                Ok(()) => {}
                Err(ClientError::Silent) => return Ok(false),
                Err(error) => return Err(error),
            }
            match rustix::io::read(&self.stream, &mut scrap) {
                Ok(0) => return Ok(true),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Ok(true),
            }
        }
    }

    fn say(&self, message: &ToGuest<'_>) -> Result<(), ClientError> {
        say(self.stream.as_fd(), message, Instant::now().checked_add(SEND_LIMIT))
    }
}

impl AsFd for Events {
    /// For polling: readable means that the guest closed the channel, or that a later version of
    /// the agent has something to say.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Says something whole on a stream that does not block.
pub(super) fn say(
    stream: BorrowedFd<'_>,
    message: &ToGuest<'_>,
    until: Option<Instant>,
) -> Result<(), ClientError> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes)?;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match rustix::io::write(stream, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::AGAIN) => wait(stream, PollFlags::OUT, until)?,
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(ClientError::Gone),
            Err(error) => return Err(ClientError::Stream(error.into())),
        }
    }
    Ok(())
}

/// Waits until a stream is ready for that.
pub(super) fn wait(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    until: Option<Instant>,
) -> Result<(), ClientError> {
    let left = match until.map(|until| until.saturating_duration_since(Instant::now())) {
        Some(Duration::ZERO) => return Err(ClientError::Silent),
        // A deadline too far to say is none.
        left => left.and_then(|left| Timespec::try_from(left).ok()),
    };
    match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(ClientError::Stream(io::Error::from(error))),
    }
}
