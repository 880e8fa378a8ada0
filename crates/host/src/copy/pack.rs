//! This computer's files, as an archive.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::{Copied, CopyError, Counted, Heard};

/// Packs files and directories, each under a name.
pub(super) fn pack(
    sources: &[(PathBuf, OsString)],
    to: impl Write,
    heard: Heard<'_>,
) -> Result<Copied, CopyError> {
    let mut copied = Copied::default();
    let counted = Counted { inner: to, heard, count: 0 };
    let mut archive = Builder::new(BufWriter::with_capacity(256 << 10, counted));
    for (path, name) in sources {
        add(&mut archive, path, Path::new(name), &mut copied)?;
    }
    let broken = || CopyError::io("send", Path::new("the archive"));
    let mut writer = archive.into_inner().map_err(broken())?;
    writer.flush().map_err(broken())?;
    Ok(copied)
}

fn add<W: Write>(
    archive: &mut Builder<W>,
    path: &Path,
    name: &Path,
    copied: &mut Copied,
) -> Result<(), CopyError> {
    let metadata = fs::symlink_metadata(path).map_err(CopyError::io("read", path))?;
    let kind = metadata.file_type();
    let broken = || CopyError::io("send", path);
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(CopyError::io("read", path))?;
        let mut header = header(&metadata, EntryType::Symlink, 0);
        return archive.append_link(&mut header, name, &target).map_err(broken());
    }
    if kind.is_dir() {
        let mut header = header(&metadata, EntryType::Directory, 0);
        let mut slashed = name.as_os_str().to_owned();
        slashed.push("/");
        archive.append_data(&mut header, &slashed, std::io::empty()).map_err(broken())?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(CopyError::io("read", path))? {
            entries.push(entry.map_err(CopyError::io("read", path))?.file_name());
        }
        entries.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for entry in entries {
            add(archive, &path.join(&entry), &name.join(&entry), copied)?;
        }
        return Ok(());
    }
    if !kind.is_file() {
        let what = format!("{} is no file, directory or link", path.display());
        copied.left_out.push(what);
        return Ok(());
    }
    let file = File::open(path).map_err(CopyError::io("read", path))?;
    let length = metadata.len();
    let mut header = header(&metadata, EntryType::Regular, length);
    // A file that becomes shorter or longer meanwhile has the length that it was said to have.
    let padded = file.take(length).chain(std::io::repeat(0)).take(length);
    archive.append_data(&mut header, name, padded).map_err(broken())?;
    copied.bytes += length;
    Ok(())
}

/// What is kept of a file: permissions and time. It is root's in the machine.
fn header(metadata: &Metadata, kind: EntryType, length: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(length);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header
}
