//! Images from what is there already: a disk with an ext4 root file system, whole or partitioned, or a tar
//! archive of a root file system.
//!
//! A disk with partitions is taken whole, as its file systems name each other (`/etc/fstab`). It is
//! started with the kernel that is in it, with one that is given, or with that of an image that Riad has
//! built; in place of an initial RAM disk there is Riad's agent, with the modules that lead to the root.
//!
//! Nothing of it is run here, and nothing is mounted.

mod disk;
mod kernel;
mod place;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use disk::DiskBytes;
pub use place::{Place, find};

use crate::build::{check_own_name, now};
use crate::deb::decompress;
use crate::error::Error;
use crate::ext4;
use crate::hash::hex;
use crate::kernel::Files;
use crate::progress::{Progress, Stage};
use crate::reference::ImageRef;
use crate::rootfs::{RootFs, unpack_archive};
use crate::store::{Image, ImageMeta, KERNEL, MODULES, ROOTFS, Store, write_file};
use disk::{FileSystem, Raw};
use kernel::Kernel;

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
    /// The disk that the file is, where its bytes are not the disk's own: of another format.
    pub disk: Option<Arc<dyn DiskBytes>>,
    /// The guest's architecture, as Debian calls it.
    pub arch: String,
    /// The kernel it is started with.
    pub kernel: KernelFrom,
    /// The size of the file system that an archive is written to, in bytes.
    pub size: u64,
}

/// Where an imported image has its kernel from.
#[derive(Debug, Clone)]
pub enum KernelFrom {
    /// From itself: the newest with modules.
    Own {
        /// The image whose kernel it is otherwise.
        otherwise: Option<Image>,
    },
    /// From an image.
    Image(Image),
    /// From a file; its modules are the image's own.
    File(PathBuf),
}

