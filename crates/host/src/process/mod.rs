//! The process of a named machine: one for each that runs, apart from the command that started it.
//!
//! * [`start`] is the command's side: it starts the process and hears of it until the agent answers.
//! * [`live`] is the process's: it holds the lock `alive` of the machine's folder, runs the machine,
//!   says in the folder what is true of it, and answers on the control socket.
//! * [`Connection`] is how any later command finds the process and talks to it.
//!
//! The process leaves the terminal and the session of whoever started it, keeps nothing of the
//! environment, and ends with its machine. A guest that restarts itself gets a new machine in the same
//! process, on the same disk.

mod capture;
mod client;
pub mod control;
mod fds;
mod grow;
mod launch;
mod network;
mod plug;
mod provision;
mod rooms;
mod server;
mod settle;
mod setup;
mod shared;
mod switch;
mod sys;
mod tap;
mod vitals;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use riad_confine::{Kind, Process};
use riad_disk::{Disk, Layer, RawDisk};
use riad_image::Image;
use riad_vmm::{Disks, EngineKind, Guest, VmConfig};

pub use capture::{Block, BlockKind, Capturing};
pub use client::{Connection, News};
pub(crate) use control::Joining;
pub use launch::{Started, start};
pub use riad_vmm::NetCounters;
pub(crate) use switch::hold as hold_switch;
pub use switch::serve_switch;
pub use vitals::{DiskVitals, Vitals};

use crate::boot::{Booting, Over};
use crate::journal::Own;
use crate::kernel::read;
use crate::limits::Limits;
use crate::machines::{
    Boot, Folder, How, MachineConfig, MachineError, Machines, Phase, RunState, SetupDone,
};
use crate::network::{Plug, reach};
use crate::timings::{Counts, Stopwatch};
use crate::{ConsoleTail, Error, Stage, cmdline, engine, images};
use rooms::Rooms;
use shared::{Shared, Ways, unix_ms};
use tap::Tap;
use vitals::Gauges;

/// Is a machine's process, from its beginning to its end. News of the start go to `birth`.
///
/// # Errors
/// The machine could not be run at all. What happens to it later is written down in its folder, and
/// is no error of the process.
pub fn live(folder: PathBuf, birth: UnixStream) -> Result<(), Error> {
    let began = Instant::now();
    // Fails only for who leads a session already, which is as well.
    let _ = rustix::process::setsid();
    let folder = Folder::at(folder)?;
    // Never given back: who sees it free finds no process, and no socket, either.
    Box::leak(Box::new(folder.live()?));
    let config = folder.config()?;
    let [console_log, _] = folder.console_logs();
    let tap = Tap::new(&console_log).map_err(MachineError::io("write", &console_log))?;
    let gauges = Gauges::open(began);
    let journal = Own::open(folder.path(), folder.name().as_str(), &config.id);
    let mut prepared = prepare(&folder, &config);
    // From here on, while there is one thread still, nothing else can be opened.
    let confined = match &prepared {
        Ok(prepared) => Process::new(Kind::Control)
            .kvm(prepared.engine == EngineKind::Kvm)
            .network(prepared.plug.control.is_some())
            .reads(prepared.image.directory())
            .writes(folder.path())
            .confine(),
        Err(_) => Vec::new(),
    };
    tap.keep(console_log).map_err(|source| Error::Host { what: "a thread", source })?;
    let engine = prepared.as_ref().map_or(config.engine, |prepared| prepared.engine);
    // Handed over whole: a disk that is detached is nobody's any more.
    let attached = prepared.as_mut().map(|p| std::mem::take(&mut p.attached)).unwrap_or_default();
    let names = attached.iter().filter_map(|disk| disk.label()).map(str::to_owned);
    let state = RunState {
        schema: RunState::SCHEMA,
        pid: std::process::id(),
        engine: engine.name().to_owned(),
        cpus: config.cpus,
        memory: config.memory,
        began: unix_ms(),
        reboots: 0,
        phase: Phase::Starting,
        stage: Stage::Start.name().to_owned(),
        stages: Vec::new(),
        system: None,
        disks: names.collect(),
        confined,
        warnings: Vec::new(),
        waits: None,
        ended: None,
    };
    let shared = Shared::new(folder, tap, gauges, journal, state, attached);
    let told = {
        let shared = shared.clone();
        let is_born = |state: &RunState| state.phase != Phase::Starting;
        riad_confine::spawn(Kind::Control, "birth", move || {
            server::follow(&shared, &birth, is_born)
        })
        .map_err(|source| Error::Host { what: "a thread", source })?
    };
    let ended = prepared.and_then(|prepared| run(&shared, &config, prepared, began));
    match ended {
        Ok(how @ How::PoweredOff) => {
            shared.ended(how, "the guest powered off".to_owned(), Vec::new());
        }
        Ok(how) => shared.ended(how, "it was stopped by force".to_owned(), Vec::new()),
        Err(error) => {
            let console = error.console().map(|ConsoleTail(lines)| lines.clone());
            shared.ended(How::Failed, sentence(&error), console.unwrap_or_default());
        }
    }
    // Whoever waits for the start has heard of its end when this is over.
    let _ = told.join();
    Ok(())
}

/// An error and its causes. A cause that the error has told already is not said again.
pub(crate) fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// What is opened, found and written before the process is confined.
struct Prepared {
    engine: EngineKind,
    image: Image,
    /// The initial RAM disk, which is in the image's directory.
    initrd: PathBuf,
    plug: Arc<Plug>,
    listener: UnixListener,
    /// Disks that are attached, in order.
    attached: Vec<Arc<RawDisk>>,
}

