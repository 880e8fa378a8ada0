//! The host's side of the protocol.
//!
//! Both kinds of connection come as a connected stream that the caller got from the machine's vsock
//! device: one that the host opened to port [`PORT`](crate::protocol::PORT) is a session
//! ([`run_session`]); one that the guest opened to the host's port of the same number is its event
//! channel ([`Events`]).
//!
//! Nothing here trusts the guest: memory is bounded, a guest that goes silent only keeps its own
//! session waiting, and every wait ends when the stream does or when the caller says so
//! ([`ControlEvent::Abort`]).

mod card;
mod control;
mod error;
mod events;
mod measure;
mod output;
mod session;

pub use card::set_up_card;
pub use control::{ControlEvent, ControlReceiver, ControlSender, control};
pub use error::ClientError;
pub use events::Events;
pub use measure::measure;
pub use session::{ExitStatus, SessionEnd, SessionIo, run_session};
