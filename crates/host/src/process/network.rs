//! What a machine's network tells of its guest, written down in the record.

use std::io;
use std::time::Duration;

use riad_confine::Kind;
use riad_network::user::{self, Control};

use super::shared::Shared;
use crate::journal::Event;
use crate::network::{Plug, refusal};

/// How long nothing may happen before it is asked again: any time does.
const A_WHILE: Duration = Duration::from_secs(3600);

/// Follows the network for as long as the process lives, if it is one that tells anything.
pub(super) fn follow(plug: &Plug, shared: &Shared) -> io::Result<()> {
    let Some(control) = plug.control.clone() else { return Ok(()) };
    let shared = shared.clone();
    let body = move || {
        loop {
            let event = control.next_event(A_WHILE);
            if let Some(event) = event.and_then(|event| told(&control, event)) {
                shared.say(&event);
            }
        }
    };
    riad_confine::spawn(Kind::Control, "network-events", body).map(drop)
}

/// The entry for something that happened. Forwards that come and go are written down by whoever has
/// them do so.
fn told(control: &Control, event: user::Event) -> Option<Event> {
    Some(match event {
        user::Event::Leased { address, hostname } => {
            Event::Leased { address: address.to_string(), called: hostname }
        }
        user::Event::Refused { to, port, protocol, why } => Event::Refused {
            to: match port {
                0 => to.to_string(),
                port => std::net::SocketAddr::new(to, port).to_string(),
            },
            protocol: protocol.to_string(),
            reason: refusal(why).to_owned(),
        },
        user::Event::NameRefused { name } => Event::NameRefused { name },
        user::Event::ForwardFailed { to } => {
            let forwards = control.forwards().into_iter();
            let forward = forwards.map(|listening| listening.forward);
            let of = forward
                .filter(|forward| forward.port == to.port())
                .map(|forward| crate::Publish::from(forward).to_string());
            Event::ForwardFailed { port: to.port(), forwards: of.collect() }
        }
        user::Event::Suppressed { count } => Event::RefusedMore { count },
        user::Event::ForwardAdded { .. } | user::Event::ForwardRemoved { .. } => return None,
    })
}
