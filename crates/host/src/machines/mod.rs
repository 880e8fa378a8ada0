//! The named machines of this user: a folder each.
//!
//! ```text
//! NAME/machine.json     what the machine is: config.rs
//! NAME/disk.layer       what it wrote over its image: riad_disk::Layer
//! NAME/run.json         its last start, and how it goes or went: run_state.rs
//! NAME/setup.json       what its guest has been made to fit: setup.rs
//! NAME/provision*       scripts that are run in it, and how they went: provision.rs
//! NAME/console.log      what it said on its console, and the file before that: console.log.1
//! NAME/process.log      what its process said
//! NAME/events.jsonl     what its process did: crate::journal
//! NAME/control.sock     where its process listens
//! NAME/lock             held by whoever changes the folder
//! NAME/alive            held by the machine's process
//! .images/ID/           the images that machines stand on: bases.rs
//! .disks/NAME/          disks that can be attached to machines: disks.rs
//! .networks/NAME/       networks that machines can be on: networks.rs
//! .new-*, .gone-*       machines that are being made or deleted
//! .events.jsonl         what commands did to machines: crate::journal
//! .lock                 held for the moments in which a folder gets a name or loses it
//! ```
//!
//! A machine exists when its folder has its name, which it gets by one `rename` once everything in it
//! is on the host's disk. Files are replaced whole. Locks are the kernel's (flock(2)) and end with
//! their process: none is ever cleaned by hand. The folder's name is the machine's only name, so that
//! renaming is one step too.
//!
//! Where to begin: [`Machines`], then `folder.rs`.

mod bases;
mod config;
mod disks;
mod error;
mod files;
mod folder;
mod live_disks;
mod name;
mod networks;
mod provision;
mod run_state;
mod setup;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use riad_disk::Layer;
use riad_image::Image;

use crate::journal::Event;
use crate::network::{Network, Publish};

pub use config::{Boot, MachineConfig, MachineImage};
pub use disks::{AttachedDisk, DiskInfo, DiskName, FoundDisk, NewDisk};
pub use error::MachineError;
pub use folder::{Folder, FolderLock, State};
pub use name::Name;
pub use networks::{AttachedNetwork, FoundNet, NetInfo, NetMode, NetName, Subnet};
pub use provision::{NewScript, Provisioning, Script, ScriptState};
pub use run_state::{Ended, How, Phase, RunState, StageMark};
pub use setup::{GuestSetup, MachineUser};

pub(crate) use config::new_id;
pub(crate) use folder::SOCKET;
use folder::{CONFIG, DISK, LOCK};
pub(crate) use networks::{Membership, switch_lock, switch_log};
pub(crate) use provision::{interrupted, is_script_name};
pub(crate) use setup::SetupDone;

/// A folder that is not a machine yet.
const NEW: &str = ".new-";
/// A folder that is no machine any more.
const GONE: &str = ".gone-";

/// The named machines in a directory.
#[derive(Debug, Clone)]
pub struct Machines {
    root: PathBuf,
}

/// What a new machine is to be.
#[derive(Debug, Clone)]
pub struct NewMachine {
    /// Processors.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory: u64,
    /// Size of its disk, bytes; the image's when `None`.
    pub disk: Option<u64>,
    /// The engine, and the bytes of translated code it keeps.
    pub engine: (riad_vmm::EngineKind, u64),
    /// Whose features its processors show.
    pub cpu: riad_vmm::CpuModel,
    /// What its process 1 is.
    pub boot: Boot,
    /// What its network card is plugged into.
    pub network: Network,
    /// What of it can be reached from here.
    pub publish: Vec<Publish>,
    /// What its guest is made to fit.
    pub guest: GuestSetup,
    /// What runs in it at its first start, in this order.
    pub scripts: Vec<NewScript>,
}

