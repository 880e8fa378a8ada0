//! Children that ended, and those that are to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use super::process::Exit;
use super::sys;

/// How long a command whose session was closed has between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Reaps every child of this process: commands, and as process 1 also every orphan.
#[derive(Debug)]
pub(crate) struct Reaper {
    signals: OwnedFd,
    condemned: Vec<(i32, Instant)>,
}

impl Reaper {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { signals: sys::child_signals()?, condemned: Vec::new() })
    }

    /// Readable when a child ended.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// Ends a command nobody listens to any more, and its group: politely, then not.
    pub(crate) fn condemn(&mut self, pid: i32) {
        for signo in [libc::SIGHUP, libc::SIGCONT] {
            if sys::kill(-pid, signo).is_err() {
                // Between fork and setsid it leads no group yet.
                let _ = sys::kill(pid, signo);
            }
        }
        self.condemned.push((pid, Instant::now() + GRACE));
    }

    /// When [`kill_late`](Self::kill_late) has work next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.condemned.iter().map(|(_, deadline)| *deadline).min()
    }

    /// Kills the condemned whose time has come. They are reaped when they end.
    pub(crate) fn kill_late(&mut self, now: Instant) {
        self.condemned.retain(|(pid, deadline)| {
            let late = *deadline <= now;
            if late && sys::kill(-pid, libc::SIGKILL).is_err() {
                let _ = sys::kill(*pid, libc::SIGKILL);
            }
            !late
        });
    }

    /// Reaps all that ended, and tells of each.
    pub(crate) fn reap(&mut self, mut ended: impl FnMut(i32, Exit)) {
        let mut scrap = [0; 128];
        // Signals of one kind are merged, so what is read says only that there is something.
        while rustix::io::read(&self.signals, &mut scrap).is_ok_and(|count| count > 0) {}
        while let Ok(Some(number)) = sys::ended_child() {
            // A condemned leader takes its group along, while its number is still its own.
            if let Some(index) = self.condemned.iter().position(|(pid, _)| *pid == number) {
                self.condemned.swap_remove(index);
                let _ = sys::kill(-number, libc::SIGKILL);
            }
            let Some(pid) = Pid::from_raw(number) else { break };
            match waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => ended(number, exit(status)),
                Ok(None) | Err(_) => break,
            }
        }
    }
}

fn exit(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signo)) => Exit::Signal(u8::try_from(signo).unwrap_or(9)),
        (code, None) => Exit::Code(u8::try_from(code.unwrap_or(0)).unwrap_or(255)),
    }
}
