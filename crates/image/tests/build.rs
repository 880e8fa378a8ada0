//! Whole builds, from an archive of our own to an image in the store, with a stand-in for the
//! virtual machine.

mod archive;

use std::error::Error as StdError;
use std::fs;
use std::path::{Path, PathBuf};

use archive::TestArchive;
use riad_image::{BuildOptions, Configure, Error, Image, Progress, Stage, Store, build, ext4};

/// Stands for the virtual machine: looks at what it is given, and succeeds or does not.
#[derive(Default)]
struct Machine {
    runs: usize,
    fails: bool,
}

impl Configure for Machine {
    fn configure(
        &mut self,
        rootfs_image: &Path,
        kernel: &Path,
        initramfs: &Path,
        script: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.runs += 1;
        assert_eq!(fs::read(kernel)?, b"kernel");
        assert!(String::from_utf8_lossy(&fs::read(initramfs)?).contains("the agent"));
        let image = fs::File::open(rootfs_image)?;
        let fs = mkext4::reader::Fs::open(&image)?;
        let script = fs.read_file(fs.resolve(script)?)?;
        assert!(script.starts_with(b"#!/bin/sh"));
        assert_eq!(fs.read_file(fs.resolve("/usr/share/bc")?)?, b"bc");
        progress(Progress::step(Stage::Configure, 1, 1, "configured"));
        if self.fails { Err("the machine said no".into()) } else { Ok(()) }
    }
}

struct Setup {
    directory: tempfile::TempDir,
    archive: TestArchive,
    machine: Machine,
    events: Vec<Progress>,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = TestArchive::new();
        fs::write(directory.path().join("keyring"), archive.keyring()).expect("written");
        Self { directory, archive, machine: Machine::default(), events: Vec::new() }
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn options(&self) -> BuildOptions {
        let reference = "debian".parse().expect("a name");
        let mut options = BuildOptions::new(reference, "amd64", self.cache());
        options.mirror = Some(self.archive.mirror.clone());
        options.keyring = Some(self.directory.path().join("keyring"));
        options.size = ext4::MIN_SIZE;
        options
    }

    fn build(&mut self, options: &BuildOptions) -> Result<Image, Error> {
        let events = &mut self.events;
        build(options, &mut self.machine, b"the agent", &mut |event| events.push(event))
    }

    fn refused(&mut self, options: &BuildOptions) -> String {
        let error = self.build(options).expect_err("refused").to_string();
        let store = Store::open(self.cache()).expect("opened");
        assert!(store.list().expect("listed").is_empty(), "something was left: {error}");
        assert_eq!(fs::read_dir(self.cache().join("tmp")).expect("readable").count(), 0);
        error
    }
}

#[test]
fn an_image_is_built_found_and_not_built_twice() {
    let mut setup = Setup::new();
    let options = setup.options();
    let image = setup.build(&options).expect("built");
    assert_eq!(image.meta().kernel, "6.1-cloud-amd64");
    assert_eq!(image.meta().suite, "bookworm");
    assert!(image.meta().verified);
    assert!(image.meta().packages.iter().any(|p| p.name == "linux-image-6.1-cloud-amd64"));

    let store = Store::open(setup.cache()).expect("opened");
    for name in ["debian", "debian:bookworm"] {
        let found = store.find(&name.parse().expect("a name"), "amd64").expect("read");
        assert_eq!(found.expect("there").meta(), image.meta());
    }
    let stages: Vec<Stage> = setup.events.iter().map(|e| e.stage).collect();
    for stage in [Stage::Indexes, Stage::Resolve, Stage::Download, Stage::Unpack, Stage::FileSystem]
    {
        assert!(stages.contains(&stage), "{stage:?}");
    }
    // The mirror has no updates; that is said, and no more.
    assert_eq!(setup.events.iter().filter(|e| e.warning).count(), 2);

    setup.build(&options).expect("there");
    assert_eq!(setup.machine.runs, 1);

    // A newer package makes a new image, under the same name.
    setup.archive.publish("Debian", &[("new", "Essential: yes\n")]);
    let newer = setup.build(&options).expect("built");
    assert_ne!(newer.meta().digest, image.meta().digest);
    assert_eq!(setup.machine.runs, 2);
}

