//! Scripts that make a machine what its user needs: kept in its folder, run once by its process.
//!
//! `provision/NAME` are the scripts, `provision.json` says how each went, `provision.log` what they
//! said. The machine's process writes the last two; a script that runs when the process goes is told
//! as interrupted.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{Versioned, make_directory, read_json, sync_directory, write_json};
use super::{Folder, MachineError};

const SCRIPTS: &str = "provision";
const STATE: &str = "provision.json";
const LOG: &str = "provision.log";

/// Scripts that a machine may have.
const MOST_SCRIPTS: usize = 64;
/// Characters of the longest name, without the number that keeps it apart from others.
const MOST_NAME: usize = 100;
/// Bytes of the longest script.
const MOST_SCRIPT: usize = 1 << 20;

/// A script to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewScript {
    /// What it is called, for people: a file's name.
    pub name: String,
    /// Its text.
    pub text: Vec<u8>,
}

/// `provision.json`: a machine's scripts, in the order in which they run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioning {
    /// Version of the format.
    pub schema: u32,
    /// The scripts.
    pub scripts: Vec<Script>,
    /// The names of those that are to be run, or are being run, in order. One that fails empties it.
    #[serde(default)]
    pub queue: Vec<String>,
}

/// A script, and how it went. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Its file in `provision`.
    pub name: String,
    /// Where it is.
    pub state: ScriptState,
    /// When it last began to run, milliseconds since the Unix epoch.
    #[serde(default)]
    pub began: Option<u64>,
    /// When it last ended.
    #[serde(default)]
    pub ended: Option<u64>,
    /// Why it failed, in one sentence with its name.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Where a script is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptState {
    /// It has not run yet, or is to run again.
    Pending,
    /// It runs.
    Running,
    /// It ended well.
    Done,
    /// It did not.
    Failed,
    /// The machine went away while it ran.
    Interrupted,
}

impl ScriptState {
    /// The name that users see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Versioned for Provisioning {
    const SCHEMA: u32 = 1;
}

impl Default for Provisioning {
    fn default() -> Self {
        Self { schema: <Self as Versioned>::SCHEMA, scripts: Vec::new(), queue: Vec::new() }
    }
}

impl Provisioning {
    /// The script that is to be run next, or runs.
    #[must_use]
    pub fn next(&self) -> Option<&Script> {
        self.queue.iter().find_map(|name| self.scripts.iter().find(|script| script.name == *name))
    }

    /// The first of these scripts that did not end well, if one did not; of all when none is named.
    #[must_use]
    pub fn failed(&self, names: &[String]) -> Option<&Script> {
        let is_bad = |s: &&Script| {
            matches!(s.state, ScriptState::Failed | ScriptState::Interrupted)
                && (names.is_empty() || names.contains(&s.name))
        };
        self.scripts.iter().find(is_bad)
    }

    /// The script of that name.
    pub(crate) fn script(&mut self, name: &str) -> Option<&mut Script> {
        self.scripts.iter_mut().find(|script| script.name == name)
    }

    /// Has scripts run again, after those that are to be run already. One that is not known yet comes
    /// last of all.
    pub(crate) fn again(&mut self, names: &[String]) {
        for name in names {
            match self.script(name) {
                Some(script) if script.state == ScriptState::Running => continue,
                Some(script) => script.state = ScriptState::Pending,
                None => self.scripts.push(Script {
                    name: name.clone(),
                    state: ScriptState::Pending,
                    began: None,
                    ended: None,
                    reason: None,
                }),
            }
            if !self.queue.contains(name) {
                self.queue.push(name.clone());
            }
        }
    }

    /// A script ended so. One that did not end well holds back those behind it.
    pub(crate) fn ended(
        &mut self,
        name: &str,
        state: ScriptState,
        reason: Option<String>,
        at: u64,
    ) {
        match state {
            ScriptState::Done => self.queue.retain(|other| other != name),
            _ => self.queue.clear(),
        }
        if let Some(script) = self.script(name) {
            (script.state, script.reason, script.ended) = (state, reason, Some(at));
        }
    }

    /// The script that ran when the machine went away, if one did, was interrupted.
    pub(crate) fn interrupt(&mut self) {
        let mut any = false;
        for script in self.scripts.iter_mut().filter(|s| s.state == ScriptState::Running) {
            script.state = ScriptState::Interrupted;
            script.reason = Some(interrupted(&script.name));
            any = true;
        }
        if any {
            self.queue.clear();
        }
    }
}

/// The name of a script's file: of anything but letters, digits, `.`, `-` and `_` a `_` is made.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).take(MOST_NAME).collect();
    match name.trim_start_matches(['.', '-']) {
        "" => "script".to_owned(),
        name => name.to_owned(),
    }
}

/// Whether a name is one that [`Folder::add_scripts`] gives.
pub(crate) fn is_script_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=MOST_NAME + 4).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with(['.', '-'])
}

