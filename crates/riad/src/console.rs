//! `riad console`: a machine's console on this terminal, until it is left again.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use riad_host::machines::Machines;
use riad_host::process::Connection;

use crate::args::OneArgs;
use crate::boot::{Escapes, spawn};
use crate::report::Failure;
use crate::signals::Signals;
use crate::terminal;

pub(crate) fn console(args: OneArgs) -> Result<ExitCode, Failure> {
    let folder = Machines::open()?.get(&args.name)?;
    let (mut shown, keys) = Connection::open(&folder)?.console()?;
    let _signals = Signals::watch()?;
    let tty = terminal::is_interactive();
    if tty {
        eprintln!("riad: the console of {}; Ctrl-A d leaves it", folder.name());
    }
    let raw = terminal::raw_if(tty)?;
    spawn("keyboard", move || type_all(keys, tty.then(|| Escapes::ended_by(*b"dD"))))?;
    let mut buffer = [0; 4096];
    let mut stdout = io::stdout();
    while let Ok(count @ 1..) = shown.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
            break;
        }
    }
    drop(raw);
    Ok(ExitCode::SUCCESS)
}

/// Sends what is typed, until it is over or the keys to leave are.
fn type_all(mut keys: std::os::unix::net::UnixStream, mut escapes: Option<Escapes>) {
    let mut buffer = [0; 1024];
    // The end of a pipe is not the end of the console.
    while let Some(typed) = terminal::typed(&mut buffer) {
        let filtered = match &mut escapes {
            None => Some(typed.to_vec()),
            Some(escapes) => escapes.filter(typed),
        };
        let sent = filtered.is_some_and(|typed| keys.write_all(&typed).is_ok());
        if !sent {
            // The other direction ends too.
            let _ = keys.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}
