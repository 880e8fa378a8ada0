//! `riad image`: what machines are made from.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use riad_host::images::{self, ImageOptions, Listed, public_name};
use riad_host::{Size, printable};
use serde::Serialize;

use crate::args::{BuildArgs, Format, ImageVerb};
use crate::report::{Failure, columns, show_as};
use crate::signals::Signals;
use crate::status::Status;

pub(crate) fn image(verb: ImageVerb, format: Option<Format>) -> Result<ExitCode, Failure> {
    match verb {
        ImageVerb::Build(args) => build(args)?,
        ImageVerb::Ls => list(format)?,
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
