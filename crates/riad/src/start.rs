//! `riad start`: a machine's process, apart from this one.

use std::process::{Command, ExitCode};

use riad_host::machines::{Folder, Machines, RunState};
use riad_host::printable;
use riad_host::process::{self, Started};

use crate::args::StartArgs;
use crate::provision;
use crate::report::Failure;
use crate::signals::Signals;
use crate::status::Status;

pub(crate) fn start(args: StartArgs) -> Result<ExitCode, Failure> {
    let machines = Machines::open()?;
    let signals = Signals::watch()?;
    for name in &args.names {
        start_one(&machines.get(name)?, signals.clone())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a machine, and says so.
pub(crate) fn start_one(folder: &Folder, signals: Signals) -> Result<(), Failure> {
    let name = folder.name();
    let program =
        std::env::current_exe().map_err(Failure::own("cannot find riad's own program"))?;
    let mut command = Command::new(program);
    command.arg("vm").arg(folder.path());
    // Those scripts run that have not, as at a first start.
    let provisions = folder.provisioning()?.next().is_some();
    let said = provision::said(folder);
    let mut status = Status::new(signals.clone(), "", false);
    let mut show = |state: &RunState| status.show(&format!("{name}: {}", state.stage));
    let started = process::start(folder, command, &mut show);
    status.clear();
    match started? {
        Started::Already => {
            eprintln!("riad: machine {name} runs already");
            return Ok(());
        }
        Started::Now(state) => {
            let ms: f64 = state.stages.iter().map(|stage| stage.ms).sum();
            eprintln!("riad: machine {name} runs; its agent answered after {:.1} s", ms / 1e3);
            for warning in &state.warnings {
                eprintln!("riad: warning: machine {name}: {}", printable(warning));
            }
        }
    }
    if provisions {
        provision::follow(folder, said, signals)?;
        return provision::check(folder, &[]);
    }
    // It was told when it happened that the machine is not what it should be; it is not new.
    if let Some(sentence) = provision::complaint(folder, &[])? {
        eprintln!("riad: warning: {sentence}");
    }
    Ok(())
}