impl Machines {
    /// Where machines are when nothing else is said: `RIAD_MACHINES`, or `riad/machines` in the
    /// user's data directory (XDG Base Directory Specification).
    ///
    /// # Errors
    /// [`MachineError::NoDirectory`]: none of the environment variables is set.
    pub fn default_directory() -> Result<PathBuf, MachineError> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let below = |base: PathBuf| base.join("riad/machines");
        variable("RIAD_MACHINES")
            // Relative paths are to be ignored, says the specification.
            .or_else(|| Some(below(variable("XDG_DATA_HOME").filter(|p| p.is_absolute())?)))
            .or_else(|| Some(below(variable("HOME")?.join(".local/share"))))
            .ok_or(MachineError::NoDirectory)
    }

    /// The machines in the default directory. Nothing is made or changed on the disk.
    ///
    /// # Errors
    /// As for [`default_directory`](Self::default_directory); or the working directory is gone.
    pub fn open() -> Result<Self, MachineError> {
        let root = Self::default_directory()?;
        let root = std::path::absolute(&root).map_err(MachineError::io("find", &root))?;
        Ok(Self::in_directory(root))
    }

    /// The machines in a directory, which need not be there yet.
    #[must_use]
    pub fn in_directory(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The names of all machines, in order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn names(&self) -> Result<Vec<Name>, MachineError> {
        let failed = || MachineError::io("read", &self.root);
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed()(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed())?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name();
                names.extend(name.to_str().and_then(|name| name.parse::<Name>().ok()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// All machines, in the order of their names, each looked for when it is asked for: one that is
    /// deleted or renamed meanwhile is passed over.
    ///
    /// # Errors
    /// The directory cannot be read, or a machine's folder.
    pub fn all(
        &self,
    ) -> Result<impl Iterator<Item = Result<Folder, MachineError>> + use<'_>, MachineError> {
        Ok(self.names()?.into_iter().filter_map(|name| match self.get(&name) {
            Err(MachineError::NoSuchMachine(_)) => None,
            folder => Some(folder),
        }))
    }

    /// A machine by its name.
    ///
    /// # Errors
    /// [`MachineError::NoSuchMachine`].
    pub fn get(&self, name: &Name) -> Result<Folder, MachineError> {
        let path = self.root.join(name.as_str());
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Ok(Folder::new(name.clone(), path)),
            Ok(_) => Err(MachineError::NoSuchMachine(name.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(MachineError::NoSuchMachine(name.clone()))
            }
            Err(error) => Err(MachineError::io("read", &path)(error)),
        }
    }

    /// Says early that a name is taken.
    ///
    /// # Errors
    /// [`MachineError::Exists`].
    pub fn check_free(&self, name: &Name) -> Result<(), MachineError> {
        match self.get(name) {
            Ok(_) => Err(MachineError::Exists(name.clone())),
            Err(MachineError::NoSuchMachine(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a machine from an image, whose blocks it shares.
    ///
    /// # Errors
    /// The name is taken, the disk would be too small, or the host refuses.
    pub fn create(
        &self,
        name: &Name,
        image: &Image,
        new: &NewMachine,
    ) -> Result<Folder, MachineError> {
        let draft = self.draft()?;
        let base = bases::adopt(&self.root, image)?;
        let rootfs = base.rootfs();
        let base_size = fs::metadata(&rootfs).map_err(MachineError::io("read", &rootfs))?.len();
        let disk = new.disk.unwrap_or(base_size);
        Layer::create(&draft.path.join(DISK), base_size, disk)?;
        let config = MachineConfig {
            schema: MachineConfig::SCHEMA,
            id: config::new_id(),
            created: now(),
            image: MachineImage { id: bases::id(image), name: image.meta().name.clone() },
            cpus: new.cpus,
            memory: new.memory,
            disk,
            engine: new.engine.0,
            cpu: new.cpu,
            code_cache: new.engine.1,
            boot: new.boot,
            network: new.network.clone(),
            publish: new.publish.clone(),
            protected: false,
            guest: new.guest.clone(),
            disks: Vec::new(),
            networks: Vec::new(),
        };
        provision::begin(&draft.path, &new.scripts)?;
        files::write_json(&draft.path.join(CONFIG), &config)?;
        let folder = self.publish(draft, name)?;
        folder.record_of(&config.id, &Event::Created { image: config.image.name });
        Ok(folder)
    }

    /// Copies a stopped machine under another name. The copy is a machine of its own. Disks that are
    /// attached to the original are not to it: two machines do not write to one disk. Nor is it on the
    /// original's named networks: two machines have not one address.
    ///
    /// # Errors
    /// It runs, the name is taken, or the host refuses.
    pub fn clone_machine(&self, name: &Name, to: &Name) -> Result<Folder, MachineError> {
        self.check_free(to)?;
        let folder = self.get(name)?;
        let lock = folder.lock()?;
        folder.must_be_stopped("cloned")?;
        let config = folder.config()?;
        let draft = self.draft()?;
        let (from, copy) = (folder.path().join(DISK), draft.path.join(DISK));
        riad_disk::copy_sparse(&from, &copy).map_err(MachineError::io("copy", &from))?;
        provision::copy(folder.path(), &draft.path)?;
        let config = MachineConfig {
            id: config::new_id(),
            created: now(),
            protected: false,
            disks: Vec::new(),
            networks: Vec::new(),
            ..config
        };
        files::write_json(&draft.path.join(CONFIG), &config)?;
        drop(lock);
        let folder = self.publish(draft, to)?;
        folder.record_of(&config.id, &Event::Cloned { from: name.to_string() });
        Ok(folder)
    }

    /// Gives a stopped machine another name.
    ///
    /// # Errors
    /// It runs, the name is taken, or the host refuses.
    pub fn rename(&self, name: &Name, to: &Name) -> Result<Folder, MachineError> {
        let folder = self.get(name)?;
        let _lock = folder.lock()?;
        folder.must_be_stopped("renamed")?;
        let _guard = self.guard()?;
        self.check_free(to)?;
        let path = self.root.join(to.as_str());
        fs::rename(folder.path(), &path).map_err(MachineError::io("rename", folder.path()))?;
        files::sync_directory(&self.root)?;
        let folder = Folder::new(to.clone(), path);
        folder.record(&Event::Renamed { from: name.to_string() });
        Ok(folder)
    }

    /// Deletes a stopped machine, and the image it stood on if no other machine does. Disks that are
    /// attached to it stay.
    ///
    /// # Errors
    /// It runs, it is protected, or the host refuses. A machine whose configuration cannot be read
    /// can be deleted.
    pub fn delete(&self, name: &Name) -> Result<(), MachineError> {
        let folder = self.get(name)?;
        let lock = folder.lock()?;
        folder.must_be_stopped("deleted")?;
        let config = folder.config();
        if config.as_ref().is_ok_and(|config| config.protected) {
            return Err(MachineError::Protected(name.clone()));
        }
        let guard = self.guard()?;
        let grave = self.root.join(format!("{GONE}{}", config::new_id()));
        fs::rename(folder.path(), &grave).map_err(MachineError::io("delete", folder.path()))?;
        files::sync_directory(&self.root)?;
        folder.record_of(&config.map(|config| config.id).unwrap_or_default(), &Event::Deleted {});
        drop((guard, lock));
        self.sweep()
    }

    /// Removes what interrupted commands have left, and images that no machine stands on.
    fn sweep(&self) -> Result<(), MachineError> {
        let _guard = self.guard()?;
        let entries = fs::read_dir(&self.root).map_err(MachineError::io("read", &self.root))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if (name.starts_with(NEW) || name.starts_with(GONE)) && !folder::is_held(&entry.path())
            {
                match fs::remove_dir_all(entry.path()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(MachineError::io("remove", &entry.path())(error));
                    }
                    _ => {}
                }
            }
        }
        // Drafts count: a machine that is being made stands on its image already. One that has no
        // configuration yet holds the guard while it gets its image.
        let mut used = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(MachineError::io("read", &self.root))? {
            let path = entry.map_err(MachineError::io("read", &self.root))?.path();
            match files::read_json::<config::ImageOnly>(&path.join(CONFIG)) {
                Ok(config) => used.push(config.image.id),
                Err(error) if error.is_missing() => {
                    if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(NEW)) {
                        return Ok(());
                    }
                }
                // Whose images these are cannot be told: keep all.
                Err(_) => return Ok(()),
            }
        }
        bases::keep_only(&self.root, &used)
    }

    /// Begins a machine that is not there yet.
    fn draft(&self) -> Result<Draft, MachineError> {
        files::make_directory(&self.root)?;
        let _guard = self.guard()?;
        let path = self.root.join(format!("{NEW}{}", config::new_id()));
        DirBuilder::new().mode(0o700).create(&path).map_err(MachineError::io("create", &path))?;
        let lock = folder::lock_file(&path.join(LOCK))?;
        lock.lock().map_err(MachineError::io("lock", &path))?;
        Ok(Draft { path, _lock: lock })
    }

    /// Gives a finished draft its name, which makes it a machine.
    fn publish(&self, draft: Draft, name: &Name) -> Result<Folder, MachineError> {
        files::sync_directory(&draft.path)?;
        let path = self.root.join(name.as_str());
        let _guard = self.guard()?;
        self.check_free(name)?;
        fs::rename(&draft.path, &path).map_err(MachineError::io("create", &path))?;
        files::sync_directory(&self.root)?;
        Ok(Folder::new(name.clone(), path))
    }

    /// Held for the moments in which folders get names and lose them.
    fn guard(&self) -> Result<File, MachineError> {
        let path = self.root.join(".lock");
        let file = folder::lock_file(&path)?;
        file.lock().map_err(MachineError::io("lock", &path))?;
        Ok(file)
    }

    /// The image that a machine stands on.
    pub(crate) fn base(folder: &Folder, config: &MachineConfig) -> Result<Image, MachineError> {
        let root = folder.path().parent().unwrap_or(Path::new("/"));
        bases::open(root, &config.image.id)
    }
}

/// A folder that is being filled. Dropped before it is published, it is removed.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    _lock: File,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Not there any more when it was published; left for the next sweep when it cannot be.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[path = "machines_test.rs"]
mod tests;
