//! Starting a machine's process.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::journal::Event;
use crate::machines::{Folder, MachineError, Machines, Phase, RunState, State};
use crate::{ConsoleTail, printable};

/// What of the environment a machine's process keeps: how it logs, and how patient it is.
pub(super) const KEPT: [&str; 3] = ["RIAD_LOG", "RIAD_PATIENCE", "RUST_BACKTRACE"];
/// Bytes of the process's log that are kept from starts before.
const MOST_LOG: u64 = 1 << 20;
/// Bytes from the end of that log that an error carries.
const LAST_WORDS: u64 = 2000;

/// What became of the wish to start a machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Started {
    /// It was started, and its agent answers.
    Now(Box<RunState>),
    /// It ran already, or somebody else was starting it; its agent answers.
    Already,
}

/// Starts a machine's process, and waits until the machine's agent answers. `program` is to call
/// [`live`](super::live) with the folder and its standard input, and with other arguments
/// [`serve_switch`](super::serve_switch); `heard` is called as things happen.
///
/// # Errors
/// [`MachineError::NotStarted`] when it does not get so far.
pub fn start(
    folder: &Folder,
    mut program: Command,
    heard: &mut dyn FnMut(&RunState),
) -> Result<Started, MachineError> {
    let lock = folder.lock()?;
    if folder.is_alive()? {
        drop(lock);
        return wait_for_other(folder);
    }
    // What a process would fail at is better said by whoever can be heard.
    let config = folder.config()?;
    folder.disk()?;
    let (ours, theirs) = UnixStream::pair().map_err(MachineError::io("start", folder.path()))?;
    let log = process_log(folder)?;
    let log_began = log.metadata().map_or(0, |metadata| metadata.len());
    let error_log = log.try_clone().map_err(MachineError::io("write", &folder.process_log()))?;
    if folder.state()? == State::Killed
        && let Some(run) = folder.run_state()?
    {
        folder.record(&Event::Killed { stage: run.stage });
    }
    folder.forget_run_state()?;
    super::sys::inherit_nothing();
    // Held until the machine's process, which joins them itself, has done so or is over.
    let networks = Machines::networks_of(folder, &config)?;
    let _held: Vec<_> = networks
        .iter()
        .map(|network| super::switch::hold(network, program.get_program()))
        .collect::<Result<_, _>>()?;
    program.env_clear().current_dir("/");
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            program.env(name, value);
        }
    }
    program.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(log).stderr(error_log);
    let mut child = program.spawn().map_err(MachineError::io("start", folder.path()))?;
    // This end must not keep theirs open.
    drop(program);
    let mut lock = Some(lock);
    let mut last = None;
    for line in BufReader::new(ours).lines() {
        let Ok(state) = line
            .map_err(drop)
            .and_then(|line| serde_json::from_str::<RunState>(&line).map_err(drop))
        else {
            break;
        };
        // It holds its own lock now: others see that it lives.
        lock.take();
        heard(&state);
        let is_over = state.phase != Phase::Starting;
        last = Some(state);
        if is_over {
            break;
        }
    }
    match last {
        Some(state) if matches!(state.phase, Phase::Running | Phase::Stopping) => {
            Ok(Started::Now(Box::new(state)))
        }
        Some(RunState { ended: Some(ended), .. }) => {
            // Its parent is here still: nothing is left of it.
            let _ = child.wait();
            let name = folder.name().clone();
            let console = ConsoleTail(ended.console);
            Err(MachineError::NotStarted { name, reason: ended.message, console })
        }
        _ => {
            let status = child.wait().map_or_else(|error| error.to_string(), |s| s.to_string());
            let said = last_words(folder, log_began);
            let reason = match said.is_empty() {
                true => format!("its process ended ({status})"),
                false => format!("its process ended ({status}) and said: {said}"),
            };
            let (name, console) = (folder.name().clone(), ConsoleTail::default());
            Err(MachineError::NotStarted { name, reason, console })
        }
    }
}

fn wait_for_other(folder: &Folder) -> Result<Started, MachineError> {
    folder.wait_ready()?;
    Ok(Started::Already)
}

/// The file for what the process says; begun anew when it has become long.
fn process_log(folder: &Folder) -> Result<File, MachineError> {
    let path = folder.process_log();
    let failed = || MachineError::io("write", &path);
    let log = File::options().append(true).create(true).mode(0o600).open(&path);
    let log = log.map_err(failed())?;
    if log.metadata().is_ok_and(|metadata| metadata.len() > MOST_LOG) {
        log.set_len(0).map_err(failed())?;
    }
    Ok(log)
}

/// The last that the process said since its start, in one line.
fn last_words(folder: &Folder, since: u64) -> String {
    let Ok(mut log) = File::open(folder.process_log()) else { return String::new() };
    let length = log.metadata().map_or(0, |metadata| metadata.len());
    let from = since.max(length.saturating_sub(LAST_WORDS));
    let mut text = Vec::new();
    if log.seek(SeekFrom::Start(from)).and_then(|_| log.read_to_end(&mut text)).is_err() {
        return String::new();
    }
    printable(String::from_utf8_lossy(&text).trim().replace('\n', " ").as_str())
}
