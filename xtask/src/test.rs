//! Everything CI needs, the fast checks first.

use std::process::Stdio;
use std::time::Instant;

use crate::cargo::{cargo, run};
use crate::{Error, chores, root, walls};

/// Cases of each fuzz target in a short turn.
const FUZZ_CASES: &str = "20000";
/// Seconds after which a target's short turn ends even so.
const FUZZ_SECONDS: &str = "15";

/// How a check went that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It holds.
    Holds,
    /// It was not made, and why.
    NotMade(&'static str),
}

/// A check, and what it is called in the report.
type Step = (&'static str, fn() -> Result<Verdict, Error>);

/// The checks, the fast ones first.
const STEPS: [Step; 8] = [
    ("format", || chores::format(true).map(holds)),
    ("walls", || walls::check(&root()).map(holds)),
    ("clippy", || chores::lint().map(holds)),
    ("tests", || workspace_tests().map(holds)),
    ("fuzz", || short_fuzz().map(holds)),
    ("documentation", || chores::doc().map(holds)),
    ("dependencies", dependencies),
    (END_TO_END, end_to_end),
];

/// The check that `--quick` leaves out.
const END_TO_END: &str = "end to end";

fn holds((): ()) -> Verdict {
    Verdict::Holds
}

/// Runs every check, even after one has failed; an error tells which did.
///
/// `quick` leaves out the guests that boot a whole distribution, which need a Debian mirror, some
/// gigabytes of disk and several minutes.
pub(crate) fn everything(quick: bool) -> Result<(), Error> {
    let mut report = Vec::new();
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        if quick && name == END_TO_END {
            continue;
        }
        println!("\n==> {name}");
        let start = Instant::now();
        let verdict = match step() {
            Ok(Verdict::Holds) => "ok".to_owned(),
            Ok(Verdict::NotMade(why)) => format!("NOT RUN: {why}"),
            Err(error) => {
                failed.push(name);
                format!("FAILED: {error}")
            }
        };
        println!("==> {name}: {verdict}");
        report.push((name, start.elapsed(), verdict));
    }
    println!("\n==> summary");
    for (name, took, verdict) in report {
        println!("{name:14} {:7.1} s  {verdict}", took.as_secs_f64());
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// All unit, integration and documentation tests: the processor's oracles take their short turn
/// here.
fn workspace_tests() -> Result<(), Error> {
    run(cargo(&["test", "--workspace", "--no-fail-fast"]))
}

/// A short turn of every fuzz target, in the build that the tests made: overflow checks are on.
fn short_fuzz() -> Result<(), Error> {
    let limits = ["--cases", FUZZ_CASES, "--seconds", FUZZ_SECONDS];
    run(cargo(&[&["run", "--quiet", "--package", "riad-fuzz", "--"], &limits[..]].concat()))
}

/// Licences and advisories, where the tool for it is installed.
fn dependencies() -> Result<Verdict, Error> {
    if !chores::has_deny() {
        return Ok(Verdict::NotMade("cargo-deny is not installed"));
    }
    chores::deny().map(holds)
}

/// The tests that build a Debian image and run commands in it, in a release build. CI always makes
/// them; at a desk, a host on which `riad doctor` finds something missing goes without.
fn end_to_end() -> Result<Verdict, Error> {
    if std::env::var_os("CI").is_none() && !can_build_images() {
        return Ok(Verdict::NotMade("this host cannot build the image: see `riad doctor`"));
    }
    let mut command = cargo(&["test", "--release", "--package", "riad", "--test", "e2e"]);
    command.env("RIAD_E2E", "1");
    run(command).map(holds)
}

/// The end-to-end tests of what goes wrong, with many rounds of the one that kills.
pub(crate) fn faults(rounds: u32) -> Result<(), Error> {
    for module in ["faults", "full"] {
        let tests = ["test", "--release", "--package", "riad", "--test", "e2e", "--"];
        let mut command = cargo(&[&tests[..], &[&format!("{module}::"), "--nocapture"]].concat());
        command.env("RIAD_E2E", "1").env("RIAD_FAULT_ROUNDS", rounds.to_string());
        run(command)?;
    }
    Ok(())
}

/// The end-to-end tests with real clients, at their full length.
pub(crate) fn network() -> Result<(), Error> {
    let tests = ["test", "--release", "--package", "riad", "--test", "e2e", "--"];
    let mut command = cargo(&[&tests[..], &["clients::", "--nocapture"]].concat());
    command.env("RIAD_E2E", "1").env("RIAD_NETWORK", "full");
    run(command)
}

/// Whether `riad doctor` is content.
fn can_build_images() -> bool {
    let mut command = cargo(&["run", "--release", "--quiet", "--package", "riad", "--", "doctor"]);
    command.stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
