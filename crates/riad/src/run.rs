//! `riad run`: a command in a fresh machine that is thrown away afterwards.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Instant;

use riad_host::{
    Command, Error, ImageOptions, Machine, MachineOptions, SessionIo, Timings, TtyRequest,
    default_cpus,
};

use crate::args::{Format, Hardware, RunArgs};
use crate::report::{Failure, table};
use crate::signals::{self, Doing, Signals};
use crate::status::Status;
use crate::terminal;

/// The terminal that guests are told of when riad is not told of any.
const TERM: &str = "xterm";

pub(crate) fn run(
    args: RunArgs,
    format: Option<Format>,
    began: Instant,
) -> Result<ExitCode, Failure> {
    let RunArgs {
        image,
        hardware: Hardware { cpus, memory, engine, code_cache },
        env,
        workdir,
        user,
        console,
        timings,
        kernel,
        initrd,
        append,
        sources,
        command,
    } = args;
    let env = environment(&env, |name| std::env::var_os(name))?;
    let tty = terminal::is_interactive();
    let signals = Signals::watch().map_err(Failure::own("cannot watch for signals"))?;
    let name = image.to_string();
    let options = MachineOptions {
        image: ImageOptions { engine, ..sources.options(image) },
        cpus: cpus.unwrap_or_else(|| default_cpus().min(engine.most_cpus())),
        memory: memory.0,
        engine,
        code_cache: code_cache.0,
        kernel,
        initrd,
        append,
        console: console.then(|| Box::new(io::stderr()) as _),
    };

    let mut status = Status::new(signals.clone(), &name, console);
    let started = Machine::start(options, began, &mut status);
    status.clear();
    let mut machine = started?;

    let command = Command { argv: command, env, workdir, user, tty: tty.then(tty_request) };
    signals.now(Doing::Session { control: machine.control(), tty });
    let raw = match tty {
        true => Some(terminal::enter_raw().map_err(Failure::own("cannot use the terminal"))?),
        false => None,
    };
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let io =
        SessionIo { stdin: Some(stdin.as_fd()), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
    let ended = machine.run(&command, io);
    drop(raw);
    signals.now(Doing::Waiting);

    let measured = machine.finish();
    if let Some(wanted) = timings {
        print_timings(&measured, wanted.or(format));
    }
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

/// On standard error: standard output is the command's.
fn print_timings(timings: &Timings, format: Option<Format>) {
    match format {
        Some(Format::Json) => {
            if let Ok(json) = serde_json::to_string(timings) {
                eprintln!("{json}");
            }
        }
        Some(Format::Table) | None => eprint!("{}", table(timings)),
    }
}

#[cfg(test)]
#[path = "run_test.rs"]
mod tests;
