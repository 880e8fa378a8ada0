//! The user's terminal: raw mode, and its restoration on every way out.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
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

/// Whether another screen is shown than the one that was there.
static OTHER_SCREEN: AtomicBool = AtomicBool::new(false);

/// A screen of its own, as long as this lives: what was on the terminal is there again afterwards.
#[derive(Debug)]
pub(crate) struct Screen(());

impl Screen {
    /// Begins one on standard output.
    pub(crate) fn begin() -> Self {
        OTHER_SCREEN.store(true, Ordering::Relaxed);
        // xterm's control sequences, which all take: another screen, no cursor.
        write_now("\x1b[?1049h\x1b[?25l");
        Self(())
    }

    /// Shows lines, as many and as much of each as fit. Shows no others.
    pub(crate) fn show(&self, lines: &[String]) {
        let (rows, columns) = size();
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.iter().take(rows.into()).enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            text.extend(line.chars().take(columns.into()));
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        write_now(&text);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore_screen();
    }
}

fn restore_screen() {
    if OTHER_SCREEN.swap(false, Ordering::Relaxed) {
        write_now("\x1b[?25h\x1b[?1049l");
    }
}

fn write_now(text: &str) {
    let mut stdout = io::stdout();
    // A terminal that is gone shows nothing.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Makes the terminal what it was. Nothing happens if it is.
pub(crate) fn restore() {
    restore_screen();
    let mut before = before();
    let Some(termios) = &*before else { return };
    // If the terminal is gone there is nothing to restore; a processor's thread that panics may not
    // do it, and leaves it to the next who comes by.
    match tcsetattr(io::stdin(), OptionalActions::Drain, termios) {
        Err(Errno::PERM) => {}
        _ => *before = None,
    }
}

/// Has the terminal restored before a panic writes to it.
pub(crate) fn restore_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        match riad_confine::backtrace() {
            None => usual(panic),
            Some(trace) => {
                let thread = std::thread::current();
                let name = thread.name().unwrap_or("<unnamed>").to_owned();
                let text = format!("\nthread '{name}' {panic}\nstack backtrace:\n{trace}\n");
                let _ = io::stderr().write_all(text.as_bytes());
            }
        }
    }));
}

/// Says something while a guest has the terminal, or may have it: on lines of its own.
pub(crate) fn notice(text: &str) {
    let mut stderr = io::stderr();
    let line = match stderr.is_terminal() {
        true => format!("\r\nriad: {text}\r\n"),
        false => format!("riad: {text}\n"),
    };
    let _ = stderr.write_all(line.as_bytes());
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

/// The key that is pressed within a time, or nothing; `Err` when there is no keyboard any more.
pub(crate) fn key_within(time: std::time::Duration) -> Result<Option<u8>, Failure> {
    let stdin = io::stdin();
    let limit = Timespec::try_from(time).unwrap_or_default();
    match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&limit)) {
        // A window that changes its size interrupts the wait, and is drawn anew.
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(Failure::own("cannot read the keyboard")(error.into())),
    }
    // Not through the buffer, which could keep keys that no poll would tell of.
    let mut key = [0];
    match rustix::io::read(&stdin, &mut key) {
        Ok(1) => Ok(key.first().copied()),
        Ok(_) => Err(Failure::Own("the terminal is gone".to_owned())),
        Err(error) => Err(Failure::own("cannot read the keyboard")(error.into())),
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
