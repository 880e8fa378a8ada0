//! The user's terminal: raw mode, and its restoration on every way out.

use std::io::{self, IsTerminal, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::report::Failure;

/// What the terminal was before raw mode. One for the process: there is one terminal.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Raw mode, as long as this lives.
#[derive(Debug)]
pub(crate) struct Raw(());

/// Puts the terminal on standard input into raw mode if `wanted`: each key goes to the guest, whose
/// terminal does with it what terminals do.
pub(crate) fn raw_if(wanted: bool) -> Result<Option<Raw>, Failure> {
    let raw = wanted.then(enter_raw).transpose();
    raw.map_err(Failure::own("cannot use the terminal"))
}

fn enter_raw() -> io::Result<Raw> {
    let stdin = io::stdin();
    let mut termios = tcgetattr(&stdin)?;
    before().get_or_insert_with(|| termios.clone());
    termios.make_raw();
    tcsetattr(&stdin, OptionalActions::Drain, &termios)?;
    Ok(Raw(()))
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was. Nothing happens if it is.
pub(crate) fn restore() {
    if let Some(termios) = before().take() {
        // If the terminal is gone there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &termios);
    }
}

/// Has the terminal restored before a panic writes to it.
pub(crate) fn restore_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        usual(panic);
    }));
}

/// Whether the command gets a terminal: when it would read from one and write to one.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// What is typed next on standard input; `None` when that has ended.
pub(crate) fn typed(buffer: &mut [u8]) -> Option<&[u8]> {
    loop {
        match io::stdin().read(buffer) {
            Ok(0) => return None,
            Ok(count) => return buffer.get(..count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// The window's lines and columns.
pub(crate) fn size() -> (u16, u16) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        // A terminal that does not know, such as a serial line.
        _ => (24, 80),
    }
}
