//! `riad rename` and `riad clone`.

use std::process::ExitCode;

use riad_host::machines::Machines;

use crate::args::TwoArgs;
use crate::report::Failure;

pub(crate) fn rename(args: TwoArgs) -> Result<ExitCode, Failure> {
    let TwoArgs { name, new } = args;
    Machines::open()?.rename(&name, &new)?;
    eprintln!("riad: machine {name} is {new} now");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn clone(args: TwoArgs) -> Result<ExitCode, Failure> {
    let TwoArgs { name, new } = args;
    Machines::open()?.clone_machine(&name, &new)?;
    eprintln!("riad: machine {new} is a copy of {name}: `riad start {new}`");
    Ok(ExitCode::SUCCESS)
}
