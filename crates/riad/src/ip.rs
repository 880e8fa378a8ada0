//! `riad ip`: the addresses that a machine has on its network.

use std::process::ExitCode;

use riad_host::machines::{Folder, Machines};
use riad_host::{Command, ExitStatus, SessionIo};

use crate::args::{Format, OneArgs};
use crate::report::{Failure, show_as};

/// What is read of an answer, bytes.
const ANSWER: u64 = 1 << 20;

pub(crate) fn ip(args: OneArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let folder = Machines::open()?.get(&args.name)?;
    let addresses = addresses(&folder)?;
    show_as(&addresses, format, || addresses.iter().map(|a| format!("{a}\n")).collect())?;
    if addresses.is_empty() {
        eprintln!("riad: machine '{}' has no address", args.name);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The machine's addresses: those that it was given, or else those that it says it has.
pub(crate) fn addresses(folder: &Folder) -> Result<Vec<String>, Failure> {
    let status = riad_host::process::Connection::open(folder)?.network()?;
    // A card of no network that gives addresses: its guest knows.
    let is_known = !status.addresses.is_empty() || status.mac.is_none();
    let named = status.networks.into_iter().map(|network| network.address);
    let given: Vec<_> = status.addresses.into_iter().chain(named).collect();
    if is_known {
        let bare = |address: String| address.split('/').next().unwrap_or_default().to_owned();
        return Ok(given.into_iter().map(bare).collect());
    }
    let text = ask(folder, &["hostname", "-I"])?.unwrap_or_default();
    Ok(text.split_whitespace().filter(|a| is_address(a)).map(str::to_owned).collect())
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

/// Whether something in the machine takes TCP connections at a port, where its network reaches it.
pub(crate) fn listens(folder: &Folder, port: u16) -> Result<bool, Failure> {
    let files = ["cat", "/proc/net/tcp", "/proc/net/tcp6"];
    let text = ask(folder, &files)?.unwrap_or_default();
    Ok(text.lines().any(|line| is_listening(line, port)))
}

/// A line of `/proc/net/tcp` (proc_net(5)): number, local address and port in hexadecimal, peer, and
/// state, of which 0A is LISTEN.
fn is_listening(line: &str, port: u16) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let (Some(local), _, Some("0A")) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    // Who listens on 127.0.0.0/8 or ::1 listens to the machine alone. Words are in the guest's byte
    // order, which is little-endian.
    let is_loopback = |address: &str| match address.len() {
        8 => address.ends_with("7F"),
        _ => address == "00000000000000000000000001000000",
    };
    local.split_once(':').is_some_and(|(address, text)| {
        u16::from_str_radix(text, 16) == Ok(port) && !is_loopback(address)
    })
}

/// What a command in the machine says; `None` when it fails.
fn ask(folder: &Folder, command: &[&str]) -> Result<Option<String>, Failure> {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    let (answer, writer) = std::io::pipe().map_err(Failure::own("cannot make a pipe"))?;
    let nowhere = std::fs::File::options().write(true).open("/dev/null");
    let nowhere = nowhere.map_err(Failure::own("cannot open /dev/null"))?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = answer.take(ANSWER).read_to_end(&mut text);
        text
    });
    let io = SessionIo { stdin: None, stdout: writer.as_fd(), stderr: nowhere.as_fd() };
    let ended = folder.run(&Command::new(command.iter().copied()), io, None);
    drop(writer);
    let text = reader.join().unwrap_or_default();
    // What there is of two files counts when one of them is missing.
    let heard = matches!(ended?, ExitStatus::Exited(0)) || !text.is_empty();
    Ok(heard.then(|| String::from_utf8_lossy(&text).into_owned()))
}

#[cfg(test)]
#[path = "ip_test.rs"]
mod tests;
