//! What can be wrong with bytes that claim to be the protocol.

use thiserror::Error;

/// The peer does not speak this protocol, or the message cannot be sent in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame of a kind that this side does not know.
    #[error("frame of unknown kind {kind:#04x}: the two sides speak different versions")]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// A frame longer than its kind allows.
    #[error("frame of kind {kind:#04x} is {length} bytes long, and {limit} is the limit")]
    TooLong {
        /// The kind byte.
        kind: u8,
        /// The length that the header claims, in bytes.
        length: usize,
        /// The most that this kind may have, in bytes.
        limit: usize,
    },
    /// A frame whose payload does not have the form of its kind.
    #[error("frame of kind {kind:#04x} is malformed: {what}")]
    Malformed {
        /// The kind byte.
        kind: u8,
        /// What is wrong, for a developer.
        what: &'static str,
    },
    /// The command, its arguments and its environment do not fit in one request.
    #[error(
        "the command line and environment take {length} bytes, and {limit} is the limit: pass large data through stdin"
    )]
    RequestTooLong {
        /// What they take, in bytes.
        length: usize,
        /// The most that fits, in bytes.
        limit: usize,
    },
    /// A string that cannot be a C string.
    #[error("{what} contains a NUL byte, which no program can be given")]
    Nul {
        /// Which string.
        what: &'static str,
    },
}
