//! A disk that becomes larger: its file, the device's word to the guest, and the file system on it.

use riad_agent::client::ExitStatus;
use riad_agent::protocol::ExecRequest;

use super::settle::ask;
use super::shared::{Shared, Ways};
use crate::machines::Phase;

/// Waits until the kernel has heard of the disk's size, which is at least $1 sectors, and grows the
/// file system to it, where the image has the tool for that.
const GROW: &str = "\
n=0
while [ $(cat /sys/block/vda/size) -lt $1 ]; do
    n=$((n + 1))
    [ $n -le 100 ] || { echo the kernel has not heard of the new size; exit 1; }
    sleep 0.05
done
command -v resize2fs >/dev/null || { echo there is no resize2fs in it; exit 1; }
exec resize2fs /dev/vda";

type Failed = Box<dyn std::error::Error>;

/// Makes the disk of a machine that runs larger. Gives what is to be said besides.
pub(super) fn grow(shared: &Shared, size: u64) -> Result<String, Failed> {
    let disk = shared.disk().ok_or("the machine has no disk yet")?;
    disk.grow_in_use(size)?;
    let Some(ways) = shared.get_ways() else { return Ok(String::new()) };
    let is_driven = ways.root_disk.as_ref().is_some_and(|disk| disk.resized());
    // One that still boots sees the new size by itself, and grows its file system then.
    if !is_driven || shared.state().phase != Phase::Running {
        return Ok(String::new());
    }
    file_system(&ways, size)
}

/// Grows the root file system to the size of its disk, once that is at least this large. Gives why it
/// did not, in a sentence; nothing if it did.
pub(super) fn file_system(ways: &Ways, size: u64) -> Result<String, Failed> {
    let sectors = (size / 512).to_string();
    let request = ExecRequest::new(["/bin/sh", "-c", GROW, "riad", &sectors]);
    Ok(match ask(ways, &request, None)? {
        (ExitStatus::Exited(0), _) => String::new(),
        (_, why) => format!("the disk is larger, and the file system on it is not: {why}"),
    })
}
