//! `riad why`: where a machine's last start spent its time, how it went on, and the console's last
//! words.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use riad_host::machines::{Folder, Machines, RunState, State};
use riad_host::printable;
use serde::Serialize;

use crate::args::{Format, OneArgs};
use crate::image::ago;
use crate::report::{Failure, show_as};

/// Lines of the console that are shown.
const LINES: usize = 12;

/// What a program is told; keys are only ever added.
#[derive(Debug, Serialize)]
struct Why {
    name: String,
    state: State,
    run: Option<RunState>,
    /// The console's last lines.
    console: Vec<String>,
}

pub(crate) fn why(args: OneArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let folder = Machines::open()?.get(&args.name)?;
    let why = Why {
        name: folder.name().to_string(),
        state: folder.state()?,
        run: folder.told()?,
        console: console(&folder),
    };
    show_as(&why, format, || page(&why))?;
    Ok(ExitCode::SUCCESS)
}

fn page(why: &Why) -> String {
    let Why { name, state, run, console } = why;
    let Some(run) = run else {
        return format!("{name} has never been started: `riad start {name}`.\n");
    };
    let mut text = format!("{name} is {state}; it was started {}", ago(run.began / 1000));
    let _ = match (run.reboots, run.engine.as_str()) {
        (0, engine) => writeln!(text, ", on engine {engine}."),
        (n, engine) => writeln!(text, ", on engine {engine}, and restarted itself {n} times."),
    };
    if !run.stages.is_empty() {
        text.push_str("\nstage       seconds\n");
        for stage in &run.stages {
            let _ = writeln!(text, "{:10} {:8.3}", printable(&stage.stage), stage.ms / 1e3);
        }
    }
    if let Some(system) = &run.system {
        let _ = match system.as_str() {
            "none" => writeln!(text, "\nThe agent is all the init that it has."),
            word => writeln!(text, "\nIts init system says: {}.", printable(word)),
        };
    }
    for warning in &run.warnings {
        let _ = writeln!(text, "\nWarning: {}.", printable(warning).trim_end_matches('.'));
    }
    if let Some(waits) = &run.waits {
        let _ = writeln!(text, "\nSomething is to be done: {}.", printable(waits));
    }
    match (state, &run.ended) {
        (State::Killed, _) => {
            let _ = writeln!(
                text,
                "\nIts process was killed in stage '{}', or this computer lost power. What the guest \
                 had written to its disk is there: `riad start {name}`.",
                run.stage
            );
        }
        (State::Failed, Some(ended)) => {
            let _ = writeln!(text, "\nIt failed {}: {}.", ago(ended.at / 1000), ended.message);
        }
        (_, Some(ended)) => {
            let _ = writeln!(text, "\nIt ended {}: {}.", ago(ended.at / 1000), ended.message);
        }
        (State::Starting | State::Stopping, None) => {
            let _ = writeln!(text, "\nIt is in stage '{}'.", run.stage);
        }
        (_, None) => {}
    }
    if !console.is_empty() {
        text.push_str("\nThe last lines of its console:\n");
        for line in console {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// The last lines that are not empty.
fn console(folder: &Folder) -> Vec<String> {
    let [now, _] = folder.console_logs();
    let bytes = fs::read(now).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(printable).filter(|line| !line.trim().is_empty());
    let mut lines: Vec<_> = lines.collect();
    lines.split_off(lines.len().saturating_sub(LINES))
}
