use std::collections::BTreeMap;
use std::process::Command;

use super::*;

fn sample(directory: &Path) -> RootFs {
    let mut rootfs = RootFs::new(directory, 1_700_000_000).expect("a spool");
    let attributes = Attributes { mode: 0o4755, uid: 7, gid: 8, mtime: 1_600_000_000 };
    let content = rootfs.spool.add(&[b'x'; 100_000][..], |_| {}).expect("spooled");
    rootfs.tree.put("usr/bin/tool", attributes, Kind::File(content)).expect("put");
    rootfs.tree.link("usr/bin/other", "usr/bin/tool").expect("linked");
    rootfs.write("etc/empty", 0o600, "").expect("put");
    rootfs.tree.put("bin", attributes, Kind::Symlink("usr/bin".into())).expect("put");
    let device = Kind::Device { block: false, major: 1, minor: 3 };
    rootfs.tree.put("dev/null", attributes, device).expect("put");
    rootfs.tree.put("dev/pipe", attributes, Kind::Fifo).expect("put");
    let empty = Kind::Directory(BTreeMap::new());
    rootfs.tree.put("tmp", Attributes::root(0o1777, 0), empty).expect("put");
    for i in 0..3000 {
        rootfs.write(&format!("many/file-{i}"), 0o644, format!("{i}")).expect("put");
    }
    rootfs
}

#[test]
fn a_tree_becomes_a_clean_file_system() {
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    let rootfs = sample(directory.path());
    let mut last = (0, 1);
    write(&image, &rootfs, 1 << 30, [1; 16], &mut |done, total| last = (done, total))
        .expect("written");
    assert_eq!(last.0, last.1);
    let metadata = std::fs::metadata(&image).expect("there");
    assert_eq!(metadata.len(), 1 << 30);
    assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 < 64 << 20, "not sparse");

    let file = std::fs::File::open(&image).expect("opened");
    let fs = mkext4::reader::Fs::open(&file).expect("an ext4");
    let tool = fs.resolve("/usr/bin/tool").expect("there");
    assert_eq!(tool, fs.resolve("/usr/bin/other").expect("there"));
    assert_eq!(fs.read_file(tool).expect("readable"), [b'x'; 100_000]);

    if let Ok(output) = Command::new("e2fsck").arg("-fn").arg(&image).output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let rootfs = sample(directory.path());
    let mut hashes = Vec::new();
    for name in ["a", "b"] {
        let image = directory.path().join(name);
        write(&image, &rootfs, MIN_SIZE, [1; 16], &mut |_, _| {}).expect("written");
        hashes.push(crate::hash::sha256(&std::fs::read(&image).expect("readable")));
    }
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut rootfs = RootFs::new(directory.path(), 0).expect("a spool");
    let big = Content::Spooled { offset: 0, len: 1 << 40 };
    rootfs.tree.put("big", Attributes::root(0o644, 0), Kind::File(big)).expect("put");
    let error = write(&directory.path().join("image"), &rootfs, MIN_SIZE, [1; 16], &mut |_, _| {})
        .expect_err("too large");
    assert!(error.to_string().contains("256 MiB"), "{error}");
}
