//! `riad net create|ls|info|attach|detach|rm`: networks, and who is on them.

use std::net::Ipv4Addr;
use std::str::FromStr;

use clap::Args;
use riad_host::machines::{MachineError, Machines, Name, NetInfo, NetMode, NetName, Subnet};
use serde::Serialize;

use crate::args::Format;
use crate::image::ago;
use crate::report::{Failure, columns, show_as, when};

/// Make a network that machines can be on
///
/// Machines on it reach each other by name: `web`, or `web.lab.riad.internal` on the network lab. Each
/// has an address there that stays its own, on a network card of its own for each network.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  riad net create lab\n  riad create web --network lab\n  riad create db --network lab\n  riad start web db\n  riad exec web -- ping -c 1 db"
)]
pub(crate) struct NetCreateArgs {
    /// Its name, which is part of its machines' names: at most 32 lower-case letters, digits and '-'
    pub(crate) network: NetName,

    /// Its addresses, such as 10.77.0.0/24 [default: the first of 10.77.0.0/24, 10.77.1.0/24, ... that
    /// is free]
    #[arg(long, value_parser = Subnet::from_str)]
    pub(crate) subnet: Option<Subnet>,

    /// What machines on it reach besides each other: nat (what they would reach without it), isolated
    /// (nothing) or host-only (this computer's services that --net user,host=PORT opens to them)
    #[arg(long, value_parser = NetMode::from_str, default_value = "nat")]
    pub(crate) mode: NetMode,
}

/// Put a machine on a network: at once if it runs, and from its next start on
#[derive(Debug, Args)]
pub(crate) struct NetAttachArgs {
    /// The network's name
    pub(crate) network: NetName,

    /// The machine's name
    pub(crate) name: Name,

    /// The machine's address there [default: the first that is free]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<Ipv4Addr>,
}

/// Take a machine off a network: at once if it runs, and from its next start on
#[derive(Debug, Args)]
pub(crate) struct NetDetachArgs {
    /// The network's name
    pub(crate) network: NetName,

    /// The machine's name
    pub(crate) name: Name,
}

/// Remove networks that no machine is on
#[derive(Debug, Args)]
pub(crate) struct NetRmArgs {
    /// Their names
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<NetName>,
}

/// A network as a program is told of it; keys are only ever added. What is not known is null.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    id: Option<String>,
    subnet: Option<String>,
    mode: Option<NetMode>,
    /// Seconds since the Unix epoch.
    created: Option<u64>,
    members: Vec<MemberRow>,
    /// Machines that are cut apart.
    partitions: Vec<[String; 2]>,
    directory: Option<String>,
    /// Why it cannot be understood.
    damaged: Option<String>,
}

/// A machine on a network.
#[derive(Debug, Serialize)]
struct MemberRow {
    machine: String,
    address: Ipv4Addr,
    /// Whether it runs on the network. One that runs and was detached is there until it stops.
    running: bool,
    /// Whether it is on the network at its next start.
    attached: bool,
    /// Frames, while it runs: from it, to it, to it and not taken, and from it and not its to send.
    sent: Option<u64>,
    received: Option<u64>,
    lost: Option<u64>,
    refused: Option<u64>,
}

impl Row {
    fn new(name: &NetName, info: Result<NetInfo, MachineError>) -> Self {
        let (running, damaged) = match &info {
            Ok(info) => match info.running() {
                Ok(running) => (running.unwrap_or_default(), None),
                Err(error) => (Default::default(), Some(error.to_string())),
            },
            Err(error) => (Default::default(), Some(error.to_string())),
        };
        let info = info.ok();
        let mut members: Vec<MemberRow> = Vec::new();
        for (machine, address) in info.iter().flat_map(|info| &info.members) {
            members.push(MemberRow {
                machine: machine.to_string(),
                address: *address,
                running: false,
                attached: true,
                sent: None,
                received: None,
                lost: None,
                refused: None,
            });
        }
        for standing in running.members {
            let counts = standing.counts;
            let row = MemberRow {
                machine: standing.name,
                address: standing.address,
                running: true,
                attached: false,
                sent: Some(counts.sent),
                received: Some(counts.received),
                lost: Some(counts.lost),
                refused: Some(counts.refused),
            };
            let known = members.iter_mut().find(|known| known.machine == row.machine);
            match known {
                Some(known) => *known = MemberRow { attached: true, ..row },
                None => members.push(row),
            }
        }
        Self {
            name: name.to_string(),
            id: info.as_ref().map(|info| info.id.clone()),
            subnet: info.as_ref().map(|info| info.subnet.to_string()),
            mode: info.as_ref().map(|info| info.mode),
            created: info.as_ref().map(|info| info.created),
            members,
            partitions: running.cuts.into_iter().map(|cut| [cut.0, cut.1]).collect(),
            directory: info.as_ref().map(|info| info.directory.display().to_string()),
            damaged,
        }
    }

