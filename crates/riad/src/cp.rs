//! `riad cp`: files into a machine, and out of it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use riad_host::copy::{self, Copied};
use riad_host::machines::{Machines, Name, State};
use riad_host::{Size, printable};

use crate::args::CpArgs;
use crate::exec;
use crate::report::Failure;
use crate::signals::Signals;
use crate::status::Status;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Standard input or output.
    Stream,
    /// A path here.
    Here(PathBuf),
    /// A path in a machine.
    There(Name, OsString),
}

pub(crate) fn cp(args: CpArgs) -> Result<ExitCode, Failure> {
    let CpArgs { user, paths } = args;
    let mut ends = paths.iter().map(|path| end(path)).collect::<Result<Vec<_>, _>>()?;
    let Some(target) = ends.pop() else {
        return Err(Failure::Own("cp needs something to copy, and where to".to_owned()));
    };
    let signals = Signals::watch()?;
    let machines = Machines::open()?;
    match target {
        End::There(name, path) => {
            let guest = ready(&machines, &name, user)?;
            into(&guest, &ends, &path, signals)?;
        }
        End::Here(path) => {
            for end in &ends {
                let (name, source) = there(end)?;
                let guest = ready(&machines, name, user.clone())?;
                let status = Status::new(signals.clone(), "", false);
                let copied = copy::copy_out(&guest, source, &path, &mut |n| tell(&status, n));
                drop(status);
                say_what_is_left_out(&copied?);
            }
        }
        End::Stream => {
            for end in &ends {
                let (name, source) = there(end)?;
                copy::copy_stream_out(
                    &ready(&machines, name, user.clone())?,
                    source,
                    &io::stdout(),
                )?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn into(
    guest: &copy::Guest,
    ends: &[End],
    target: &OsStr,
    signals: Signals,
) -> Result<(), Failure> {
    if ends == [End::Stream] {
        return Ok(copy::copy_stream_in(guest, &io::stdin(), target)?);
    }
    let here = |end: &End| {
        match end {
        End::Here(path) => Ok(path.clone()),
        End::Stream => Err(Failure::Own("standard input is copied alone: riad cp - NAME:FILE".into())),
        End::There(..) => Err(Failure::Own(
            "cp does not copy between machines: copy to this computer first, or `riad exec ONE -- tar c \
             PATH | riad exec OTHER -- tar x`"
                .into(),
        )),
    }
    };
    let sources = ends.iter().map(here).collect::<Result<Vec<_>, _>>()?;
    let status = Status::new(signals, "", false);
    let copied = copy::copy_in(guest, &sources, target, &mut |count| tell(&status, count));
    drop(status);
    say_what_is_left_out(&copied?);
    Ok(())
}

fn tell(status: &Status, count: u64) {
    status.show(&format!("copying, {}", Size(count)));
}

fn say_what_is_left_out(copied: &Copied) {
    for what in &copied.left_out {
        eprintln!("riad: warning: left out: {}", printable(what));
    }
}

/// A machine in which commands can be run.
fn ready(machines: &Machines, name: &Name, user: Option<String>) -> Result<copy::Guest, Failure> {
    let folder = machines.get(name)?;
    if folder.state()? == State::Starting {
        folder.wait_ready()?;
    }
    let user = exec::user(&folder, user)?;
    Ok(copy::Guest { folder, user })
}

fn there(end: &End) -> Result<(&Name, &OsStr), Failure> {
    match end {
        End::There(name, path) => Ok((name, path)),
        End::Here(_) | End::Stream => Err(Failure::Own(
            "one side of cp is in a machine: write NAME:PATH for it; `riad ls` lists the machines"
                .into(),
        )),
    }
}

/// What an argument means: `NAME:PATH` is in a machine, but `./NAME:PATH` is not.
fn end(word: &OsStr) -> Result<End, Failure> {
    let bytes = word.as_bytes();
    if bytes == b"-" {
        return Ok(End::Stream);
    }
    let colon = bytes.iter().position(|byte| *byte == b':' || *byte == b'/');
    let Some((name, path)) = colon.filter(|at| bytes[*at] == b':').map(|at| bytes.split_at(at))
    else {
        return Ok(End::Here(Path::new(word).to_owned()));
    };
    let name = String::from_utf8_lossy(name).parse()?;
    // No path is the user's home, where commands begin.
    let path = path.get(1..).filter(|path| !path.is_empty()).unwrap_or(b".");
    Ok(End::There(name, OsStr::from_bytes(path).to_owned()))
}

#[cfg(test)]
#[path = "cp_test.rs"]
mod tests;
