//! Signals: what Ctrl-C, a closed window and `kill` mean, by what riad is doing.

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use riad_confine::Kind;
use riad_host::process::Capturing;
use riad_host::{ControlEvent, ControlSender};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::{Handle, Signals as Arrivals};

use crate::report::Failure;
use crate::terminal;

/// Those that mean something.
const WANTED: [i32; 5] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH];
/// This many interrupts in a row end riad, whatever its guest thinks of it.
const INSIST: u32 = 3;
/// Interrupts within this time are in a row.
const IN_A_ROW: Duration = Duration::from_secs(2);

/// What a signal finds riad doing.
#[derive(Debug, Clone)]
pub(crate) enum Doing {
    /// Nothing that would be left behind: the process just ends.
    Waiting,
    /// Building an image, in a process of that number: there are files to clean up.
    Building(Option<u32>),
    /// Capturing, in another process, which is told to end by this end of the connection to it; there
    /// is something to be done then.
    Capturing(Arc<UnixStream>),
    /// Running a command in a guest, on a terminal or on pipes.
    Session {
        /// Whom to tell.
        control: ControlSender,
        /// Whether the command has a terminal.
        tty: bool,
    },
}

#[derive(Debug)]
struct State {
    doing: Doing,
    /// The signal for which the session was given up.
    given_up: Option<i32>,
}

/// Watches for signals, in a thread of its own.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    state: Arc<Mutex<State>>,
    /// Those that are watched for.
    wanted: Arc<[i32]>,
    watch: Arc<Mutex<Option<Watch>>>,
}

/// The thread that watches.
#[derive(Debug)]
struct Watch {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Signals {
    /// Begins to watch.
    pub(crate) fn watch() -> Result<Self, Failure> {
        Self::begin().map_err(Failure::own("cannot watch for signals"))
    }

    fn begin() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored(&status);
        let state = Arc::new(Mutex::new(State { doing: Doing::Waiting, given_up: None }));
        let wanted = WANTED.into_iter().filter(|signal| !ignored(*signal)).collect();
        let signals = Self { state, wanted, watch: Arc::default() };
        signals.watch_in_thread(Arrivals::new(&*signals.wanted)?)?;
        Ok(signals)
    }

    fn watch_in_thread(&self, mut arrivals: Arrivals) -> io::Result<()> {
        let watched = self.clone();
        let handle = arrivals.handle();
        let thread = riad_confine::spawn(Kind::Command, "signals", move || {
            let mut interrupts = Interrupts::default();
            for signal in arrivals.forever() {
                watched.arrived(signal, &mut interrupts);
            }
        })?;
        *self.watching() = Some(Watch { handle, thread });
        Ok(())
    }

    /// Does something while no thread watches. Signals that come meanwhile are seen afterwards.
    pub(crate) fn alone(&self, then: &mut dyn FnMut()) {
        // Taken at once, so that none is lost between the two.
        let next = Arrivals::new(&*self.wanted);
        if let Some(Watch { handle, thread }) = self.watching().take() {
            handle.close();
            let _ = thread.join();
        }
        then();
        if let Err(error) = next.and_then(|next| self.watch_in_thread(next)) {
            tracing::warn!(%error, "signals are not watched for any more");
        }
    }

    fn watching(&self) -> MutexGuard<'_, Option<Watch>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, signals mean this.
    pub(crate) fn now(&self, doing: Doing) {
        self.state().doing = doing;
    }

    /// From now on, there are files to clean up, whoever builds.
    pub(crate) fn builds(&self) {
        let mut state = self.state();
        if !matches!(state.doing, Doing::Building(_)) {
            state.doing = Doing::Building(None);
        }
    }