fn prepare(folder: &Folder, config: &MachineConfig) -> Result<Prepared, Error> {
    let engine = engine::choose(config.engine)?;
    let image = Machines::base(folder, config)?;
    let initrd = image.initramfs(images::agent(&image.meta().arch)?)?;
    let socket = folder.path().join(crate::machines::SOCKET);
    let listener = server::bind(folder.path()).map_err(MachineError::io("listen on", &socket))?;
    let attached = Machines::open_disks(folder, config)?.into_iter().map(Arc::new).collect();
    let name = folder.name().as_str();
    let networks = Machines::networks_of(folder, config)?;
    let plug = config.network.plug(&config.id, Some(name), &config.publish, reach(&networks))?;
    networks.iter().try_for_each(|network| plug.join(network, folder.name()))?;
    let plug = Arc::new(plug);
    Ok(Prepared { engine, image, initrd, plug, listener, attached })
}

/// Runs the machine until its guest powers off, however often it restarts before.
fn run(
    shared: &Shared,
    config: &MachineConfig,
    prepared: Prepared,
    began: Instant,
) -> Result<How, Error> {
    let Prepared { engine, image, initrd, plug, listener, .. } = prepared;
    let mut watch = Stopwatch::new(began);
    shared.set_plug(Arc::clone(&plug));
    server::serve_all(listener, shared)
        .and_then(|()| provision::serve(shared))
        .and_then(|()| network::follow(&plug, shared))
        .map_err(|source| Error::Host { what: "a thread", source })?;
    let limits = Limits::new(engine);
    watch.ended(Stage::Start);
    shared.stage(Stage::Image);
    let rootfs = image.rootfs();
    let base_size = std::fs::metadata(&rootfs).map_err(MachineError::io("read", &rootfs))?.len();
    // The file system is as large as the image made it, until it is told of more.
    let grown = config.disk > base_size;
    let base = Arc::new(RawDisk::open(&rootfs, true)?);
    let path = shared.folder().disk_path();
    if Layer::info(&path)?.size < config.disk {
        Layer::grow(&path, config.disk)?;
    }
    let layer = Arc::new(Layer::open(&path, base)?);
    shared.set_disk(&layer, image.meta().root_partition);
    let rooms = Rooms::begin(shared).map_err(|source| Error::Host { what: "a thread", source })?;
    let root = rooms.watch(layer);
    shared.set_rooms(rooms);
    watch.ended(Stage::Image);
    loop {
        shared.stage(Stage::Machine);
        let plugging = shared.plugging();
        let words = cmdline::named_machine(shared.folder().name(), config, &plug.words());
        let guest = guest(&words, &image, &initrd, limits)?;
        let disks = || std::iter::once(Arc::clone(&root)).chain(shared.watched());
        let hardware = vm_config(config, engine, disks().collect(), &plug);
        drop(plugging);
        let after = After {
            grown,
            boot: config.boot,
            setup: setup::wanted(shared.folder(), config),
            limits,
        };
        let result = one(shared, hardware, &guest, limits, watch, after);
        // Whatever became of the guest, what it wrote is kept.
        disks().try_for_each(|disk| disk.flush())?;
        match result? {
            Over::PoweredOff => return Ok(How::PoweredOff),
            Over::Unplugged => return Ok(How::Forced),
            Over::Reset if shared.is_unplugged() => return Ok(How::Forced),
            Over::Reset => shared.restarts(),
        }
        watch = Stopwatch::new(Instant::now());
    }
}

/// What there is to do once the agent answers.
#[derive(Debug)]
struct After {
    /// The disk is larger than the file system that the image has on it.
    grown: bool,
    boot: Boot,
    /// What the guest is to be made to fit, if it has not been.
    setup: Option<SetupDone>,
    limits: Limits,
}

fn vm_config(config: &MachineConfig, engine: EngineKind, disks: Disks, plug: &Plug) -> VmConfig {
    VmConfig {
        cpus: config.cpus,
        memory: config.memory,
        engine,
        cpu: config.cpu,
        code_cache: config.code_cache,
        disks,
        cables: plug.cables(),
        ..VmConfig::default()
    }
}

/// From one start of the guest to its next. What the machine is built to is not kept: what is unplugged
/// later is nobody's then.
fn one(
    shared: &Shared,
    config: VmConfig,
    guest: &Guest,
    limits: Limits,
    mut watch: Stopwatch,
    after: After,
) -> Result<Over, Error> {
    let sink = Box::new(shared.tap().clone());
    let booting = Booting::start(config, guest, Some(sink), limits)?;
    watch.ended(Stage::Machine);
    shared.set_ways(Ways {
        vsock: booting.vsock().clone(),
        devices: booting.devices(),
        keyboard: booting.keyboard(),
        console: booting.console().clone(),
        teller: booting.teller().clone(),
        meter: booting.meter(),
        patience: limits.of(Stage::Command).unwrap_or(std::time::Duration::MAX),
    });
    let mut booted = match booting.finish(&mut |stage| shared.stage(stage)) {
        Ok(booted) => booted,
        Err(Error::Aborted) => return Ok(Over::Unplugged),
        Err(error) => return Err(error),
    };
    booted.account(&mut watch);
    settle::begin(shared, watch.finish(Counts::default()).stages, after)?;
    booted.serve(&mut || shared.stopping())
}

/// What the machine starts with.
fn guest(words: &str, image: &Image, initrd: &Path, limits: Limits) -> Result<Guest, Error> {
    let (kernel, root) = (image.kernel(), cmdline::root_device(image));
    Ok(Guest {
        kernel_name: kernel.display().to_string(),
        kernel: read("kernel", &kernel)?,
        cmdline: cmdline::agent_machine(limits.scale(), false, &root, Some(words)),
        modules: vec![(String::new(), read("initial RAM disk", initrd)?)],
    })
}
