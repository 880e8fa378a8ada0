//! `riad wait`: until something is true of a machine.

use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use riad_host::machines::{Folder, Machines, Phase, RunState, State};
use riad_host::{Command, Error, ExitStatus, SessionIo};

use crate::args::WaitArgs;
use crate::ip;
use crate::report::Failure;
use crate::signals::Signals;
use crate::status::Status;

/// The status to exit with when the time is over, as timeout(1) has it.
const TIME_OVER: u8 = 124;
/// How often is looked.
const AGAIN: Duration = Duration::from_millis(20);
/// How often it is looked for what takes a command in the guest.
const GUEST_AGAIN: Duration = Duration::from_millis(200);

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
    /// It has an address.
    Ip,
    /// Something in it takes TCP connections at a port.
    Port(u16),
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.split_once(':') {
            Some(("port", port)) => match port.parse() {
                Ok(port @ 1..) => Ok(Self::Port(port)),
                _ => Err("write port: and a number from 1 to 65535".to_owned()),
            },
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.to_owned())),
            Some(("file", _)) => Err("write file: and a path that begins with /".to_owned()),
            _ => match word {
                "running" => Ok(Self::Running),
                "agent" => Ok(Self::Agent),
                "system" => Ok(Self::System),
                "stopped" => Ok(Self::Stopped),
                "ip" => Ok(Self::Ip),
                "ssh" => Ok(Self::Port(22)),
                _ => Err("expected running, agent, system, stopped, ip, ssh, port:N or file:PATH"
                    .to_owned()),
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
        let asks = matches!(condition, Condition::File(_) | Condition::Ip | Condition::Port(_));
        thread::sleep(if asks { GUEST_AGAIN } else { AGAIN });
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
        Condition::Ip => state == State::Running && has_address(folder)?,
        Condition::Port(port) => state == State::Running && in_guest(ip::listens(folder, *port))?,
    })
}

fn has_address(folder: &Folder) -> Result<bool, Failure> {
    in_guest(ip::addresses(folder).map(|addresses| !addresses.is_empty()))
}

/// What a machine that may go off meanwhile says; it may come back.
fn in_guest(answer: Result<bool, Failure>) -> Result<bool, Failure> {
    match answer {
        Err(Failure::Host(error)) if matches!(*error, Error::Named(_)) => Ok(false),
        other => other,
    }
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
