//! Running provisioning scripts in the guest, as root: one after the other, once each. What they say
//! goes to a file in the machine's folder, where whoever waits for them reads it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::{SyncSender, sync_channel};

use riad_agent::client::{ExitStatus, SessionIo, run_session};
use riad_agent::protocol::{ExecRequest, PORT};
use riad_confine::Kind;

use super::settle::ask;
use super::shared::{Shared, Ways, unix_ms};
use crate::journal::Event;
use crate::machines::{Phase, ScriptState, interrupted, is_script_name};
use crate::printable;

/// Bytes of the log before it is put aside, and bytes that a script may add to it.
const MOST_LOG: u64 = 4 << 20;
const MOST_OUTPUT: u64 = 16 << 20;
/// Bytes of a line that are read at once.
const LINE: u64 = 4096;

/// Puts a script where it can be run, in a directory that only root sees.
const PUT: &str =
    "umask 077; mkdir -p /run/riad; cat >\"/run/riad/$1\" && chmod 700 \"/run/riad/$1\"";

/// Runs it, with bash where it can be.
const RUN: &str = include_str!("run.sh");
const PRELUDE: &str = include_str!("prelude.bash");

/// What bash wrote down: the line's number, and the command.
const LINE_OF: &str = "cat /run/riad/.line 2>/dev/null; rm -f /run/riad/.line";

type Failed = Box<dyn std::error::Error>;

/// Runs scripts whenever there is one to be run and somebody says so, in a thread that lives as long
/// as the process. Gives the way to say so.
///
/// # Errors
/// The host refuses the thread.
pub(super) fn serve(shared: &Shared) -> io::Result<()> {
    // Who is told twice looks once: it finds all that there is.
    let (sender, wishes) = sync_channel(1);
    shared.set_provisioner(sender);
    let shared = shared.clone();
    look_back(&shared);
    let body = move || {
        for () in wishes {
            // What cannot be written down would be run again and again.
            while next(&shared).is_some_and(|name| run(&shared, &name)) {}
        }
    };
    riad_confine::spawn(Kind::Control, "provision", body).map(drop)
}

/// The way to say that there is a script to be run.
pub(super) type Provisioner = SyncSender<()>;

/// A script that ran when the process before this one went was interrupted.
fn look_back(shared: &Shared) {
    let changed = shared.change_provisioning(|state| state.interrupt());
    if let Err(error) = changed {
        tracing::warn!(%error, "what is known of provisioning scripts cannot be used");
    }
}

/// Has scripts run again.
///
/// # Errors
/// A sentence for whoever asked.
pub(super) fn again(shared: &Shared, names: &[String]) -> Result<(), String> {
    for name in names {
        if !is_script_name(name) || !shared.folder().script_path(name).is_file() {
            return Err(format!("the machine has no script '{}'", printable(name)));
        }
    }
    shared.change_provisioning(|state| state.again(names)).map_err(|error| error.to_string())?;
    shared.provision();
    Ok(())
}

/// The script to be run now.
fn next(shared: &Shared) -> Option<String> {
    if shared.state().phase != Phase::Running {
        return None;
    }
    let state = shared.folder().recorded_provisioning();
    let state = state.inspect_err(|error| tracing::warn!(%error, "no scripts are run")).ok()?;
    state.next().map(|script| script.name.clone())
}

/// Runs a script, and writes down how it went. Returns whether it could.
fn run(shared: &Shared, name: &str) -> bool {
    let began = shared.change_provisioning(|state| {
        if let Some(script) = state.script(name) {
            script.state = ScriptState::Running;
            (script.began, script.ended, script.reason) = (Some(unix_ms()), None, None);
        }
    });
    if let Err(error) = began {
        shared.warn(format!("{name} is not run: {error}"));
        let script = name.to_owned();
        let reason = format!("{name} was not run: {error}");
        shared.say(&Event::ProvisionFailed { script, reason });
        return false;
    }
    shared.say(&Event::ProvisionStarted { script: name.to_owned() });
    let (result, reason) = match attempt(shared, name) {
        Ok(None) => (ScriptState::Done, None),
        Ok(Some(reason)) => (ScriptState::Failed, Some(reason)),
        Err(error) => {
            // The machine goes away under a script, which is no fault of the script's.
            let is_off = shared.state().phase != Phase::Running || shared.get_ways().is_none();
            match is_off {
                true => (ScriptState::Interrupted, Some(interrupted(name))),
                false => (ScriptState::Failed, Some(format!("{name} could not be run: {error}"))),
            }
        }
    };
    let script = name.to_owned();
    shared.say(&match &reason {
        None => Event::ProvisionDone { script },
        Some(reason) => Event::ProvisionFailed { script, reason: reason.clone() },
    });
    let ended = shared.change_provisioning(|state| state.ended(name, result, reason, unix_ms()));
    if let Err(error) = &ended {
        shared.warn(format!("how {name} went cannot be written down: {error}"));
    }
    ended.is_ok()
}

