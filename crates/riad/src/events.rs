//! `riad events`: what happened to machines.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use riad_host::journal::{Entry, Reader, Wanted};
use riad_host::machines::{MachineError, Machines};
use riad_host::printable;

use crate::args::{EventsArgs, Format};
use crate::report::{Failure, one_of_many};
use crate::signals::Signals;

/// How often it is looked for what is new.
const AGAIN: Duration = Duration::from_millis(200);

pub(crate) fn events(args: EventsArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let EventsArgs { name, follow, since } = args;
    let machines = Machines::open()?;
    let _signals = Signals::watch()?;
    let wanted = Wanted { machine: name.clone(), since: since.unwrap_or(0) };
    let mut reader = Reader::new(machines.clone(), wanted);
    let mut entries = reader.read()?;
    // A machine of which nothing is known, not even that it was there.
    if let (Some(name), true) = (&name, entries.is_empty())
        && let Err(error @ MachineError::NoSuchMachine(_)) = machines.get(name)
    {
        return Err(error.into());
    }
    if follow && since.is_none() {
        entries.clear();
    }
    loop {
        for entry in &entries {
            let shown = one_of_many(entry, format, || line(entry))?;
            let mut stdout = io::stdout();
            if stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush()).is_err() {
                // A reader that has seen enough is no failure.
                return Ok(ExitCode::SUCCESS);
            }
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(AGAIN);
        entries = reader.read()?;
    }
}

/// An entry as people read it. The files are the user's, but what is in them may be a guest's.
fn line(entry: &Entry) -> String {
    let Entry { time, machine, message, by, .. } = entry;
    let [time, machine, message] = [time, machine, message].map(|text| printable(text));
    // To the second.
    let time = time.get(..19).map_or(time.clone(), |time| format!("{time}Z"));
    match by {
        Some(by) => format!("{time}  {machine:12}  {message} ({})\n", printable(by)),
        None => format!("{time}  {machine:12}  {message}\n"),
    }
}

#[cfg(test)]
#[path = "events_test.rs"]
mod tests;
