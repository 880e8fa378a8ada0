//! Runs targets in processes of their own, and keeps what fails.
//!
//! A process for each job: an abort, a stack that overflows or a hang ends the process and not the
//! run, and panics of devices' threads belong to the one case that runs.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::Target;
use crate::cases::Cases;
use crate::worker::{self, Progress, Share};

/// How often a run tells how far it is.
const REPORT: Duration = Duration::from_secs(60);

/// How much to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Cases of each target, at most.
    pub cases: u64,
    /// Time for each target, at most.
    pub time: Duration,
    /// Where to start.
    pub seed: u64,
    /// Processes at once.
    pub jobs: u64,
}

/// How deep a target's cases get.
#[must_use]
pub fn depths(target: &'static Target, seed: u64, cases: u64) -> Vec<u64> {
    let made = Cases::new(target, seed);
    (0..cases).map(|number| (target.run)(&made.case(number))).collect()
}

/// What came of one target.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases that ran.
    pub cases: u64,
    /// How deep all of them got, in the target's unit.
    pub depth: u64,
    /// Cases that failed, as they were kept.
    pub failures: Vec<PathBuf>,
}

/// Where failing cases are kept.
#[must_use]
pub fn failures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("failures")
}

/// Runs one target and reports on standard output.
///
/// # Errors
/// When processes or files cannot be made.
pub fn run(target: &'static Target, plan: &Plan) -> io::Result<Outcome> {
    let start = Instant::now();
    let directory = tempfile::tempdir()?;
    let mut jobs = Vec::new();
    for index in 0..plan.jobs {
        let progress = directory.path().join(index.to_string());
        fs::write(&progress, Progress::default().bytes())?;
        jobs.push((start_job(target, plan, index, &progress)?, progress));
    }
    let files: Vec<PathBuf> = jobs.iter().map(|(_, progress)| progress.clone()).collect();
    let (done, wait) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        while wait.recv_timeout(REPORT) == Err(RecvTimeoutError::Timeout) {
            let told: Vec<_> = files.iter().filter_map(|file| Progress::read(file).ok()).collect();
            let (cases, depth) = sum(&told);
            println!("{}", line(target, cases, depth, start, "so far"));
        }
    });
    let mut outcome = Outcome::default();
    for (child, progress) in jobs {
        let output = child.wait_with_output()?;
        let told = Progress::read(&progress)?;
        outcome.cases += told.cases;
        outcome.depth = outcome.depth.saturating_add(told.depth);
        if output.status.success() {
            continue;
        }
        if output.status.code() == Some(1) {
            // Not a case: the process could not begin.
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let why = match (output.status.code(), output.status.signal()) {
            (Some(worker::PANICS), _) => "panics".to_owned(),
            (Some(worker::HANGS), _) => "hangs".to_owned(),
            (Some(code), _) => format!("ends the process with status {code}"),
            (None, signal) => format!("ends the process with signal {}", signal.unwrap_or(0)),
        };
        let number = told.number;
        let path = keep(target, &Cases::new(target, plan.seed).case(number))?;
        println!("{}: case {number} of seed {} {why}", target.name, plan.seed);
        println!("    {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "\n    "));
        println!("    cargo xtask fuzz {} --replay {}", target.name, path.display());
        outcome.failures.push(path);
    }
    drop(done);
    let verdict = if outcome.failures.is_empty() { "ok" } else { "FAILED" };
    println!("{}", line(target, outcome.cases, outcome.depth, start, verdict));
    io::stdout().flush()?;
    Ok(outcome)
}

fn sum(told: &[Progress]) -> (u64, u64) {
    told.iter().fold((0, 0), |(cases, depth), told| {
        (cases + told.cases, u64::saturating_add(depth, told.depth))
    })
}

/// A line of the report.
fn line(target: &Target, cases: u64, depth: u64, start: Instant, verdict: &str) -> String {
    let took = start.elapsed().as_secs_f64();
    format!(
        "{:14} {cases:>10} cases {took:7.1} s {:>9.0} cases/s {depth:>12} {:12}  {verdict}",
        target.name,
        cases as f64 / took.max(0.001),
        target.unit,
    )
}

fn start_job(target: &Target, plan: &Plan, index: u64, progress: &Path) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg("--job")
        .arg(target.name)
        .args([plan.seed, index, plan.jobs, plan.cases].map(|number| number.to_string()))
        .arg(plan.time.as_millis().to_string())
        .arg(progress)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// What a process that [`run`] started does. Its arguments are those after `--job`.
///
/// # Errors
/// When they are not [`run`]'s.
pub fn job(arguments: &[String]) -> Result<(), String> {
    let [name, seed, index, jobs, cases, millis, progress] = arguments else {
        return Err("--job is for the runner's own use".to_owned());
    };
    let target = crate::targets::find(name).ok_or("no such target")?;
    let number = |text: &String| text.parse::<u64>().map_err(|error| error.to_string());
    let share = Share {
        first: number(index)?,
        step: number(jobs)?,
        end: number(cases)?,
        time: Duration::from_millis(number(millis)?),
    };
    worker::work(target, number(seed)?, share, Path::new(progress));
    Ok(())
}

/// Runs the case kept in a file.
///
/// # Errors
/// When it cannot be read; or it failed again, and what it said.
pub fn replay(target: &Target, path: &Path) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    worker::replay(target, &bytes)
}

/// Keeps a case under a name made of its content.
fn keep(target: &Target, case: &[u8]) -> io::Result<PathBuf> {
    let hash = case.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let directory = failures();
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{}-{hash:016x}", target.name));
    fs::write(&path, case)?;
    Ok(path)
}
