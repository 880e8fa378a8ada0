//! The process of a named network's switch: one for each network that a machine runs on.
//!
//! Whoever starts a machine finds it or starts it, and holds it until the machine has joined; it ends
//! with whoever was connected last. Both happen while the network's lock is held, so that nobody joins a
//! switch that is about to be gone.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use riad_confine::{Kind, Process};
use riad_network::switch::{self, Client, Switch, SwitchError};

use super::launch::KEPT;
use crate::Error;
use crate::machines::{MachineError, Membership, switch_lock, switch_log};

/// Keeps a network's switch going for as long as what this gives is there; starts it, as `program
/// switch DIRECTORY` with the socket as its standard input, if it does not run.
pub(crate) fn hold(network: &Membership, program: &OsStr) -> Result<Client, MachineError> {
    let directory = &network.directory;
    let failed = |error| network.failed(error);
    let lock = switch_lock(directory)?;
    lock.lock().map_err(MachineError::io("lock", directory))?;
    let held = Client::connect(directory).and_then(|switch| switch.hold().map(|()| switch));
    match held {
        Err(SwitchError::Gone) => {}
        held => return held.map_err(failed),
    }
    // Nobody listens, and nobody else begins to while the lock is held.
    let listener = switch::listen(directory).map_err(failed)?;
    let path = switch_log(directory);
    let log = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let log = log.map_err(MachineError::io("write", &path))?;
    let errors = log.try_clone().map_err(MachineError::io("write", &path))?;
    let mut command = Command::new(program);
    command.arg("switch").arg(directory).env_clear().current_dir("/");
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::from(listener)).stdout(log).stderr(errors);
    command.spawn().map_err(MachineError::io("start the switch of", directory))?;
    let held = Client::connect(directory).and_then(|switch| switch.hold().map(|()| switch));
    held.map_err(failed)
}

/// Is the switch of the network in `directory`, until nobody is connected to it. `listener` is its
/// socket.
///
/// # Errors
/// The host refuses what it needs.
pub fn serve_switch(directory: &Path, listener: OwnedFd) -> Result<(), Error> {
    // Fails only for who leads a session already, which is as well.
    let _ = rustix::process::setsid();
    let host = |source| Error::Host { what: "a switch between machines", source };
    let lock = switch_lock(directory)?;
    let mut switch = Switch::new(listener).map_err(host)?;
    let confined = Process::new(Kind::Switch).writes(directory).confine();
    tracing::debug!(?confined, "the switch is confined");
    loop {
        switch.serve().map_err(host)?;
        lock.lock().map_err(host)?;
        // Somebody may have come since, who held the lock.
        if switch.is_idle() {
            let _ = std::fs::remove_file(directory.join(switch::SOCKET));
            return Ok(());
        }
        lock.unlock().map_err(host)?;
    }
}
