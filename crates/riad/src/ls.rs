//! `riad ls` and `riad info`: what machines there are, and what is true of them.

use std::process::ExitCode;

use riad_host::machines::{AttachedNetwork, Folder, Machines, RunState, Script, State};
use riad_host::{Publish, Size, printable};
use serde::Serialize;

use crate::args::{Format, LsArgs, OneArgs};
use crate::image::ago;
use crate::report::{Failure, columns, show, show_as};

/// A machine as a program is told of it; keys are only ever added. What is not known is null.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// stopped, starting, running, stopping, failed, killed; null when the folder is damaged.
    state: Option<State>,
    id: Option<String>,
    image: Option<String>,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    /// What it takes on this computer's disk, besides its image.
    disk_used_bytes: Option<u64>,
    /// Disks that are attached to it, in order.
    disks: Vec<AttachedRow>,
    /// The engine asked for.
    engine: Option<&'static str>,
    /// Whose features the processors show.
    cpu: Option<&'static str>,
    boot: Option<&'static str>,
    /// What the network card is plugged into, as `--net` takes it.
    network: Option<String>,
    /// Named networks that it is on, from its next start on.
    networks: Vec<AttachedNetwork>,
    /// What comes in here at each start and goes to the guest, as `--publish` takes it.
    publish: Option<Vec<Publish>>,
    protected: Option<bool>,
    /// Who runs commands in it when nobody is named, once it has been started; null is root.
    user: Option<String>,
    /// Its provisioning scripts, and how they went.
    provision: Vec<Script>,
    /// Seconds since the Unix epoch.
    created: Option<u64>,
    folder: String,
    /// The process's number, while there is one.
    pid: Option<u32>,
    /// The last start, as `run.json` has it.
    run: Option<RunState>,
    /// Why the folder cannot be understood.
    damaged: Option<String>,
}

/// A disk that is attached.
#[derive(Debug, Serialize)]
struct AttachedRow {
    name: String,
    read_only: bool,
    /// Whether the machine runs with it; null when it is off.
    in_use: Option<bool>,
}

impl Row {
    fn new(folder: &Folder) -> Self {
        let config = folder.config();
        let state = folder.state();
        let run = match &state {
            Ok(state) if state.is_alive() => folder.told(),
            _ => folder.run_state(),
        };
        let run = run.unwrap_or_default();
        let disk = folder.disk();
        let first = [config.as_ref().err(), state.as_ref().err(), disk.as_ref().err()];
        let damaged = first.into_iter().flatten().next().map(ToString::to_string);
        let (config, state, disk) = (config.ok(), state.ok(), disk.ok());
        let state = state.filter(|state| damaged.is_none() || state.is_alive());
        let config = config.as_ref();
        let used = run.as_ref().filter(|_| state.is_some_and(State::is_alive));
        let disks = config.iter().flat_map(|config| &config.disks).map(|disk| AttachedRow {
            name: disk.name.clone(),
            read_only: disk.read_only,
            in_use: used.map(|run| run.disks.contains(&disk.name)),
        });
        Self {
            disks: disks.collect(),
            name: folder.name().to_string(),
            state,
            id: config.map(|config| config.id.clone()),
            image: config.map(|config| config.image.name.clone()),
            cpus: config.map(|config| config.cpus),
            memory_bytes: config.map(|config| config.memory),
            disk_bytes: config.map(|config| config.disk),
            disk_used_bytes: disk.map(|disk| disk.allocated),
            engine: config.map(|config| config.engine.name()),
            cpu: config.map(|config| config.cpu.name()),
            boot: config.map(|config| config.boot.name()),
            network: config.map(|config| config.network.to_string()),
            networks: config.map(|config| config.networks.clone()).unwrap_or_default(),
            publish: config.map(|config| config.publish.clone()),
            protected: config.map(|config| config.protected),
            user: folder.user().unwrap_or_default(),
            provision: folder.provisioning().map(|state| state.scripts).unwrap_or_default(),
            created: config.map(|config| config.created),
            folder: folder.path().display().to_string(),
            pid: run.as_ref().filter(|_| state.is_some_and(State::is_alive)).map(|run| run.pid),
            run,
            damaged,
        }
    }

    fn state(&self) -> &'static str {
        self.state.map_or("damaged", State::name)
    }

    /// What the guest waits for, while it runs.
    fn waits(&self) -> Option<&str> {
        let run = self.run.as_ref().filter(|_| self.pid.is_some());
        run.and_then(|run| run.waits.as_deref())
    }

    fn is(&self, key: &str, value: &str) -> bool {
        match key {
            "state" => self.state() == value,
            "image" => self.image.as_deref() == Some(value),
            "engine" => self.engine == Some(value),
            _ => self.name == value,
        }
    }
}

