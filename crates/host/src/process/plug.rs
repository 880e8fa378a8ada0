//! Network cards and disks that come to a machine while it runs, and go.
//!
//! The process can open nothing and connect to nobody, so whoever asks brings what is to be plugged in.
//! When something fails halfway, what was done is undone: the guest has it whole, or not at all.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use riad_agent::client::{ExitStatus, set_up_card};
use riad_agent::protocol::{CardRequest, ExecRequest, PORT};
use riad_disk::{Disk, RawDisk};
use riad_network::Cable;

use super::control::Joining;
use super::settle::ask;
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
    let _plugging = shared.plugging();
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
    let _plugging = shared.plugging();
    let (ways, plug) = running(shared)?;
    let mac = plug.mac_on(network).ok_or("it does not run on that network")?;
    ways.devices.unplug_card(mac, ways.patience)?;
    plug.leave(network, reach);
    Ok(())
}

/// Gives the machine a disk, in a file that is locked for it.
pub(super) fn attach(
    shared: &Shared,
    name: &str,
    read_only: bool,
    file: File,
) -> Result<(), Failed> {
    let _plugging = shared.plugging();
    let (ways, _) = running(shared)?;
    let disk = Arc::new(RawDisk::from_file(file, name.to_owned(), read_only)?.labelled(name));
    let handle = ways.devices.plug_disk(&shared.watch(&disk))?;
    let began = Instant::now();
    while !handle.driven() {
        if began.elapsed() >= ways.patience {
            // Nothing is on it that could be lost.
            ways.devices.unplug_disk(name, ways.patience)?;
            let seconds = ways.patience.as_secs();
            let sentence = format!(
                "the guest did not find the disk within {seconds} s: is its driver there (virtio_blk)?"
            );
            return Err(sentence.into());
        }
        std::thread::sleep(LOOK);
    }
    shared.has_disk(disk);
    Ok(())
}

/// Says in one line what a guest uses the disk with serial number $1 for, and fails, if it does: a kernel
/// would let a disk go that is mounted, and what is not written yet would be lost.
const IN_USE: &str = "\
for disk in /sys/block/*; do
    [ \"$(cat $disk/serial 2>/dev/null)\" = \"$1\" ] || continue
    for part in $disk $disk/${disk##*/}*; do
        [ -e $part/dev ] || continue
        number=$(cat $part/dev)
        while read -r _ _ device _ point _; do
            [ \"$device\" != \"$number\" ] || { echo \"it is mounted on $point: umount it first\"; exit 1; }
        done </proc/self/mountinfo
        while read -r file _; do
            [ \"$file\" != \"/dev/${part##*/}\" ] || { echo \"it is swap space: swapoff $file first\"; exit 1; }
        done </proc/swaps
        for holder in $part/holders/*; do
            [ ! -e \"$holder\" ] || { echo \"it is a part of ${holder##*/}: take that down first\"; exit 1; }
        done
    done
done";

/// Takes a disk from the machine, once the guest has let it go; one that it uses stays.
pub(super) fn detach(shared: &Shared, name: &str) -> Result<(), Failed> {
    let _plugging = shared.plugging();
    let (ways, _) = running(shared)?;
    let disk = shared.attached_disk(name).ok_or("it does not run with that disk")?;
    let request = ExecRequest::new(["/bin/sh", "-c", IN_USE, "riad", name]);
    match ask(&ways, &request, Some(ways.patience))? {
        (ExitStatus::Exited(0), _) => {}
        (ExitStatus::Exited(1), why) => return Err(format!("the guest uses it: {why}").into()),
        (_, why) => {
            return Err(format!("the guest does not say whether it uses it: {why}").into());
        }
    }
    ways.devices.unplug_disk(name, ways.patience)?;
    disk.flush()?;
    shared.has_no_disk(name);
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
