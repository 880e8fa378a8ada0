//! What the engines run: kernel, boot archives and disk for a guest, and the same as a tree and a
//! program for the host itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::cpio::Archive;
use crate::cargo::output;
use crate::{Error, root};

/// The release that the programs come from.
const RELEASE: &str = "debian:bookworm";
/// What the image is called in its own store.
pub(super) const NAME: &str = "yardstick";
/// What the programs need besides the usual packages.
const PACKAGES: &str = "gcc,libc6-dev,python3-minimal,p7zip-full,openssl,sqlite3";
/// The root's size: it is copied for each run.
const SIZE: &str = "2G";

/// Bytes of the file that disks are measured on.
const DATA: u64 = 1 << 30;

/// Everything that is run, all in one directory.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) directory: PathBuf,
    /// Where Riad keeps the image.
    image: PathBuf,
    /// The kernel.
    pub(super) kernel: PathBuf,
    /// The boot archive that only says that it runs.
    pub(super) start: PathBuf,
    /// The boot archive with the kernels.
    pub(super) kernels: PathBuf,
    /// The boot archive that leads to the programs on the disk.
    pub(super) programs: PathBuf,
    /// The boot archive that leads to the disk's own init.
    pub(super) login: PathBuf,
    /// The boot archive that leads to the yardstick of disks.
    pub(super) disk: PathBuf,
    /// The boot archive that leads to the yardstick of networks.
    pub(super) network: PathBuf,
    /// The kernels as a program.
    pub(super) program: PathBuf,
}

impl Guest {
    /// Builds what is not there yet below `directory`.
    pub(super) fn prepare(riad: &Path, directory: &Path) -> Result<Self, Error> {
        fs::create_dir_all(directory)?;
        let image = image(riad, &directory.join("cache"))?;
        let source = |name: &str| root().join("xtask/yardstick").join(name);
        let program = compile(&source("kernels.c"), &directory.join("kernels"))?;
        let init = fs::read(compile(&source("init.c"), &directory.join("init"))?)?;

        let meta: Value = serde_json::from_slice(&fs::read(image.join("image.json"))?)?;
        // Leads to what is done on the disk.
        let leading_to = |script: &[u8]| -> Result<Archive, Error> {
            let mut archive = Archive::new(&init);
            archive.file("bench", script);
            let mut list = String::new();
            for name in meta["modules"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                archive.file(name, &fs::read(image.join("modules").join(name))?);
                list.push_str(&format!("/{name}\n"));
            }
            archive.file("modules.list", list.as_bytes());
            Ok(archive)
        };
        let archive = |name: &str, archive: Archive| -> Result<PathBuf, Error> {
            let path = directory.join(name);
            fs::write(&path, archive.finish())?;
            Ok(path)
        };
        Ok(Self {
            kernel: image.join("vmlinuz"),
            start: archive("start.cpio", Archive::new(&init))?,
            kernels: archive("kernels.cpio", Archive::new(&fs::read(&program)?))?,
            programs: archive("programs.cpio", leading_to(&fs::read(source("programs.sh"))?)?)?,
            login: archive("login.cpio", leading_to(b"exec /sbin/init\n")?)?,
            disk: archive("disk.cpio", leading_to(&fs::read(source("disk.sh"))?)?)?,
            network: archive("network.cpio", leading_to(&fs::read(source("network.sh"))?)?)?,
            program,
            directory: directory.to_owned(),
            image,
        })
    }

    /// A fresh copy of the root for one run, which takes the place of the one before.
    pub(super) fn disk(&self) -> Result<PathBuf, Error> {
        let disk = self.directory.join("disk.ext4");
        let _ = fs::remove_file(&disk);
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--no-preserve=mode"]);
        copy.arg(self.image.join("rootfs.ext4")).arg(&disk);
        output(copy)?;
        Ok(disk)
    }

    /// The file that disks are measured on: the same for all, and all of it there.
    pub(super) fn data(&self) -> Result<PathBuf, Error> {
        let data = self.directory.join("data.raw");
        if !fs::metadata(&data).is_ok_and(|data| data.len() == DATA) {
            let piece: Vec<u8> =
                (0..1 << 20).map(|n: u32| (n.wrapping_mul(2654435761) >> 24) as u8).collect();
            let mut file = fs::File::create(&data)?;
            for _ in 0..DATA >> 20 {
                std::io::Write::write_all(&mut file, &piece)?;
            }
            file.sync_all()?;
        }
        Ok(data)
    }

    /// The root as a tree on the host, with the yardstick in it.
    pub(super) fn tree(&self) -> Result<PathBuf, Error> {
        let tree = self.directory.join("tree");
        // Written last: a tree without it is one that was interrupted. It names the image.
        let mark = tree.join("yardstick-of");
        let image = self.image.to_string_lossy().into_owned();
        if fs::read_to_string(&mark).ok().as_ref() != Some(&image) {
            println!("unpacking the root file system for the host");
            let _ = fs::remove_dir_all(&tree);
            fs::create_dir_all(&tree)?;
            let mut debugfs = Command::new("debugfs");
            debugfs.arg("-R").arg(format!("rdump / {}", tree.display()));
            debugfs.arg(self.image.join("rootfs.ext4"));
            output(debugfs)?;
            fs::write(&mark, image)?;
        }
        fs::copy(root().join("xtask/yardstick/programs.sh"), tree.join("bench"))?;
        Ok(tree)
    }
}

/// Riad's own image with the programs, built if it is not there, in a store of its own.
fn image(riad: &Path, cache: &Path) -> Result<PathBuf, Error> {
    let riad = || {
        let mut command = Command::new(riad);
        command.env("RIAD_CACHE", cache);
        command
    };
    if let Some(image) = find_image(riad(), cache)? {
        return Ok(image);
    }
    println!("building the image with the programs: some minutes, once");
    fs::create_dir_all(cache)?;
    let mut build = riad();
    build.args(["image", "build", RELEASE, "--name", NAME, "--size", SIZE, "--include", PACKAGES]);
    build.stdin(Stdio::null());
    output(build)?;
    find_image(riad(), cache)?.ok_or_else(|| "`riad image ls` lacks what it just built".into())
}

fn find_image(mut riad: Command, cache: &Path) -> Result<Option<PathBuf>, Error> {
    riad.args(["image", "ls", "--format", "json"]);
    let images: Value = serde_json::from_str(&output(riad)?)?;
    let is_ours = |image: &&Value| {
        image["damaged"].is_null()
            && image["names"].as_array().is_some_and(|names| names.iter().any(|name| name == NAME))
    };
    let id = images.as_array().and_then(|images| images.iter().find(is_ours));
    Ok(id.and_then(|image| image["id"].as_str()).map(|id| cache.join("images").join(id)))
}

fn compile(source: &Path, to: &Path) -> Result<PathBuf, Error> {
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-static", "-o"]).arg(to).arg(source).arg("-lm");
    output(gcc)?;
    Ok(to.to_owned())
}
