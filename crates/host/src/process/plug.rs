//! Network cards that come to a machine while it runs, and go.
//!
//! The process can open nothing and connect to nobody, so whoever asks brings what is to be plugged in.
//! When something fails halfway, what was done is undone: the guest has it whole, or not at all.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use riad_agent::client::set_up_card;
use riad_agent::protocol::{CardRequest, PORT};
use riad_network::Cable;

use super::control::Joining;
use super::shared::{Shared, Ways};
use crate::machines::{NetMode, Phase};
use crate::network::{Plug, written};

type Failed = Box<dyn std::error::Error>;

/// How long one waits before one looks again whether a guest has found a card.
const LOOK: Duration = Duration::from_millis(10);

/// The ways to a machine whose agent answers, and what its cards are plugged into.
fn running(shared: &Shared) -> Result<(Ways, &Plug), Failed> {
    let state = shared.state();
    match (shared.get_ways(), shared.plug()) {
        (Some(ways), Some(plug)) if state.phase == Phase::Running => Ok((ways, plug)),
        _ => Err(format!("the machine is not ready: stage '{}'", state.stage).into()),
    }
}

/// Puts the machine on a named network; `socket` is its connection to the switch.
pub(super) fn join(shared: &Shared, joining: &Joining, socket: OwnedFd) -> Result<(), Failed> {
    let (ways, plug) = running(shared)?;
    let before = plug.reach();
    let name = shared.folder().name();
    let cable = plug.join_with(joining, name, socket)?;
    let plugged = ways.devices.plug_card(cable.clone()).map_err(Failed::from).and_then(|card| {
        set_up(&ways, joining, &cable).inspect_err(|_| {
            // Whether or not the guest lets it go, it leads nowhere from now on.
            card.plug(false);
            if let Err(error) = ways.devices.unplug_card(cable.mac(), ways.patience) {
                tracing::warn!(%error, "a card that could not be set up stays");
            }
        })
    });
    if plugged.is_err() {
        plug.leave(&joining.network, before);
    }
    plugged
}

/// Takes the machine off a named network, once the guest has let the card go. `reach` is how much of the
/// world the others leave it.
pub(super) fn leave(shared: &Shared, network: &str, reach: NetMode) -> Result<(), Failed> {
    let (ways, plug) = running(shared)?;
    let mac = plug.mac_on(network).ok_or("it does not run on that network")?;
    ways.devices.unplug_card(mac, ways.patience)?;
    plug.leave(network, reach);
    Ok(())
}

/// Has the agent give the card its address, once the guest's kernel has found it.
fn set_up(ways: &Ways, joining: &Joining, cable: &Cable) -> Result<(), Failed> {
    let card = CardRequest {
        mac: written(cable.mac()),
        addresses: vec![format!("{}/{}", joining.address, joining.prefix)],
    };
    let began = Instant::now();
    while began.elapsed() < ways.patience {
        let stream = ways.vsock.connect(PORT, ways.patience)?;
        if set_up_card(stream, &card, ways.patience)?.is_some() {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    let seconds = ways.patience.as_secs();
    let sentence = format!(
        "the guest did not find the network card within {seconds} s: is its driver there (virtio_net)?"
    );
    Err(sentence.into())
}
