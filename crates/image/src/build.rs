//! Building an image, from the first byte fetched to its place in the store.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::apt::{Archive, HostApt, Plan, Suite};
use crate::deb::Deb;
use crate::error::Error;
use crate::ext4;
use crate::fetch::{Fetcher, Job};
use crate::hash::sha256;
use crate::indexes::{self, Indexes, Trust};
use crate::kernel::{KernelError, MODULES, Modules, kernel_packages};
use crate::packages::{Package, PackageSet};
use crate::progress::{Progress, Stage};
use crate::reference::ImageRef;
use crate::resolve::{Chosen, base_names, resolve};
use crate::rootfs::{
    BaseFiles, DpkgDatabase, RootFs, SECOND_STAGE, SECOND_STAGE_PATH, add_base_files, prepare,
    unpack_kernel, unpack_package,
};
use crate::store::{Image, ImageMeta, PackageRecord, Store, WorkDir, write_file};

/// The size of a root file system when nothing is said, in bytes. The file is sparse: it takes as
/// much of the disk as is in it.
pub const DEFAULT_SIZE: u64 = 8 << 30;

/// What is installed besides the base system: what a person at a shell reaches for first, and the
/// init system of machines that live on. Kept
/// small, as each of them is configured on a slow processor.
const DEFAULT_PACKAGES: [&str; 12] = [
    "bc",
    "ca-certificates",
    "dbus",
    "debian-archive-keyring",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "netbase",
    "procps",
    "systemd-sysv",
    "udev",
];

/// Raised when the same packages would give a different image.
const BUILD_VERSION: u32 = 1;

/// What to build, from what.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The image.
    pub reference: ImageRef,
    /// The guest's architecture, as Debian calls it: `amd64`.
    pub arch: String,
    /// The mirror to use in place of what the host's apt uses. When this is `None`, the environment
    /// variable `RIAD_DEBIAN_MIRROR` counts.
    pub mirror: Option<String>,
    /// The keyring to verify with in place of Debian's.
    pub keyring: Option<PathBuf>,
    /// Take packages that nobody vouches for.
    pub insecure_no_verify: bool,
    /// Packages to install besides the usual ones.
    pub include: Vec<String>,
    /// The size of the root file system in bytes.
    pub size: u64,
    /// The directory of the store.
    pub cache_dir: PathBuf,
    /// A further name for the image.
    pub name: Option<String>,
}

impl BuildOptions {
    /// The usual options for an image.
    #[must_use]
    pub fn new(
        reference: ImageRef,
        arch: impl Into<String>,
        cache_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            reference,
            arch: arch.into(),
            mirror: None,
            keyring: None,
            insecure_no_verify: false,
            include: Vec::new(),
            size: DEFAULT_SIZE,
            cache_dir: cache_dir.into(),
            name: None,
        }
    }
}

/// Runs the second stage inside a virtual machine.
pub trait Configure {
    /// Everything is fetched, and nothing of it has been looked into: from now on files are made, read
    /// and removed in the directory `store`, and read in `packages`, and nowhere else. Called once.
    fn fetched(&mut self, store: &Path, packages: &Path) {
        let _ = (store, packages);
    }

