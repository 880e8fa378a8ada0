//! `riad net fault`: cables that misbehave, for those who test what runs in machines.

use std::process::ExitCode;

use clap::Args;
use riad_host::machines::{Machines, Name};
use riad_host::network::{CableFaults, parse_loss, parse_rate, parse_time};

use super::partition::{self, PartitionArgs};
use crate::args::Format;
use crate::report::{Failure, show_as};

/// Have a machine's network misbehave, or a network between machines, or show how it does
///
/// What is asked for takes the place of what was before, at once, and ends with --clear, or when the
/// machine is off. All of it holds each way: a ping takes twice the delay. A frame of the machine's is
/// as large as its card lets it be; `ip link set eth0 mtu 1500` in it makes frames those of a wire, of
/// which so many are lost.
///
/// With --partition and --heal, NAME is a network that machines are on (`riad net create`): frames
/// between those that are cut apart are lost, their names are found as before. That lasts until --heal,
/// or until the last machine on the network stops.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad net fault dev --delay 50ms --jitter 10ms --loss 2%\n  riad net fault dev --rate 10mbit\n  riad net fault dev --cut\n  riad net fault dev --clear\n  riad net fault dev\n  riad net fault lab --partition web,db\n  riad net fault lab --heal"
)]
pub(crate) struct FaultArgs {
    /// The machine's name; with --partition or --heal, the network's
    name: Name,

    /// How long frames take, such as 50ms
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    delay: Option<u64>,

    /// How much longer some take, at most, such as 10ms; they keep their order
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    jitter: Option<u64>,

    /// How many are lost, such as 2%
    #[arg(long, value_name = "PERCENT", value_parser = parse_loss)]
    loss: Option<u32>,

    /// How much goes through in a second, such as 10mbit
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Option<u64>,

    /// Let nothing through
    #[arg(long)]
    cut: bool,

    /// Do nothing to frames any more
    #[arg(long, conflicts_with_all = ["delay", "jitter", "loss", "rate", "cut"])]
    clear: bool,

    #[command(flatten)]
    between: PartitionArgs,
}

pub(super) fn fault(args: FaultArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let FaultArgs { name, delay, jitter, loss, rate, cut, clear, between } = args;
    if between.is_some() {
        partition::fault(&name, &between)?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = Machines::open()?.get(&name)?;
    let is_change = clear
        || cut
        || [delay.is_some(), jitter.is_some(), loss.is_some(), rate.is_some()].contains(&true);
    if !is_change {
        let faults = folder.faults()?;
        show_as(&faults, format, || format!("{faults}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let faults = CableFaults {
        delay_us: delay.unwrap_or(0),
        jitter_us: jitter.unwrap_or(0),
        loss_ppm: loss.unwrap_or(0),
        rate_bits: rate.unwrap_or(0),
        cut,
    };
    folder.set_faults(&faults)?;
    eprintln!("riad: faults of the network of {name}: {faults}");
    Ok(ExitCode::SUCCESS)
}
