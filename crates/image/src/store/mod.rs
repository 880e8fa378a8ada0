//! The store of images in the user's cache directory.
//!
//! ```text
//! images/DIGEST/        one image: image.json, rootfs.ext4, vmlinuz, modules/, initramfs-*.cpio
//! refs/NAME-ARCH.json   which image a name stands for
//! packages/, lists/     downloads, named by their hash
//! tmp/                  images being built, each with a lock file
//! locks/                one lock for each name being built
//! ```
//!
//! An image is built under `tmp/` and moved to its place when all of it is on the disk: the move is
//! what makes it exist. Whatever interrupts a build leaves only something in `tmp/`, which the next
//! start removes when nobody holds its lock.

mod image;
mod work;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use image::{FileRecord, Image, ImageMeta, PackageRecord};
pub(crate) use image::{KERNEL, MODULES, ROOTFS};
pub use work::{NameLock, WorkDir};

use crate::error::Error;
use crate::reference::ImageRef;

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NameRecord {
    /// The image's directory below `images/`.
    image: String,
}

/// An image as the store lists it.
#[derive(Debug)]
pub struct Listed {
    /// The directory below `images/`: the first digits of its digest.
    pub id: String,
    /// Names that stand for it, such as `debian-trixie-amd64`.
    pub names: Vec<String>,
    /// The image, or why it cannot be used.
    pub image: Result<Image, Error>,
    /// The space it takes on the disk, in bytes.
    pub disk_bytes: u64,
}

