//! `riad set`: what a machine is, changed; and when each change counts.

use std::process::ExitCode;

use riad_host::journal::Event;
use riad_host::machines::{Folder, MachineConfig, Machines};
use riad_host::process::Connection;
use riad_host::{Error, Size};
use riad_vmm::VmConfig;
use serde::Serialize;

use crate::args::{Format, SetArgs, SomeArgs};
use crate::report::{Failure, columns, show_as};

/// A change as a program is told of it; keys are only ever added.
#[derive(Debug, Serialize)]
struct Change {
    what: &'static str,
    from: String,
    to: String,
    /// `now` or `next start`.
    when: &'static str,
}

pub(crate) fn set(args: SetArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let folder = Machines::open()?.get(&args.name)?;
    let lock = folder.lock()?;
    let old = folder.config()?;
    let new = changed(&old, &args, &folder)?;
    let is_alive = folder.is_alive()?;
    let mut changes = changes(&old, &new, is_alive);
    if !args.dry_run && !changes.is_empty() {
        folder.write_config(&new)?;
        if is_alive && new.disk != old.disk {
            grow(&folder, new.disk, &mut changes);
        }
        for Change { what, from, to, when } in &changes {
            let [what, when] = [what, when].map(|text| (*text).to_owned());
            folder.record(&Event::Set { what, from: from.clone(), to: to.clone(), when });
        }
    }
    drop(lock);
    show_as(&changes, format, || match changes.is_empty() {
        true => "Nothing changes; `riad set --help` lists what can be set.\n".to_owned(),
        false => table(&changes, args.dry_run),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `riad protect` and `riad unprotect`.
pub(crate) fn protect(args: SomeArgs, is: bool) -> Result<ExitCode, Failure> {
    let machines = Machines::open()?;
    // One that is not there is told of before any is changed.
    let folders = args.names.iter().map(|name| machines.get(name));
    for folder in folders.collect::<Result<Vec<_>, _>>()? {
        let lock = folder.lock()?;
        let old = folder.config()?;
        if old.protected != is {
            folder.write_config(&MachineConfig { protected: is, ..old.clone() })?;
            let word = |is| if is { "on" } else { "off" }.to_owned();
            let (what, when) = ("protect".to_owned(), "now".to_owned());
            folder.record(&Event::Set { what, from: word(old.protected), to: word(is), when });
        }
        drop(lock);
        match is {
            true => eprintln!("riad: machine {} cannot be deleted now", folder.name()),
            false => eprintln!("riad: machine {} can be deleted", folder.name()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Grows the disk of a machine that runs; if that fails, it grows at the next start.
fn grow(folder: &Folder, size: u64, changes: &mut [Change]) {
    match Connection::open(folder).and_then(|connection| connection.grow(size)) {
        Ok(None) => {}
        Ok(Some(note)) => eprintln!("riad: warning: {note}"),
        Err(error) => {
            eprintln!("riad: warning: the disk cannot grow while the machine runs: {error}");
            for change in changes.iter_mut().filter(|change| change.what == "disk") {
                change.when = "next start";
            }
        }
    }
}

fn changed(old: &MachineConfig, args: &SetArgs, folder: &Folder) -> Result<MachineConfig, Failure> {
    let new = MachineConfig {
        cpus: args.cpus.unwrap_or(old.cpus),
        memory: args.memory.map_or(old.memory, |size| size.0),
        disk: args.disk.map_or(old.disk, |size| size.0),
        engine: args.engine.unwrap_or(old.engine),
        cpu: args.cpu.unwrap_or(old.cpu),
        code_cache: args.code_cache.map_or(old.code_cache, |size| size.0),
        boot: args.boot.unwrap_or(old.boot),
        network: args.net.clone().unwrap_or_else(|| old.network.clone()),
        protected: args.protect.unwrap_or(old.protected),
        ..old.clone()
    };
    let config = VmConfig {
        cpus: new.cpus,
        memory: new.memory,
        engine: new.engine,
        cpu: new.cpu,
        code_cache: new.code_cache,
        ..VmConfig::default()
    };
    config.check().map_err(Error::Vm)?;
    folder.check_disk(new.disk)?;
    Ok(new)
}

fn changes(old: &MachineConfig, new: &MachineConfig, is_alive: bool) -> Vec<Change> {
    let hardware = if is_alive { "next start" } else { "now" };
    let size = |bytes| Size(bytes).to_string();
    let protection = |is| if is { "on" } else { "off" }.to_owned();
    [
        ("cpus", old.cpus.to_string(), new.cpus.to_string(), hardware),
        ("memory", size(old.memory), size(new.memory), hardware),
        // A disk grows while the machine runs.
        ("disk", size(old.disk), size(new.disk), "now"),
        ("engine", old.engine.to_string(), new.engine.to_string(), hardware),
        ("cpu", old.cpu.to_string(), new.cpu.to_string(), hardware),
        ("code-cache", size(old.code_cache), size(new.code_cache), hardware),
        ("boot", old.boot.to_string(), new.boot.to_string(), hardware),
        ("net", old.network.to_string(), new.network.to_string(), hardware),
        ("protect", protection(old.protected), protection(new.protected), "now"),
    ]
    .into_iter()
    .filter(|(_, from, to, _)| from != to)
    .map(|(what, from, to, when)| Change { what, from, to, when })
    .collect()
}

fn table(changes: &[Change], dry_run: bool) -> String {
    let when = |when: &str| match (dry_run, when) {
        (true, "now") => "would count now".to_owned(),
        (true, _) => "would count from the next start on".to_owned(),
        (false, "now") => "counts now".to_owned(),
        (false, _) => "counts from the next start on: `riad restart`".to_owned(),
    };
    let line = |change: &Change| {
        let Change { what, from, to, when: at } = change;
        [(*what).to_owned(), format!("{from} -> {to}"), when(at)]
    };
    columns(&changes.iter().map(line).collect::<Vec<_>>())
}