/// What a file is.
enum Form {
    /// And the file systems that are on it, the root's first.
    Disk(Arc<dyn DiskBytes>, Vec<Place>),
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
    let ImportOptions { file: path, name, disk, arch, kernel, size } = options;
    check_own_name(name)?;
    let refuse = |reason: String| Error::Import { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let form = match disk {
        Some(disk) => {
            let places = place::find(disk.size(), &mut |at, buffer| disk.read_at(at, buffer));
            Form::Disk(Arc::clone(disk), places.map_err(refuse)?)
        }
        None => form(&mut file, path)?,
    };
    let key = ImageRef::Named(name.clone()).key(arch);
    let _lock = store.lock_name(&key, &mut || {
        progress(Progress::step(Stage::Waiting, 0, 0, "another riad is making this image"));
    })?;
    let work = store.begin_work()?;
    let rootfs = work.path().join(ROOTFS);
    let (mut digest, kernel, partition) = match form {
        Form::Disk(disk, places) => {
            // What cannot be started is told before gigabytes are copied.
            let kernel = kernel_of_disk(kernel, path, &disk, &places)?;
            let digest = copy_disk(&*disk, path, &places, &rootfs, progress)?;
            (digest, kernel, places.first().map(|root| root.partition))
        }
        Form::Archive(extension) => {
            let (tree, digest) = unpack(&file, path, extension, work.path(), progress)?;
            let kernel = Kernel::choose(kernel, path, &tree, &[])?;
            (write_tree(&tree, digest, *size, &rootfs, progress)?, kernel, None)
        }
    };
    progress(Progress::step(Stage::Store, 0, 1, "writing to disk"));
    let Kernel { version, image, is_borrowed, modules } = kernel;
    if is_borrowed {
        let text = format!(
            "there is no kernel in {}: Linux {version} of another image is taken",
            path.display()
        );
        progress(Progress::warning(Stage::Store, text));
    }
    digest.update(&image);
    write_file(&work.path().join(KERNEL), &image)?;
    let directory = work.path().join(MODULES);
    fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
    for (name, content) in &modules {
        digest.update(content);
        write_file(&directory.join(name), content)?;
    }
    let digest = hex(&digest.finalize());
    let meta = ImageMeta {
        schema: 0,
        name: name.clone(),
        suite: "imported".to_owned(),
        arch: arch.clone(),
        kernel: version,
        created: now(),
        digest: digest.clone(),
        verified: false,
        archives: vec![path.file_name().unwrap_or_default().to_string_lossy().into_owned()],
        packages: Vec::new(),
        modules: modules.into_iter().map(|(name, _)| name).collect(),
        root_partition: partition.filter(|number| *number != 0),
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

/// The kernel that a disk is started with.
fn kernel_of_disk(
    from: &KernelFrom,
    path: &Path,
    disk: &Arc<dyn DiskBytes>,
    places: &[Place],
) -> Result<Kernel, Error> {
    if let KernelFrom::Image(_) = from {
        return Kernel::choose(from, path, &Nothing, &[]);
    }
    let mut systems = places.iter().map(|place| FileSystem::open(disk, *place));
    let root = systems.next().unwrap_or_else(|| Err("it has none".to_owned()));
    let root = root.map_err(|reason| Error::Import {
        path: path.to_owned(),
        reason: format!("its root file system cannot be read: {reason}"),
    })?;
    // One that cannot be read is not the one that /boot is on.
    let others: Vec<_> = systems.flatten().collect();
    let others: Vec<_> = others.iter().map(|system| system as &dyn Files).collect();
    Kernel::choose(from, path, &root, &others)
}

/// A tree in which nothing need be looked for.
struct Nothing;

impl Files for Nothing {
    fn names(&self, _directory: &str) -> Vec<String> {
        Vec::new()
    }

    fn below(&self, _directory: &str) -> Vec<String> {
        Vec::new()
    }

    fn read(&self, _path: &str, _limit: u64) -> Option<Vec<u8>> {
        None
    }
}

/// What a file is, by what is in it.
fn form(file: &mut File, path: &Path) -> Result<Form, Error> {
    let refuse = |reason: String| Error::Import { path: path.to_owned(), reason };
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
        return Err(refuse("it is a qcow2 disk that is not read as one".to_owned()));
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
    let disk = file.try_clone().and_then(Raw::new).map_err(Error::io("read", path))?;
    let places = place::find(disk.size(), &mut |at, buffer| disk.read_at(at, buffer));
    places.map(|places| Form::Disk(Arc::new(disk), places)).map_err(|reason| {
        refuse(format!(
            "{reason}; it is no tar archive either: give a raw disk or a qcow2 image with an ext4 root \
             file system, or a tar archive of a root file system"
        ))
    })
}

/// Copies a disk; where it has only zeros, the copy has holes. Of one without partitions, what its file
/// system takes. Gives what was copied, hashed.
fn copy_disk(
    disk: &dyn DiskBytes,
    path: &Path,
    places: &[Place],
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Sha256, Error> {
    let whole = places.iter().find(|place| place.partition == 0);
    let length = whole.map_or(disk.size(), |place| place.length);
    let copy = File::create_new(target).map_err(Error::io("create", target))?;
    copy.set_len(length.next_multiple_of(CLUSTER)).map_err(Error::io("write", target))?;
    let mut digest = Sha256::new();
    digest.update(length.to_le_bytes());
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let len = usize::try_from(length - at).map_or(PIECE, |left| left.min(PIECE));
        let piece = buffer.get_mut(..len).unwrap_or_default();
        disk.read_at(at, piece).map_err(Error::io("read", path))?;
        for (number, block) in (0u64..).zip(piece.chunks(CLUSTER as usize)) {
            if block.iter().any(|byte| *byte != 0) {
                let at = at + number * CLUSTER;
                digest.update(at.to_le_bytes());
                digest.update(block);
                copy.write_all_at(block, at).map_err(Error::io("write", target))?;
            }
        }
        at += len as u64;
        progress(Progress::step(Stage::FileSystem, at, length, "copying the disk"));
    }
    Ok(digest)
}

/// Unpacks an archive into a tree. Gives it, and what was read, hashed.
fn unpack(
    file: &File,
    path: &Path,
    extension: &str,
    directory: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(RootFs, Sha256), Error> {
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
    Ok((rootfs, hashed.digest))
}

/// Writes a tree as a file system. Gives what went into it, hashed.
fn write_tree(
    rootfs: &RootFs,
    mut digest: Sha256,
    size: u64,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Sha256, Error> {
    digest.update(size.to_le_bytes());
    let uuid = digest.clone().finalize();
    let uuid = uuid.first_chunk::<16>().copied().unwrap_or_default();
    ext4::write(target, rootfs, size, uuid, &mut |done, total| {
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
