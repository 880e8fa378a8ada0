//! One machine's folder: what is in it, who holds its locks, and so what is true of the machine.

use std::fmt;
use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use riad_disk::{Layer, LayerInfo};
use serde::Serialize;

use crate::journal::{self, Entry, Event};

use super::files::{read_json, write_json};
use super::{How, MachineConfig, MachineError, Name, Phase, RunState};

pub(super) const CONFIG: &str = "machine.json";
pub(super) const DISK: &str = "disk.layer";
pub(super) const LOCK: &str = "lock";
const ALIVE: &str = "alive";
const RUN: &str = "run.json";
/// Where the machine's process listens, within the folder.
pub(crate) const SOCKET: &str = "control.sock";
/// The console's output.
pub(crate) const CONSOLE_LOG: &str = "console.log";
/// What the machine's process says.
pub(crate) const PROCESS_LOG: &str = "process.log";

/// How long a machine's process waits for those who look whether it is there.
const LOOKERS: Duration = Duration::from_secs(2);

/// One machine's folder.
#[derive(Debug, Clone)]
pub struct Folder {
    name: Name,
    path: PathBuf,
}

/// What is true of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is off.
    Stopped,
    /// It boots.
    Starting,
    /// Its agent answers.
    Running,
    /// It was told to stop.
    Stopping,
    /// It is off, because something went wrong.
    Failed,
    /// It is off, because its process was killed, or the host lost power.
    Killed,
}

