//! Disks that have names of their own, and outlive the machines that they are attached to.
//!
//! ```text
//! .disks/NAME/disk.json   what the disk is
//! .disks/NAME/disk.raw    its bytes, in a sparse file
//! .disks/.new-*, .gone-*  disks that are being made or removed
//! ```
//!
//! Which machine a disk is attached to, that machine's `machine.json` says, and nothing else does: so the
//! two cannot disagree. One machine writes to a disk, or several read it; a machine's process locks the
//! file for as long as it has it, however it ends.
//!
//! A guest finds its disks behind the root's, in the order in which they were attached, and knows each
//! by its name, wherever it is: `/dev/disk/by-id/virtio-NAME`. To a machine that runs, a disk comes by the
//! hands of whoever attaches it (`live_disks`).

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use riad_disk::{Layer, Qcow2, RawDisk, SECTOR_SIZE};
use serde::{Deserialize, Serialize};

use super::config::new_id;
use super::files::{
    Versioned, bury, make_directory, names_in, read_json, sync_directory, write_json,
};
use super::name::is_name;
use super::{Folder, MachineConfig, MachineError, Machines, NEW, Name, now};
use crate::journal::Event;

const DISK: &str = "disk.json";
const BYTES: &str = "disk.raw";

/// The name of a disk, by which a guest knows it too: the serial number of a virtio block device has
/// 20 bytes (virtio 1.3, section 5.2.6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskName(String);

impl DiskName {
    /// Characters in the longest name.
    pub const MOST: usize = 20;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DiskName {
    type Err = MachineError;

    fn from_str(text: &str) -> Result<Self, MachineError> {
        // Machines' own disks are `riad-disk0`.
        match is_name(text, Self::MOST) && !text.starts_with("riad-") {
            true => Ok(Self(text.to_owned())),
            false => Err(MachineError::BadDiskName(text.to_owned())),
        }
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A disk that is attached to a machine, as `machine.json` has it. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedDisk {
    /// The disk's name.
    pub name: String,
    /// Whether the machine only reads it.
    #[serde(default)]
    pub read_only: bool,
}

/// `disk.json`: what a disk is. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DiskConfig {
    schema: u32,
    /// 32 hexadecimal digits that no other disk has.
    id: String,
    /// When it was made, seconds since the Unix epoch.
    created: u64,
}

impl Versioned for DiskConfig {
    const SCHEMA: u32 = 1;
}

/// What is true of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// Its name.
    pub name: DiskName,
    /// 32 hexadecimal digits that no other disk has.
    pub id: String,
    /// When it was made, seconds since the Unix epoch.
    pub created: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes that it takes on the host's disk.
    pub allocated: u64,
    /// Its file.
    pub file: PathBuf,
    /// The machines that it is attached to, and whether each only reads it.
    pub machines: Vec<(Name, bool)>,
}

/// A disk of the directory: what is true of it, or why that cannot be told.
pub type FoundDisk = (DiskName, Result<DiskInfo, MachineError>);

/// What a new disk has on it.
#[derive(Debug, Clone)]
pub struct NewDisk {
    /// Its size in bytes; that of what is copied, when `None`.
    pub size: Option<u64>,
    /// A raw disk, or a qcow2 image, to copy.
    pub from: Option<PathBuf>,
}

impl Machines {
    /// Disks that can be attached to one machine.
    pub const MOST_DISKS: usize = 16;

    fn disks_directory(&self) -> PathBuf {
        self.root().join(".disks")
    }

    fn disk_folder(&self, name: &DiskName) -> PathBuf {
        self.disks_directory().join(name.as_str())
    }

