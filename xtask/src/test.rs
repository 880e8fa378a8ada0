//! Everything CI needs, the fast checks first.

use std::time::Instant;

use crate::cargo::{cargo, run};
use crate::{Error, chores, root, walls};

/// Cases of each fuzz target in a short turn.
const FUZZ_CASES: &str = "20000";
/// Seconds after which a target's short turn ends even so.
const FUZZ_SECONDS: &str = "15";

/// One check, and what it is called in the report.
type Step = (&'static str, fn() -> Result<(), Error>);

/// The checks that need nothing but the source.
const STEPS: [Step; 6] = [
    ("format", || chores::format(true)),
    ("walls", || walls::check(&root())),
    ("clippy", chores::lint),
    ("tests", workspace_tests),
    ("fuzz", short_fuzz),
    ("documentation", chores::doc),
];

/// Runs every check, even after one has failed; an error tells which did.
///
/// `quick` leaves out the guests that boot a whole distribution, which need a Debian mirror, some
/// gigabytes of disk and ten minutes.
pub(crate) fn everything(quick: bool) -> Result<(), Error> {
    let mut steps: Vec<Step> = STEPS.to_vec();
    if chores::has_deny() {
        steps.push(("dependencies", chores::deny));
    }
    if !quick {
        steps.push(("end to end", end_to_end));
    }
    let mut report = Vec::new();
    let mut failed = Vec::new();
    for (name, step) in steps {
        println!("\n==> {name}");
        let start = Instant::now();
        let result = step();
        if let Err(error) = &result {
            println!("==> {name} failed: {error}");
            failed.push(name);
        }
        report.push((name, result.is_ok(), start.elapsed()));
    }
    println!("\n==> summary");
    for (name, passed, took) in report {
        println!(
            "{name:14} {} {:7.1} s",
            if passed { "ok    " } else { "FAILED" },
            took.as_secs_f64()
        );
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("{} failed", failed.join(", ")).into()) }
}

/// All unit, integration and documentation tests: the processor's oracles take their short turn
/// here. Tests that need a distribution are marked `#[ignore]`.
fn workspace_tests() -> Result<(), Error> {
    run(cargo(&["test", "--workspace", "--no-fail-fast"]))
}

/// A short turn of every fuzz target, in the build that the tests made: overflow checks are on.
fn short_fuzz() -> Result<(), Error> {
    let limits = ["--cases", FUZZ_CASES, "--seconds", FUZZ_SECONDS];
    run(cargo(&[&["run", "--quiet", "--package", "riad-fuzz", "--"], &limits[..]].concat()))
}

/// The tests that boot a real distribution. They say so and pass when no mirror can be reached, but
/// not under CI.
fn end_to_end() -> Result<(), Error> {
    run(cargo(&["test", "--release", "--package", "riad", "--", "--ignored", "--nocapture"]))
}
