//! `riad net fault`: what goes wrong between the machines on a network.

use clap::Args;
use riad_host::machines::{Machines, Name, NetName};

use crate::report::Failure;

/// Cut machines on a network apart, or join them again, while they run
///
/// Frames between those that are cut apart are lost, as if a cable were; their names are found as
/// before. It lasts until --heal, or until the last machine on the network stops.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  riad net fault lab --partition web,db\n  riad net fault lab --heal"
)]
pub(crate) struct NetFaultArgs {
    /// The network's name
    pub(crate) network: NetName,

    /// Cut these machines apart, each from each; may be given several times
    #[arg(long, value_name = "NAME,NAME", value_parser = machines, required_unless_present = "heal")]
    pub(crate) partition: Vec<Group>,

    /// Join all again, before any are cut apart
    #[arg(long)]
    pub(crate) heal: bool,
}

/// Machines that are cut apart.
#[derive(Debug, Clone)]
pub(crate) struct Group(Vec<Name>);

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

pub(super) fn fault(args: &NetFaultArgs) -> Result<(), Failure> {
    let NetFaultArgs { network, partition, heal } = args;
    let network = Machines::open()?.network(network)?;
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
