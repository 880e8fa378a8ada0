//! A command in a guest, on this terminal or these pipes: what `run`, `exec` and `shell` share.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use riad_host::{Command, ControlSender, Error, ExitStatus, SessionIo, TtyRequest};

use crate::args::Conditions;
use crate::report::Failure;
use crate::signals::{self, Doing, Signals};
use crate::terminal;

/// The terminal that guests are told of when riad is not told of any.
const TERM: &str = "xterm";

/// A command as it was asked for.
pub(crate) fn command(
    argv: Vec<OsString>,
    conditions: Conditions,
    tty: bool,
) -> Result<Command, Failure> {
    let Conditions { env, workdir, user } = conditions;
    let env = environment(&env, |name| std::env::var_os(name))?;
    Ok(Command { argv, env, workdir, user, tty: tty.then(tty_request) })
}

/// Runs a session on the standard streams, and has signals go to it.
pub(crate) fn interact<T>(
    signals: &Signals,
    control: ControlSender,
    tty: bool,
    session: impl FnOnce(SessionIo<'_>) -> T,
) -> Result<T, Failure> {
    signals.now(Doing::Session { control, tty });
    let raw = terminal::raw_if(tty)?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let io =
        SessionIo { stdin: Some(stdin.as_fd()), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
    let ended = session(io);
    drop(raw);
    signals.now(Doing::Waiting);
    Ok(ended)
}

/// The status to exit with for a command's end.
pub(crate) fn status(
    ended: Result<ExitStatus, Error>,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    match (ended, signals.given_up()) {
        (Err(Error::Aborted), Some(signal)) => Err(Failure::Signal(signals::status(signal))),
        (ended, _) => Ok(ExitCode::from(ended?.shell_code())),
    }
}

fn tty_request() -> TtyRequest {
    let (rows, cols) = terminal::size();
    let term = std::env::var("TERM").ok().filter(|term| !term.is_empty());
    TtyRequest { rows, cols, term: term.unwrap_or_else(|| TERM.to_owned()) }
}

/// `NAME=VALUE` sets a variable; `NAME` takes it from here, if it is set here.
fn environment(
    words: &[OsString],
    here: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Vec<(OsString, OsString)>, Failure> {
    let mut variables = Vec::new();
    for word in words {
        let bytes = word.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=');
        let (name, value) = match equals {
            Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
            None => (bytes, here(word)),
        };
        if name.is_empty() {
            let word = word.to_string_lossy();
            return Err(Failure::Own(format!(
                "--env '{word}' has no name: write NAME=VALUE or NAME"
            )));
        }
        variables.extend(value.map(|value| (OsStr::from_bytes(name).to_owned(), value)));
    }
    Ok(variables)
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