pub(crate) fn ls(args: LsArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let LsArgs { quiet, filter } = args;
    let machines = Machines::open()?;
    let mut rows = Vec::new();
    for folder in machines.all()? {
        rows.push(Row::new(&folder?));
    }
    let is_any = !rows.is_empty();
    rows.retain(|row| filter.iter().all(|(key, value)| row.is(key, value)));
    if quiet {
        show(&rows.iter().map(|row| format!("{}\n", row.name)).collect::<String>());
    } else {
        show_as(&rows, format, || match is_any {
            true => table(&rows),
            false => {
                "There are no machines yet; `riad shell` makes one and enters it.\n".to_owned()
            }
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Row]) -> String {
    let head = ["NAME", "STATE", "CPUS", "MEMORY", "DISK", "USED", "IMAGE"].map(str::to_owned);
    let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| Size(bytes).to_string());
    let lines = rows.iter().map(|row| {
        [
            row.name.clone(),
            match row.waits() {
                Some(_) => format!("{}, waits", row.state()),
                None => row.state().to_owned(),
            },
            row.cpus.map_or("-".to_owned(), |cpus| cpus.to_string()),
            size(row.memory_bytes),
            size(row.disk_bytes),
            size(row.disk_used_bytes),
            row.image.as_deref().map_or("-".to_owned(), printable),
        ]
    });
    columns(&[head].into_iter().chain(lines).collect::<Vec<_>>())
}

pub(crate) fn info(args: OneArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let row = Row::new(&Machines::open()?.get(&args.name)?);
    show_as(&row, format, || page(&row))?;
    Ok(ExitCode::SUCCESS)
}

fn confined(by: &[String]) -> String {
    if by.is_empty() { "nothing: this kernel cannot".to_owned() } else { by.join(", ") }
}

fn provisioning(scripts: &[Script]) -> Option<String> {
    let scripts: Vec<_> =
        scripts.iter().map(|s| format!("{} {}", printable(&s.name), s.state.name())).collect();
    (!scripts.is_empty()).then(|| scripts.join(", "))
}

fn page(row: &Row) -> String {
    let mut lines: Vec<[String; 2]> = Vec::new();
    let mut line = |key: &str, value: Option<String>| {
        lines.extend(value.map(|value| [key.to_owned(), value]));
    };
    let size = |bytes: Option<u64>| bytes.map(|bytes| Size(bytes).to_string());
    line("name", Some(row.name.clone()));
    line("state", Some(row.state().to_owned()));
    line("damaged", row.damaged.clone());
    line("waits", row.waits().map(printable));
    line("image", row.image.as_deref().map(printable));
    line("processors", row.cpus.map(|cpus| cpus.to_string()));
    line("memory", size(row.memory_bytes));
    line("disk", size(row.disk_bytes));
    line("disk used", size(row.disk_used_bytes));
    for disk in &row.disks {
        let mut words = vec![printable(&disk.name)];
        words.extend(disk.read_only.then(|| "read-only".to_owned()));
        words.extend((disk.in_use == Some(false)).then(|| "from the next start on".to_owned()));
        line("attached disk", Some(words.join(", ")));
    }
    line("engine", row.engine.map(str::to_owned));
    line("processor model", row.cpu.map(str::to_owned));
    line("boot", row.boot.map(str::to_owned));
    line("network", row.network.as_deref().map(printable));
    for AttachedNetwork { name, address } in &row.networks {
        line("on network", Some(format!("{} as {address}", printable(name))));
    }
    for publish in row.publish.iter().flatten() {
        line("publishes", Some(printable(&publish.to_string())));
    }
    line("protected", row.protected.filter(|is| *is).map(|_| "yes".to_owned()));
    line("user", row.user.as_deref().map(printable));
    line("provisioning", provisioning(&row.provision));
    line("created", row.created.map(ago));
    line("folder", Some(row.folder.clone()));
    line("process", row.pid.map(|pid| pid.to_string()));
    if let Some(run) = &row.run {
        if row.pid.is_some() {
            line("running on", Some(run.engine.clone()));
            line("confined by", Some(confined(&run.confined)));
            line("started", Some(ago(run.began / 1000)));
            line("init system", run.system.as_deref().map(printable));
            for name in run.disks.iter().filter(|name| row.disks.iter().all(|d| d.name != **name)) {
                let text = format!("{}, until the next start", printable(name));
                line("detached disk", Some(text));
            }
            if (Some(run.cpus), Some(run.memory)) != (row.cpus, row.memory_bytes) {
                let runs = format!("{} processors, {}", run.cpus, Size(run.memory));
                line("until restarted", Some(runs));
            }
        } else if let Some(ended) = &run.ended {
            line("last end", Some(format!("{}: {}", ago(ended.at / 1000), ended.message)));
        }
    }
    columns(&lines)
}
