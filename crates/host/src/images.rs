//! Images on this computer: finding, building, listing and removing them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod apart;

pub(crate) use apart::confine;
pub use apart::serve as make_for;
use riad_disk::{Disk, Qcow2};
use riad_image::{BuildOptions, DiskBytes, Image, ImportOptions, KernelFrom, Store};
pub use riad_image::{ImageMeta, ImageRef, Listed, Progress, Pruned, Stage as BuildStage};
use riad_vmm::EngineKind;

use serde::{Deserialize, Serialize};

use crate::configure::Configurer;
use crate::{Error, Observer, linux_arch};

/// An image, and how to build it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageOptions {
    /// Which.
    pub reference: ImageRef,
    /// The guest's architecture, by Debian's name.
    pub arch: String,
    /// The mirror, in place of the host's.
    pub mirror: Option<String>,
    /// The keyring, in place of Debian's.
    pub keyring: Option<PathBuf>,
    /// Take packages that nobody vouches for.
    pub insecure_no_verify: bool,
    /// Packages besides the usual ones.
    pub include: Vec<String>,
    /// The size of its root file system, bytes; the usual one when `None`.
    pub size: Option<u64>,
    /// A name of its own.
    pub name: Option<String>,
    /// The engine to configure it with.
    pub engine: EngineKind,
}

impl ImageOptions {
    /// An image as Riad builds it when nothing else is said.
    #[must_use]
    pub fn new(reference: ImageRef) -> Self {
        Self {
            reference,
            arch: crate::DEFAULT_ARCH.to_owned(),
            mirror: None,
            keyring: None,
            insecure_no_verify: false,
            include: Vec::new(),
            size: None,
            name: None,
            engine: EngineKind::Auto,
        }
    }
}

/// The agent for an architecture.
pub(crate) fn agent(arch: &str) -> Result<&'static [u8], Error> {
    riad_agent_image::agent(linux_arch(arch)).ok_or_else(|| Error::NoAgent {
        arch: arch.to_owned(),
        has: riad_agent_image::architectures().collect::<Vec<_>>().join(", "),
    })
}

/// The image, built first if it is missing and is one that Riad can build.
///
/// # Errors
/// See [`Error`].
pub fn find_or_build(options: &ImageOptions, observer: &mut dyn Observer) -> Result<Image, Error> {
    let store = open()?;
    match store.find(&options.reference, &options.arch)? {
        Some(image) => Ok(image),
        None => build_in(&store, options, observer),
    }
}

/// The image with an id, which has to be there.
fn by_id(store: &Store, id: &str) -> Result<Image, Error> {
    match store.list()?.into_iter().find(|listed| listed.id == id) {
        Some(listed) => Ok(listed.image?),
        None => Err(Error::NoSuchImage(id.to_owned())),
    }
}

/// Builds an image; or finds that the one there is still what would be built.
///
/// # Errors
/// See [`Error`].
pub fn build(options: &ImageOptions, observer: &mut dyn Observer) -> Result<Image, Error> {
    build_in(&open()?, options, observer)
}

/// In a process apart, if there is a program for that; else in this one.
fn build_in(
    store: &Store,
    options: &ImageOptions,
    observer: &mut dyn Observer,
) -> Result<Image, Error> {
    match observer.builder() {
        Some(program) => {
            apart::make(program, &apart::Wish::Build(options.clone()), store, observer)
        }
        None => build_here(store, options, false, observer),
    }
}

/// In this process, which is confined once everything is fetched, if it is `apart`.
fn build_here(
    store: &Store,
    options: &ImageOptions,
    apart: bool,
    observer: &mut dyn Observer,
) -> Result<Image, Error> {
    let ImageOptions {
        reference,
        arch,
        mirror,
        keyring,
        insecure_no_verify,
        include,
        size,
        name,
        engine,
    } = options.clone();
    let agent = agent(&arch)?;
    let usual = BuildOptions::new(reference, arch, store.root());
    let build = BuildOptions {
        mirror,
        keyring,
        insecure_no_verify,
        include,
        size: size.unwrap_or(usual.size),
        name,
        ..usual
    };
    let mut configurer = Configurer::new(engine, apart);
    let mut progress = |progress: Progress| observer.image(&progress);
    Ok(riad_image::build(&build, &mut configurer, agent, &mut progress)?)
}

/// All images.
///
/// # Errors
/// The store cannot be read.
pub fn list() -> Result<Vec<Listed>, Error> {
    Ok(open()?.list()?)
}

/// A name in the store as a user writes it: `debian:trixie` for `debian-trixie-amd64`.
#[must_use]
pub fn public_name(stored: &str) -> String {
    let name = stored.strip_suffix(crate::DEFAULT_ARCH).and_then(|name| name.strip_suffix('-'));
    match name.unwrap_or(stored) {
        name if name.starts_with("debian-") => name.replacen('-', ":", 1),
        name => name.to_owned(),
    }
}

