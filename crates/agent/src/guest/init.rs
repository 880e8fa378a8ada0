//! Process 1: from a bare kernel to a machine that can run commands.
//!
//! The stages, each said on the console as `riad-agent: ...`: `started`, `modules loaded`,
//! `root mounted`, `ready`. What cannot be survived is said as `riad-agent: fatal: ...`, and the
//! machine turns itself off.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use riad_agent::protocol::BootTimes;
use thiserror::Error;

use super::boot_options::{BootOptions, Init};
use super::endpoint::Endpoint;
use super::journal::{Journal, Level};
use super::modules::Module;
use super::server::Server;
use super::{boot_nanos, modules, mounts, network, shutdown, sys};

/// How long the vsock device may take to appear once its modules are loaded.
const VSOCK_LIMIT: Duration = Duration::from_secs(5);

/// Why the machine cannot go on.
#[derive(Debug, Error)]
enum InitError {
    #[error("{target} cannot be mounted: {source}")]
    Mount { target: &'static str, source: io::Error },
    #[error(
        "the root device {device} did not appear within {seconds} s; the kernel knows {known}: is \
         the disk attached, and is its driver in {}?",
        modules::LIST
    )]
    NoRootDevice { device: String, seconds: u64, known: String },
    #[error("the root file system on {device} cannot be mounted as {kind}: {source}")]
    Root { device: String, kind: String, source: io::Error },
    #[error("the root file system cannot become the root: {0}")]
    SwitchRoot(#[source] io::Error),
    #[error(
        "there is no vsock to listen on ({0}): is the device attached, and is its driver in {list}?",
        list = modules::LIST
    )]
    Vsock(#[source] io::Error),
    #[error("{init} cannot be executed as init: {source}")]
    HandOver { init: String, source: io::Error },
    #[error("the agent cannot wait for events: {0}")]
    Poll(#[source] io::Error),
}

/// Runs as process 1. Never returns.
pub(crate) fn run() -> ! {
    std::panic::set_hook(Box::new(|panic| {
        shutdown::fatal(&format!("the agent failed: {panic}").replace('\n', " "))
    }));
    match boot_and_serve() {
        Ok(never) => match never {},
        Err(error) => shutdown::fatal(&error.to_string()),
    }
}

fn boot_and_serve() -> Result<std::convert::Infallible, InitError> {
    let mut times = BootTimes { started: boot_nanos(), ..BootTimes::default() };
    mounts::mount_early().map_err(|(target, source)| InitError::Mount { target, source })?;
    let journal = Journal::open();
    journal.say(Level::Info, "started");
    let command_line = fs::read("/proc/cmdline").unwrap_or_default();
    let options = BootOptions::parse(&String::from_utf8_lossy(&command_line));

    let (needed, later) = modules::open_all();
    modules::load_all(&needed, &journal);
    journal.say(Level::Info, "modules loaded");

    // What is not needed to find the root is done beside it; all of it is there before anything of the
    // image's runs.
    let cards = network::Cards::open();
    std::thread::scope(|scope| -> Result<(), InitError> {
        let beside = || {
            modules::load_all(&later, &journal);
            network::set_up(&cards, &options.network, &journal);
        };
        let beside = std::thread::Builder::new().spawn_scoped(scope, beside);
        mount_root(&options, &[&needed, &later])?;
        times.root_mounted = boot_nanos();
        journal.say(Level::Info, "root mounted");

        mounts::mount_late(&journal);
        set_hostname(&options, &journal);
        if let Err(error) = sys::interface_up(c"lo") {
            let text = format!("the loopback interface cannot be brought up: {error}");
            journal.say(Level::Error, &text);
        }
        network::tell_resolvers(&options.network, &journal);
        if let Err(error) = beside {
            let text = format!("the network card is not set up: no thread: {error}");
            journal.say(Level::Error, &text);
        }
        Ok(())
    })?;

    let init = options.init.as_ref().and_then(own_init);
    if let Some(init) = &init {
        hand_over(init)?;
    }
    let mut server = listen(times)?;
    journal.say(Level::Info, "ready");
    loop {
        let mode = server.run().map_err(InitError::Poll)?;
        if init.is_some() {
            shutdown::ask_init(mode);
        } else {
            shutdown::stop_machine(mode, server.reaper());
        }
    }
}

fn mount_root(options: &BootOptions, modules: &[&[Module]]) -> Result<(), InitError> {
    let BootOptions { root, root_type, root_flags, read_only, .. } = options;
    wait_for_device(root, options.device_limit())?;
    mounts::mount_root(root, root_type, root_flags, *read_only).map_err(|source| {
        InitError::Root { device: root.clone(), kind: root_type.clone(), source }
    })?;
    if mounts::root_is_in_memory() {
        modules.iter().for_each(|modules| modules::remove_files(modules));
    }
    mounts::switch_root().map_err(InitError::SwitchRoot)
}

/// Waits until devtmpfs has the device. Usually it is there at once: loading a driver finds its
/// devices before it returns.
fn wait_for_device(device: &str, limit: Duration) -> Result<(), InitError> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    while !Path::new(device).exists() {
        if Instant::now() >= deadline {
            let known = known_block_devices();
            let device = device.to_owned();
            return Err(InitError::NoRootDevice { device, seconds: limit.as_secs(), known });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}

fn known_block_devices() -> String {
    let mut names: Vec<String> = fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    if names.is_empty() { "no block device".to_owned() } else { names.join(", ") }
}

fn set_hostname(options: &BootOptions, journal: &Journal) {
    let own = || {
        let text = fs::read_to_string("/etc/hostname").ok()?;
        text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    };
    let name = options.hostname.clone().or_else(own).unwrap_or_else(|| "riad".to_owned());
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        journal.say(Level::Error, &format!("the host name cannot be set to {name}: {error}"));
    }
}

/// The program that becomes process 1, if there is to be one. Where the kernel would look for it, but
/// for shells (kernel, `init/main.c`): an image without an init has no use for a shell as one.
fn own_init(init: &Init) -> Option<String> {
    match init {
        Init::Program(path) => Some(path.clone()),
        Init::Own => ["/sbin/init", "/etc/init", "/bin/init"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .map(str::to_owned),
    }
}

/// Makes the image's own init process 1. A copy of the agent goes on as its child, and returns.
fn hand_over(init: &str) -> Result<(), InitError> {
    let failed = |source| InitError::HandOver { init: init.to_owned(), source };
    if sys::fork().map_err(failed)? {
        // Its own session: what init does to its terminal is none of the agent's business.
        let _ = rustix::process::setsid();
        return Ok(());
    }
    Err(failed(Command::new(init).exec()))
}

/// Listens, as soon as there is a vsock.
fn listen(times: BootTimes) -> Result<Server, InitError> {
    let deadline = Instant::now() + VSOCK_LIMIT;
    loop {
        match Server::new(Endpoint::Vsock, times) {
            Ok(server) => return Ok(server),
            Err(error) if Instant::now() >= deadline => return Err(InitError::Vsock(error)),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
