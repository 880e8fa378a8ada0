//! Images: built once, whole or not at all.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{IMAGE, cache, end_to_end, image, riad, text};

/// A cache of its own, with the downloads of the one that all tests share.
fn own_cache() -> tempfile::TempDir {
    let own = tempfile::tempdir_in(cache()).unwrap();
    for downloads in ["packages", "lists"] {
        symlink(cache().join(downloads), own.path().join(downloads)).unwrap();
    }
    own
}

fn own_riad(cache: &Path) -> Command {
    let mut command = riad();
    command.env("RIAD_CACHE", cache).stdin(Stdio::null());
    command
}

/// A build that has come as far as this stage.
fn build_until(cache: &Path, stage: &str) -> Child {
    let mut build = own_riad(cache);
    build.args(["image", "build", "debian:bookworm"]).stderr(Stdio::piped());
    let mut child = build.spawn().expect("riad runs");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = lines.by_ref().any(|line| line.unwrap().ends_with(stage));
    assert!(found, "the build ended before {stage}");
    // What it says from now on is nobody's business, but it must be able to say it.
    std::thread::spawn(move || lines.count());
    child
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    end_to_end!();
    for stage in ["unpacking", "configuring"] {
        let cache = own_cache();
        let mut build = build_until(cache.path(), stage);
        kill_process(Pid::from_child(&build), Signal::INT).unwrap();
        assert_eq!(build.wait().unwrap().code(), Some(130), "{stage}");
        for directory in ["tmp", "images", "refs"] {
            assert_eq!(entries(&cache.path().join(directory)), 0, "{directory} after {stage}");
        }
    }
}

#[test]
fn a_killed_build_is_swept_by_the_next_riad() {
    end_to_end!();
    let cache = own_cache();
    let mut build = build_until(cache.path(), "file system");
    build.kill().unwrap();
    build.wait().unwrap();
    assert_eq!(entries(&cache.path().join("images")), 0);
    // The process that made it ends with its parent, but not in the same instant.
    let is_swept = || {
        let listed = own_riad(cache.path()).args(["image", "ls"]).output().unwrap();
        assert!(text(&listed.stdout).contains("no images"), "{}", text(&listed.stdout));
        entries(&cache.path().join("tmp")) == 0
    };
    assert!((0..100).any(|_| is_swept() || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        false
    }));
}

#[test]
fn an_image_that_is_there_is_not_built_again() {
    end_to_end!();
    let id = image();
    let listed = riad().args(["image", "ls"]).output().unwrap();
    let line = text(&listed.stdout);
    let line = line.lines().find(|line| line.starts_with(&format!("{IMAGE} "))).unwrap().to_owned();
    assert!(
        line.contains(id) && line.contains("bookworm") && line.contains("-cloud-amd64"),
        "{line}"
    );
}
