//! The machine of `riad run`: made from an image, thrown away after its command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use riad_agent::client::{ControlReceiver, ControlSender, ExitStatus, SessionIo, control};
use riad_confine::{Inherited, Kind, Process};
use riad_disk::{Disk, Overlay, RawDisk};
use riad_image::Image;
use riad_vmm::{CpuModel, EngineKind, Guest, VmConfig};

use crate::boot::Booted;
use crate::images::{self, ImageOptions};
use crate::kernel::read;
use crate::limits::Limits;
use crate::machines::NetMode;
use crate::network::{Network, Plug, Publish};
use crate::room::{self, Room};
use crate::timings::Stopwatch;
use crate::{Command, Error, Observer, Stage, Timings, cmdline, engine, machines};

/// Hears what a person should know while a guest runs, a sentence at a time.
pub type Notice = Box<dyn Fn(&str) + Send + Sync>;

/// What a machine is made to.
pub struct MachineOptions {
    /// The image, and how to build it if it is missing.
    pub image: ImageOptions,
    /// Processors.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory: u64,
    /// The engine.
    pub engine: EngineKind,
    /// Whose features it shows.
    pub cpu: CpuModel,
    /// Bytes of translated code that a software engine keeps.
    pub code_cache: u64,
    /// A kernel in place of the image's.
    pub kernel: Option<PathBuf>,
    /// An initial RAM disk in place of the image's, which has the agent in it.
    pub initrd: Option<PathBuf>,
    /// Words to add to the kernel's command line.
    pub append: Option<String>,
    /// What its network card is plugged into.
    pub network: Network,
    /// What of it can be reached from here; on the network `user` only.
    pub publish: Vec<Publish>,
    /// Where the serial console is shown.
    pub console: Option<Box<dyn Write + Send>>,
    /// Who hears of what is wrong and can be helped.
    pub notice: Notice,
    /// What the process was started with, which is closed before the guest runs.
    pub inherited: Option<Inherited>,
}

/// A machine that runs, with an agent that answers. Dropping it ends it; nothing of it is left.
pub struct Machine {
    booted: Booted,
    plug: Plug,
    watch: Stopwatch,
    control: (ControlSender, ControlReceiver),
}

impl Machine {
    /// Finds or builds the image, builds a machine from it, and waits until its agent answers. When
    /// the machine is about to be built, the process is confined for good ([`riad_confine`]): it can
    /// open no files afterwards, and the variables of its environment are gone. `began` is when the process started, for the timings.
    ///
    /// # Errors
    /// See [`Error`]. The stage that failed is the last one that `observer` heard of.
    pub fn start(
        options: MachineOptions,
        began: Instant,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        let mut watch = Stopwatch::new(began);
        let engine = engine::choose(options.engine)?;
        let limits = Limits::new(engine);
        let mut config = VmConfig {
            cpus: options.cpus,
            memory: options.memory,
            engine,
            cpu: options.cpu,
            code_cache: options.code_cache,
            ..VmConfig::default()
        };
        // What was typed wrong is said before anything is built.
        config.check().map_err(Error::Vm)?;
        let plug =
            options.network.plug(&machines::new_id(), None, &options.publish, NetMode::Nat)?;
        config.cables = plug.cables();
        watch.ended(Stage::Start);

        observer.stage(Stage::Image);
        let image = images::find_or_build(&options.image, observer)?;
        watch.ended(Stage::Image);

        observer.stage(Stage::Machine);
        let guest = guest(&options, &plug, &image, limits)?;
        let notice = options.notice;
        let told = Box::new(move |why: Option<&_>| notice(&room::sentence(why)));
        config.disks = vec![Arc::new(Room::new(overlay(&image)?, told))];
        let control = control().map_err(|source| Error::Host { what: "a pipe", source })?;
        // From here on nothing can be opened; what is needed is.
        let process = Process::new(Kind::Command).kvm(engine == EngineKind::Kvm);
        let mut process = Some(process.network(plug.control.is_some()));
        let mut inherited = options.inherited;
        let mut confined = Vec::new();
        observer.alone(&mut || {
            if let Some(inherited) = inherited.take() {
                inherited.close();
            }
            confined = process.take().map(Process::confine).unwrap_or_default();
        });
        tracing::info!(?confined, "what of its rights the process gave up");
        let booted = Booted::boot(config, &guest, options.console, limits, &mut |stage| {
            if stage == Stage::Kernel {
                watch.ended(Stage::Machine);
            }
            observer.stage(stage);
        })?;
        booted.account(&mut watch);
        observer.stage(Stage::Command);
        Ok(Self { booted, plug, watch, control })
    }

    /// The way to tell the running command of signals and window sizes. Works before the command
    /// has started, too.
    #[must_use]
    pub fn control(&self) -> ControlSender {
        self.control.0.clone()
    }

    /// What of it can be reached from here, with the ports that were free in place of 0.
    #[must_use]
    pub fn published(&self) -> Vec<Publish> {
        let forwards = self.plug.control.as_ref().map(|control| control.forwards());
        forwards.into_iter().flatten().map(|listening| listening.forward.into()).collect()
    }

    /// Runs a command to its end, with all its output written.
    ///
    /// # Errors
    /// [`Error::NotStarted`] when there is no such command, [`Error::Aborted`] when the caller gave
    /// it up, and whatever happens to machines.
    pub fn run(&mut self, command: &Command, io: SessionIo<'_>) -> Result<ExitStatus, Error> {
        let control = (&self.control.0, &self.control.1);
        let booted = &mut self.booted;
        command.run(io, |request, io| Ok(booted.session(request, io, control)?.status))
    }

    /// Takes the machine apart and tells where the time went.
    #[must_use]
    pub fn finish(self) -> Timings {
        let Self { booted, plug: _, mut watch, control: _ } = self;
        watch.ended(Stage::Command);
        let counts = booted.stop();
        watch.ended(Stage::Teardown);
        watch.finish(counts)
    }
}

/// What the machine starts with: the image's own, unless something else is asked for.
fn guest(
    options: &MachineOptions,
    plug: &Plug,
    image: &Image,
    limits: Limits,
) -> Result<Guest, Error> {
    let kernel = options.kernel.clone().unwrap_or_else(|| image.kernel());
    let initrd = match &options.initrd {
        Some(path) => path.clone(),
        None => image.initramfs(images::agent(&options.image.arch)?)?,
    };
    let quiet = options.console.is_none();
    let words = [plug.words().as_str(), options.append.as_deref().unwrap_or_default()].join(" ");
    Ok(Guest {
        kernel_name: kernel.display().to_string(),
        kernel: read("kernel", &kernel)?,
        cmdline: cmdline::agent_machine(
            limits.scale(),
            quiet,
            &cmdline::root_device(image),
            Some(&words),
        ),
        modules: vec![(String::new(), read("initial RAM disk", &initrd)?)],
    })
}

/// The image's root file system, with everything that is written to it in an unnamed file that ends
/// with the process, however it ends.
fn overlay(image: &Image) -> Result<Arc<dyn Disk>, Error> {
    let base = Arc::new(RawDisk::open(&image.rootfs(), true)?);
    // Beside the image: that file system is known to have room for one.
    let directory = image.directory().parent().unwrap_or(Path::new("/tmp"));
    Ok(Arc::new(Overlay::new(base, directory)?))
}
