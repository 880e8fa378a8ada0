//! The agent: how the host reaches programs inside a guest.
//!
//! Three parts live here:
//!
//! * [`protocol`]: frames and messages, shared by both sides and documented in
//!   `docs/agent-protocol.md`. Its decoder is the host's edge against a hostile guest (wall 5).
//! * [`client`]: the host's side. [`client::run_session`] runs one command in a guest and pumps its
//!   standard streams; [`client::Events`] is the channel on which the agent says that it is ready.
//! * the program `riad-agent` (`src/main.rs`, `src/guest/`): a static executable that is the `init`
//!   of `riad run` machines, or a service in machines that have an init of their own. It is one
//!   thread around one `poll(2)`, asleep whenever nothing happens.
//!
//! Where to begin: [`protocol::ToGuest`] and [`protocol::ToHost`] are the whole conversation.

pub mod client;
pub mod protocol;