/// What [`Store::prune`] removed, or would remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// An image's id; or `packages` and `lists`, which are downloads.
    pub what: String,
    /// The names that stood for the image.
    pub names: Vec<String>,
    /// The space that it took, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Where images are when nothing else is said: `RIAD_CACHE`, or `riad` in the user's cache
    /// directory (XDG Base Directory Specification).
    ///
    /// # Errors
    ///
    /// None of the environment variables is set.
    pub fn default_directory() -> Result<PathBuf, Error> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        variable("RIAD_CACHE")
            // Relative paths are to be ignored, says the specification.
            .or_else(|| Some(variable("XDG_CACHE_HOME").filter(|p| p.is_absolute())?.join("riad")))
            .or_else(|| Some(variable("HOME")?.join(".cache/riad")))
            .ok_or(Error::NoCacheDirectory)
    }

    /// Opens the store in a directory, making it if it is missing, and removes what builds that
    /// were interrupted have left. A relative path is one from the working directory now: processes
    /// that are confined cannot ask where that is.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or written, or the working directory is gone.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        let root = std::path::absolute(&root).map_err(Error::io("find", &root))?;
        let store = Self { root };
        for directory in ["images", "refs", "packages", "lists", "tmp", "locks"] {
            let path = store.root.join(directory);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        store.remove_stale_work()?;
        Ok(store)
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a kind of things.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The image a name stands for, if it is there and whole.
    ///
    /// # Errors
    ///
    /// The image is damaged, or the store cannot be read.
    pub fn find(&self, reference: &ImageRef, arch: &str) -> Result<Option<Image>, Error> {
        match self.read_name(&reference.key(arch))? {
            Some(id) => self.image(&id),
            None => Ok(None),
        }
    }

    /// The image in a directory below `images/`.
    pub(crate) fn image(&self, id: &str) -> Result<Option<Image>, Error> {
        let directory = self.directory("images").join(id);
        match fs::symlink_metadata(&directory) {
            Ok(_) => Image::open(&directory).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &directory)(error)),
        }
    }

    /// Every image, by its digest.
    ///
    /// # Errors
    ///
    /// The store cannot be read. Damaged images are listed as such.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let names = self.names()?;
        let mut listed = Vec::new();
        for id in entries(&self.directory("images"))? {
            let directory = self.directory("images").join(&id);
            listed.push(Listed {
                names: names
                    .iter()
                    .filter(|(_, image)| *image == id)
                    .map(|(name, _)| name.clone())
                    .collect(),
                image: Image::open(&directory),
                disk_bytes: disk_bytes(&directory),
                id,
            });
        }
        Ok(listed)
    }

    /// Removes a name, and the image it stands for when no other name does. `false` when there is
    /// no such name. Machines that have the image open keep it until they end.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn remove(&self, reference: &ImageRef, arch: &str) -> Result<bool, Error> {
        let key = reference.key(arch);
        let Some(id) = self.read_name(&key)? else { return Ok(false) };
        let mut gone = vec![key.clone()];
        // `debian` goes with the release it stands for, and the other way round.
        if matches!(reference, ImageRef::Debian { .. }) {
            gone.extend(
                self.names()?
                    .into_iter()
                    .filter(|(name, image)| *image == id && name.starts_with("debian-"))
                    .map(|(name, _)| name),
            );
        }
        for name in &gone {
            remove_if_there(&self.name_path(name))?;
        }
        if !self.names()?.iter().any(|(_, image)| *image == id) {
            self.remove_image(&id)?;
        }
        Ok(true)
    }

    /// Removes an image by its digest's first digits, as listed, and every name that stands for it.
    /// `false` when there is none.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn remove_id(&self, id: &str) -> Result<bool, Error> {
        for (name, image) in self.names()? {
            if image == id {
                remove_if_there(&self.name_path(&name))?;
            }
        }
        let is_there = entries(&self.directory("images"))?.iter().any(|entry| entry == id);
        if is_there {
            self.remove_image(id)?;
        }
        Ok(is_there)
    }

    /// Removes images that no name stands for, or all of them; and downloads, unless a build goes on,
    /// which may be using them. With `dry_run`, only says what it would remove.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written.
    pub fn prune(&self, all: bool, dry_run: bool) -> Result<Vec<Pruned>, Error> {
        let mut pruned = Vec::new();
        for Listed { id, names, image, disk_bytes: bytes } in self.list()? {
            if all || names.is_empty() || image.is_err() {
                if !dry_run {
                    self.remove_id(&id)?;
                }
                pruned.push(Pruned { what: id, names, bytes });
            }
        }
        let is_building = !entries(&self.directory("tmp"))?.is_empty();
        for what in ["packages", "lists"] {
            let directory = self.directory(what);
            let bytes = disk_bytes(&directory);
            if is_building || bytes == 0 {
                continue;
            }
            for entry in fs::read_dir(&directory).map_err(Error::io("read", &directory))?.flatten()
            {
                if !dry_run && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    remove_if_there(&entry.path())?;
                }
            }
            pruned.push(Pruned { what: what.to_owned(), names: Vec::new(), bytes });
        }
        Ok(pruned)
    }

    /// Moves an image out of sight in one step, then deletes it.
    fn remove_image(&self, id: &str) -> Result<(), Error> {
        let path = self.directory("images").join(id);
        let work = self.begin_work()?;
        let grave = work.path().join("removed");
        match fs::rename(&path, &grave) {
            Ok(()) => sync_directory(&self.directory("images")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", &path)(error)),
        }
    }

    /// Puts a finished image into its place and gives it names.
    pub(crate) fn commit(&self, work: WorkDir, id: &str, keys: &[String]) -> Result<Image, Error> {
        let place = self.directory("images").join(id);
        if Image::open(&place).is_err() {
            // What may be there is damaged.
            self.remove_image(id)?;
            sync_directory(work.path())?;
            match fs::rename(work.path(), &place) {
                Ok(()) => sync_directory(&self.directory("images"))?,
                // Somebody building the same under another name was faster.
                Err(_) if Image::open(&place).is_ok() => {}
                Err(error) => return Err(Error::io("create", &place)(error)),
            }
        }
        drop(work);
        self.set_names(keys, id)?;
        Image::open(&place)
    }

    /// Lets names stand for an image.
    pub(crate) fn set_names(&self, keys: &[String], id: &str) -> Result<(), Error> {
        let record = NameRecord { image: id.to_owned() };
        for key in keys {
            write_json(&self.name_path(key), &record)?;
        }
        Ok(())
    }

    fn name_path(&self, key: &str) -> PathBuf {
        self.directory("refs").join(format!("{key}.json"))
    }

    /// The image a name stands for. A damaged record counts as none: the name can be built again.
    fn read_name(&self, key: &str) -> Result<Option<String>, Error> {
        let path = self.name_path(key);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice::<NameRecord>(&bytes)
                .ok()
                .map(|record| record.image)
                .filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// All names, with the images they stand for.
    fn names(&self) -> Result<Vec<(String, String)>, Error> {
        let mut names = Vec::new();
        for file in entries(&self.directory("refs"))? {
            if let Some(key) = file.strip_suffix(".json")
                && let Some(id) = self.read_name(key)?
            {
                names.push((key.to_owned(), id));
            }
        }
        Ok(names)
    }
}

/// The names in a directory, in order; hidden ones are left out.
fn entries(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = || Error::io("read", directory);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        names.extend(name.into_string().ok().filter(|name| !name.starts_with('.')));
    }
    names.sort();
    Ok(names)
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Space taken by a directory's files, two levels deep, as images are.
fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    let mut stack = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = stack.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            sum += metadata.blocks() * 512;
            if metadata.is_dir() && depth < 2 {
                stack.push((entry.path(), depth + 1));
            }
        }
    }
    sum
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(directory)
        .map_err(Error::io("create", path))?;
    file.write_all(content)
        .and_then(|()| file.as_file().sync_all())
        .map_err(Error::io("write", path))?;
    file.persist(path).map_err(|error| Error::io("create", path)(error.error))?;
    sync_directory(directory)
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::io("write", path)(io::Error::other(error)))?;
    text.push(b'\n');
    write_file(path, &text)
}

/// Makes what happened to a directory's names last.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(Error::io("write", directory))
}

#[cfg(test)]
#[path = "store_test.rs"]
mod tests;