    /// Makes a disk: zeros, or a copy. `progress` is called with the bytes that are copied, of how many.
    ///
    /// # Errors
    /// The name is taken, the size is none for a disk, what is to be copied cannot be read, or the
    /// host refuses.
    pub fn create_disk(
        &self,
        name: &DiskName,
        new: &NewDisk,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<DiskInfo, MachineError> {
        // What was typed wrong is said before anything is copied.
        self.check_disk_free(name)?;
        if let Some(size) = new.size {
            check_size(name, size)?;
        }
        let directory = self.disks_directory();
        make_directory(&directory)?;
        let draft = directory.join(format!("{NEW}{}", new_id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&draft)
            .map_err(MachineError::io("create", &draft))?;
        let made = fill(&draft, name, new, progress).and_then(|()| {
            let config = DiskConfig { schema: 1, id: new_id(), created: now() };
            write_json(&draft.join(DISK), &config)?;
            let _guard = self.guard()?;
            self.check_disk_free(name)?;
            let place = self.disk_folder(name);
            fs::rename(&draft, &place).map_err(MachineError::io("create", &place))?;
            sync_directory(&directory)
        });
        // Not there any more if all went well.
        let _ = fs::remove_dir_all(&draft);
        made?;
        self.disk(name)
    }

    fn check_disk_free(&self, name: &DiskName) -> Result<(), MachineError> {
        match self.disk_folder(name).exists() {
            true => Err(MachineError::DiskExists(name.clone())),
            false => Ok(()),
        }
    }

    /// What is true of a disk.
    ///
    /// # Errors
    /// [`MachineError::NoSuchDisk`]; its files are damaged or cannot be read.
    pub fn disk(&self, name: &DiskName) -> Result<DiskInfo, MachineError> {
        let folder = self.disk_folder(name);
        let config = folder.join(DISK);
        let DiskConfig { schema: _, id, created } = match read_json(&config) {
            Err(error) if error.is_missing() && !folder.exists() => {
                return Err(MachineError::NoSuchDisk(name.clone()));
            }
            config => config?,
        };
        let file = folder.join(BYTES);
        let metadata = fs::metadata(&file).map_err(MachineError::io("read", &file))?;
        let machines = self.attachments(name)?;
        let (size, allocated) = (metadata.len(), metadata.blocks() * 512);
        Ok(DiskInfo { name: name.clone(), id, created, size, allocated, file, machines })
    }

    /// All disks, in the order of their names; of one that cannot be understood, why not.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn disks(&self) -> Result<Vec<FoundDisk>, MachineError> {
        let all = names_in::<DiskName>(&self.disks_directory())?.into_iter().map(|name| {
            let info = self.disk(&name);
            (name, info)
        });
        Ok(all.filter(|(_, info)| !matches!(info, Err(MachineError::NoSuchDisk(_)))).collect())
    }

    /// The machines that a disk is attached to. A machine that cannot be understood counts for none.
    fn attachments(&self, name: &DiskName) -> Result<Vec<(Name, bool)>, MachineError> {
        let mut machines = Vec::new();
        for folder in self.all()? {
            let folder = folder?;
            let config = folder.config();
            let disks = config.iter().flat_map(|config| &config.disks);
            let ours = disks.filter(|disk| disk.name == name.as_str());
            machines.extend(ours.map(|disk| (folder.name().clone(), disk.read_only)));
        }
        Ok(machines)
    }

    /// Removes a disk that is attached to no machine, with everything on it.
    ///
    /// # Errors
    /// There is none, it is attached, a machine still has it, or the host refuses.
    pub fn remove_disk(&self, name: &DiskName) -> Result<(), MachineError> {
        let _guard = self.guard()?;
        let folder = self.disk_folder(name);
        if !folder.exists() {
            return Err(MachineError::NoSuchDisk(name.clone()));
        }
        let machines = self.attachments(name)?;
        if !machines.is_empty() {
            return Err(MachineError::DiskAttached { disk: name.clone(), to: list(&machines) });
        }
        // What a newer Riad's machine has cannot be told.
        for folder in self.all()? {
            if let Err(error @ MachineError::Newer { .. }) = folder?.config() {
                return Err(error);
            }
        }
        // Of one that is damaged, there may be no file.
        let file = folder.join(BYTES);
        let _alone = match RawDisk::open_alone(&file, false) {
            Err(error @ riad_disk::Error::InUse(_)) => return Err(error.into()),
            opened => opened.ok(),
        };
        bury(&self.disks_directory(), &folder)
    }

    /// Attaches a disk to a machine, from its next start on; [`attach_disk`](Self::attach_disk) does it at
    /// once.
    ///
    /// # Errors
    /// There is no such disk or machine; another machine has it, and one of the two writes; the
    /// machine has too many.
    pub fn attach(
        &self,
        name: &DiskName,
        machine: &Name,
        read_only: bool,
    ) -> Result<Folder, MachineError> {
        let folder = self.get(machine)?;
        let _lock = folder.lock()?;
        // Nobody attaches or removes it meanwhile.
        let _guard = self.guard()?;
        let DiskInfo { machines, .. } = self.disk(name)?;
        let is_shared = read_only && machines.iter().all(|(_, read_only)| *read_only);
        let is_here = machines.iter().any(|(other, _)| other == machine);
        if is_here || !(machines.is_empty() || is_shared) {
            return Err(MachineError::DiskAttached { disk: name.clone(), to: list(&machines) });
        }
        let mut config = folder.config()?;
        if config.disks.len() >= Self::MOST_DISKS {
            return Err(MachineError::TooManyDisks(machine.clone()));
        }
        config.disks.push(AttachedDisk { name: name.to_string(), read_only });
        folder.write_config(&config)?;
        folder.record_of(&config.id, &Event::Attached { disk: name.to_string(), read_only });
        Ok(folder)
    }

    /// Detaches a disk from a machine, from its next start on ([`detach_disk`](Self::detach_disk) does it at
    /// once); from the one that has it, when none is named. A disk that is not there any more can be detached.
    ///
    /// # Errors
    /// It is not attached; or to several, and none is named.
    pub fn detach(&self, name: &DiskName, machine: Option<&Name>) -> Result<Folder, MachineError> {
        let not_attached =
            || MachineError::DiskNotAttached { disk: name.clone(), machine: machine.cloned() };
        let machine = match machine {
            Some(machine) => machine.clone(),
            None => {
                let machines = self.attachments(name)?;
                match machines.as_slice() {
                    [(machine, _)] => machine.clone(),
                    [] if !self.disk_folder(name).exists() => {
                        return Err(MachineError::NoSuchDisk(name.clone()));
                    }
                    [] => return Err(not_attached()),
                    _ => {
                        let to = list(&machines);
                        return Err(MachineError::DiskShared { disk: name.clone(), to });
                    }
                }
            }
        };
        let folder = self.get(&machine)?;
        let _lock = folder.lock()?;
        let old = folder.config()?;
        let disks: Vec<_> =
            old.disks.iter().filter(|disk| disk.name != name.as_str()).cloned().collect();
        if disks.len() == old.disks.len() {
            return Err(not_attached());
        }
        let config = MachineConfig { disks, ..old };
        folder.write_config(&config)?;
        folder.record_of(&config.id, &Event::Detached { disk: name.to_string() });
        Ok(folder)
    }

    /// Makes a disk larger that no machine has at the moment.
    ///
    /// # Errors
    /// [`riad_disk::Error::InUse`] when one has: it is to be asked then. It would become smaller, or
    /// the host refuses.
    pub fn grow_disk(&self, name: &DiskName, size: u64) -> Result<(), MachineError> {
        let DiskInfo { file, size: old, .. } = self.disk(name)?;
        check_growth(name, old, size)?;
        Ok(RawDisk::open_alone(&file, false)?.grow(size)?)
    }

    /// Whether a disk may become this large.
    ///
    /// # Errors
    /// There is no such disk, it would become smaller, or it is no size for a disk.
    pub fn check_disk_growth(&self, name: &DiskName, size: u64) -> Result<DiskInfo, MachineError> {
        let info = self.disk(name)?;
        check_growth(name, info.size, size)?;
        Ok(info)
    }

    /// Opens the disks of a machine that starts, in their order, alone.
    pub(crate) fn open_disks(
        folder: &Folder,
        config: &MachineConfig,
    ) -> Result<Vec<RawDisk>, MachineError> {
        let root = folder.path().parent().unwrap_or(Path::new("/"));
        let machines = Self::in_directory(root.to_owned());
        let open = |AttachedDisk { name, read_only }: &AttachedDisk| {
            let disk = machines.disk(&name.parse()?)?;
            Ok(RawDisk::open_alone(&disk.file, *read_only)?.labelled(name))
        };
        let broken = |disk: &AttachedDisk, error: MachineError| MachineError::AttachedDisk {
            disk: disk.name.clone(),
            machine: folder.name().clone(),
            source: Box::new(error),
        };
        config.disks.iter().map(|disk| open(disk).map_err(|error| broken(disk, error))).collect()
    }
}

fn check_growth(name: &DiskName, old: u64, size: u64) -> Result<(), MachineError> {
    if size < old {
        let reason =
            format!("it has {old} bytes already, and disks only grow: ask for more than that");
        return Err(MachineError::DiskSize { disk: name.clone(), reason });
    }
    check_size(name, size)
}

fn check_size(name: &DiskName, size: u64) -> Result<(), MachineError> {
    let reason = match size {
        0 => "a disk has at least a sector".to_owned(),
        _ if !size.is_multiple_of(SECTOR_SIZE) => {
            format!("{size} bytes are not a multiple of {SECTOR_SIZE}: choose a size that is")
        }
        _ if size > Layer::MOST => {
            format!("{size} bytes are more than a disk can have: {}", Layer::MOST)
        }
        _ => return Ok(()),
    };
    Err(MachineError::DiskSize { disk: name.clone(), reason })
}

/// Machines as a sentence lists them.
fn list(machines: &[(Name, bool)]) -> String {
    machines.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", ")
}

/// Writes a new disk's bytes, durably.
fn fill(
    draft: &Path,
    name: &DiskName,
    new: &NewDisk,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), MachineError> {
    let path = draft.join(BYTES);
    let create = || {
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        options.open(&path).map_err(MachineError::io("create", &path))
    };
    let written = || MachineError::io("write", &path);
    let file = match &new.from {
        None => create()?,
        Some(from) => {
            let read = || MachineError::io("read", from);
            let source = File::open(from).map_err(read())?;
            if Qcow2::is_one(&source) {
                let file = create()?;
                Qcow2::open(source, from.display().to_string())?.copy_to(&file, progress)?;
                file
            } else {
                if source.metadata().map_err(read())?.is_dir() {
                    return Err(read()(io::ErrorKind::IsADirectory.into()));
                }
                riad_disk::copy_sparse(from, &path).map_err(MachineError::io("copy", from))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(written())?;
                File::options().write(true).open(&path).map_err(written())?
            }
        }
    };
    let there = file.metadata().map_err(written())?.len().next_multiple_of(SECTOR_SIZE);
    let size = new.size.unwrap_or(there);
    check_growth(name, there, size)?;
    file.set_len(size).and_then(|()| file.sync_all()).map_err(written())?;
    sync_directory(draft)
}

#[cfg(test)]
#[path = "disks_test.rs"]
mod tests;