/// Runs a script. Gives why it failed, if it did.
fn attempt(shared: &Shared, name: &str) -> Result<Option<String>, Failed> {
    let ways = shared.get_ways().ok_or("the machine is off")?;
    let mut log = Log::begin(shared, name)?;
    put(&ways, shared, name)?;
    let stream = ways.vsock.connect(PORT, ways.patience)?;
    let (output, writer) = pipe()?;
    let reader = riad_confine::spawn(Kind::Control, "output", move || log.take(output))?;
    let io = SessionIo { stdin: None, stdout: writer.as_fd(), stderr: writer.as_fd() };
    let request = ExecRequest::new(["/bin/sh", "-c", RUN, "riad", name, PRELUDE]);
    let end = run_session(stream, &request, io, None);
    drop(writer);
    let last = reader.join().unwrap_or_default();
    let how = match end?.status {
        ExitStatus::Exited(0) => return Ok(None),
        ExitStatus::Exited(status) => format!("with exit status {status}"),
        ExitStatus::Signaled(signal) => format!("by signal {signal}"),
    };
    let line = ask(&ways, &ExecRequest::new(["/bin/sh", "-c", LINE_OF]), None);
    let line = line.map(|(_, line)| line).unwrap_or_default();
    Ok(Some(failure(name, &how, &line, &last)))
}

/// One sentence: the script, where bash says so the line and what is there, and how it ended; else
/// what it said last.
fn failure(name: &str, how: &str, line: &str, last: &str) -> String {
    match line.split_once(' ') {
        Some((number, command)) if number.parse::<u64>().is_ok_and(|number| number > 0) => {
            format!("{name} failed at line {number} (`{command}`) {how}")
        }
        _ if last.is_empty() => format!("{name} failed {how}"),
        _ => format!("{name} failed {how}; it said last: {last}"),
    }
}

/// Puts a script into the guest.
fn put(ways: &Ways, shared: &Shared, name: &str) -> Result<(), Failed> {
    let script = File::open(shared.folder().script_path(name))?;
    let nowhere = File::options().write(true).open(shared.folder().process_log())?;
    let stream = ways.vsock.connect(PORT, ways.patience)?;
    let mut request = ExecRequest::new(["/bin/sh", "-c", PUT, "riad", name]);
    request.stdin = true;
    let io =
        SessionIo { stdin: Some(script.as_fd()), stdout: nowhere.as_fd(), stderr: nowhere.as_fd() };
    match run_session(stream, &request, io, None)?.status {
        ExitStatus::Exited(0) => Ok(()),
        status => {
            let status = status.shell_code();
            Err(format!("it cannot be written to /run in the guest (status {status})").into())
        }
    }
}

/// The file for what scripts say.
#[derive(Debug)]
struct Log {
    file: File,
    /// Bytes that may still be added.
    left: u64,
}

impl Log {
    fn begin(shared: &Shared, name: &str) -> io::Result<Self> {
        let path = shared.folder().provision_log();
        if path.metadata().is_ok_and(|metadata| metadata.len() > MOST_LOG) {
            std::fs::rename(&path, path.with_extension("log.1"))?;
        }
        let mut file = File::options().append(true).create(true).mode(0o600).open(&path)?;
        file.write_all(format!("==> {name}\n").as_bytes())?;
        Ok(Self { file, left: MOST_OUTPUT })
    }

    /// Takes everything that a script says, and keeps what there is room for. Gives its last line,
    /// safe to show.
    fn take(&mut self, output: impl Read) -> String {
        let mut output = BufReader::new(output);
        let (mut line, mut last) = (Vec::new(), String::new());
        // Whoever shows it shows lines, so that is how they come.
        while matches!(output.by_ref().take(LINE).read_until(b'\n', &mut line), Ok(1..)) {
            let said = printable(String::from_utf8_lossy(&line).trim());
            if !said.is_empty() {
                last = said;
            }
            let length = line.len() as u64;
            if self.left > 0 && length >= self.left {
                line = b"\n==> it says more than is kept\n".to_vec();
            }
            if self.left > 0 {
                // A full disk is no reason to stop a script.
                let _ = self.file.write_all(&line);
            }
            self.left = self.left.saturating_sub(length);
            line.clear();
        }
        last
    }
}

#[cfg(test)]
#[path = "provision_test.rs"]
mod tests;
