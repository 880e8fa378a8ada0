//! Images from what is there already: a raw disk with an ext4 root file system, or a tar archive of
//! a root file system. Only the root file system is taken; the kernel, and the modules that lead to
//! the root, are those of an image that Riad has built.
//!
//! Nothing of it is run here, and nothing is mounted.

mod place;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use place::{Place, find};

use crate::build::{check_own_name, now};
use crate::deb::decompress;
use crate::error::Error;
use crate::ext4;
use crate::hash::hex;
use crate::progress::{Progress, Stage};
use crate::reference::ImageRef;
use crate::rootfs::{RootFs, unpack_archive};
use crate::store::{Image, ImageMeta, KERNEL, MODULES, ROOTFS, Store};

/// Bytes moved at a time.
const PIECE: usize = 1 << 20;
/// What a disk's size has to be a multiple of.
const CLUSTER: u64 = 4096;

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The file.
    pub file: PathBuf,
    /// What the image is to be called.
    pub name: String,
    /// The image whose kernel it is started with.
    pub kernel_of: Image,
    /// The size of the file system that an archive is written to, in bytes.
    pub size: u64,
}

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Disk(Place),
    /// With what it is compressed: `.gz`, ..., or nothing.
    Archive(&'static str),
}

/// Imports an image into the store in `store`.
///
/// # Errors
/// See [`Error`]. Nothing half-made is left where it could be found.
pub fn import(
    store: &Store,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Image, Error> {
    let ImportOptions { file: path, name, kernel_of, size } = options;
    check_own_name(name)?;
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let form = form(&mut file, path)?;
    let base = kernel_of.meta();
    let key = ImageRef::Named(name.clone()).key(&base.arch);
    let _lock = store.lock_name(&key, &mut || {
        progress(Progress::step(Stage::Waiting, 0, 0, "another riad is making this image"));
    })?;
    let work = store.begin_work()?;
    let rootfs = work.path().join(ROOTFS);
    let digest = match form {
        Form::Disk(place) => copy_disk(&file, path, place, &rootfs, progress)?,
        Form::Archive(extension) => {
            write_archive(&file, path, extension, *size, work.path(), &rootfs, progress)?
        }
    };
    progress(Progress::step(Stage::Store, 0, 1, "writing to disk"));
    let mut digest = digest;
    digest.update(base.digest.as_bytes());
    let digest = hex(&digest.finalize());
    for part in [KERNEL.to_owned()]
        .into_iter()
        .chain(base.modules.iter().map(|module| format!("{MODULES}/{module}")))
    {
        let (from, to) = (kernel_of.directory().join(&part), work.path().join(&part));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        fs::copy(&from, &to).map_err(Error::io("copy", &from))?;
    }
    let meta = ImageMeta {
        schema: 0,
        name: name.clone(),
        suite: "imported".to_owned(),
        arch: base.arch.clone(),
        kernel: base.kernel.clone(),
        created: now(),
        digest: digest.clone(),
        verified: false,
        archives: vec![path.file_name().unwrap_or_default().to_string_lossy().into_owned()],
        packages: Vec::new(),
        modules: base.modules.clone(),
        files: Vec::new(),
    };
    Image::create(work.path(), meta)?;
    File::open(&rootfs)
        .and_then(|file| {
            // From now on it is only read.
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()
        })
        .map_err(Error::io("write", &rootfs))?;
    store.commit(work, digest.get(..12).unwrap_or(&digest), &[key])
}

/// What a file is, by what is in it.
fn form(file: &mut File, path: &Path) -> Result<Form, Error> {
    let refuse = |reason: String| Error::Import { path: path.to_owned(), reason };
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let mut head = [0; 512];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(Error::io("read", path))? {
            0 => break,
            count => filled += count,
        }
    }
    file.rewind().map_err(Error::io("read", path))?;
    let begins = |magic: &[u8]| head.starts_with(magic);
    if begins(b"QFI\xfb") {
        return Err(refuse(
            "it is a qcow2 disk: `qemu-img convert -O raw` makes a raw one of it".to_owned(),
        ));
    }
    if begins(b"BZh") {
        return Err(refuse("bzip2 is not read: unpack it first".to_owned()));
    }
    for (magic, extension) in
        [(&b"\x1f\x8b"[..], ".gz"), (b"\xfd7zXZ\0", ".xz"), (b"\x28\xb5\x2f\xfd", ".zst")]
    {
        if begins(magic) {
            return Ok(Form::Archive(extension));
        }
    }
    // POSIX and GNU archives (tar(5)).
    if head.get(257..262) == Some(b"ustar") {
        return Ok(Form::Archive(""));
    }
    let place = place::find(length, &mut |at, buffer| file.read_exact_at(buffer, at));
    place.map(Form::Disk).map_err(|reason| {
        refuse(format!(
            "{reason}; it is no tar archive either: give a raw disk with an ext4 root file system, or \
             a tar archive of a root file system"
        ))
    })
}

