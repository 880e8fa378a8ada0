//! Files that are there whole or not at all, also after a power cut.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::config::new_id;
use super::{GONE, MachineError};

/// A file that has a schema.
pub(super) trait Versioned: DeserializeOwned {
    /// The newest schema that this build reads, and the one that it writes. Fields are only ever
    /// added, so an older file is read as it is.
    const SCHEMA: u32;
}

/// What every file of ours begins with.
#[derive(Deserialize)]
struct SchemaOnly {
    schema: u64,
}

/// Reads a file of ours.
pub(super) fn read_json<T: Versioned>(path: &Path) -> Result<T, MachineError> {
    let bytes = fs::read(path).map_err(MachineError::io("read", path))?;
    let damaged = |error: serde_json::Error| MachineError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // The schema first: of a newer one, nothing else need be as it was.
    let SchemaOnly { schema } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if schema > u64::from(T::SCHEMA) {
        let (path, known) = (path.to_owned(), T::SCHEMA);
        return Err(MachineError::Newer { path, found: schema, known });
    }
    serde_json::from_slice(&bytes).map_err(damaged)
}

/// Writes a file of ours.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), MachineError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| MachineError::io("write", path)(io::Error::other(error)))?;
    text.push(b'\n');
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".write-")
        .tempfile_in(directory)
        .map_err(MachineError::io("write", path))?;
    file.write_all(&text)
        .and_then(|()| file.as_file().sync_all())
        .map_err(MachineError::io("write", path))?;
    file.persist(path).map_err(|error| MachineError::io("write", path)(error.error))?;
    sync_directory(directory)
}

/// Makes what happened to a directory's names last.
pub(super) fn sync_directory(directory: &Path) -> Result<(), MachineError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(MachineError::io("write", directory))
}

/// Makes a directory, and those above it, for the user alone.
pub(super) fn make_directory(path: &Path) -> Result<(), MachineError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(MachineError::io("create", path))
}

/// The names of what is kept in a directory, each in a folder of its own, in order. What no name can be
/// is something else; a directory that is not there has nothing.
pub(super) fn names_in<T: FromStr + Ord>(directory: &Path) -> Result<Vec<T>, MachineError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(MachineError::io("read", directory)(error)),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut names: Vec<T> = names.collect();
    names.sort();
    Ok(names)
}

/// Removes a folder of a directory: at once, as far as anybody can see. With it goes what commands have
/// left that were interrupted in this; whoever calls keeps others from doing the same.
pub(super) fn bury(directory: &Path, folder: &Path) -> Result<(), MachineError> {
    let grave = directory.join(format!("{GONE}{}", new_id()));
    fs::rename(folder, &grave).map_err(MachineError::io("remove", folder))?;
    sync_directory(directory)?;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(GONE) {
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(MachineError::io("remove", &path))?;
        }
    }
    Ok(())
}
