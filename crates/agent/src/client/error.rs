//! Why a session or the event channel ended without an answer.

use std::io;

use thiserror::Error;

use crate::protocol::{Failure, ProtocolError};

/// Why a session or the event channel ended without an answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The stream ended before the command did.
    #[error("the machine went away before the command ended")]
    Gone,
    /// The stream, or polling it, failed.
    #[error("the connection to the machine's agent failed")]
    Stream(#[source] io::Error),
    /// One of the caller's own descriptors failed.
    #[error("{stream} failed")]
    Stdio {
        /// `standard input` and so on.
        stream: &'static str,
        /// What happened.
        source: io::Error,
    },
    /// The guest does not speak the protocol, or the request cannot be said in it.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The agent sent a message that has no place where it came.
    #[error("the machine's agent sent {what}, which has no place there: it is broken or hostile")]
    Unexpected {
        /// Which message.
        what: &'static str,
    },
    /// The agent did not understand the host, or cannot do what it was asked to.
    #[error("the machine's agent refused: {message}")]
    Refused {
        /// What it says.
        message: String,
    },
    /// The command was not started: no such command, user or directory.
    #[error("{}", .0.message)]
    NotStarted(Failure),
    /// The caller gave up ([`ControlEvent::Abort`](super::ControlEvent::Abort)).
    #[error("the session was given up")]
    Aborted,
    /// The agent did not introduce itself, or answer, in time.
    #[error("the machine's agent did not answer in time")]
    Silent,
}

impl ClientError {
    /// The exit status that `riad` ends with: 127 or 126 where a shell would give it, 125 for
    /// Riad's own failures.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotStarted(failure) => failure.kind.exit_code(),
            _ => 125,
        }
    }
}
