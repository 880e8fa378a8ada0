//! A guest's archive, as files of this computer.
//!
//! Every name is opened below the directory that the archive is unpacked to, with the kernel's help
//! (openat2(2), `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`): neither `..`, nor an absolute path, nor a
//! link that the archive itself brought leads out of it.

use std::ffi::OsStr;
use std::fs::{File, FileTimes};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::{Copied, CopyError, Counted, Heard};

/// Permissions that are kept: not the bits that give somebody else's rights.
const KEPT: u32 = 0o777;

/// Unpacks what the archive calls `name` to `place`, where it is called `new_name`.
pub(super) fn unpack(
    from: impl Read,
    place_fd: &File,
    place: &Path,
    name: &OsStr,
    new_name: &OsStr,
    heard: Heard<'_>,
) -> Result<Copied, CopyError> {
    let mut archive = Archive::new(from);
    let mut copied = Copied::default();
    let mut directories = Vec::new();
    let malformed = |error: io::Error| CopyError::Archive(error.to_string());
    let target = Target { place_fd, place, name, new_name };
    for entry in archive.entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        let path = target.path(&entry.path_bytes())?;
        match entry.header().entry_type() {
            EntryType::Directory => {
                target.directory(&path)?;
                directories.push((path, mode(&entry), time(&entry)));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let before = copied.bytes;
                let mut seen = |count| heard(before + count);
                copied.bytes += target.file(&path, &mut entry, &mut seen)?;
            }
            EntryType::Symlink => target.symlink(&path, &entry)?,
            EntryType::Link => target.link(&path, &entry)?,
            EntryType::XGlobalHeader => {}
            _ => {
                let shown = crate::printable(&path.to_string_lossy());
                copied.left_out.push(format!("{shown} is no file, directory or link"));
            }
        }
    }
    // Last: a directory may not be writable, and its time changes with what is put into it.
    for (path, mode, time) in directories.into_iter().rev() {
        let directory = target.open(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        finish(&File::from(directory), mode, time).map_err(target.failed("write", &path))?;
    }
    Ok(copied)
}

fn mode(entry: &Entry<'_, impl Read>) -> u32 {
    entry.header().mode().unwrap_or(0o644) & KEPT
}

fn time(entry: &Entry<'_, impl Read>) -> u64 {
    entry.header().mtime().unwrap_or(0)
}

fn finish(file: &File, mode: u32, time: u64) -> io::Result<()> {
    // Times that cannot be told are left as they are.
    if let Some(time) = UNIX_EPOCH.checked_add(Duration::from_secs(time)) {
        file.set_times(FileTimes::new().set_modified(time))?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    Ok(())
}

struct Target<'a> {
    place_fd: &'a File,
    place: &'a Path,
    name: &'a OsStr,
    new_name: &'a OsStr,
}

impl Target<'_> {
    fn failed(&self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CopyError {
        CopyError::io(action, &self.place.join(path))
    }

    /// Where an entry goes, below the place.
    fn path(&self, bytes: &[u8]) -> Result<PathBuf, CopyError> {
        let path = Path::new(OsStr::from_bytes(bytes));
        let mut parts = path.components().filter(|part| *part != Component::CurDir);
        let is_ours = parts.next() == Some(Component::Normal(self.name));
        let rest: Vec<_> = parts.collect();
        if !is_ours || rest.iter().any(|part| !matches!(part, Component::Normal(_))) {
            let shown = crate::printable(&path.to_string_lossy());
            return Err(CopyError::Archive(format!("'{shown}' was not asked for")));
        }
        Ok([self.new_name]
            .into_iter()
            .map(PathBuf::from)
            .chain(rest.iter().map(|part| PathBuf::from(part.as_os_str())))
            .collect())
    }

    /// Opens what is there, below the place and through no link.
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, CopyError> {
        self.open_with(path, flags, Mode::empty()).map_err(self.failed("write", path))
    }

    fn open_with(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(self.place_fd, path, flags, mode, resolve)?)
    }

    /// The directory that something is in, and the thing's name.
    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), CopyError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let directory = self.open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok((directory, path.file_name().unwrap_or_default()))
    }

    fn directory(&self, path: &Path) -> Result<(), CopyError> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => Ok(()),
            // A directory that is there is gone into; what is there and none, is not.
            Err(Errno::EXIST) => self.open(path, OFlags::PATH | OFlags::DIRECTORY).map(drop),
            Err(error) => Err(self.failed("create", path)(error.into())),
        }
    }

    /// Removes what is in the way, which may be a link.
    fn make_room(&self, path: &Path) -> Result<(OwnedFd, PathBuf), CopyError> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((parent, name.into())),
            Err(error) => Err(self.failed("replace", path)(error.into())),
        }
    }

    fn file(
        &self,
        path: &Path,
        entry: &mut Entry<'_, impl Read>,
        heard: Heard<'_>,
    ) -> Result<u64, CopyError> {
        self.make_room(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = self
            .open_with(path, flags, Mode::from_raw_mode(0o600))
            .map_err(self.failed("create", path))?;
        let file = File::from(file);
        let mut writer = Counted { inner: &file, heard, count: 0 };
        let count = io::copy(entry, &mut writer).and_then(|count| writer.flush().map(|()| count));
        let count = count.map_err(self.failed("write", path))?;
        finish(&file, mode(entry), time(entry)).map_err(self.failed("write", path))?;
        Ok(count)
    }

    fn symlink(&self, path: &Path, entry: &Entry<'_, impl Read>) -> Result<(), CopyError> {
        let (parent, name) = self.make_room(path)?;
        let Some(target) = entry.link_name_bytes() else {
            return Err(CopyError::Archive("a link leads nowhere".to_owned()));
        };
        let target = Path::new(OsStr::from_bytes(&target)).to_owned();
        let made = rustix::fs::symlinkat(&target, &parent, &name);
        made.map_err(|error| self.failed("create", path)(error.into()))
    }

    /// Another name of a file that the archive had before.
    fn link(&self, path: &Path, entry: &Entry<'_, impl Read>) -> Result<(), CopyError> {
        let Some(first) = entry.link_name_bytes() else {
            return Err(CopyError::Archive("a link leads nowhere".to_owned()));
        };
        let first = self.path(&first)?;
        let (from, from_name) = self.parent(&first)?;
        let (to, to_name) = self.make_room(path)?;
        let linked =
            rustix::fs::linkat(from.as_fd(), from_name, to.as_fd(), &to_name, AtFlags::empty());
        linked.map_err(|error| self.failed("create", path)(error.into()))
    }
}
