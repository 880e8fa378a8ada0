//! Disks that a machine is given, or that are taken from it, while it runs.

use riad_disk::RawDisk;

use super::{DiskName, Folder, MachineError, Machines, Name, State};
use crate::network::Counts;
use crate::process::Connection;

impl Machines {
    /// Attaches a disk to a machine: at once if it runs, and from its next start on in any case. Gives
    /// the machine's folder, and from when on it counts.
    ///
    /// # Errors
    /// Nothing has changed then: as for [`attach`](Self::attach), somebody has the disk still, or the
    /// machine that runs cannot have it.
    pub fn attach_disk(
        &self,
        name: &DiskName,
        machine: &Name,
        read_only: bool,
    ) -> Result<(Folder, Counts), MachineError> {
        let folder = self.attach(name, machine, read_only)?;
        if folder.state()? != State::Running {
            return Ok((folder, Counts::NextStart));
        }
        // One that was detached and runs with it still has it as it had it, maybe to be read only.
        if has(&folder, name)? {
            return Ok((folder, Counts::NextStart));
        }
        // The process may open nothing: its disk is opened, and locked for it, here.
        let opened =
            self.disk(name).and_then(|disk| Ok(RawDisk::open_alone(&disk.file, read_only)?));
        let given = opened
            .and_then(|disk| Connection::open(&folder)?.attach(name, read_only, disk.descriptor()));
        if let Err(error) = given {
            self.detach(name, Some(machine))?;
            return Err(error);
        }
        Ok((folder, Counts::Now))
    }

    /// Detaches a disk from a machine: at once if it runs, and from its next start on in any case. One
    /// from which it was detached, and that runs with it still, is asked again.
    ///
    /// # Errors
    /// As for [`detach`](Self::detach); or the machine runs and its guest uses the disk or keeps it, and
    /// is without it from its next start on.
    pub fn detach_disk(
        &self,
        name: &DiskName,
        machine: Option<&Name>,
    ) -> Result<(Folder, Counts), MachineError> {
        let folder = match self.detach(name, machine) {
            Ok(folder) => folder,
            Err(error @ MachineError::DiskNotAttached { .. }) => {
                match self.runs_with(name, machine)? {
                    Some(folder) => folder,
                    None => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        if folder.state()? != State::Running || !has(&folder, name)? {
            return Ok((folder, Counts::NextStart));
        }
        match Connection::open(&folder)?.detach(name) {
            Ok(()) => Ok((folder, Counts::Now)),
            Err(MachineError::Refused { name: machine, reason }) => {
                Err(MachineError::DiskHeld { disk: name.clone(), machine, reason })
            }
            Err(error) => Err(error),
        }
    }

    /// The machine that runs with a disk; of all, or that one.
    fn runs_with(
        &self,
        disk: &DiskName,
        machine: Option<&Name>,
    ) -> Result<Option<Folder>, MachineError> {
        for folder in self.all()? {
            let folder = folder?;
            let is_meant = machine.is_none_or(|machine| machine == folder.name());
            if is_meant && folder.is_alive()? && has(&folder, disk)? {
                return Ok(Some(folder));
            }
        }
        Ok(None)
    }
}

/// Whether a machine runs with a disk.
fn has(folder: &Folder, disk: &DiskName) -> Result<bool, MachineError> {
    let run = folder.told()?;
    Ok(run.is_some_and(|run| run.disks.iter().any(|name| name == disk.as_str())))
}
