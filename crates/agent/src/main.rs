//! `riad-agent`: the program inside a Riad guest.
//!
//! As process 1 it is the machine's init; otherwise it is a service:
//!
//! ```text
//! riad-agent serve                           on the machine's vsock
//! riad-agent serve --unix SESSIONS EVENTS    on two Unix sockets, for trying it without a machine
//! riad-agent --version
//! ```

mod guest;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use guest::endpoint::Endpoint;
use guest::server::Server;
use guest::{boot_nanos, init, shutdown, sys};
use riad_agent::protocol::{BootTimes, VERSION};

const USAGE: &str = "usage: riad-agent serve [--unix SESSIONS EVENTS] | --version";

fn main() -> ExitCode {
    let started = boot_nanos();
    if let Err(error) = sys::default_signals() {
        eprintln!("riad-agent: signals cannot be set: {error}");
        return ExitCode::FAILURE;
    }
    if std::process::id() == 1 {
        init::run();
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or("")).collect();
    match words[..] {
        ["serve"] => serve(Endpoint::Vsock, started),
        ["serve", "--unix", _, _] => {
            let path = |index: usize| arguments.get(index).map(PathBuf::from).unwrap_or_default();
            serve(Endpoint::Unix { sessions: path(2), events: path(3) }, started)
        }
        ["--version"] => {
            println!("riad-agent {} (protocol {VERSION})", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn serve(endpoint: Endpoint, started: u64) -> ExitCode {
    let owns_machine = endpoint.owns_machine();
    let times = BootTimes { started, ..BootTimes::default() };
    let mut server = match Server::new(endpoint, times) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("riad-agent: cannot listen for the host: {error}");
            return ExitCode::FAILURE;
        }
    };
    loop {
        match server.run() {
            Ok(mode) if owns_machine => shutdown::ask_init(mode),
            Ok(_) => return ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("riad-agent: cannot wait for events: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}
