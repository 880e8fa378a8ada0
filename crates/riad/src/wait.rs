//! `riad wait`: until something is true of a machine.

use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use riad_host::machines::{Folder, Machines, Phase, RunState, State};
use riad_host::{Command, Error, ExitStatus, SessionIo};

use crate::args::WaitArgs;
use crate::report::Failure;
use crate::signals::Signals;
use crate::status::Status;

/// The status to exit with when the time is over, as timeout(1) has it.
const TIME_OVER: u8 = 124;
/// How often is looked.
const AGAIN: Duration = Duration::from_millis(20);
/// How often it is looked for a file, which takes a command in the guest.
const FILE_AGAIN: Duration = Duration::from_millis(200);

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The machine has a process.
    Running,
    /// Its agent answers.
    Agent,
    /// Its init system has said its word.
    System,
    /// It is off.
    Stopped,
    /// There is such a file.
    File(String),
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.split_once(':') {
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.to_owned())),
            Some(("file", _)) => Err("write file: and a path that begins with /".to_owned()),
            _ => match word {
                "running" => Ok(Self::Running),
                "agent" => Ok(Self::Agent),
                "system" => Ok(Self::System),
                "stopped" => Ok(Self::Stopped),
                _ => Err("expected running, agent, system, stopped or file:PATH".to_owned()),
            },
        }
    }
}

pub(crate) fn wait(args: WaitArgs) -> Result<ExitCode, Failure> {
    let WaitArgs { name, condition, timeout } = args;
    let folder = Machines::open()?.get(&name)?;
    let deadline = timeout.and_then(|t| Instant::now().checked_add(Duration::from_secs(t)));
    let signals = Signals::watch()?;
    let mut status = Status::new(signals, "", false);
    loop {
        if is_true(&folder, &condition)? {
            status.clear();
            return Ok(ExitCode::SUCCESS);
        }
        let (state, stage) = (folder.state()?, folder.run_state()?.map(|run| run.stage));
        let stage = stage.filter(|_| state.is_alive()).unwrap_or_default();
        let is = format!("{name}: {state} {stage}");
        status.show(is.trim_end());
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            status.clear();
            let at = if stage.is_empty() { stage } else { format!(", stage '{stage}'") };
            eprintln!(
                "riad: the time is over, and machine '{name}' is {state}{at}; `riad why {name}` tells \
                 more"
            );
            return Ok(ExitCode::from(TIME_OVER));
        }
        thread::sleep(if matches!(condition, Condition::File(_)) { FILE_AGAIN } else { AGAIN });
    }
}

fn is_true(folder: &Folder, condition: &Condition) -> Result<bool, Failure> {
    let state = folder.state()?;
    Ok(match condition {
        Condition::Running => state.is_alive(),
        Condition::Stopped => !state.is_alive(),
        Condition::Agent => state == State::Running,
        Condition::System => {
            let word = folder.run_state()?.filter(|run| run.phase == Phase::Running);
            state == State::Running && word.and_then(|run: RunState| run.system).is_some()
        }
        Condition::File(path) => state == State::Running && has_file(folder, path)?,
    })
}

fn has_file(folder: &Folder, path: &str) -> Result<bool, Failure> {
    use std::os::fd::AsFd;
    let nowhere = std::fs::File::options().write(true).open("/dev/null");
    let nowhere = nowhere.map_err(Failure::own("cannot open /dev/null"))?;
    let io = SessionIo { stdin: None, stdout: nowhere.as_fd(), stderr: nowhere.as_fd() };
    match folder.run(&Command::new(["test", "-e", path]), io, None) {
        Ok(status) => Ok(status == ExitStatus::Exited(0)),
        // It went off since; it may come back.
        Err(Error::Named(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "wait_test.rs"]
mod tests;
