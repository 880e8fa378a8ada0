//! `riad exec` and `riad shell`: commands in a machine that lives on.

use std::ffi::OsString;
use std::process::ExitCode;

use riad_host::machines::{Folder, MachineError, Machines, State};
use riad_host::{Command, control};

use crate::args::{ExecArgs, ShellArgs};
use crate::report::Failure;
use crate::signals::Signals;
use crate::{create, session, start, terminal};

/// Has `"$@"` run on when its session is over. What is not there is found out before.
const DETACH: &str = r#"command -v "$1" >/dev/null || { echo "$1: no such command" >&2; exit 127; }
setsid "$@" </dev/null >/dev/null 2>&1 &"#;

pub(crate) fn exec(args: ExecArgs) -> Result<ExitCode, Failure> {
    let ExecArgs { name, conditions, detach, command } = args;
    let folder = Machines::open()?.get(&name)?;
    let tty = !detach && terminal::is_interactive();
    let argv = match detach {
        true => ["/bin/sh", "-c", DETACH, "riad"]
            .map(OsString::from)
            .into_iter()
            .chain(command)
            .collect(),
        false => command,
    };
    let mut command = session::command(argv, conditions, tty)?;
    let signals = Signals::watch()?;
    command.user = user(&folder, command.user)?;
    run(&folder, &command, tty, &signals)
}

/// Who runs a command: who was asked for, or else the machine's user.
pub(crate) fn user(folder: &Folder, wanted: Option<String>) -> Result<Option<String>, Failure> {
    match wanted {
        Some(user) => Ok(Some(user)),
        None => Ok(folder.user()?),
    }
}

pub(crate) fn shell(args: ShellArgs) -> Result<ExitCode, Failure> {
    let ShellArgs { name, conditions, command } = args;
    let machines = Machines::open()?;
    let tty = terminal::is_interactive();
    let mut command = session::command(command, conditions, tty)?;
    let signals = Signals::watch()?;
    let folder = match machines.get(&name) {
        Err(MachineError::NoSuchMachine(_)) if name.as_str() == "default" => {
            create::make_default(&name, signals.clone())?
        }
        found => found?,
    };
    match folder.state()? {
        State::Running => {}
        State::Starting => folder.wait_ready()?,
        _ => start::start_one(&folder, signals.clone())?,
    }
    command.user = user(&folder, command.user)?;
    run(&folder, &command, tty, &signals)
}

fn run(
    folder: &Folder,
    command: &Command,
    tty: bool,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let (sender, receiver) = control().map_err(Failure::own("the host refused a pipe"))?;
    let ended =
        session::interact(signals, sender, tty, |io| folder.run(command, io, Some(&receiver)))?;
    session::status(ended, signals)
}