    fn mode(&self) -> String {
        self.mode.map_or("-".to_owned(), |mode| mode.to_string())
    }

    fn machines(&self) -> String {
        if let Some(why) = &self.damaged {
            return format!("damaged: {why}");
        }
        let names: Vec<_> = self.members.iter().map(|member| member.machine.as_str()).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(", ") }
    }
}

pub(super) fn create(args: &NetCreateArgs) -> Result<(), Failure> {
    let NetCreateArgs { network, subnet, mode } = args;
    let made = Machines::open()?.create_network(network, *subnet, *mode)?;
    eprintln!(
        "riad: network {network} is made, {}, {mode}: `riad net attach {network} NAME`",
        made.subnet
    );
    Ok(())
}

pub(super) fn ls(format: Option<Format>) -> Result<(), Failure> {
    let networks = Machines::open()?.networks()?;
    let rows: Vec<_> = networks.into_iter().map(|(name, info)| Row::new(&name, info)).collect();
    show_as(&rows, format, || {
        if rows.is_empty() {
            return "There are no networks yet; `riad net create NAME` makes one.\n".to_owned();
        }
        let head = ["NAME", "SUBNET", "MODE", "MACHINES"].map(str::to_owned);
        let line = |row: &Row| {
            let subnet = row.subnet.clone().unwrap_or_else(|| "-".to_owned());
            [row.name.clone(), subnet, row.mode(), row.machines()]
        };
        columns(&[head].into_iter().chain(rows.iter().map(line)).collect::<Vec<_>>())
    })
}

pub(super) fn info(name: &NetName, format: Option<Format>) -> Result<(), Failure> {
    let row = Row::new(name, Ok(Machines::open()?.network(name)?));
    show_as(&row, format, || page(&row))
}

fn page(row: &Row) -> String {
    let mut lines = vec![
        ["name".to_owned(), row.name.clone()],
        ["subnet".to_owned(), row.subnet.clone().unwrap_or_default()],
        ["mode".to_owned(), row.mode()],
        ["created".to_owned(), row.created.map(ago).unwrap_or_default()],
        ["directory".to_owned(), row.directory.clone().unwrap_or_default()],
    ];
    lines.extend(row.damaged.clone().map(|why| ["damaged".to_owned(), why]));
    for member in &row.members {
        let state = match (member.running, member.attached) {
            (true, true) => "runs",
            (true, false) => "runs, and was detached",
            (false, _) => "does not run",
        };
        let mut text = format!("{} {}, {state}", member.address, member.machine);
        let counts = (member.sent, member.received, member.lost, member.refused);
        if let (Some(sent), Some(received), Some(lost), Some(refused)) = counts {
            text.push_str(&format!(", {sent} frames sent, {received} received"));
            if lost + refused > 0 {
                text.push_str(&format!(", {lost} lost, {refused} refused"));
            }
        }
        lines.push(["machine".to_owned(), text]);
    }
    for [one, other] in &row.partitions {
        lines.push(["cut apart".to_owned(), format!("{one} and {other}")]);
    }
    columns(&lines)
}

pub(super) fn attach(args: &NetAttachArgs) -> Result<(), Failure> {
    let NetAttachArgs { network, name, ip } = args;
    let program =
        std::env::current_exe().map_err(Failure::own("cannot find riad's own program"))?;
    let (folder, address, counts) =
        Machines::open()?.join_network(network, name, *ip, program.as_os_str())?;
    let when = when(&folder, counts)?;
    eprintln!("riad: machine {name} is on network {network} as {address} {when}");
    Ok(())
}

pub(super) fn detach(args: &NetDetachArgs) -> Result<(), Failure> {
    let NetDetachArgs { network, name } = args;
    let (folder, counts) = Machines::open()?.leave_network(network, name)?;
    match folder.is_alive()? {
        true => {
            let when = when(&folder, counts)?;
            eprintln!("riad: machine {name} is off network {network} {when}");
        }
        false => eprintln!("riad: machine {name} is off network {network}"),
    }
    Ok(())
}

pub(super) fn rm(args: &NetRmArgs) -> Result<(), Failure> {
    let machines = Machines::open()?;
    for network in &args.networks {
        machines.remove_network(network)?;
        eprintln!("riad: network {network} is removed");
    }
    Ok(())
}

/// That all of these are there, before anything is made that is to be on them.
pub(crate) fn check(machines: &Machines, networks: &[NetName]) -> Result<(), Failure> {
    for network in networks {
        machines.network(network)?;
    }
    Ok(())
}
