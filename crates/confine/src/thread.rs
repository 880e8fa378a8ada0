//! The threads of a machine: what starts them, and what they give up.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::Kind;
use crate::filter::Filters;

/// What threads of this process are kept to, once it is confined.
static KEPT_TO: OnceLock<Filters> = OnceLock::new();

/// Where threads of a confined process are started.
static LAUNCHER: OnceLock<Sender<Launch>> = OnceLock::new();

thread_local! {
    /// Whether this is that thread.
    static IS_LAUNCHER: Cell<bool> = const { Cell::new(false) };
}

/// How long names may take to be found.
const NAMES: Duration = Duration::from_secs(20);

/// Starts a thread.
type Launch = Box<dyn FnOnce() + Send>;

/// Threads that are started from now on keep to their kind's calls, and so does this one, to those of
/// its own. Does nothing if they do already.
///
/// A thread has the filters of whoever started it, and most kinds may not start any; so one thread,
/// with what the whole process has, starts them for the others.
pub(crate) fn keep_to(filters: Filters, own: Kind) {
    if KEPT_TO.set(filters).is_err() {
        return;
    }
    let (sender, launches) = channel::<Launch>();
    let launcher = Builder::new().name("launcher".into()).spawn(move || {
        IS_LAUNCHER.set(true);
        for launch in launches {
            launch();
        }
    });
    match launcher {
        Ok(_) => drop(LAUNCHER.set(sender)),
        // Threads start each other, as far as they may.
        Err(error) => tracing::warn!(%error, "the host refused the thread that starts others"),
    }
    enter(own);
}

/// Starts a thread of a machine. In a confined process it can do what its kind can, and nothing
/// else.
///
/// # Errors
/// The host refuses the thread.
pub fn spawn<T: Send + 'static>(
    kind: Kind,
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let thread = Builder::new().name(name.to_owned());
    let start = move || {
        thread.spawn(move || {
            enter(kind);
            body()
        })
    };
    let Some(launcher) = LAUNCHER.get() else { return start() };
    let (sender, started) = sync_channel(1);
    let launch = Box::new(move || drop(sender.send(start())));
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    launcher.send(launch).map_err(|_| gone())?;
    started.recv().map_err(|_| gone())?
}

/// Where this thread is, function by function, for a panic in a confined process to tell: `None` in one
/// that is not confined, whose runtime can tell it by itself, and where nobody asked for it with
/// `RUST_BACKTRACE`. Most threads may not open the file with the names of functions; so the thread that
/// starts others looks for them.
#[must_use]
pub fn backtrace() -> Option<String> {
    let launcher = LAUNCHER.get().filter(|_| KEPT_TO.get().is_some_and(Filters::traces))?;
    let trace = Backtrace::force_capture();
    if IS_LAUNCHER.get() {
        return Some(trace.to_string());
    }
    let (sender, named) = sync_channel(1);
    launcher.send(Box::new(move || drop(sender.send(trace.to_string())))).ok()?;
    named.recv_timeout(NAMES).ok()
}

/// Keeps this thread to its kind's calls.
fn enter(kind: Kind) {
    let Some(filters) = KEPT_TO.get() else { return };
    if let Err(error) = filters.enter(kind) {
        // It has the process's own filter still.
        tracing::warn!(?kind, %error, "a thread is confined no further than its process");
    }
}
