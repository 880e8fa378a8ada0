//! `riad console`: a machine's console on this terminal, until it is left again.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread;

use riad_host::machines::Machines;
use riad_host::process::Connection;

use crate::args::OneArgs;
use crate::boot::Escapes;
use crate::report::Failure;
use crate::signals::Signals;
use crate::terminal;

pub(crate) fn console(args: OneArgs) -> Result<ExitCode, Failure> {
    let folder = Machines::open()?.get(&args.name)?;
    let (mut shown, keys) = Connection::open(&folder)?.console()?;
    let _signals = Signals::watch().map_err(Failure::own("cannot watch for signals"))?;
    let tty = terminal::is_interactive();
    let raw = match tty {
        true => {
            eprintln!("riad: the console of {}; Ctrl-A d leaves it", folder.name());
            Some(terminal::enter_raw().map_err(Failure::own("cannot use the terminal"))?)
        }
        false => None,
    };
    let typist = move || type_all(keys, tty.then(|| Escapes::ended_by(*b"dD")));
    thread::Builder::new()
        .name("keyboard".into())
        .spawn(typist)
        .map_err(Failure::own("the host refused a thread"))?;
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
    loop {
        let typed = match io::stdin().read(&mut buffer) {
            // The end of a pipe is not the end of the console.
            Ok(0) => return,
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
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