/// Copies a file system out of a disk; where it has only zeros, the copy has holes. Gives what was
/// copied, hashed.
fn copy_disk(
    file: &File,
    path: &Path,
    place: Place,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Sha256, Error> {
    let Place { offset, length } = place;
    let copy = File::create_new(target).map_err(Error::io("create", target))?;
    copy.set_len(length.next_multiple_of(CLUSTER)).map_err(Error::io("write", target))?;
    let mut digest = Sha256::new();
    digest.update(length.to_le_bytes());
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let len = usize::try_from(length - at).map_or(PIECE, |left| left.min(PIECE));
        let piece = buffer.get_mut(..len).unwrap_or_default();
        file.read_exact_at(piece, offset + at).map_err(Error::io("read", path))?;
        if piece.iter().any(|byte| *byte != 0) {
            digest.update(at.to_le_bytes());
            digest.update(&*piece);
            copy.write_all_at(piece, at).map_err(Error::io("write", target))?;
        }
        at += len as u64;
        progress(Progress::step(Stage::FileSystem, at, length, "copying the file system"));
    }
    Ok(digest)
}

/// Writes the tree of an archive as a file system. Gives what was read, hashed.
fn write_archive(
    file: &File,
    path: &Path,
    extension: &str,
    size: u64,
    directory: &Path,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Sha256, Error> {
    let io = |source| Error::io("read", path)(source);
    let mut rootfs = RootFs::new(directory, now()).map_err(Error::io("write", directory))?;
    let mut hashed = Hashed { inner: BufReader::new(file), digest: Sha256::new() };
    {
        let plain = decompress(BufReader::new(&mut hashed), extension).map_err(io)?;
        let plain = plain.ok_or_else(|| io(io::ErrorKind::Unsupported.into()))?;
        unpack_archive(&mut rootfs, plain, &mut |count| {
            progress(Progress::step(Stage::Unpack, count, 0, "unpacking the archive"));
        })
        .map_err(|source| Error::Import { path: path.to_owned(), reason: source.to_string() })?;
    }
    // What is behind the archive's end counts too.
    io::copy(&mut hashed, &mut io::sink()).map_err(io)?;
    let has = |name: &str| rootfs.tree.get(name).is_some();
    if !has("bin") && !has("usr") {
        let reason = match has("manifest.json") || has("oci-layout") {
            true => {
                "it is a container image: `docker create` a container of it, and `docker export` that"
            }
            false => "it has neither /bin nor /usr: it is no root file system",
        };
        return Err(Error::Import { path: path.to_owned(), reason: reason.to_owned() });
    }
    let mut digest = hashed.digest;
    digest.update(size.to_le_bytes());
    let uuid = digest.clone().finalize();
    let uuid = uuid.first_chunk::<16>().copied().unwrap_or_default();
    ext4::write(target, &rootfs, size, uuid, &mut |done, total| {
        progress(Progress::step(Stage::FileSystem, done, total, "writing the file system"));
    })?;
    Ok(digest)
}

/// A reader of which all that comes through is hashed.
struct Hashed<R> {
    inner: R,
    digest: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.digest.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
#[path = "import_test.rs"]
mod tests;
