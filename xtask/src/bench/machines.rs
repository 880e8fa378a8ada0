//! `cargo xtask bench machines`: what people wait for who have machines, against the bars that were set.
//!
//! Times are of whole commands, as typed: the program's own start is in them. QEMU's TCG runs the same
//! kernel and root file system to its login prompt, and the same requests on the same file.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::guest::{Guest, NAME};
use super::qemu::Qemu;
use super::report::{Load, Report, median};
use crate::Error;
use crate::cargo::{cargo, output, run};

/// Machines that `ls` lists.
const MANY: usize = 50;
/// Commands that are run in a machine.
const COMMANDS: usize = 100;
/// The longest that a guest may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) rounds: u32,
    pub(super) riad: Option<PathBuf>,
    pub(super) qemu: Option<String>,
    pub(super) skip_qemu: bool,
    pub(super) skip_disk: bool,
}

impl Options {
    pub(super) fn parse(words: &[&str]) -> Result<Self, Error> {
        let mut options =
            Self { rounds: 3, riad: None, qemu: None, skip_qemu: false, skip_disk: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match *word {
                "--rounds" => options.rounds = value()?.parse()?,
                "--riad" => options.riad = Some(value()?.into()),
                "--qemu" => options.qemu = Some((*value()?).to_owned()),
                "--skip-qemu" => options.skip_qemu = true,
                "--skip-disk" => options.skip_disk = true,
                _ => {
                    let text =
                        format!("bench machines has no option {word}: see `cargo xtask help`");
                    return Err(text.into());
                }
            }
        }
        Ok(options)
    }
}

/// A riad with machines of its own.
struct Riad {
    program: PathBuf,
    cache: PathBuf,
    machines: PathBuf,
}

impl Riad {
    /// Runs a command to its end, which must be a good one. Gives how many seconds it took.
    fn time(&self, words: &[&str]) -> Result<f64, Error> {
        let mut command = Command::new(&self.program);
        command.args(words).env("RIAD_CACHE", &self.cache).env("RIAD_MACHINES", &self.machines);
        command.stdin(Stdio::null());
        let began = Instant::now();
        output(command)?;
        Ok(began.elapsed().as_secs_f64())
    }

    fn times(&self, count: usize, words: &[&str]) -> Result<Vec<f64>, Error> {
        (0..count).map(|_| self.time(words)).collect()
    }
}

impl Drop for Riad {
    fn drop(&mut self) {
        let _ = self.time(&["stop", "--force", "timed"]);
        let _ = std::fs::remove_dir_all(&self.machines);
    }
}

/// Measures, and prints a table with the bars.
pub(crate) fn machines(words: &[&str]) -> Result<(), Error> {
    let options = Options::parse(words)?;
    let target = super::target_directory()?;
    let program = match &options.riad {
        Some(path) => path.clone(),
        None => {
            run(cargo(&["build", "--release", "--package", "riad"]))?;
            target.join("release/riad")
        }
    };
    let guest = Guest::prepare(&program, &target.join("yardstick"))?;
    let cache = guest.directory.join("cache");
    let machines = guest.directory.join("machines");
    let _ = std::fs::remove_dir_all(&machines);
    let riad = Riad { program: program.clone(), cache, machines };

    let mut lines = Vec::new();
    let names: Vec<String> = (0..MANY).map(|number| format!("many-{number}")).collect();
    let create = names.iter().map(|name| riad.time(&["create", name, "--image", NAME]));
    lines.push(Line::new("create", create.collect::<Result<_, _>>()?, 0.050));
    lines.push(Line::new("ls, 50 machines", riad.times(20, &["ls"])?, 0.050));

    let hardware = ["--cpus", "1", "--memory", "2G", "--engine", "soft"];
    riad.time(&[&["create", "timed", "--image", NAME], &hardware[..]].concat())?;
    let mut starts = Vec::new();
    for _ in 0..options.rounds {
        starts.push(riad.time(&["start", "timed"])?);
        riad.time(&["wait", "timed", "system", "--timeout", "300"])?;
        riad.time(&["stop", "timed"])?;
    }
    riad.time(&["start", "timed"])?;
    riad.time(&["wait", "timed", "system", "--timeout", "300"])?;
    let exec = riad.times(COMMANDS, &["exec", "timed", "--", "true"])?;
    riad.time(&["stop", "--force", "timed"])?;
    lines.push(Line::new("exec -- true", exec, 0.020));
    let start = Line::new("start, to the agent", starts, f64::NAN);
    let started = start.median();
    lines.push(start);
    drop(riad);

    let mut engines = vec![Engine::Riad(program, "soft".to_owned())];
    if !options.skip_qemu {
        let qemu = match &options.qemu {
            Some(path) => Qemu::at(path),
            None => Qemu::from_backports(&guest.directory.join("qemu"))?,
        };
        println!("tcg is {}", qemu.version()?);
        engines.push(Engine::Tcg(qemu));
    }
    let loads = [Some(Load::Login), (!options.skip_disk).then_some(Load::Disk)];
    let mut report = Report::default();
    for round in 1..=options.rounds {
        for load in loads.into_iter().flatten() {
            for engine in &engines {
                let measured = engine.run(load, &guest, PATIENCE)?;
                for remark in &measured.remarks {
                    println!("round {round}, {}, {}: {remark}", load.name(), engine.name());
                }
                report.add(engine.name(), load, &measured);
            }
        }
    }
    println!("\n{:24}{:>12}{:>12}{:>12}{:>12}", "command", "median", "least", "most", "bar");
    for line in &lines {
        println!("{line}");
    }
    let present: Vec<_> = engines.iter().map(Engine::name).collect();
    for load in loads.into_iter().flatten() {
        println!("\n{}", report.table(load, &present));
    }
    let login = report.median(Load::Login, "login prompt", "tcg");
    if let (Some(login), Some(started)) = (login, started) {
        let times = login / started;
        println!("tcg's login prompt takes {times:.2} times as long as a start (bar: 3)");
    }
    Ok(())
}

/// The times of a command, seconds.
struct Line {
    name: &'static str,
    seconds: Vec<f64>,
    /// What the median is to stay under; NaN for none.
    bar: f64,
}

impl Line {
    fn new(name: &'static str, seconds: Vec<f64>, bar: f64) -> Self {
        Self { name, seconds, bar }
    }

    fn median(&self) -> Option<f64> {
        median(&self.seconds)
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |seconds: Option<f64>| match seconds {
            Some(seconds) if seconds.is_finite() => format!("{:.1} ms", seconds * 1e3),
            _ => "-".to_owned(),
        };
        let least = self.seconds.iter().copied().reduce(f64::min);
        let most = self.seconds.iter().copied().reduce(f64::max);
        let columns = [ms(self.median()), ms(least), ms(most), ms(Some(self.bar))];
        write!(f, "{:24}", self.name)?;
        columns.iter().try_for_each(|column| write!(f, "{column:>12}"))
    }
}

#[cfg(test)]
#[path = "machines_test.rs"]
mod tests;
