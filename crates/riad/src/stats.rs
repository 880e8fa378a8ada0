//! `riad stats`: what running machines use. `sample.rs` looks at them, `usage.rs` says what two looks
//! tell.

use std::process::ExitCode;
use std::thread;

use riad_host::machines::{Folder, MachineError, Machines, Name};

use crate::args::{Format, StatsArgs};
use crate::report::{Failure, columns, one_of_many, show, show_as};
use crate::signals::Signals;

mod sample;
mod usage;

pub(crate) use sample::{Sample, samples};
pub(crate) use usage::{HEAD, Usage};

pub(crate) fn stats(args: StatsArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let StatsArgs { names, watch, interval } = args;
    let machines = Machines::open()?;
    // What is named has to be there, and has to run.
    let named = names.iter().map(|name| running(&machines, name)).collect::<Result<Vec<_>, _>>()?;
    let _signals = Signals::watch()?;
    let mut before = samples(&chosen(&machines, &named)?);
    loop {
        thread::sleep(interval);
        let now = samples(&chosen(&machines, &named)?);
        let usages = Usage::between(&before, &now);
        if !watch {
            // Went off since.
            if let (Some(folder), true) = (named.first(), usages.is_empty()) {
                return Err(gone(folder)?.into());
            }
            show_as(&usages, format, || table(&usages))?;
            return Ok(ExitCode::SUCCESS);
        }
        show(&one_of_many(&usages, format, || table(&usages) + "\n")?);
        if let (Some(folder), true) = (named.first(), now.is_empty()) {
            return Err(gone(folder)?.into());
        }
        before = now;
    }
}

/// The machines to look at: those that were named, or all.
fn chosen(machines: &Machines, named: &[Folder]) -> Result<Vec<Folder>, Failure> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    all(machines)
}

/// All machines that there are.
pub(crate) fn all(machines: &Machines) -> Result<Vec<Folder>, Failure> {
    Ok(machines.all()?.collect::<Result<_, _>>()?)
}

fn running(machines: &Machines, name: &Name) -> Result<Folder, Failure> {
    let folder = machines.get(name)?;
    match folder.is_alive()? {
        true => Ok(folder),
        false => Err(gone(&folder)?.into()),
    }
}

fn gone(folder: &Folder) -> Result<MachineError, MachineError> {
    Ok(MachineError::NotRunning { name: folder.name().clone(), state: folder.state()? })
}

fn table(usages: &[Usage]) -> String {
    if usages.is_empty() {
        return "No machine runs; `riad start NAME` starts one.\n".to_owned();
    }
    let lines = usages.iter().map(Usage::line);
    columns(&[HEAD.map(str::to_owned)].into_iter().chain(lines).collect::<Vec<_>>())
}
