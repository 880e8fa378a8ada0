//! `riad ssh-config`: what ssh(1), and all that goes through it, need to reach a machine.

use std::net::SocketAddr;
use std::process::ExitCode;

use riad_host::machines::{Folder, Machines, Name};
use riad_host::network::{Listen, Publish};

use crate::args::OneArgs;
use crate::report::{Failure, show};

/// Where ssh's server listens in the guest.
const SSH: u16 = 22;

pub(crate) fn ssh_config(args: OneArgs) -> Result<ExitCode, Failure> {
    let folder = Machines::open()?.get(&args.name)?;
    // Whom the keys were given to: where there is no user, root.
    let user = folder.user()?.unwrap_or_else(|| "root".to_owned());
    show(&section(&args.name, &user, forward(&folder)?));
    Ok(ExitCode::SUCCESS)
}

/// The way to the machine's port 22: one that is there, or a new one, which is kept.
fn forward(folder: &Folder) -> Result<SocketAddr, Failure> {
    let to_ssh = |publish: &Publish| match &publish.forward().listen {
        Listen::Tcp(at) if publish.forward().port == SSH && at.port() != 0 => Some(*at),
        _ => None,
    };
    if let Some(at) = folder.forwards()?.iter().find_map(to_ssh) {
        return Ok(at);
    }
    // A machine that is off is given a port when it starts, which nobody could know now.
    riad_host::process::Connection::open(folder)?;
    let added = folder.add_forward(&Publish::tcp(0, SSH))?;
    to_ssh(&added).ok_or_else(|| Failure::Own("the forward has no port".to_owned()))
}

/// A section of ssh_config(5). The machine's keys were made in it, and nobody has vouched for them: the
/// way there is this computer's loopback, on which nobody else can be.
fn section(name: &Name, user: &str, at: SocketAddr) -> String {
    let address = match at.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        ip if ip.is_unspecified() => "::1".to_owned(),
        ip => ip.to_string(),
    };
    let port = at.port();
    format!(
        "Host {name}\n  HostName {address}\n  Port {port}\n  User {user}\n  StrictHostKeyChecking no\n  \
         UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
    )
}

#[cfg(test)]
#[path = "ssh_config_test.rs"]
mod tests;
