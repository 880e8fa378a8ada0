//! `riad image`: what machines are made from.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use riad_host::images::{self, ImageOptions, ImportKernel, Listed, public_name};
use riad_host::{Size, printable};
use serde::Serialize;

use crate::args::{BuildArgs, Format, ImageVerb, ImportArgs, PruneArgs};
use crate::report::{Failure, columns, show_as};
use crate::signals::Signals;
use crate::status::Status;

pub(crate) fn image(verb: ImageVerb, format: Option<Format>) -> Result<ExitCode, Failure> {
    match verb {
        ImageVerb::Build(args) => build(args)?,
        ImageVerb::Ls => list(format)?,
        ImageVerb::Info { name } => info(&name, format)?,
        ImageVerb::Import(args) => import(args)?,
        ImageVerb::Export { name, file } => {
            images::export(&name, &file)?;
            eprintln!("riad: image {name} is in {}", file.display());
        }
        ImageVerb::Prune(args) => prune(&args, format)?,
        ImageVerb::Rm { names } => {
            for name in names {
                images::remove(&name)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn build(args: BuildArgs) -> Result<(), Failure> {
    let BuildArgs { image, include, name, size, engine, sources } = args;
    let shown = name.clone().unwrap_or_else(|| image.to_string());
    let include = include.into_iter().filter(|package| !package.is_empty()).collect();
    let size = size.map(|size| size.0);
    let options = ImageOptions { include, name, size, engine, ..sources.options(image) };
    let signals = Signals::watch()?;
    let mut status = Status::new(signals, &shown, false);
    let built = images::build(&options, &mut status);
    status.clear();
    let built = built?;
    let meta = built.meta();
    let (suite, kernel) = (printable(&meta.suite), printable(&meta.kernel));
    eprintln!("riad: image {shown} is Debian {suite} with Linux {kernel}: `riad run {shown}`");
    Ok(())
}

fn import(args: ImportArgs) -> Result<(), Failure> {
    let ImportArgs { file, name, kernel_of, kernel, size } = args;
    let from = match (kernel, kernel_of) {
        (Some(file), _) => ImportKernel::File(file),
        (None, Some(image)) => ImportKernel::Of(image),
        (None, None) => ImportKernel::Own,
    };
    let signals = Signals::watch()?;
    let mut status = Status::new(signals, &name, false);
    let imported = images::import(&file, &name, &from, size.map(|size| size.0), &mut status);
    status.clear();
    let kernel = printable(&imported?.meta().kernel);
    eprintln!("riad: image {name} is there, with Linux {kernel}: `riad run {name}`");
    Ok(())
}

/// What was removed as a program is told of it; keys are only ever added.
#[derive(Serialize)]
struct PrunedRow {
    what: String,
    names: Vec<String>,
    disk_bytes: u64,
}

fn prune(args: &PruneArgs, format: Option<Format>) -> Result<(), Failure> {
    let rows: Vec<_> = images::prune(args.all, args.dry_run)?
        .into_iter()
        .map(|pruned| PrunedRow {
            what: pruned.what,
            names: pruned.names.iter().map(|name| public_name(name)).collect(),
            disk_bytes: pruned.bytes,
        })
        .collect();
    show_as(&rows, format, || {
        let sum = rows.iter().map(|row| row.disk_bytes).fold(0, u64::saturating_add);
        let lines: Vec<_> = rows
            .iter()
            .map(|row| [row.what.clone(), Size(row.disk_bytes).to_string(), row.names.join(", ")])
            .collect();
        let said = if args.dry_run { "would be given back" } else { "given back" };
        format!("{}{} {said}.\n", columns(&lines), Size(sum))
    })
}

fn info(name: &str, format: Option<Format>) -> Result<(), Failure> {
    let image = images::find(name)?;
    let meta = image.meta();
    show_as(meta, format, || {
        let size = meta.files.iter().find(|file| file.path == "rootfs.ext4").map(|file| file.size);
        let lines = [
            ("name", meta.name.clone()),
            ("release", meta.suite.clone()),
            ("architecture", meta.arch.clone()),
            ("kernel", meta.kernel.clone()),
            match meta.root_partition {
                None => ("root file system", Size(size.unwrap_or(0)).to_string()),
                Some(number) => {
                    let text = format!("partition {number} of {}", Size(size.unwrap_or(0)));
                    ("root file system", text)
                }
            },
            ("packages", meta.packages.len().to_string()),
            ("made", ago(meta.created)),
            ("from", meta.archives.join(", ")),
            ("verified", if meta.verified { "yes" } else { "no" }.to_owned()),
            ("digest", meta.digest.clone()),
            ("directory", image.directory().display().to_string()),
        ];
        columns(&lines.map(|(key, value)| [key.to_owned(), printable(&value)]))
    })
}

/// An image as a program is told of it; keys are only ever added.
#[derive(Serialize)]
struct Row {
    id: String,
    names: Vec<String>,
    suite: Option<String>,
    arch: Option<String>,
    kernel: Option<String>,
    created: Option<u64>,
    verified: Option<bool>,
    packages: Option<usize>,
    disk_bytes: u64,
    damaged: Option<String>,
}

impl From<Listed> for Row {
    fn from(listed: Listed) -> Self {
        let Listed { id, names, image, disk_bytes } = listed;
        let mut row = Self {
            id,
            names: names.iter().map(|name| public_name(name)).collect(),
            suite: None,
            arch: None,
            kernel: None,
            created: None,
            verified: None,
            packages: None,
            disk_bytes,
            damaged: None,
        };
        match image {
            Err(error) => row.damaged = Some(error.to_string()),
            Ok(image) => {
                let meta = image.meta();
                row.suite = Some(meta.suite.clone());
                row.arch = Some(meta.arch.clone());
                row.kernel = Some(meta.kernel.clone());
                row.created = Some(meta.created);
                row.verified = Some(meta.verified);
                row.packages = Some(meta.packages.len());
            }
        }
        row
    }
}

fn list(format: Option<Format>) -> Result<(), Failure> {
    let rows: Vec<Row> = images::list()?.into_iter().map(Row::from).collect();
    show_as(&rows, format, || table(&rows))
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "There are no images yet; `riad run debian` builds one.\n".to_owned();
    }
    let head = ["NAME", "ID", "DEBIAN", "KERNEL", "SIZE", "BUILT"].map(str::to_owned);
    let mut lines = vec![head];
    for row in rows {
        let or_dash = |text: &Option<String>| printable(text.as_deref().unwrap_or("-"));
        let names = if row.names.is_empty() { "-".to_owned() } else { row.names.join(", ") };
        let mut built = row.created.map_or("-".to_owned(), ago);
        if row.verified == Some(false) {
            built.push_str(", not verified");
        }
        if row.damaged.is_some() {
            built = format!("damaged: riad image rm {}", row.id);
        }
        let size = Size(row.disk_bytes).to_string();
        lines.push([names, row.id.clone(), or_dash(&row.suite), or_dash(&row.kernel), size, built]);
    }
    columns(&lines)
}

/// How long ago a time was, given in seconds since the Unix epoch.
pub(crate) fn ago(seconds: u64) -> String {
    let then = UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX)));
    let passed = SystemTime::now().duration_since(then).unwrap_or_default().as_secs();
    let (count, unit) = match passed {
        0..60 => return "just now".to_owned(),
        60..3600 => (passed / 60, "minute"),
        3600..86400 => (passed / 3600, "hour"),
        _ => (passed / 86400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}
