//! `cargo xtask bench cpu`: the yardstick of the processor in software.
//!
//! The same kernels and programs ([`guest`]) run on the host itself, under QEMU's TCG ([`qemu`]) and
//! under Riad ([`engine`]), one virtual processor and 2 GiB each, turn by turn, because machines
//! drift: ratios and medians mean something, single times do not ([`report`]).

mod cpio;
mod engine;
mod exits;
mod guest;
mod machines;
mod network;
mod qemu;
mod report;

pub(crate) use self::machines::machines;
pub(crate) use self::network::network;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use self::engine::Engine;
pub(crate) use self::exits::exits;
use self::guest::Guest;
use self::qemu::Qemu;
use self::report::{Load, Report};
use crate::Error;
use crate::cargo::{cargo, output, run};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    loads: Vec<Load>,
    rounds: u32,
    riad: Option<PathBuf>,
    engine: String,
    qemu: Option<String>,
    skip_native: bool,
    skip_qemu: bool,
    skip_riad: bool,
    /// The longest that one run may take.
    patience: Duration,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, Error> {
        let mut options = Self {
            loads: vec![Load::Start, Load::Kernels, Load::Programs],
            rounds: 3,
            riad: None,
            engine: "soft".to_owned(),
            qemu: None,
            skip_native: false,
            skip_qemu: false,
            skip_riad: false,
            patience: Duration::from_secs(3600),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match *word {
                "--only" => {
                    let name = *value()?;
                    options.loads.retain(|load| load.name() == name);
                    if options.loads.is_empty() {
                        return Err("--only takes start, kernels or programs".into());
                    }
                }
                "--rounds" => options.rounds = value()?.parse()?,
                "--riad" => options.riad = Some(value()?.into()),
                "--engine" => options.engine = (*value()?).to_owned(),
                "--qemu" => options.qemu = Some((*value()?).to_owned()),
                "--patience" => options.patience = Duration::from_secs(value()?.parse()?),
                "--skip-native" => options.skip_native = true,
                "--skip-qemu" => options.skip_qemu = true,
                "--skip-riad" => options.skip_riad = true,
                _ => {
                    return Err(
                        format!("bench cpu has no option {word}: see `cargo xtask help`").into()
                    );
                }
            }
        }
        Ok(options)
    }
}

/// Runs the yardstick.
pub(crate) fn cpu(words: &[&str]) -> Result<(), Error> {
    let options = Options::parse(words)?;
    let target = target_directory()?;
    let riad = match &options.riad {
        Some(path) => path.clone(),
        None => {
            run(cargo(&["build", "--release", "--package", "riad"]))?;
            target.join("release/riad")
        }
    };
    let directory = target.join("yardstick");
    let engines = engines(&options, riad.clone(), &directory)?;
    let guest = Guest::prepare(&riad, &directory)?;

    let mut report = Report::default();
    for round in 1..=options.rounds {
        for load in &options.loads {
            for engine in engines.iter().filter(|engine| engine.takes(*load)) {
                let measured = match engine.run(*load, &guest, options.patience) {
                    Ok(measured) => measured,
                    Err(error) => {
                        println!("round {round}, {}, {}: {error}", load.name(), engine.name());
                        continue;
                    }
                };
                let (lines, sum) = (measured.seconds.len(), measured.seconds.values().sum::<f64>());
                let who = format!("round {round}, {}, {}", load.name(), engine.name());
                println!("{who}: {lines} lines, {sum:.3} s together");
                for remark in &measured.remarks {
                    println!("{who}: {remark}");
                }
                report.add(engine.name(), *load, &measured);
            }
        }
    }
    for load in options.loads {
        let present: Vec<_> =
            engines.iter().filter(|engine| engine.takes(load)).map(Engine::name).collect();
        println!("\n{}", report.table(load, &present));
        for engine in &engines {
            let name = engine.name();
            if let (Some(slowdown), true) = (report.slowdown(load, name), name != "native") {
                println!("{}: {name} takes {slowdown:.2} times as long as native", load.name());
            }
        }
    }
    Ok(())
}

fn engines(options: &Options, riad: PathBuf, directory: &Path) -> Result<Vec<Engine>, Error> {
    let mut engines = Vec::new();
    if !options.skip_native {
        engines.push(Engine::Native);
    }
    if !options.skip_qemu {
        let qemu = match &options.qemu {
            Some(path) => Qemu::at(path),
            None => Qemu::from_backports(&directory.join("qemu"))?,
        };
        println!("tcg is {}", qemu.version()?);
        engines.push(Engine::Tcg(qemu));
    }
    if !options.skip_riad {
        println!("riad is {} with --engine {}", riad.display(), options.engine);
        engines.push(Engine::Riad(riad, options.engine.clone()));
    }
    Ok(engines)
}

/// Where cargo builds.
fn target_directory() -> Result<PathBuf, Error> {
    let text = output(cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let directory = metadata["target_directory"].as_str();
    Ok(directory.ok_or("cargo metadata tells no target directory")?.into())
}

#[cfg(test)]
#[path = "bench_test.rs"]
mod tests;
