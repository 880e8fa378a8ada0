//! `riad run`: a command in a fresh machine that is thrown away afterwards.

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use riad_confine::Inherited;
use riad_host::{ImageOptions, Machine, MachineOptions, Publish, Timings, default_cpus};

use crate::args::{Format, Hardware, RunArgs};
use crate::report::{Failure, table};
use crate::signals::Signals;
use crate::status::Status;
use crate::{session, terminal, yaml};

pub(crate) fn run(
    args: RunArgs,
    format: Option<Format>,
    began: Instant,
) -> Result<ExitCode, Failure> {
    let inherited = Inherited::now();
    let RunArgs {
        image,
        hardware: Hardware { cpus, memory, engine, cpu, code_cache },
        networking,
        conditions,
        console,
        timings,
        kernel,
        initrd,
        append,
        sources,
        command,
    } = args;
    let (network, publish) = networking.network()?;
    let tty = terminal::is_interactive();
    let command = session::command(command, conditions, tty)?;
    let signals = Signals::watch()?;
    let name = image.to_string();
    let picks = publish.iter().any(Publish::picks_a_port);
    let options = MachineOptions {
        image: ImageOptions { engine, ..sources.options(image) },
        cpus: cpus.unwrap_or_else(|| default_cpus().min(engine.most_cpus())),
        memory: memory.0,
        engine,
        cpu,
        code_cache: code_cache.0,
        kernel,
        initrd,
        append,
        network,
        publish,
        console: console.then(|| Box::new(io::stderr()) as _),
        notice: Box::new(terminal::notice),
        inherited: Some(inherited),
    };

    let mut status = Status::new(signals.clone(), &name, console);
    let started = Machine::start(options, began, &mut status);
    status.clear();
    let mut machine = started?;

    // What could not be known before: which ports were free.
    for published in machine.published().iter().filter(|_| picks) {
        eprintln!("riad: {} goes to port {}", published.listens(), published.forward().port);
    }

    let control = machine.control();
    let ended = session::interact(&signals, control, tty, |io| machine.run(&command, io))?;

    let measured = machine.finish();
    if let Some(wanted) = timings {
        print_timings(&measured, wanted.or(format));
    }
    session::status(ended, &signals)
}

/// On standard error: standard output is the command's.
fn print_timings(timings: &Timings, format: Option<Format>) {
    match format {
        Some(Format::Json) => {
            if let Ok(json) = serde_json::to_string(timings) {
                eprintln!("{json}");
            }
        }
        Some(Format::Yaml) => eprint!("{}", yaml::text(timings)),
        Some(Format::Table) | None => eprint!("{}", table(timings)),
    }
}
