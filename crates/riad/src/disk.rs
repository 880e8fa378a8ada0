//! `riad disk`: disks that are attached to machines, and outlive them.

use std::process::ExitCode;

use riad_host::journal::Event;
use riad_host::machines::{DiskInfo, DiskName, MachineError, Machines, NewDisk};
use riad_host::process::Connection;
use riad_host::{Size, printable};
use serde::Serialize;

use crate::args::{
    DiskAttachArgs, DiskCreateArgs, DiskDetachArgs, DiskResizeArgs, DiskRmArgs, DiskVerb, Format,
};
use crate::delete::confirmed;
use crate::image::ago;
use crate::report::{Failure, columns, show_as, when};
use crate::signals::Signals;
use crate::status::Status;

pub(crate) fn disk(verb: DiskVerb, format: Option<Format>) -> Result<ExitCode, Failure> {
    match verb {
        DiskVerb::Create(args) => create(args)?,
        DiskVerb::Ls => ls(format)?,
        DiskVerb::Info { disk } => info(&disk, format)?,
        DiskVerb::Resize(args) => resize(&args)?,
        DiskVerb::Attach(args) => attach(&args)?,
        DiskVerb::Detach(args) => detach(&args)?,
        DiskVerb::Rm(args) => rm(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: DiskCreateArgs) -> Result<(), Failure> {
    let DiskCreateArgs { disk, size, from } = args;
    let machines = Machines::open()?;
    let status = Status::new(Signals::watch()?, "", false);
    let new = NewDisk { size: size.map(|size| size.0), from };
    let made = machines.create_disk(&disk, &new, &mut |done, size| {
        status.show(&format!("copying {} of {}", Size(done), Size(size)));
    });
    drop(status);
    let size = Size(made?.size);
    eprintln!("riad: disk {disk} is made, of {size}: `riad disk attach {disk} NAME`");
    Ok(())
}

/// A disk as a program is told of it; keys are only ever added. What is not known is null.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    id: Option<String>,
    size_bytes: Option<u64>,
    /// What it takes on this computer's disk.
    used_bytes: Option<u64>,
    /// Seconds since the Unix epoch.
    created: Option<u64>,
    file: Option<String>,
    attached: Vec<Attached>,
    /// Why it cannot be understood.
    damaged: Option<String>,
}

/// A machine that has a disk.
#[derive(Debug, Serialize)]
struct Attached {
    machine: String,
    read_only: bool,
}

impl Row {
    fn new(name: &DiskName, info: Result<DiskInfo, MachineError>) -> Self {
        let damaged = info.as_ref().err().map(ToString::to_string);
        let info = info.ok();
        let machines = info.as_ref().map_or(&[][..], |info| &info.machines);
        Self {
            name: name.to_string(),
            attached: machines
                .iter()
                .map(|(machine, read_only)| Attached {
                    machine: machine.to_string(),
                    read_only: *read_only,
                })
                .collect(),
            size_bytes: info.as_ref().map(|info| info.size),
            used_bytes: info.as_ref().map(|info| info.allocated),
            created: info.as_ref().map(|info| info.created),
            file: info.as_ref().map(|info| info.file.display().to_string()),
            id: info.map(|info| info.id),
            damaged,
        }
    }

    fn attached(&self) -> String {
        if self.damaged.is_some() {
            return format!("damaged: riad disk rm {}", self.name);
        }
        let machine = |at: &Attached| match at.read_only {
            true => format!("{} (read-only)", at.machine),
            false => at.machine.clone(),
        };
        match self.attached.is_empty() {
            true => "-".to_owned(),
            false => self.attached.iter().map(machine).collect::<Vec<_>>().join(", "),
        }
    }
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| Size(bytes).to_string())
}

