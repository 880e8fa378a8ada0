//! `riad net`: networks between machines, and what goes over machines' networks.

mod capture;
mod fault;
mod networks;
mod partition;
mod policy;

use std::process::ExitCode;

use clap::Subcommand;
use riad_host::machines::NetName;

pub(crate) use networks::check;
use networks::{NetAttachArgs, NetCreateArgs, NetDetachArgs, NetRmArgs};

use crate::args::Format;
use crate::report::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum NetVerb {
    Create(NetCreateArgs),
    /// List the networks that there are, and who is on them
    Ls,
    /// Say what a network is, and what goes on there
    Info {
        /// Its name
        network: NetName,
    },
    Attach(NetAttachArgs),
    Detach(NetDetachArgs),
    Rm(NetRmArgs),
    Policy(policy::PolicyArgs),
    Capture(capture::CaptureArgs),
    Fault(fault::FaultArgs),
}

pub(crate) fn net(verb: NetVerb, format: Option<Format>) -> Result<ExitCode, Failure> {
    match verb {
        NetVerb::Create(args) => networks::create(&args)?,
        NetVerb::Ls => networks::ls(format)?,
        NetVerb::Info { network } => networks::info(&network, format)?,
        NetVerb::Attach(args) => networks::attach(&args)?,
        NetVerb::Detach(args) => networks::detach(&args)?,
        NetVerb::Rm(args) => networks::rm(&args)?,
        NetVerb::Policy(args) => return policy::policy(args, format),
        NetVerb::Capture(args) => return capture::capture(args),
        NetVerb::Fault(args) => return fault::fault(args, format),
    }
    Ok(ExitCode::SUCCESS)
}