impl State {
    /// The name that users see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Killed => "killed",
        }
    }

    /// Whether the machine has a process.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The right to change a folder. Given back when dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl Folder {
    pub(super) fn new(name: Name, path: PathBuf) -> Self {
        Self { name, path }
    }

    /// The folder at a path, whose last part is the machine's name.
    ///
    /// # Errors
    /// That part is no name of a machine.
    pub fn at(path: PathBuf) -> Result<Self, MachineError> {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        Ok(Self { name: name.parse()?, path })
    }

    /// The machine's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the machine is.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or a newer Riad's.
    pub fn config(&self) -> Result<MachineConfig, MachineError> {
        read_json(&self.path.join(CONFIG)).map_err(|error| match error {
            // Deleted or renamed since it was found.
            error if error.is_missing() && !self.path.exists() => {
                MachineError::NoSuchMachine(self.name.clone())
            }
            error => error,
        })
    }

    /// Changes what the machine is. To be called with the [`lock`](Self::lock) held.
    ///
    /// # Errors
    /// The host refuses.
    pub fn write_config(&self, config: &MachineConfig) -> Result<(), MachineError> {
        write_json(&self.path.join(CONFIG), config)
    }

    /// The last start, if there was one.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or a newer Riad's.
    pub fn run_state(&self) -> Result<Option<RunState>, MachineError> {
        match read_json(&self.path.join(RUN)) {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets the last start, before the next: what the last one left is not to be taken for what
    /// is true of a process that has not said anything yet.
    pub(crate) fn forget_run_state(&self) -> Result<(), MachineError> {
        let path = self.path.join(RUN);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(MachineError::io("replace", &path)(error))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn write_run_state(&self, state: &RunState) -> Result<(), MachineError> {
        write_json(&self.path.join(RUN), state)
    }

    /// What is true of the machine now.
    ///
    /// # Errors
    /// A file cannot be read, is damaged, or a newer Riad's.
    pub fn state(&self) -> Result<State, MachineError> {
        // The lock first: a process that ends between the two has written its last word before.
        let alive = self.is_alive()?;
        let run = if alive { self.told()? } else { self.run_state()? };
        Ok(match (alive, run) {
            (false, None) => State::Stopped,
            (false, Some(RunState { phase: Phase::Ended, ended, .. })) => match ended {
                Some(ended) if ended.how == How::Failed => State::Failed,
                _ => State::Stopped,
            },
            (false, Some(_)) => State::Killed,
            (true, Some(RunState { phase: Phase::Running, .. })) => State::Running,
            // What it wrote last is its last word, and it is about to be gone.
            (true, Some(RunState { phase: Phase::Stopping, .. })) => State::Stopping,
            (true, _) => State::Starting,
        })
    }

    /// Whether the machine has a process, which holds a lock as long as it lives.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn is_alive(&self) -> Result<bool, MachineError> {
        let path = self.path.join(ALIVE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(MachineError::io("read", &path)(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(MachineError::io("lock", &path)(error)),
        }
    }

    /// Says that this process is the machine's, as long as the lock is kept.
    ///
    /// # Errors
    /// Another process is.
    pub(crate) fn live(&self) -> Result<FolderLock, MachineError> {
        let path = self.path.join(ALIVE);
        let file = lock_file(&path)?;
        let deadline = Instant::now() + LOOKERS;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(FolderLock { _file: file }),
                // Somebody looks, for a moment; or there is another process, for good.
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => {
                    let reason = "the machine has a process already".to_owned();
                    return Err(MachineError::Process { name: self.name.clone(), reason });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(MachineError::io("lock", &path)(error));
                }
            }
        }
    }

    /// Waits for the right to change the folder.
    ///
    /// # Errors
    /// The machine was deleted or renamed meanwhile, or the host refuses.
    pub fn lock(&self) -> Result<FolderLock, MachineError> {
        let path = self.path.join(LOCK);
        let gone = |error: MachineError| match error {
            error if error.is_missing() => MachineError::NoSuchMachine(self.name.clone()),
            error => error,
        };
        let file = lock_file(&path).map_err(gone)?;
        file.lock().map_err(MachineError::io("lock", &path))?;
        // Whoever had it may have renamed or deleted the folder.
        let ours = file.metadata().map_err(MachineError::io("read", &path))?;
        let there = std::fs::metadata(&path).map_err(MachineError::io("read", &path));
        let there = there.map_err(gone)?;
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Err(MachineError::NoSuchMachine(self.name.clone()));
        }
        Ok(FolderLock { _file: file })
    }

    /// The error when the machine is not stopped.
    pub(crate) fn must_be_stopped(&self, what: &'static str) -> Result<(), MachineError> {
        if !self.is_alive()? {
            return Ok(());
        }
        let state = self.state().unwrap_or(State::Running);
        Err(MachineError::NotStopped { name: self.name.clone(), state, what })
    }

    /// Sizes of the machine's disk.
    ///
    /// # Errors
    /// Its file cannot be read, or is damaged.
    pub fn disk(&self) -> Result<LayerInfo, MachineError> {
        Ok(Layer::info(&self.disk_path())?)
    }

    /// Whether the machine's disk may become this large; it becomes so at the next start.
    ///
    /// # Errors
    /// It would become smaller, or is no size for a disk.
    pub fn check_disk(&self, size: u64) -> Result<(), MachineError> {
        Ok(Layer::check_growth(&self.disk_path(), size)?)
    }

    pub(crate) fn disk_path(&self) -> PathBuf {
        self.path.join(DISK)
    }

    /// Writes down what a command did to the machine. What was done is done: that it cannot be
    /// written down is said in the log, and is no failure.
    pub fn record(&self, event: &Event) {
        let id = self.config().map(|config| config.id).unwrap_or_default();
        self.record_of(&id, event);
    }

    /// As [`record`](Self::record), of a machine whose id is known.
    pub(super) fn record_of(&self, id: &str, event: &Event) {
        let root = self.path.parent().unwrap_or(Path::new("/"));
        let entry = Entry::new(self.name.as_str(), id, Some(journal::this_process()), event);
        journal::append(root, &entry);
    }

    /// Where the console's output is; before it came what is in the second file, if there is one.
    #[must_use]
    pub fn console_logs(&self) -> [PathBuf; 2] {
        [self.path.join(CONSOLE_LOG), self.path.join(format!("{CONSOLE_LOG}.1"))]
    }

    /// Where the machine's process says what it has to say.
    #[must_use]
    pub fn process_log(&self) -> PathBuf {
        self.path.join(PROCESS_LOG)
    }
}

/// Opens a file that is there to be locked.
pub(super) fn lock_file(path: &Path) -> Result<File, MachineError> {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(MachineError::io("create", path))
}

/// Whether somebody works in a folder that is no machine.
pub(super) fn is_held(path: &Path) -> bool {
    File::open(path.join(LOCK))
        .is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}
