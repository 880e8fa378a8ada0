//! `riad set`: what a machine is, changed; and when each change counts.

use std::process::ExitCode;

use riad_host::machines::{Folder, MachineConfig, Machines};
use riad_host::{Error, Size};
use riad_vmm::VmConfig;
use serde::Serialize;

use crate::args::{Format, SetArgs};
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
    let changes = changes(&old, &new, folder.is_alive()?);
    if !args.dry_run && !changes.is_empty() {
        folder.write_config(&new)?;
    }
    drop(lock);
    show_as(&changes, format, || match changes.is_empty() {
        true => "Nothing changes; `riad set --help` lists what can be set.\n".to_owned(),
        false => table(&changes, args.dry_run),
    })?;
    Ok(ExitCode::SUCCESS)
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
        ("disk", size(old.disk), size(new.disk), hardware),
        ("engine", old.engine.to_string(), new.engine.to_string(), hardware),
        ("cpu", old.cpu.to_string(), new.cpu.to_string(), hardware),
        ("code-cache", size(old.code_cache), size(new.code_cache), hardware),
        ("boot", old.boot.to_string(), new.boot.to_string(), hardware),
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
