//! `riad net`: what goes over machines' networks.

mod capture;
mod fault;
mod policy;

use std::process::ExitCode;

use clap::Subcommand;

use crate::args::Format;
use crate::report::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum NetVerb {
    Policy(policy::PolicyArgs),
    Capture(capture::CaptureArgs),
    Fault(fault::FaultArgs),
}

pub(crate) fn net(verb: NetVerb, format: Option<Format>) -> Result<ExitCode, Failure> {
    match verb {
        NetVerb::Policy(args) => policy::policy(args, format),
        NetVerb::Capture(args) => capture::capture(args),
        NetVerb::Fault(args) => fault::fault(args, format),
    }
}
