//! Having the agent set up a network card that came while its machine runs.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::ClientError;
use super::measure::ask;
use crate::protocol::{CardRequest, ToGuest, ToHost};

/// Asks on a fresh connection to an agent of version 3 or later, and waits for `limit` at most. Gives
/// what the guest calls the card; `None` when it has not come to it yet.
///
/// # Errors
/// The card cannot be set up ([`ClientError::Refused`]), the agent did not answer
/// ([`ClientError::Silent`], [`ClientError::Gone`]), or something else.
pub fn set_up_card(
    stream: impl Into<OwnedFd>,
    card: &CardRequest,
    limit: Duration,
) -> Result<Option<String>, ClientError> {
    ask(stream.into(), &ToGuest::SetUpCard(card.clone()), limit, |answer| match answer {
        ToHost::Card { name } => Some(name),
        _ => None,
    })
}
