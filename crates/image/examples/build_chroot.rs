//! Builds an image and configures it in a chroot instead of a virtual machine: for working on this
//! crate. Needs root, loop devices and a host that runs the image's architecture.
//!
//! ```text
//! cargo run --release -p riad-image --example build_chroot -- CACHE_DIR debian:trixie [PACKAGE...]
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use riad_image::rootfs::parse_progress_line;
use riad_image::{BuildOptions, Configure, Progress, Stage, build};

type AnyError = Box<dyn Error + Send + Sync>;

/// Runs the second stage with chroot(8).
struct Chroot;

/// What is mounted is unmounted, the last first.
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn mount(&mut self, arguments: &[&str], target: PathBuf) -> Result<(), AnyError> {
        run(Command::new("mount").args(arguments).arg(&target))?;
        self.0.push(target);
        Ok(())
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        while let Some(target) = self.0.pop() {
            if let Err(error) = run(Command::new("umount").arg(&target)) {
                eprintln!("{error}");
            }
        }
    }
}

fn run(command: &mut Command) -> Result<(), AnyError> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

impl Configure for Chroot {
    fn configure(
        &mut self,
        rootfs_image: &Path,
        _kernel: &Path,
        _initramfs: &Path,
        script: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), AnyError> {
        let root = rootfs_image.with_extension("mounted");
        std::fs::create_dir(&root)?;
        let mut mounts = Mounts(Vec::new());
        let image = rootfs_image.to_str().ok_or("the cache directory is not UTF-8")?;
        mounts.mount(&["-o", "loop", image], root.clone())?;
        mounts.mount(&["-t", "proc", "proc"], root.join("proc"))?;
        mounts.mount(&["--bind", "/dev"], root.join("dev"))?;
        let mut child = Command::new("chroot")
            .arg(&root)
            .args(["/usr/bin/env", "-i", "/bin/sh", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
            let line = line?;
            match parse_progress_line(&line) {
                Some((done, total, text)) => {
                    progress(Progress::step(Stage::Configure, done, total, text));
                }
                None => println!("{line}"),
            }
        }
        let status = child.wait()?;
        drop(mounts);
        std::fs::remove_dir(&root)?;
        if status.success() { Ok(()) } else { Err(format!("the second stage: {status}").into()) }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(cache), Some(reference)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: build_chroot CACHE_DIR IMAGE [PACKAGE...]");
        return ExitCode::FAILURE;
    };
    let started = std::time::Instant::now();
    let mut show = |p: Progress| {
        let mark = if p.warning { "warning: " } else { "" };
        println!(
            "{:7.2} s  {mark}{} {}/{} {}",
            started.elapsed().as_secs_f32(),
            p.stage.label(),
            p.done,
            p.total,
            p.message
        );
    };
    let result = reference.parse().and_then(|reference| {
        let mut options = BuildOptions::new(reference, "amd64", cache);
        options.include = arguments.collect();
        build(&options, &mut Chroot, b"#!/bin/sh\n", &mut show)
    });
    match result {
        Ok(image) => {
            println!("{}", image.directory().display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