fn ls(format: Option<Format>) -> Result<(), Failure> {
    let disks = Machines::open()?.disks()?;
    let rows: Vec<_> = disks.into_iter().map(|(name, info)| Row::new(&name, info)).collect();
    show_as(&rows, format, || {
        if rows.is_empty() {
            return "There are no disks yet; `riad disk create NAME --size 10G` makes one.\n"
                .to_owned();
        }
        let head = ["NAME", "SIZE", "USED", "ATTACHED TO"].map(str::to_owned);
        let line = |row: &Row| {
            [row.name.clone(), size(row.size_bytes), size(row.used_bytes), row.attached()]
        };
        columns(&[head].into_iter().chain(rows.iter().map(line)).collect::<Vec<_>>())
    })
}

fn info(name: &DiskName, format: Option<Format>) -> Result<(), Failure> {
    let row = Row::new(name, Ok(Machines::open()?.disk(name)?));
    show_as(&row, format, || {
        let lines = [
            ("name", row.name.clone()),
            ("size", size(row.size_bytes)),
            ("used", size(row.used_bytes)),
            ("attached to", row.attached()),
            ("in its guest", format!("/dev/disk/by-id/virtio-{name}")),
            ("created", row.created.map(ago).unwrap_or_default()),
            ("file", printable(row.file.as_deref().unwrap_or_default())),
        ];
        columns(&lines.map(|(key, value)| [key.to_owned(), value]))
    })
}

fn resize(args: &DiskResizeArgs) -> Result<(), Failure> {
    let DiskResizeArgs { disk, size } = args;
    let machines = Machines::open()?;
    let old = machines.check_disk_growth(disk, size.0)?;
    // Whoever runs with it has it alone, and makes it larger; it may have been detached since.
    let mut is_done = false;
    for folder in machines.all()? {
        let folder = folder?;
        let runs = folder.is_alive()?.then(|| folder.told()).transpose()?.flatten();
        if runs.is_some_and(|run| run.disks.iter().any(|name| name == disk.as_str())) {
            Connection::open(&folder)?.grow_disk(disk, size.0)?;
            is_done = true;
        }
    }
    if !is_done {
        machines.grow_disk(disk, size.0)?;
    }
    for (machine, _) in &old.machines {
        let (what, when) = (format!("disk {disk}"), "now".to_owned());
        let [from, to] = [old.size, size.0].map(|bytes| Size(bytes).to_string());
        machines.get(machine)?.record(&Event::Set { what, from, to, when });
    }
    eprintln!(
        "riad: disk {disk} has {size} now{}",
        if is_done { ", and its guest knows; what is on it is as large as before" } else { "" }
    );
    Ok(())
}

fn attach(args: &DiskAttachArgs) -> Result<(), Failure> {
    let DiskAttachArgs { disk, name, read_only } = args;
    let (folder, counts) = Machines::open()?.attach_disk(disk, name, *read_only)?;
    let when = when(&folder, counts)?;
    eprintln!(
        "riad: disk {disk} is attached to {name} {when}; it is /dev/disk/by-id/virtio-{disk} there"
    );
    Ok(())
}

fn detach(args: &DiskDetachArgs) -> Result<(), Failure> {
    let DiskDetachArgs { disk, name } = args;
    let (folder, counts) = Machines::open()?.detach_disk(disk, name.as_ref())?;
    let name = folder.name();
    match folder.is_alive()? {
        true => eprintln!("riad: disk {disk} is detached from {name} {}", when(&folder, counts)?),
        false => eprintln!("riad: disk {disk} is detached from {name}"),
    }
    Ok(())
}

fn rm(args: DiskRmArgs) -> Result<(), Failure> {
    let DiskRmArgs { disks, yes } = args;
    let machines = Machines::open()?;
    let _signals = Signals::watch()?;
    for disk in &disks {
        // Of one that is attached nobody need be asked.
        match machines.disk(disk) {
            Ok(info) if !info.machines.is_empty() => return Ok(machines.remove_disk(disk)?),
            Err(error @ MachineError::NoSuchDisk(_)) => return Err(error.into()),
            _ => {}
        }
        if !yes && !confirmed("disk", disk, "everything on it", "removed")? {
            eprintln!("riad: disk {disk} is kept");
            continue;
        }
        machines.remove_disk(disk)?;
        eprintln!("riad: disk {disk} is removed");
    }
    Ok(())
}
