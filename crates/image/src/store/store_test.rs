use std::os::unix::fs::FileExt;

use super::*;
use crate::initramfs::MODULE_DIRECTORY;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path().join("cache")).expect("opened");
    (directory, store)
}

fn debian(text: &str) -> ImageRef {
    text.parse().expect("a name")
}

fn meta() -> ImageMeta {
    ImageMeta {
        schema: 0,
        name: "debian:bookworm".into(),
        suite: "bookworm".into(),
        arch: "amd64".into(),
        kernel: "6.1".into(),
        created: 1,
        digest: "d".repeat(64),
        verified: true,
        archives: vec![],
        packages: vec![PackageRecord {
            name: "a".into(),
            version: Version::from("1"),
            sha256: "0".repeat(64),
        }],
        modules: vec!["00-a.ko".into()],
        root_partition: None,
        files: vec![],
    }
}

use crate::version::Version;

fn fill(directory: &Path) {
    fs::write(directory.join("rootfs.ext4"), b"root").expect("written");
    fs::write(directory.join("vmlinuz"), b"kernel").expect("written");
    fs::create_dir(directory.join("modules")).expect("made");
    fs::write(directory.join("modules/00-a.ko"), b"module").expect("written");
}

fn build(store: &Store, id: &str, keys: &[&str]) -> Image {
    let work = store.begin_work().expect("begun");
    fill(work.path());
    Image::create(work.path(), meta()).expect("made");
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    store.commit(work, id, &keys).expect("committed")
}

fn left_in(store: &Store, directory: &str) -> Vec<String> {
    entries(&store.directory(directory)).expect("readable")
}

#[test]
fn a_relative_directory_is_found_from_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    // Up to the root, and down again.
    let up: std::path::PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(directory.path().strip_prefix("/").unwrap());
    let store = Store::open(&relative).unwrap();
    assert!(store.root().is_absolute() && store.root().ends_with(&relative));
    assert!(directory.path().join("images").is_dir());
}

#[test]
fn an_image_is_found_by_its_names_and_removed() {
    let (_directory, store) = store();
    assert!(store.find(&debian("debian"), "amd64").expect("read").is_none());
    build(&store, "aaaa", &["debian-amd64", "debian-bookworm-amd64"]);
    for name in ["debian", "debian:12"] {
        let image = store.find(&debian(name), "amd64").expect("read").expect("there");
        assert_eq!(fs::read(image.rootfs()).expect("readable"), b"root");
    }
    assert!(store.find(&debian("debian"), "arm64").expect("read").is_none());
    let listed = store.list().expect("listed");
    assert_eq!(listed[0].names, ["debian-amd64", "debian-bookworm-amd64"]);
    assert!(listed[0].image.is_ok() && listed[0].disk_bytes > 0);
    assert!(store.remove(&debian("debian:12"), "amd64").expect("removed"));
    assert!(!store.remove(&debian("debian"), "amd64").expect("removed"));
    assert!(store.list().expect("listed").is_empty());
    assert!(left_in(&store, "tmp").is_empty());
}

#[test]
fn an_image_stays_while_a_name_stands_for_it() {
    let (_directory, store) = store();
    build(&store, "aaaa", &["debian-amd64", "mine-amd64"]);
    assert!(store.remove(&debian("debian"), "amd64").expect("removed"));
    assert!(store.find(&debian("mine"), "amd64").expect("read").is_some());
    assert!(store.remove_id("aaaa").expect("removed"));
    assert!(store.find(&debian("mine"), "amd64").expect("read").is_none());
}

#[test]
fn building_again_replaces_what_is_there() {
    let (_directory, store) = store();
    let image = build(&store, "aaaa", &["debian-amd64"]);
    fs::write(image.rootfs(), b"damaged").expect("written");
    assert!(store.find(&debian("debian"), "amd64").is_err());
    build(&store, "aaaa", &["debian-amd64"]);
    assert!(store.find(&debian("debian"), "amd64").expect("read").is_some());
    assert_eq!(left_in(&store, "images"), ["aaaa"]);
}

#[test]
fn work_that_is_dropped_leaves_nothing() {
    let (_directory, store) = store();
    let work = store.begin_work().expect("begun");
    fill(work.path());
    drop(work);
    assert!(left_in(&store, "tmp").is_empty() && left_in(&store, "images").is_empty());
}

