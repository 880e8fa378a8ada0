//! `riad create`: a machine that lives on.

use std::process::ExitCode;

use riad_host::images::find_or_build;
use riad_host::machines::{Boot, Folder, Machines, Name, NewMachine};
use riad_host::{Error, ImageOptions, ImageRef, default_cpus};
use riad_vmm::{CpuModel, EngineKind, VmConfig};

use crate::args::{CreateArgs, Hardware};
use crate::report::Failure;
use crate::signals::Signals;
use crate::status::Status;

pub(crate) fn create(args: CreateArgs) -> Result<ExitCode, Failure> {
    let CreateArgs { name, image, hardware, disk, boot, sources } = args;
    let Hardware { cpus, memory, engine, cpu, code_cache } = hardware;
    let new = NewMachine {
        cpus: cpus.unwrap_or_else(|| default_cpus().min(engine.most_cpus())),
        memory: memory.0,
        disk: disk.map(|size| size.0),
        engine: (engine, code_cache.0),
        cpu,
        boot,
    };
    let signals = Signals::watch()?;
    make(&name, &ImageOptions { engine, ..sources.options(image) }, &new, signals)?;
    eprintln!("riad: machine {name} is made: `riad start {name}`");
    Ok(ExitCode::SUCCESS)
}

/// The machine that `riad shell` makes when there is none.
pub(crate) fn make_default(name: &Name, signals: Signals) -> Result<Folder, Failure> {
    let new = NewMachine {
        cpus: default_cpus(),
        memory: 1 << 30,
        disk: None,
        engine: (EngineKind::Auto, VmConfig::DEFAULT_CODE_CACHE),
        cpu: CpuModel::Riad,
        boot: Boot::Auto,
    };
    let image = ImageOptions::new(ImageRef::Debian { suite: None });
    let folder = make(name, &image, &new, signals)?;
    eprintln!("riad: machine {name} is made, from debian");
    Ok(folder)
}

fn make(
    name: &Name,
    image: &ImageOptions,
    new: &NewMachine,
    signals: Signals,
) -> Result<Folder, Failure> {
    let machines = Machines::open()?;
    // What was typed wrong is said before anything is built.
    machines.check_free(name)?;
    let (engine, code_cache) = new.engine;
    let config = VmConfig {
        cpus: new.cpus,
        memory: new.memory,
        engine,
        cpu: new.cpu,
        code_cache,
        ..VmConfig::default()
    };
    config.check().map_err(Error::Vm)?;
    let mut status = Status::new(signals, &image.reference.to_string(), false);
    let image = find_or_build(image, &mut status)?;
    status.clear();
    Ok(machines.create(name, &image, new)?)
}
