//! `riad-fuzz`: runs fuzz targets. `cargo xtask fuzz` builds and starts it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use riad_fuzz::runner::{self, Plan};
use riad_fuzz::targets::{self, TARGETS, Target};

/// Time for each target when nothing else is said.
const ORDINARY: Duration = Duration::from_secs(60);

/// Time for each target when only cases are counted: longer than anybody waits.
const UNLIMITED: Duration = Duration::from_secs(365 * 86_400);

/// What the arguments ask for.
struct Request {
    targets: Vec<&'static Target>,
    plan: Plan,
    replay: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((first, rest)) if first == "--job" => runner::job(rest),
        Some((first, [])) if first == "--list" => {
            for target in TARGETS {
                println!("{:14} {}", target.name, target.what);
            }
            Ok(())
        }
        _ => parse(&arguments).and_then(|request| run(&request)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("riad-fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Request, String> {
    let jobs = std::thread::available_parallelism().map_or(1, |jobs| jobs.get() as u64);
    let plan = Plan { cases: u64::MAX, time: ORDINARY, seed: 1, jobs };
    let mut request = Request { targets: Vec::new(), plan, replay: None };
    let mut limited_by_time = false;
    let mut limited_by_cases = false;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--all" {
            continue;
        }
        if !word.starts_with("--") {
            let target = targets::find(word)
                .ok_or_else(|| format!("there is no target {word}; --list shows them"))?;
            request.targets.push(target);
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number =
            || value.parse::<u64>().map_err(|_| format!("{word} takes a number, not {value}"));
        match word.as_str() {
            "--cases" => {
                request.plan.cases = number()?;
                limited_by_cases = true;
            }
            "--seconds" => {
                request.plan.time = Duration::from_secs(number()?);
                limited_by_time = true;
            }
            "--seed" => request.plan.seed = number()?,
            "--jobs" => request.plan.jobs = number()?.max(1),
            "--replay" => request.replay = Some(PathBuf::from(value)),
            _ => return Err(format!("there is no option {word}")),
        }
    }
    if limited_by_cases && !limited_by_time {
        request.plan.time = UNLIMITED;
    }
    if request.targets.is_empty() {
        request.targets = TARGETS.iter().collect();
    }
    Ok(request)
}

fn run(request: &Request) -> Result<(), String> {
    if let Some(path) = &request.replay {
        return replay(&request.targets, path);
    }
    let mut failures = 0;
    let mut cases = 0;
    for target in &request.targets {
        let outcome = runner::run(target, &request.plan).map_err(|error| error.to_string())?;
        failures += outcome.failures.len();
        cases += outcome.cases;
    }
    println!("{} targets, {cases} cases, {failures} failures", request.targets.len());
    if failures == 0 { Ok(()) } else { Err(format!("{failures} cases failed")) }
}

fn replay(targets: &[&'static Target], path: &Path) -> Result<(), String> {
    let [target] = targets else {
        return Err("--replay needs the one target that the case is for".to_owned());
    };
    runner::replay(target, path)?;
    println!("{}: {} does not fail", target.name, path.display());
    Ok(())
}
