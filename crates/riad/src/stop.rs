//! `riad stop` and `riad restart`.

use std::process::ExitCode;
use std::time::Duration;

use riad_host::machines::{Folder, MachineError, Machines};
use riad_host::process::Connection;

use crate::args::StopArgs;
use crate::report::Failure;
use crate::signals::Signals;
use crate::start::start_one;
use crate::status::Status;

pub(crate) fn stop(args: StopArgs) -> Result<ExitCode, Failure> {
    let StopArgs { names, force, timeout } = args;
    let machines = Machines::open()?;
    let signals = Signals::watch()?;
    for name in &names {
        let folder = machines.get(name)?;
        match stop_one(&folder, force, timeout, "riad stop", signals.clone())? {
            true => eprintln!("riad: machine {name} is off"),
            false => eprintln!("riad: machine {name} is off already"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn restart(args: StopArgs) -> Result<ExitCode, Failure> {
    let StopArgs { names, force, timeout } = args;
    let machines = Machines::open()?;
    let signals = Signals::watch()?;
    for name in &names {
        let folder = machines.get(name)?;
        stop_one(&folder, force, timeout, "riad restart", signals.clone())?;
        start_one(&folder, signals.clone())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops a machine, as `by` wants it. Returns whether it was on.
pub(crate) fn stop_one(
    folder: &Folder,
    force: bool,
    timeout: u64,
    by: &str,
    signals: Signals,
) -> Result<bool, Failure> {
    let connection = match Connection::open(folder) {
        Ok(connection) => connection,
        Err(MachineError::NotRunning { state, .. }) if !state.is_alive() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut status = Status::new(signals, "", false);
    status.show(&format!("{}: stopping", folder.name()));
    let stopped = connection.stop(force, Duration::from_secs(timeout), by);
    status.clear();
    stopped?;
    Ok(true)
}
