//! The end: processes told, file systems written, power off.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use riad_agent::protocol::ShutdownMode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::system::{RebootCommand, reboot};

use super::journal::console_line;
use super::mounts;
use super::reaper::Reaper;
use super::sys;

/// How long processes have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Stops a machine whose process 1 this is. Does not return unless the kernel refuses.
pub(crate) fn stop_machine(mode: ShutdownMode, reaper: &mut Reaper) {
    // -1 is every process but this one and process 1. SIGCONT wakes those that are stopped.
    for signo in [libc::SIGTERM, libc::SIGHUP, libc::SIGCONT] {
        let _ = sys::kill(-1, signo);
    }
    reap_all(reaper, GRACE);
    let _ = sys::kill(-1, libc::SIGKILL);
    reap_all(reaper, GRACE);
    rustix::fs::sync();
    mounts::unmount_all();
    rustix::fs::sync();
    end(mode);
}

/// Reaps until no other process is left, or for `limit`.
fn reap_all(reaper: &mut Reaper, limit: Duration) {
    let deadline = Instant::now() + limit;
    // Signal 0 to everyone finds out whether there is anyone.
    while sys::kill(-1, 0).is_ok() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let timeout = Timespec::try_from(left).unwrap_or_default();
        let _ = poll(&mut [PollFd::from_borrowed_fd(reaper.fd(), PollFlags::IN)], Some(&timeout));
        reaper.reap(|_, _| {});
    }
}

/// Has the machine's own init stop it; this is a service beside it.
pub(crate) fn ask_init(mode: ShutdownMode) {
    if Path::new("/run/systemd/system").exists() {
        // systemd(1), "Signals": SIGRTMIN+4 is poweroff.target, SIGRTMIN+5 reboot.target.
        let offset = match mode {
            ShutdownMode::PowerOff => 4,
            ShutdownMode::Reboot => 5,
        };
        if sys::kill(1, libc::SIGRTMIN() + offset).is_ok() {
            return;
        }
    }
    let command = match mode {
        ShutdownMode::PowerOff => "/sbin/poweroff",
        ShutdownMode::Reboot => "/sbin/reboot",
    };
    if !Command::new(command).status().is_ok_and(|status| status.success()) {
        rustix::fs::sync();
        end(mode);
    }
}

/// Turns the machine off, or starts it again, now.
fn end(mode: ShutdownMode) {
    let command = match mode {
        ShutdownMode::PowerOff => RebootCommand::PowerOff,
        ShutdownMode::Reboot => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        console_line(&format!("riad-agent: the kernel does not end the machine: {error}"));
    }
}

/// Says why the machine cannot go on, and turns it off.
pub(crate) fn fatal(message: &str) -> ! {
    console_line(&format!("riad-agent: fatal: {message}"));
    rustix::fs::sync();
    end(ShutdownMode::PowerOff);
    // Not process 1 of a machine, or a machine without a power switch: stay, and stay idle. If
    // process 1 ended, the kernel's panic would hide the message.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
