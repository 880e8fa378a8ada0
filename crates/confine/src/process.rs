//! A process that gives up what it does not need.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::{self, Right};
use crate::filter::Filters;
use crate::kind::Means;
use crate::{Kind, sys, thread};

/// Variables that are kept, as they are read later: how to log, and how long to wait.
const KEPT: [&str; 2] = ["RIAD_LOG", "RIAD_PATIENCE"];
/// Whether panics tell where they were. Read here, and not kept: the runtime would try to tell it itself.
const TRACES: &str = "RUST_BACKTRACE";

/// Where the host's name servers are told.
const RESOLVERS: &str = "/etc/resolv.conf";

/// How long threads that are over may take to be gone.
const GONE: Duration = Duration::from_millis(100);

/// What a process keeps.
#[derive(Debug)]
pub struct Process {
    own: Kind,
    means: Means,
    files: Vec<(PathBuf, Right)>,
}

impl Process {
    /// A process whose first thread is of this kind, that has no files.
    #[must_use]
    pub fn new(own: Kind) -> Self {
        Self { own, means: Means::default(), files: Vec::new() }
    }

    /// It runs its guest on KVM, if `yes`.
    #[must_use]
    pub fn kvm(mut self, yes: bool) -> Self {
        self.means.kvm = yes;
        if yes {
            self.files.push((PathBuf::from("/dev/kvm"), Right::Device));
            self.files.push((PathBuf::from("/sys/module"), Right::Read));
        }
        self
    }

    /// It has a network of its own for its guest, if `yes`: the threads of
    /// [that kind](Kind::Network) connect sockets, and read which name servers the host asks.
    #[must_use]
    pub fn network(mut self, yes: bool) -> Self {
        self.means.network = yes;
        if yes && let Some(path) = resolvers(Path::new(RESOLVERS)) {
            self.files.push((path, Right::Read));
        }
        self
    }

    /// It reads files in this directory, or this file.
    #[must_use]
    pub fn reads(mut self, path: &Path) -> Self {
        self.files.push((path.to_owned(), Right::Read));
        self
    }

    /// It makes, writes and removes files in this directory.
    #[must_use]
    pub fn writes(mut self, path: &Path) -> Self {
        self.files.push((path.to_owned(), Right::Write));
        self
    }

    /// It keeps whole trees in this directory.
    #[must_use]
    pub fn keeps(mut self, path: &Path) -> Self {
        self.files.push((path.to_owned(), Right::Keep));
        self
    }

    /// Gives up everything else, for good. To be called by the process's one thread: others would
    /// keep what they have. Gives the names of what the kernel took; what it does not know is told in
    /// the log, and so is a thread that was left over, with which nothing counts as taken.
    pub fn confine(self) -> Vec<String> {
        let alone = is_alone();
        let (filters, taken) = self.confine_thread();
        if !alone {
            tracing::warn!("the process has other threads still, which are not confined");
            return Vec::new();
        }
        sys::forget_environment(&KEPT);
        if taken.contains(&"seccomp") && self.own.runs_a_guest() {
            thread::keep_to(filters, self.own);
        }
        taken.into_iter().map(str::to_owned).collect()
    }

    /// Confines this thread and those that it starts.
    pub(crate) fn confine_thread(&self) -> (Filters, Vec<&'static str>) {
        let traces = std::env::var_os(TRACES).is_some_and(|wanted| wanted != "0");
        let filters = Filters::new(self.means, traces);
        // Names of functions are in the program's file.
        let program = traces.then(std::env::current_exe).and_then(Result::ok);
        let program = program.as_deref().map(|program| (program, Right::Read));
        type Failed = Box<dyn Error + Send + Sync>;
        let files = self.files.iter().map(|(path, right)| (path.as_path(), *right));
        let files = files.chain(program);
        // In this order: each needs calls that the last takes away.
        let steps: [(&str, Result<bool, Failed>); 3] = [
            (
                "no-new-privileges",
                rustix::thread::set_no_new_privs(true).map(|()| true).map_err(Failed::from),
            ),
            ("landlock", files::only(files, self.means.network).map_err(Failed::from)),
            ("seccomp", filters.confine(self.own).map(|()| true).map_err(Failed::from)),
        ];
        let mut taken = Vec::new();
        for (name, done) in steps {
            match done {
                Ok(true) => taken.push(name),
                Ok(false) => tracing::warn!(name, "the kernel does not confine the process so"),
                Err(error) => tracing::warn!(name, %error, "the process cannot be confined so"),
            }
        }
        (filters, taken)
    }
}

/// What has to be read to know the host's name servers: the file, or where it is a link, the directory
/// that it leads to, in which somebody replaces it.
fn resolvers(file: &Path) -> Option<PathBuf> {
    let path = std::fs::canonicalize(file).ok()?;
    let elsewhere = |directory: &&Path| file.is_symlink() && Some(*directory) != file.parent();
    let directory = path.parent().filter(elsewhere);
    Some(directory.unwrap_or(&path).to_owned())
}

/// Whether this is the process's one thread. Threads that are over may take a moment to be gone.
fn is_alone() -> bool {
    let nap = Duration::from_micros(200);
    for _ in 0..GONE.as_micros() / nap.as_micros() {
        match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
            Ok(0 | 1) => return true,
            Ok(_) => std::thread::sleep(nap),
            // No /proc: nobody knows.
            Err(_) => return false,
        }
    }
    false
}

/// Descriptors that were open when the process began, but for the standard ones: whoever started it
/// may have left open what a guest is not to have.
#[derive(Debug)]
pub struct Inherited(Vec<i32>);

impl Inherited {
    /// Those that are open now. To be called before anything is opened that is to stay.
    #[must_use]
    pub fn now() -> Self {
        let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return Self(Vec::new()) };
        let numbers = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let numbers: Vec<i32> = numbers.filter(|number| *number > 2).collect();
        // The directory that was just listed is closed by now, and no longer one of them.
        let is_open =
            |number: &i32| Path::new("/proc/self/fd").join(number.to_string()).is_symlink();
        Self(numbers.into_iter().filter(is_open).collect())
    }

    /// Closes them.
    pub fn close(self) {
        sys::close(&self.0);
    }
}

#[cfg(test)]
#[path = "process_test.rs"]
mod tests;
