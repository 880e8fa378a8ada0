//! `riad create`: a machine that lives on.

use std::process::ExitCode;

use riad_host::images::find_or_build;
use riad_host::machines::{Boot, Folder, GuestSetup, MachineUser, Machines, Name, NewMachine};
use riad_host::{Error, ImageOptions, ImageRef, Network, default_cpus, invoker};
use riad_vmm::{CpuModel, EngineKind, VmConfig};

use crate::args::{CreateArgs, Fit, Hardware};
use crate::net;
use crate::provision::read_scripts;
use crate::report::Failure;
use crate::signals::Signals;
use crate::status::Status;

pub(crate) fn create(args: CreateArgs) -> Result<ExitCode, Failure> {
    let CreateArgs {
        name,
        image,
        hardware,
        networking,
        networks,
        disk,
        boot,
        fit,
        provision,
        sources,
    } = args;
    let Hardware { cpus, memory, engine, cpu, code_cache } = hardware;
    let (network, publish) = networking.network()?;
    let new = NewMachine {
        cpus: cpus.unwrap_or_else(|| default_cpus().min(engine.most_cpus())),
        memory: memory.0,
        disk: disk.map(|size| size.0),
        engine: (engine, code_cache.0),
        cpu,
        boot,
        network,
        publish,
        guest: guest_setup(fit)?,
        scripts: read_scripts(&provision)?,
    };
    let machines = Machines::open()?;
    net::check(&machines, &networks)?;
    let signals = Signals::watch()?;
    make(&name, &ImageOptions { engine, ..sources.options(image) }, &new, signals)?;
    for network in &networks {
        machines.attach_network(network, &name, None)?;
    }
    eprintln!("riad: machine {name} is made: `riad start {name}`");
    Ok(ExitCode::SUCCESS)
}

/// What the guest is made to fit: who runs riad, but for what was asked for.
fn guest_setup(fit: Fit) -> Result<GuestSetup, Failure> {
    let Fit { user, no_user, ssh_key, no_ssh_key, locale, time_zone } = fit;
    let mut setup = invoker::guest_setup();
    if let Some(user) = user {
        // The number goes with the name.
        let uid = setup.user.filter(|own| own.name == user.name).and_then(|own| own.uid);
        setup.user = Some(MachineUser { uid, ..user });
    } else if no_user {
        setup.user = None;
    }
    if no_ssh_key {
        setup.keys.clear();
    } else if !ssh_key.is_empty() {
        let keys = ssh_key.iter().map(|path| invoker::keys(path));
        let keys = keys.collect::<Result<Vec<_>, _>>();
        setup.keys = keys.map_err(|error| Failure::Own(error.to_string()))?.concat();
    }
    setup.locale = locale.or(setup.locale);
    setup.time_zone = time_zone.or(setup.time_zone);
    Ok(setup)
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
        network: Network::default(),
        publish: Vec::new(),
        guest: invoker::guest_setup(),
        scripts: Vec::new(),
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