    /// Boots a machine with `rootfs_image` (a raw ext4 file system) as its only disk, writable, and
    /// runs `/bin/sh SCRIPT` in it as root, through the agent that is in `initramfs`, with the
    /// environment empty and `/proc`, `/sys` and `/dev` mounted in the root file system. Lines it
    /// prints are to be handed to [`parse_progress_line`], and what comes of it to `progress` as
    /// steps of [`Stage::Configure`]. Ends when the script has ended with status 0, the root file
    /// system was unmounted or made read-only, and the machine is gone: what the machine wrote must
    /// be in the file by then.
    ///
    /// [`parse_progress_line`]: crate::rootfs::parse_progress_line
    ///
    /// # Errors
    ///
    /// Whatever kept the script from ending with status 0; with the script's last words.
    fn configure(
        &mut self,
        rootfs_image: &Path,
        kernel: &Path,
        initramfs: &Path,
        script: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Builds an image and puts it into the store; or finds that the one there is still what would be
/// built. `agent` is the program that becomes the machine's init while it is configured.
///
/// When another process is building an image of the same name, waits for it and takes its result.
///
/// # Errors
///
/// See [`Error`]. Nothing half-made is left where it could be found.
pub fn build(
    options: &BuildOptions,
    configure: &mut dyn Configure,
    agent: &[u8],
    progress: &mut dyn FnMut(Progress),
) -> Result<Image, Error> {
    let ImageRef::Debian { suite: wanted } = &options.reference else {
        return Err(options.reference.unknown());
    };
    if let Some(name) = &options.name {
        check_own_name(name)?;
    }
    let store = Store::open(&options.cache_dir)?;
    let host = HostApt::read(Path::new("/"));
    let mirror = options.mirror.clone().or_else(|| {
        std::env::var("RIAD_DEBIAN_MIRROR").ok().filter(|mirror| !mirror.trim().is_empty())
    });
    let plan = host.plan(*wanted, mirror.as_deref())?;
    let keys = keys(options, plan.suite);

    let key = keys.last().cloned().unwrap_or_default();
    let before = image_of_key(&store, options, plan.suite);
    let mut waited = false;
    let _lock = store.lock_name(&key, &mut || {
        waited = true;
        progress(Progress::step(Stage::Waiting, 0, 0, "another riad is building this image"));
    })?;
    // What was there before is not the other's result: the other may have failed.
    if waited
        && let Some(image) = image_of_key(&store, options, plan.suite)
        && before.is_none_or(|before| before.meta().digest != image.meta().digest)
    {
        return Ok(image);
    }
    Build { options, store: &store, plan, fetcher: Fetcher::new(host.conf), keys, progress }
        .run(configure, agent)
}

/// A further name must not be one that Riad gives itself.
pub(crate) fn check_own_name(name: &str) -> Result<(), Error> {
    ImageRef::check_name(name)?;
    if name == "debian" || name.starts_with("debian-") {
        return Err(Error::BadName { name: name.to_owned() });
    }
    Ok(())
}

/// The names the image will have. A name of its own means that it is not what `debian` stands for.
fn keys(options: &BuildOptions, suite: Suite) -> Vec<String> {
    let arch = &options.arch;
    match &options.name {
        Some(name) => vec![ImageRef::Named(name.clone()).key(arch)],
        None => {
            let mut keys = Vec::new();
            if options.reference == (ImageRef::Debian { suite: None }) {
                keys.push(options.reference.key(arch));
            }
            keys.push(ImageRef::Debian { suite: Some(suite) }.key(arch));
            keys
        }
    }
}

/// Images are born with a merged `/usr`. Where packages ask for proof of that, the package that
/// states it is wanted, not the one that would merge it.
fn merged_usr(set: &PackageSet) -> Option<&'static str> {
    const PROOF: &str = "usr-is-merged";
    (set.get("usrmerge").is_some() && set.get(PROOF).is_some()).then_some(PROOF)
}

/// The image there is under the name that will be built, if it is whole.
fn image_of_key(store: &Store, options: &BuildOptions, suite: Suite) -> Option<Image> {
    let reference = match &options.name {
        Some(name) => ImageRef::Named(name.clone()),
        None => ImageRef::Debian { suite: Some(suite) },
    };
    store.find(&reference, &options.arch).ok().flatten()
}

struct Build<'a> {
    options: &'a BuildOptions,
    store: &'a Store,
    plan: Plan,
    fetcher: Fetcher,
    keys: Vec<String>,
    progress: &'a mut dyn FnMut(Progress),
}

/// A package to unpack, and its file.
struct Fetched<'a> {
    package: &'a Package,
    automatic: bool,
    path: PathBuf,
}