impl Folder {
    /// Keeps scripts, in place of those of the same names, and gives the names that they are kept by. To be called with the
    /// [`lock`](Self::lock) held, or before the folder has its name.
    ///
    /// # Errors
    /// They are too many or too long, or the host refuses.
    pub fn add_scripts(&self, scripts: &[NewScript]) -> Result<Vec<String>, MachineError> {
        add(self.path(), scripts)
    }

    /// How the machine's scripts went. One that ran when the machine went away was interrupted.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or a newer Riad's.
    pub fn provisioning(&self) -> Result<Provisioning, MachineError> {
        let is_alive = self.is_alive()?;
        let mut provisioning = self.recorded_provisioning()?;
        if !is_alive {
            provisioning.interrupt();
        }
        Ok(provisioning)
    }

    /// What the file says.
    pub(crate) fn recorded_provisioning(&self) -> Result<Provisioning, MachineError> {
        recorded(self.path())
    }

    pub(crate) fn write_provisioning(&self, state: &Provisioning) -> Result<(), MachineError> {
        write_json(&self.path().join(STATE), state)
    }

    /// A script's file.
    pub(crate) fn script_path(&self, name: &str) -> PathBuf {
        self.path().join(SCRIPTS).join(name)
    }

    /// Where what scripts say is written, and what was said before.
    #[must_use]
    pub fn provision_log(&self) -> PathBuf {
        self.path().join(LOG)
    }
}

/// Why a script is told as interrupted.
pub(crate) fn interrupted(name: &str) -> String {
    format!("{name} was interrupted: the machine went away while it ran")
}

fn recorded(folder: &Path) -> Result<Provisioning, MachineError> {
    match read_json(&folder.join(STATE)) {
        Ok(state) => Ok(state),
        Err(error) if error.is_missing() => Ok(Provisioning::default()),
        Err(error) => Err(error),
    }
}

/// Keeps scripts in a folder, and gives their names there.
fn add(folder: &Path, scripts: &[NewScript]) -> Result<Vec<String>, MachineError> {
    let directory = folder.join(SCRIPTS);
    if !scripts.is_empty() {
        make_directory(&directory)?;
    }
    let mut names: Vec<String> = Vec::new();
    for NewScript { name, text } in scripts {
        if text.len() > MOST_SCRIPT {
            let reason = format!("it has more than {} MiB", MOST_SCRIPT >> 20);
            return Err(MachineError::Script { name: name.clone(), reason });
        }
        // Two that are given at once are two; one that was there before is replaced.
        let plain = file_name(name);
        let numbered = (2..).map(|number| format!("{plain}-{number}"));
        let mut free = std::iter::once(plain.clone()).chain(numbered);
        let name = free.find(|name| !names.contains(name));
        names.extend(name);
    }
    let there: Vec<_> = fs::read_dir(&directory).into_iter().flatten().flatten().collect();
    let is_new = |name: &&String| {
        !there.iter().any(|entry| entry.file_name().to_str() == Some(name.as_str()))
    };
    if there.len() + names.iter().filter(is_new).count() > MOST_SCRIPTS {
        let reason = format!("a machine keeps at most {MOST_SCRIPTS} of them");
        return Err(MachineError::Script { name: "the scripts".to_owned(), reason });
    }
    for (name, NewScript { name: _, text }) in names.iter().zip(scripts) {
        keep(&directory, name, text)?;
    }
    if !names.is_empty() {
        sync_directory(&directory)?;
    }
    Ok(names)
}

/// Writes a script, whole or not at all.
fn keep(directory: &Path, name: &str, text: &[u8]) -> Result<(), MachineError> {
    let path = directory.join(name);
    let failed = || MachineError::io("write", &path);
    let file = tempfile::Builder::new().prefix(".write-").tempfile_in(directory);
    let mut file = file.map_err(failed())?;
    file.write_all(text).and_then(|()| file.as_file().sync_all()).map_err(failed())?;
    file.persist(&path).map(drop).map_err(|error| failed()(error.error))
}

/// Keeps a new machine's scripts, to be run at its first start.
pub(super) fn begin(folder: &Path, scripts: &[NewScript]) -> Result<(), MachineError> {
    if scripts.is_empty() {
        return Ok(());
    }
    let mut state = Provisioning::default();
    state.again(&add(folder, scripts)?);
    write_json(&folder.join(STATE), &state)
}

/// Copies a machine's scripts, and how they went, to its copy.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), MachineError> {
    let mut state = recorded(from)?;
    if state.scripts.is_empty() {
        return Ok(());
    }
    state.interrupt();
    let directory = to.join(SCRIPTS);
    make_directory(&directory)?;
    for script in &state.scripts {
        let source = from.join(SCRIPTS).join(&script.name);
        if is_script_name(&script.name) {
            fs::copy(&source, directory.join(&script.name))
                .map_err(MachineError::io("copy", &source))?;
        }
    }
    sync_directory(&directory)?;
    write_json(&to.join(STATE), &state)
}

#[cfg(test)]
#[path = "provision_test.rs"]
mod tests;
