//! `riad delete`: a machine, and everything on its disk.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use riad_host::machines::Machines;

use crate::args::DeleteArgs;
use crate::report::Failure;
use crate::signals::Signals;
use crate::stop::stop_one;

/// How long a machine whose plug is pulled may take to be off, in seconds.
const FORCED: u64 = 30;

pub(crate) fn delete(args: DeleteArgs) -> Result<ExitCode, Failure> {
    let DeleteArgs { names, yes, force } = args;
    let machines = Machines::open()?;
    let signals = Signals::watch()?;
    for name in &names {
        let folder = machines.get(name)?;
        if !yes && !confirmed("machine", name, "everything on its disk", "deleted")? {
            eprintln!("riad: machine {name} is kept");
            continue;
        }
        // What is protected is not switched off first.
        if force && !folder.config().is_ok_and(|config| config.protected) {
            stop_one(&folder, true, FORCED, "riad delete", signals.clone())?;
        }
        let disks = folder.config().map(|config| config.disks).unwrap_or_default();
        machines.delete(name)?;
        eprintln!("riad: machine {name} is deleted");
        if !disks.is_empty() {
            let names: Vec<_> = disks.into_iter().map(|disk| disk.name).collect();
            eprintln!("riad: what was attached to it stays: {}", names.join(", "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks whether a `kind` of thing called `name` is to be `gone` with what it has.
pub(crate) fn confirmed(
    kind: &str,
    name: &impl Display,
    with: &str,
    gone: &str,
) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Own(format!(
            "{kind} '{name}' is not {gone} without being asked about it: there is no terminal to \
             ask on, so say --yes"
        )));
    }
    eprint!("riad: is {kind} {name} to be {gone}, with {with}? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Failure::own("cannot read the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