impl Build<'_> {
    fn run(mut self, configure: &mut dyn Configure, agent: &[u8]) -> Result<Image, Error> {
        let indexes = self.indexes()?;
        let (chosen, kernel) = self.choose(&indexes.set)?;
        let digest = self.digest(&chosen, &kernel);
        let id = digest[..12].to_owned();
        if let Ok(Some(image)) = self.store.image(&id) {
            self.store.set_names(&self.keys, &id)?;
            self.step(Stage::Store, 1, 1, "the image is up to date");
            return Ok(image);
        }

        let (packages, kernel_packages) = self.fetch(&indexes.archives, &chosen, &kernel)?;
        configure.fetched(self.store.root(), &self.store.directory("packages"));
        let work = self.store.begin_work()?;
        let mut rootfs =
            RootFs::new(work.path(), indexes.date).map_err(Error::io("write", work.path()))?;
        prepare(&mut rootfs, &self.options.arch).map_err(Error::deb("skeleton"))?;
        self.unpack(&mut rootfs, &indexes.archives, &packages, kernel_packages.len())?;
        let (kernel_version, modules) =
            self.unpack_kernel(&mut rootfs, &work, &kernel_packages, packages.len())?;

        let image_path = work.path().join(crate::store::ROOTFS);
        self.write_ext4(&image_path, &rootfs, &digest)?;
        // The spool's space is given back before the virtual machine needs some.
        drop(rootfs);

        let mut records: Vec<PackageRecord> = chosen
            .iter()
            .map(|c| c.package)
            .chain(kernel.iter().copied())
            .map(|package| PackageRecord {
                name: package.name.clone(),
                version: package.version.clone(),
                sha256: package.sha256.clone(),
            })
            .collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        let meta = ImageMeta {
            schema: 0,
            name: ImageRef::Debian { suite: Some(self.plan.suite) }.to_string(),
            suite: self.plan.suite.to_string(),
            arch: self.options.arch.clone(),
            kernel: kernel_version,
            created: now(),
            digest,
            verified: !self.options.insecure_no_verify,
            archives: indexes.archives.iter().map(|a| format!("{} {}", a.base, a.suite)).collect(),
            packages: records,
            modules,
            root_partition: None,
            files: Vec::new(),
        };
        // Not an image yet for anybody: it lies in the work directory.
        let draft = Image::create(work.path(), meta)?;
        let initramfs = draft.initramfs(agent)?;
        configure
            .configure(
                &image_path,
                &draft.kernel(),
                &initramfs,
                SECOND_STAGE_PATH,
                &mut *self.progress,
            )
            .map_err(|source| Error::Configure { source })?;

        self.step(Stage::Store, 0, 1, "writing to disk");
        File::open(&image_path)
            .and_then(|file| {
                // From now on it is only read.
                file.set_permissions(fs::Permissions::from_mode(0o444))?;
                file.sync_all()
            })
            .map_err(Error::io("write", &image_path))?;
        let image = self.store.commit(work, &id, &self.keys)?;
        self.step(Stage::Store, 1, 1, "done");
        Ok(image)
    }

    fn step(&mut self, stage: Stage, done: u64, total: u64, message: impl Into<String>) {
        (self.progress)(Progress::step(stage, done, total, message));
    }

    fn indexes(&mut self) -> Result<Indexes, Error> {
        let trust = match (&self.options.keyring, self.options.insecure_no_verify) {
            (_, true) => Trust::Nobody,
            (Some(path), false) => Trust::Keyring(path),
            (None, false) => Trust::Sources,
        };
        indexes::read(
            &self.fetcher,
            &self.plan.archives,
            &trust,
            &self.options.arch,
            &self.store.directory("lists"),
            now(),
            self.progress,
        )
    }

    /// The packages to install, and the packages that have the kernel.
    fn choose<'s>(
        &mut self,
        set: &'s PackageSet,
    ) -> Result<(Vec<Chosen<'s>>, Vec<&'s Package>), Error> {
        self.step(Stage::Resolve, 0, 0, format!("{} packages", set.len()));
        let wanted: BTreeSet<String> = base_names(set)
            .into_iter()
            .chain(DEFAULT_PACKAGES.map(str::to_owned))
            .chain(merged_usr(set).map(str::to_owned))
            .chain(self.options.include.iter().cloned())
            .collect();
        let wanted: Vec<String> = wanted.into_iter().collect();
        let chosen = resolve(set, &wanted)?;
        let kernel = kernel_packages(set)?;
        self.step(Stage::Resolve, 1, 1, format!("{} packages chosen", chosen.len()));
        Ok((chosen, kernel))
    }

    /// What the image is made from, as a hash: the same inputs give the same image.
    fn digest(&self, chosen: &[Chosen<'_>], kernel: &[&Package]) -> String {
        let mut packages: Vec<&str> = chosen.iter().map(|c| c.package.sha256.as_str()).collect();
        packages.sort_unstable();
        let mut automatic: Vec<&str> =
            chosen.iter().filter(|c| c.automatic).map(|c| c.package.name.as_str()).collect();
        automatic.sort_unstable();
        let mut inputs = format!(
            "riad image {BUILD_VERSION}\nversion {}\nsecond stage {}\nsuite {}\narch {}\nsize {}\nverified {}\n",
            env!("CARGO_PKG_VERSION"),
            sha256(SECOND_STAGE.as_bytes()),
            self.plan.suite,
            self.options.arch,
            self.options.size,
            !self.options.insecure_no_verify,
        );
        for archive in &self.plan.archives {
            let _ = writeln!(inputs, "archive {} {}", archive.base, archive.suite);
        }
        for package in packages {
            let _ = writeln!(inputs, "package {package}");
        }
        for package in automatic {
            let _ = writeln!(inputs, "automatic {package}");
        }
        for package in kernel {
            let _ = writeln!(inputs, "kernel {}", package.sha256);
        }
        sha256(inputs.as_bytes())
    }

    fn fetch<'p>(
        &mut self,
        archives: &[Archive],
        chosen: &[Chosen<'p>],
        kernel: &[&'p Package],
    ) -> Result<(Vec<Fetched<'p>>, Vec<Fetched<'p>>), Error> {
        let mut all: Vec<(&'p Package, bool)> =
            chosen.iter().map(|c| (c.package, c.automatic)).collect();
        all.extend(kernel.iter().map(|package| (*package, false)));
        let jobs: Vec<Job> = all
            .iter()
            .map(|(package, _)| Job {
                urls: archives
                    .get(package.archive)
                    .map(|archive| vec![archive.url(&package.filename)])
                    .unwrap_or_default(),
                sha256: package.sha256.clone(),
                size: package.size,
                suffix: ".deb",
                label: package.name.clone(),
            })
            .collect();
        let total = jobs.iter().map(|job| job.size).sum();
        let progress = &mut *self.progress;
        let paths = self.fetcher.ensure_all(
            &jobs,
            &self.store.directory("packages"),
            &mut |done, label| progress(Progress::step(Stage::Download, done, total, label)),
        )?;
        let mut fetched: Vec<Fetched<'p>> = all
            .into_iter()
            .zip(paths)
            .map(|((package, automatic), path)| Fetched { package, automatic, path })
            .collect();
        let kernel = fetched.split_off(chosen.len().min(fetched.len()));
        Ok((fetched, kernel))
    }

    fn unpack(
        &mut self,
        rootfs: &mut RootFs,
        archives: &[Archive],
        packages: &[Fetched<'_>],
        kernels: usize,
    ) -> Result<(), Error> {
        let arch = &self.options.arch;
        let total = (packages.len() + kernels) as u64;
        let mut database = DpkgDatabase::default();
        // base-files knows the permissions of the directories that everybody else just uses.
        let (first, rest): (Vec<_>, Vec<_>) =
            packages.iter().partition(|f| f.package.name == "base-files");
        for (done, fetched) in (0..).zip(first.into_iter().chain(rest)) {
            let name = &fetched.package.name;
            (self.progress)(Progress::step(Stage::Unpack, done, total, name.clone()));
            let file = File::open(&fetched.path).map_err(Error::io("read", &fetched.path))?;
            Deb::open(file)
                .and_then(|mut deb| unpack_package(rootfs, &mut database, &mut deb, arch))
                .map_err(Error::deb(name))?;
        }
        let automatic: Vec<&str> =
            packages.iter().filter(|f| f.automatic).map(|f| f.package.name.as_str()).collect();
        let base = BaseFiles { hostname: "riad", archives };
        database
            .write(rootfs, arch, &automatic)
            .and_then(|()| add_base_files(rootfs, &database, base))
            .map_err(Error::deb("skeleton"))
    }

    /// Unpacks the kernel, and writes it and the modules for the agent into the work directory.
    /// Gives the kernel's version and the names of the module files, in the order to load them.
    fn unpack_kernel(
        &mut self,
        rootfs: &mut RootFs,
        work: &WorkDir,
        packages: &[Fetched<'_>],
        before: usize,
    ) -> Result<(String, Vec<String>), Error> {
        let total = (before + packages.len()) as u64;
        let mut found = None;
        for (done, fetched) in (before as u64..).zip(packages) {
            let name = &fetched.package.name;
            self.step(Stage::Unpack, done, total, name.clone());
            let file = File::open(&fetched.path).map_err(Error::io("read", &fetched.path))?;
            let images = Deb::open(file)
                .and_then(|mut deb| unpack_kernel(rootfs, &mut deb))
                .map_err(Error::deb(name))?;
            found = found.or(images.into_iter().next());
        }
        let Some((version, kernel)) = found else {
            let package = packages.first().map_or("", |f| &f.package.name).to_owned();
            return Err(KernelError::NoImage { package }.into());
        };
        write_file(&work.path().join(crate::store::KERNEL), &kernel)?;

        let directory = work.path().join(crate::store::MODULES);
        fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
        let mut names = Vec::new();
        for (number, module) in
            Modules::find(rootfs, &version).closure(&MODULES)?.into_iter().enumerate()
        {
            let name = format!("{number:02}-{}.ko", module.name);
            write_file(&directory.join(&name), &module.content)?;
            names.push(name);
        }
        self.step(Stage::Unpack, total, total, "unpacked");
        Ok((version, names))
    }

    fn write_ext4(&mut self, path: &Path, rootfs: &RootFs, digest: &str) -> Result<(), Error> {
        let size = self.options.size.max(ext4::MIN_SIZE);
        let progress = &mut *self.progress;
        ext4::write(path, rootfs, size, uuid(digest), &mut |done, total| {
            progress(Progress::step(Stage::FileSystem, done, total, "writing"));
        })
    }
}

/// A UUID that follows from a digest (RFC 9562, version 8).
fn uuid(digest: &str) -> [u8; 16] {
    let mut uuid = [0; 16];
    for (byte, pair) in uuid.iter_mut().zip(digest.as_bytes().chunks_exact(2)) {
        let text = std::str::from_utf8(pair).unwrap_or("0");
        *byte = u8::from_str_radix(text, 16).unwrap_or(0);
    }
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// Seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