#[test]
fn a_machine_that_fails_leaves_no_image() {
    let mut setup = Setup::new();
    setup.machine.fails = true;
    let options = setup.options();
    let error = setup.refused(&options);
    assert!(error.contains("the machine said no"), "{error}");
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    let mut setup = Setup::new();
    let options = setup.options();
    setup.archive.change("dists/bookworm/InRelease", |file| {
        let text = String::from_utf8_lossy(file).replace("oldstable", "alsostable");
        *file = text.into_bytes();
    });
    let error = setup.refused(&options);
    assert!(error.contains("--insecure-no-verify"), "{error}");

    setup.archive.publish("Debian", &[]);
    setup.archive.change("dists/bookworm/main/binary-amd64/Packages.gz", |file| file[20] ^= 1);
    let error = setup.refused(&options);
    assert!(error.contains("not what the package index says"), "{error}");

    setup.archive.publish("Debian", &[]);
    setup.archive.change("pool/less.deb", |file| file.truncate(100));
    let error = setup.refused(&options);
    assert!(error.contains("less.deb"), "{error}");
    assert_eq!(setup.machine.runs, 0);
}

#[test]
fn keys_decide() {
    let mut setup = Setup::new();
    let mut options = setup.options();
    fs::write(setup.directory.path().join("keyring"), TestArchive::wrong_keyring())
        .expect("written");
    let error = setup.refused(&options);
    assert!(error.contains("which the keyring does not have"), "{error}");
    options.keyring = Some("/nonexistent/keyring".into());
    let error = setup.refused(&options);
    assert!(error.contains("debian-archive-keyring"), "{error}");
    options.insecure_no_verify = true;
    let image = setup.build(&options).expect("built unverified");
    assert!(!image.meta().verified);
}

#[test]
fn other_distributions_and_suites_are_refused() {
    let mut setup = Setup::new();
    let mut options = setup.options();
    setup.archive.publish("Ubuntu", &[]);
    let error = setup.refused(&options);
    assert!(error.contains("'Ubuntu', not Debian"), "{error}");
    setup.archive.publish("Debian", &[]);
    options.reference = "debian:trixie".parse().expect("a name");
    let error = setup.refused(&options);
    assert!(error.contains("404"), "{error}");
}

#[test]
fn packages_that_cannot_be_installed_are_explained() {
    let mut setup = Setup::new();
    setup.archive.publish("Debian", &[("tool", "Depends: missing\n")]);
    let mut options = setup.options();
    options.include = vec!["tool".to_owned()];
    let error = setup.refused(&options);
    assert!(error.contains("tool 1 needs missing"), "{error}");
    options.include = vec!["nonsense".to_owned()];
    let error = setup.refused(&options);
    assert!(error.contains("no package 'nonsense'"), "{error}");
}

#[test]
fn names_of_ones_own() {
    let mut setup = Setup::new();
    let mut options = setup.options();
    options.name = Some("mine".to_owned());
    setup.build(&options).expect("built");
    let store = Store::open(setup.cache()).expect("opened");
    assert!(store.find(&"mine".parse().expect("a name"), "amd64").expect("read").is_some());
    assert!(store.find(&"debian".parse().expect("a name"), "amd64").expect("read").is_none());
    options.name = Some("debian-mine".to_owned());
    assert!(setup.build(&options).is_err());
    options.name = None;
    options.reference = "mine".parse().expect("a name");
    let error = setup.build(&options).expect_err("not Debian").to_string();
    assert!(error.contains("no image called 'mine'"), "{error}");
}

#[test]
fn two_builds_at_once_make_one_image() {
    let setup = Setup::new();
    let options = setup.options();
    let runs: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut machine = Machine::default();
                    build(&options, &mut machine, b"the agent", &mut |_| {}).expect("built");
                    machine.runs
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("ended")).sum()
    });
    assert_eq!(runs, 1);
    let store = Store::open(setup.cache()).expect("opened");
    assert_eq!(store.list().expect("listed").len(), 1);
}