#[test]
fn work_of_the_dead_is_removed_and_of_the_living_is_not() {
    let (_directory, store) = store();
    let living = store.begin_work().expect("begun");
    // What a killed process leaves: a directory and a lock file that nobody holds, or no lock file.
    let dead = store.directory("tmp").join("work-dead");
    fs::create_dir(&dead).expect("made");
    fs::write(dead.join("rootfs.ext4"), b"half").expect("written");
    fs::write(dead.with_extension("lock"), b"").expect("written");
    fs::create_dir(store.directory("tmp").join("work-older")).expect("made");
    Store::open(store.root()).expect("opened");
    assert!(living.path().exists());
    assert_eq!(left_in(&store, "tmp").len(), 2, "{:?}", left_in(&store, "tmp"));
}

#[test]
fn damage_of_every_kind_is_noticed() {
    let (_directory, store) = store();
    let damage: [fn(&Path); 6] = [
        |d| fs::remove_file(d.join("vmlinuz")).expect("removed"),
        |d| fs::write(d.join("rootfs.ext4"), b"roo").expect("written"),
        |d| fs::remove_file(d.join("image.json")).expect("removed"),
        |d| {
            let file = File::options().write(true).open(d.join("image.json")).expect("opened");
            file.set_len(100).expect("cut");
        },
        |d| {
            let file = File::options().write(true).open(d.join("image.json")).expect("opened");
            file.write_all_at(b"{\"schema\": 99, ", 0).expect("written");
        },
        |d| fs::remove_dir_all(d.join("modules")).expect("removed"),
    ];
    for damage in damage {
        let image = build(&store, "aaaa", &["debian-amd64"]);
        damage(image.directory());
        let error = store.find(&debian("debian"), "amd64").expect_err("damaged").to_string();
        assert!(error.contains("riad image rm"), "{error}");
        assert!(store.list().expect("listed")[0].image.is_err());
        assert!(store.remove(&debian("debian"), "amd64").expect("removed"));
    }
}

#[test]
fn a_damaged_name_counts_as_none() {
    let (_directory, store) = store();
    build(&store, "aaaa", &["debian-amd64"]);
    for text in ["", "{", "{\"image\": \"../../etc\"}", "{\"image\": \"\"}"] {
        fs::write(store.name_path("debian-amd64"), text).expect("written");
        assert!(store.find(&debian("debian"), "amd64").expect("read").is_none());
    }
}

#[test]
fn each_agent_has_its_own_initramfs() {
    let (_directory, store) = store();
    let image = build(&store, "aaaa", &["debian-amd64"]);
    let first = image.initramfs(b"agent one").expect("written");
    let second = image.initramfs(b"agent two").expect("written");
    assert_ne!(first, second);
    assert_eq!(first, image.initramfs(b"agent one").expect("there"));
    let bytes = fs::read(first).expect("readable");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("agent one") && text.contains(&format!("{MODULE_DIRECTORY}/00-a.ko")));
}

#[test]
fn the_second_builder_waits_for_the_first() {
    let (_directory, store) = store();
    let held = store.lock_name("debian-amd64", &mut || panic!("nobody else")).expect("locked");
    let (send, receive) = std::sync::mpsc::channel();
    let other = store.clone();
    let thread = std::thread::spawn(move || {
        let waited = send.clone();
        let _lock = other
            .lock_name("debian-amd64", &mut || waited.send("waiting").expect("sent"))
            .expect("locked");
        send.send("locked").expect("sent");
    });
    assert_eq!(receive.recv().expect("a word"), "waiting");
    assert!(receive.try_recv().is_err());
    drop(held);
    assert_eq!(receive.recv().expect("a word"), "locked");
    thread.join().expect("ended");
    store.lock_name("other-amd64", &mut || panic!("another name")).expect("locked");
}

#[test]
fn what_nobody_needs_is_pruned() {
    let (_directory, store) = store();
    build(&store, "aaaa", &["debian-amd64"]);
    build(&store, "bbbb", &[]);
    fs::write(store.directory("packages").join("p.deb"), [1; 10_000]).expect("written");
    let whats = |pruned: &[Pruned]| pruned.iter().map(|p| p.what.clone()).collect::<Vec<_>>();
    let told = store.prune(false, true).expect("looked");
    assert_eq!(whats(&told), ["bbbb", "packages"]);
    assert!(told.iter().all(|pruned| pruned.bytes > 0));
    assert_eq!(store.list().expect("listed").len(), 2, "nothing is removed yet");
    // A build that goes on may be using its downloads.
    let work = store.begin_work().expect("begun");
    assert_eq!(whats(&store.prune(false, false).expect("pruned")), ["bbbb"]);
    drop(work);
    assert_eq!(whats(&store.prune(true, false).expect("pruned")), ["aaaa", "packages"]);
    assert!(store.list().expect("listed").is_empty());
    assert_eq!(store.prune(true, false).expect("pruned"), []);
}
