//! The protocol between host and agent, version 3. The reference is `docs/agent-protocol.md`.
//!
//! Everything travels in frames ([`Frame`]): a little-endian `u32` length of the payload, one byte
//! of kind, the payload. What the host sends is [`ToGuest`], what the agent sends is [`ToHost`];
//! kinds below 0x80 travel to the guest, the others to the host, so that a frame that strays is
//! recognised.
//!
//! The decoder holds at most one frame beyond what it has handed out, and refuses a frame by its
//! header, before its payload is stored: a peer cannot make it grow.

mod error;
mod frame;
mod measures;
mod to_guest;
mod to_host;
mod wire;

pub use error::ProtocolError;
pub use frame::{Decoder, Frame, HEADER_LEN};
pub use measures::{FileSystem, MOST_FILE_SYSTEMS, Measures};
pub use to_guest::{CardRequest, ExecRequest, OutputStream, ShutdownMode, ToGuest, TtyRequest};
pub use to_host::{BootTimes, Failure, FailureKind, Hello, ToHost};

/// The version of the protocol that this build speaks.
///
/// A peer sends only what the other's version (told by [`ToHost::Hello`] and
/// [`ToGuest::Welcome`]) knows; an addition raises this number by one.
pub const VERSION: u32 = 3;

/// The vsock port of both directions: the agent listens on it for sessions, and the host listens
/// on it for the agent's event channel.
pub const PORT: u32 = 1024;

/// The longest payload of every frame but [`ToGuest::Exec`], in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// The longest payload of [`ToGuest::Exec`], in bytes: room for long argument lists.
pub const MAX_EXEC_PAYLOAD: usize = 1024 * 1024;

/// The longest text (message, version) that a guest may send, in bytes.
pub const MAX_TEXT: usize = 4096;

#[cfg(test)]
#[path = "protocol_test.rs"]
mod tests;