/// Removes an image by a name, or by its id as [`list`] tells it.
///
/// # Errors
/// There is none, or it cannot be removed.
pub fn remove(name: &str) -> Result<(), Error> {
    let store = open()?;
    // An id looks like a name, and the other way round; names come first.
    let reference = name.parse::<ImageRef>()?;
    if store.remove(&reference, crate::DEFAULT_ARCH)? || store.remove_id(name)? {
        return Ok(());
    }
    Err(Error::NoSuchImage(name.to_owned()))
}

/// The image of that name, which has to be there; or of that id, as [`list`] tells it.
///
/// # Errors
/// [`Error::NoSuchImage`], or it is damaged.
pub fn find(name: &str) -> Result<Image, Error> {
    let store = open()?;
    // A name that cannot be one may be an id, and the other way round.
    if let Ok(reference) = name.parse::<ImageRef>()
        && let Some(image) = store.find(&reference, crate::DEFAULT_ARCH)?
    {
        return Ok(image);
    }
    by_id(&store, name)
}

/// A disk in QEMU's format, for whoever knows bytes alone.
#[derive(Debug)]
struct Unpacked(Qcow2);

impl DiskBytes for Unpacked {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, buffer).map_err(io::Error::other)
    }
}

/// Where an imported image has its kernel from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ImportKernel {
    /// From itself, or that of the image `debian` if there is none in it.
    Own,
    /// That of an image, by its name or id.
    Of(String),
    /// A file.
    File(PathBuf),
}

/// Makes an image of a disk, raw or qcow2, or of an archive of a root file system. `size` is that of the
/// file system an archive is written to.
///
/// # Errors
/// See [`Error`].
pub fn import(
    file: &Path,
    name: &str,
    kernel: &ImportKernel,
    size: Option<u64>,
    observer: &mut dyn Observer,
) -> Result<Image, Error> {
    let Some(program) = observer.builder() else {
        return import_here(file, name, kernel, size, false, observer);
    };
    let (file, name) = (file.to_owned(), name.to_owned());
    let wish = apart::Wish::Import { file, name, kernel: kernel.clone(), size };
    apart::make(program, &wish, &open()?, observer)
}

/// In this process, which is confined before anything is looked into, if it is `apart`.
fn import_here(
    file: &Path,
    name: &str,
    kernel: &ImportKernel,
    size: Option<u64>,
    apart: bool,
    observer: &mut dyn Observer,
) -> Result<Image, Error> {
    let store = open()?;
    let images = match kernel {
        ImportKernel::Own => find("debian").ok(),
        ImportKernel::Of(image) => Some(find(image)?),
        ImportKernel::File(_) => None,
    };
    if apart {
        let given = match kernel {
            ImportKernel::File(kernel) => kernel.as_path(),
            _ => file,
        };
        apart::confine(store.root(), &[file, given], false);
    }
    let opened = File::open(file);
    let opened =
        opened.map_err(|source| Error::File { what: "disk", path: file.to_owned(), source })?;
    let disk: Option<Arc<dyn DiskBytes>> = match Qcow2::is_one(&opened) {
        true => {
            let disk = Qcow2::open(opened, file.display().to_string()).map_err(Error::Disk)?;
            Some(Arc::new(Unpacked(disk)))
        }
        false => None,
    };
    let options = ImportOptions {
        file: file.to_owned(),
        name: name.to_owned(),
        disk,
        arch: crate::DEFAULT_ARCH.to_owned(),
        kernel: match kernel {
            ImportKernel::File(file) => KernelFrom::File(file.clone()),
            ImportKernel::Own => KernelFrom::Own { otherwise: images },
            ImportKernel::Of(image) => match images {
                Some(image) => KernelFrom::Image(image),
                None => return Err(Error::NoSuchImage(image.clone())),
            },
        },
        size: size.unwrap_or(riad_image::DEFAULT_SIZE),
    };
    let mut progress = |progress: Progress| observer.image(&progress);
    Ok(riad_image::import(&store, &options, &mut progress)?)
}

/// Writes an image's root file system to a file that must not exist: a raw disk, of which only what
/// is in it takes space.
///
/// # Errors
/// There is no such image, or the file cannot be written.
pub fn export(name: &str, file: &Path) -> Result<(), Error> {
    let rootfs = find(name)?.rootfs();
    let failed = |source| Error::Export { path: file.to_owned(), source };
    riad_disk::copy_sparse(&rootfs, file).map_err(failed)
}

/// Removes images that no name stands for, or all; and downloads. With `dry_run`, only says what it
/// would remove.
///
/// # Errors
/// The store cannot be read or written.
pub fn prune(all: bool, dry_run: bool) -> Result<Vec<Pruned>, Error> {
    Ok(open()?.prune(all, dry_run)?)
}

/// Removes what builds that were interrupted have left.
///
/// # Errors
/// The store cannot be opened.
pub fn sweep() -> Result<(), Error> {
    open().map(drop)
}

fn open() -> Result<Store, Error> {
    Ok(Store::open(Store::default_directory()?)?)
}
