//! Asking the agent how much of its machine is in use.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::ClientError;
use super::events::{say, wait};
use super::session::set_nonblocking;
use crate::protocol::{Decoder, Measures, ToGuest, ToHost};

/// Asks on a fresh connection to an agent of version 2 or later, and waits for `limit` at most.
///
/// # Errors
/// The agent did not answer ([`ClientError::Silent`], [`ClientError::Gone`]), or something else.
pub fn measure(stream: impl Into<OwnedFd>, limit: Duration) -> Result<Measures, ClientError> {
    ask(stream.into(), &ToGuest::Measure, limit, |answer| match answer {
        ToHost::Measures(measures) => Some(measures),
        _ => None,
    })
}

/// Asks what has one frame for an answer, on a connection of its own; `is_answer` takes it.
pub(super) fn ask<T>(
    stream: OwnedFd,
    question: &ToGuest<'_>,
    limit: Duration,
    is_answer: impl FnOnce(ToHost<'_>) -> Option<T>,
) -> Result<T, ClientError> {
    set_nonblocking(stream.as_fd()).map_err(ClientError::Stream)?;
    let deadline = Instant::now().checked_add(limit);
    say(stream.as_fd(), question, deadline)?;
    let mut decoder = Decoder::of_guest();
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return match ToHost::parse(frame)? {
                ToHost::Error { message } => Err(ClientError::Refused { message }),
                answer => is_answer(answer).ok_or(ClientError::Unexpected { what: "no answer" }),
            };
        }
        wait(stream.as_fd(), PollFlags::IN, deadline)?;
        match rustix::io::read(&stream, decoder.space()) {
            Ok(0) => return Err(ClientError::Gone),
            Ok(count) => decoder.filled(count),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(ClientError::Stream(error.into())),
        }
    }
}
