//! A disk that becomes larger: its file, the device's word to the guest, and the file system on it if it
//! is the root's. What is on other disks is the guest's own.

use riad_agent::client::ExitStatus;
use riad_agent::protocol::ExecRequest;

use super::settle::ask;
use super::shared::{Shared, Ways};
use crate::machines::Phase;

/// Waits until the kernel has heard of the disk's size, which is at least $1 sectors, and grows the
/// file system to it, or the partition $2 and the file system in that, where the image has the tools.
const GROW: &str = "\
n=0
while [ $(cat /sys/block/vda/size) -lt $1 ]; do
    n=$((n + 1))
    [ $n -le 100 ] || { echo the kernel has not heard of the new size; exit 1; }
    sleep 0.05
done
command -v resize2fs >/dev/null || { echo there is no resize2fs in it; exit 1; }
if [ -n \"$2\" ]; then
    if command -v growpart >/dev/null; then
        # Its status is 1 when there is nothing to grow.
        growpart /dev/vda $2 || [ $? -eq 1 ] || exit 1
    elif command -v sfdisk >/dev/null && command -v partx >/dev/null; then
        echo ', +' | sfdisk --quiet --no-reread -N $2 /dev/vda && partx --update /dev/vda || exit 1
    else
        echo there is neither growpart nor sfdisk in it, to grow partition $2; exit 1
    fi
fi
exec resize2fs /dev/vda$2";

type Failed = Box<dyn std::error::Error>;

/// Makes the disk of a machine that runs larger. Gives what is to be said besides.
pub(super) fn grow(shared: &Shared, size: u64) -> Result<String, Failed> {
    let disk = shared.disk().ok_or("the machine has no disk yet")?;
    disk.grow_in_use(size)?;
    let Some(ways) = shared.get_ways() else { return Ok(String::new()) };
    let is_driven = ways.devices.disks().first().is_some_and(|disk| disk.resized());
    // One that still boots sees the new size by itself, and grows its file system then.
    if !is_driven || shared.state().phase != Phase::Running {
        return Ok(String::new());
    }
    file_system(&ways, size, shared.root_partition())
}

/// Makes a disk that is attached larger, and tells the guest of its size.
pub(super) fn attached(shared: &Shared, name: &str, size: u64) -> Result<(), Failed> {
    let disk = shared.attached_disk(name);
    disk.ok_or_else(|| format!("it was started without disk '{name}'"))?.grow(size)?;
    // One that still boots sees the new size by itself.
    if let Some(handle) = shared.get_ways().and_then(|ways| ways.devices.disk(name)) {
        handle.resized();
    }
    Ok(())
}

/// Grows the root file system to the size of its disk, once that is at least this large. Gives why it
/// did not, in a sentence; nothing if it did.
pub(super) fn file_system(
    ways: &Ways,
    size: u64,
    partition: Option<u32>,
) -> Result<String, Failed> {
    let sectors = (size / 512).to_string();
    let partition = partition.map_or_else(String::new, |number| number.to_string());
    let request = ExecRequest::new(["/bin/sh", "-c", GROW, "riad", &sectors, &partition]);
    Ok(match ask(ways, &request, None)? {
        (ExitStatus::Exited(0), _) => String::new(),
        (_, why) => format!("the disk is larger, and the file system on it is not: {why}"),
    })
}
