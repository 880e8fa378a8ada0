//! `riad provision`, and waiting for scripts that run at a first start. The machine's process runs
//! them, and goes on when nobody waits.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use riad_host::machines::{Folder, MachineError, Machines, NewScript, State};
use riad_host::printable;
use riad_host::process::Connection;

use crate::args::ProvisionArgs;
use crate::logs::{Shown, pass_on};
use crate::report::Failure;
use crate::signals::Signals;
use crate::status::Status;

/// How often it is looked for what is new.
const AGAIN: Duration = Duration::from_millis(100);
/// Bytes of the longest script that is read here; fewer are kept.
const MOST: u64 = 8 << 20;

pub(crate) fn provision(args: ProvisionArgs) -> Result<ExitCode, Failure> {
    let ProvisionArgs { name, scripts } = args;
    let folder = Machines::open()?.get(&name)?;
    let new = read_scripts(&scripts)?;
    let signals = Signals::watch()?;
    match folder.state()? {
        State::Running => {}
        State::Starting => folder.wait_ready()?,
        state => return Err(MachineError::NotRunning { name, state }.into()),
    }
    let names: Vec<_> = if new.is_empty() {
        folder.provisioning()?.scripts.into_iter().map(|script| script.name).collect()
    } else {
        let _lock = folder.lock()?;
        folder.add_scripts(&new)?
    };
    if names.is_empty() {
        return Err(Failure::Own(format!(
            "machine '{name}' has no provisioning scripts: name one, as in `riad provision {name} \
             setup.sh`"
        )));
    }
    let from = said(&folder);
    Connection::open(&folder)?.provision(names.clone())?;
    follow(&folder, from, signals)?;
    check(&folder, &names)?;
    Ok(ExitCode::SUCCESS)
}

/// Scripts from files of this computer's, or from standard input.
pub(crate) fn read_scripts(paths: &[PathBuf]) -> Result<Vec<NewScript>, Failure> {
    if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
        return Err(Failure::Own("standard input can be one script only".to_owned()));
    }
    paths.iter().map(|path| read_script(path)).collect()
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn read_script(path: &Path) -> Result<NewScript, Failure> {
    let mut text = Vec::new();
    let (name, read) = if is_stdin(path) {
        ("stdin".to_owned(), io::stdin().lock().take(MOST).read_to_end(&mut text))
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut text)))
    };
    let what = format!("cannot read the script {}", path.display());
    read.map_err(Failure::own(&what))?;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::Own(format!("the script {} is empty", path.display())));
    }
    Ok(NewScript { name, text })
}

/// How much scripts have said so far, in bytes.
pub(crate) fn said(folder: &Folder) -> u64 {
    std::fs::metadata(folder.provision_log()).map_or(0, |metadata| metadata.len())
}

/// Waits until no script of a machine is to be run any more, and shows what they say, from `from` on.
pub(crate) fn follow(folder: &Folder, from: u64, signals: Signals) -> Result<(), Failure> {
    let name = folder.name();
    let mut status = Status::new(signals, "", false);
    let (mut log, mut shown) = (None, Shown::new());
    loop {
        let is_alive = folder.is_alive()?;
        let next = folder.provisioning()?.next().map(|script| script.name.clone());
        log = log.or_else(|| open(folder, from));
        if let Some(file) = &mut log {
            let before = file.stream_position().unwrap_or(0);
            let length = said(folder);
            if length > before {
                // The line about what is waited for is not to be in between.
                status.clear();
                pass_on(file, &mut shown).map_err(Failure::own("cannot read the log"))?;
            } else if length < before {
                // It was put aside, and begun anew.
                log = open(folder, 0);
            }
        }
        match next {
            Some(script) if is_alive => status.show(&format!("{name}: provisioning, {script}")),
            _ => break,
        }
        thread::sleep(AGAIN);
    }
    status.clear();
    Ok(())
}

fn open(folder: &Folder, from: u64) -> Option<File> {
    let mut file = File::open(folder.provision_log()).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    Some(file)
}

/// Fails if one of these scripts did; if any did when none is named.
pub(crate) fn check(folder: &Folder, names: &[String]) -> Result<(), Failure> {
    complaint(folder, names)?.map_or(Ok(()), |sentence| Err(Failure::Own(sentence)))
}

/// Says that one of these scripts failed, if one did, and what to do.
pub(crate) fn complaint(folder: &Folder, names: &[String]) -> Result<Option<String>, Failure> {
    let (name, state) = (folder.name(), folder.provisioning()?);
    let Some(script) = state.failed(names) else { return Ok(None) };
    let reason = script.reason.clone().unwrap_or_else(|| format!("{} failed", script.name));
    let runs = match folder.is_alive()? {
        true => "runs, but is not provisioned",
        false => "is off, and not provisioned",
    };
    Ok(Some(format!(
        "machine '{name}' {runs}: {}; `riad provision {name}` runs its scripts again, `riad logs \
         --provision {name}` shows what they said",
        printable(&reason)
    )))
}
