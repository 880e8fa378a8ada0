//! Machines on a network cut apart, and joined again: the part of `riad net fault` that is about networks
//! between machines.

use clap::Args;
use riad_host::machines::{Machines, Name, NetName};

use crate::report::Failure;

/// What else there is to be done to a network stands in `fault.rs`, and is done to a machine's.
const OF_MACHINES: [&str; 6] = ["delay", "jitter", "loss", "rate", "cut", "clear"];

#[derive(Debug, Args)]
pub(super) struct PartitionArgs {
    /// Cut these machines on a network apart, each from each; may be given several times
    #[arg(
        long,
        value_name = "NAME,NAME",
        value_parser = machines,
        conflicts_with_all = OF_MACHINES
    )]
    partition: Vec<Group>,

    /// Join all machines on a network again, before any are cut apart
    #[arg(long, conflicts_with_all = OF_MACHINES)]
    heal: bool,
}

impl PartitionArgs {
    pub(super) fn is_some(&self) -> bool {
        self.heal || !self.partition.is_empty()
    }
}

/// Machines that are cut apart.
#[derive(Debug, Clone)]
struct Group(Vec<Name>);

fn machines(text: &str) -> Result<Group, String> {
    let names: Result<Vec<Name>, _> = text.split(',').map(str::parse).collect();
    let mut names = names.map_err(|error| error.to_string())?;
    names.sort();
    names.dedup();
    match names.len() {
        0 | 1 => Err("write two machines or more, as in web,db".to_owned()),
        _ => Ok(Group(names)),
    }
}

pub(super) fn fault(network: &Name, args: &PartitionArgs) -> Result<(), Failure> {
    let PartitionArgs { partition, heal } = args;
    let network: NetName = network.as_str().parse()?;
    let network = Machines::open()?.network(&network)?;
    if *heal {
        network.heal()?;
        eprintln!("riad: all machines on network {} reach each other", network.name);
    }
    for Group(names) in partition {
        network.partition(names)?;
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        eprintln!(
            "riad: {names} are cut apart on network {}: `riad net fault {0} --heal` joins them again",
            network.name
        );
    }
    Ok(())
}