    /// The signal for which the session was given up, if it was.
    pub(crate) fn given_up(&self) -> Option<i32> {
        self.state().given_up
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self, signal: i32, interrupts: &mut Interrupts) {
        let mut state = self.state();
        let doing = state.doing.clone();
        match doing {
            Doing::Waiting | Doing::Building(_) | Doing::Capturing(_) if signal == SIGWINCH => {}
            Doing::Waiting => leave(signal),
            // Once more: whoever is to take what was captured does not.
            Doing::Capturing(_) if interrupts.another(Instant::now()) > 1 => leave(signal),
            Doing::Capturing(stream) => Capturing::stop(&stream),
            Doing::Building(process) => sweep_and_leave(signal, process),
            Doing::Session { control, tty } => match reaction(signal, tty, interrupts) {
                Reaction::Tell(event) => tell(&control, event),
                Reaction::GiveUp => {
                    state.given_up = Some(signal);
                    tell(&control, ControlEvent::Abort);
                }
                Reaction::Leave => leave(signal),
            },
        }
    }
}

/// Whether a signal was ignored when the process began: by nohup(1), or a shell that started it in
/// the background. Then it is none of ours. `status` is the text of `/proc/self/status` (proc(5)).
fn ignored(status: &str) -> impl Fn(i32) -> bool + use<> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // Signal 1 is bit 0.
    move |signal| {
        u32::try_from(signal - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
    }
}

fn tell(control: &ControlSender, event: ControlEvent) {
    // Full or closed: the session is over or about to be.
    let _ = control.send(event);
}

/// Interrupts in a row.
#[derive(Debug, Default)]
struct Interrupts {
    last: Option<Instant>,
    count: u32,
}

impl Interrupts {
    fn another(&mut self, now: Instant) -> u32 {
        let in_a_row = self.last.is_some_and(|last| now.duration_since(last) < IN_A_ROW);
        self.count = if in_a_row { self.count + 1 } else { 1 };
        self.last = Some(now);
        self.count
    }
}

/// What a signal does to a session.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Tell(ControlEvent),
    GiveUp,
    Leave,
}

fn reaction(signal: i32, tty: bool, interrupts: &mut Interrupts) -> Reaction {
    match signal {
        SIGWINCH if tty => {
            let (rows, cols) = terminal::size();
            Reaction::Tell(ControlEvent::Resize { rows, cols })
        }
        SIGINT if interrupts.another(Instant::now()) >= INSIST => Reaction::Leave,
        // A shell on a terminal does not listen to these, and nobody is left to talk to it.
        SIGHUP | SIGTERM if tty => Reaction::GiveUp,
        // Not for a command without a terminal.
        SIGWINCH => Reaction::Tell(ControlEvent::Signal(SIGWINCH as u8)),
        signal => Reaction::Tell(ControlEvent::Signal(u8::try_from(signal).unwrap_or(15))),
    }
}

/// The status that says that a signal ended the process, as shells tell it.
pub(crate) fn status(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Ends the process. Nothing is left behind: a machine's memory and overlay are unnamed files.
fn leave(signal: i32) -> ! {
    terminal::restore();
    crate::status::wipe();
    std::process::exit(status(signal).into())
}

/// Ends the process, and with it a build, wherever it is: the process becomes one that removes
/// what builds that ended too early have left, whose locks are free by then.
fn sweep_and_leave(signal: i32, process: Option<u32>) -> ! {
    terminal::restore();
    crate::status::wipe();
    let status = status(signal);
    // It has locks until it is gone. Its parent is here: the number is still its own.
    if let Some(process) = process.and_then(|process| Pid::from_raw(i32::try_from(process).ok()?)) {
        let _ = kill_process(process, Signal::KILL);
        let _ = waitpid(Some(process), WaitOptions::empty());
    }
    if let Ok(program) = std::env::current_exe() {
        // Comes back only if it fails; the next riad will sweep.
        let _ = Command::new(program).args(["sweep", "--status"]).arg(status.to_string()).exec();
    }
    std::process::exit(status.into())
}

#[cfg(test)]
#[path = "signals_test.rs"]
mod tests;
