use std::io::Write;

use super::*;

fn store() -> (tempfile::TempDir, Store, Image) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("cache")).unwrap();
    let work = store.begin_work().unwrap();
    for (name, text) in [(ROOTFS, "root"), (KERNEL, "kernel")] {
        fs::write(work.path().join(name), text).unwrap();
    }
    fs::create_dir(work.path().join(MODULES)).unwrap();
    fs::write(work.path().join(MODULES).join("00-a.ko"), "module").unwrap();
    let meta = ImageMeta {
        schema: 0,
        name: "debian:bookworm".into(),
        suite: "bookworm".into(),
        arch: "amd64".into(),
        kernel: "6.1".into(),
        created: 1,
        digest: "d".repeat(64),
        verified: true,
        archives: Vec::new(),
        packages: Vec::new(),
        modules: vec!["00-a.ko".into()],
        root_partition: None,
        files: Vec::new(),
    };
    Image::create(work.path(), meta).unwrap();
    let image = store.commit(work, "aaaa", &["debian-amd64".to_owned()]).unwrap();
    (directory, store, image)
}

fn try_import(store: &Store, kernel_of: &Image, file: &Path, name: &str) -> Result<Image, Error> {
    try_with(store, KernelFrom::Image(kernel_of.clone()), file, name)
}

fn try_with(store: &Store, kernel: KernelFrom, file: &Path, name: &str) -> Result<Image, Error> {
    let options = ImportOptions {
        file: file.to_owned(),
        name: name.to_owned(),
        disk: None,
        arch: "amd64".to_owned(),
        kernel,
        size: 32 << 20,
    };
    import(store, &options, &mut |_| {})
}

/// The header of a file of so many bytes.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size);
    header
}

/// An archive of a small root file system.
fn archive() -> Vec<u8> {
    archive_with(&[])
}

/// The same, with files besides.
fn archive_with(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind, text: &[u8]| {
        let mut header = header(text.len() as u64);
        header.set_entry_type(kind);
        archive.append_data(&mut header, path, text).unwrap();
    };
    add("./usr/", tar::EntryType::Directory, b"");
    add("./usr/bin/", tar::EntryType::Directory, b"");
    add("./usr/bin/hello", tar::EntryType::Regular, b"#!/bin/sh\necho hello\n");
    for (path, text) in files {
        add(path, tar::EntryType::Regular, text);
    }
    archive.into_inner().unwrap()
}

/// A disk of which the first partition has these bytes.
fn partitioned(bytes: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[454..458].copy_from_slice(&2048u32.to_le_bytes());
    disk[458..462].copy_from_slice(&((bytes.len() / 512) as u32).to_le_bytes());
    disk.extend_from_slice(bytes);
    disk
}

#[test]
fn an_archive_becomes_a_file_system_and_that_is_found_again_in_a_disk() {
    let (directory, store, debian) = store();
    let tar = directory.path().join("root.tar.gz");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&archive()).unwrap();
    fs::write(&tar, gz.finish().unwrap()).unwrap();
    let image = try_import(&store, &debian, &tar, "mine").unwrap();
    let meta = image.meta();
    assert_eq!(
        (meta.suite.as_str(), meta.verified, meta.kernel.as_str()),
        ("imported", false, "6.1")
    );
    assert_eq!(fs::read(image.kernel()).unwrap(), b"kernel");
    let rootfs = fs::read(image.rootfs()).unwrap();
    assert!(rootfs.windows(10).any(|bytes| bytes == b"echo hello"));

    // The same again, from a disk on which it has a partition, and which is kept whole.
    let disk = partitioned(&rootfs);
    let raw = directory.path().join("disk.img");
    fs::write(&raw, &disk).unwrap();
    let again = try_import(&store, &debian, &raw, "again").unwrap();
    assert!(fs::read(again.rootfs()).unwrap() == disk);
    assert_eq!((meta.root_partition, again.meta().root_partition), (None, Some(1)));
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 3);
    // What is the same has the same id.
    let third = try_import(&store, &debian, &raw, "third").unwrap();
    assert_eq!(third.directory(), again.directory());
}

#[test]
fn what_cannot_be_imported_says_why_and_leaves_nothing() {
    let (directory, store, debian) = store();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut container = tar::Builder::new(Vec::new());
    container.append_data(&mut header(2), "manifest.json", &b"[]"[..]).unwrap();
    let container = container.into_inner().unwrap();
    let mut torn = archive();
    // In the middle of a file.
    torn.truncate(1540);
    for (path, words) in [
        (file("b.bz2", b"BZh9"), "unpack it first"),
        (file("c.img", &[0; 4096]), "no ext4"),
        (file("d.txt", b"hello"), "tar archive"),
        (file("e.tar", &container), "docker export"),
        (file("f.tar", &torn), "f.tar cannot be imported"),
        (file("g.gz", b"\x1f\x8b\x08nothing"), "g.gz"),
        (directory.path().join("nosuch"), "nosuch"),
    ] {
        let error = try_import(&store, &debian, &path, "mine").unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let whole = file("whole.tar", &archive());
    for name in ["Mine", "debian", "debian-x"] {
        let error = try_import(&store, &debian, &whole, name).unwrap_err().to_string();
        assert!(error.contains("lower-case"), "{error}");
    }
    let own = |otherwise| KernelFrom::Own { otherwise };
    let error = try_with(&store, own(None), &whole, "mine").unwrap_err().to_string();
    assert!(error.contains("no kernel in it") && error.contains("--kernel FILE"), "{error}");
    let given = KernelFrom::File(file("vmlinuz", b"no kernel"));
    let error = try_with(&store, given, &whole, "mine").unwrap_err().to_string();
    assert!(error.contains("vmlinuz") && error.contains("bzImage"), "{error}");
    let bare = archive_with(&[
        ("lib/modules/6.9/modules.builtin", b"kernel/ext4.ko\n"),
        ("boot/vmlinuz-6.9", b"its kernel"),
    ]);
    let bare = file("bare.tar", &bare);
    let error = try_with(&store, own(None), &bare, "mine").unwrap_err().to_string();
    assert!(error.contains("'virtio_pci'") && error.contains("--kernel-of debian"), "{error}");
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

/// The smallest kernel that says its version.
fn bzimage(version: &str) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    image[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
    image
}

#[test]
fn the_newest_kernel_with_its_modules_is_found_in_archives_and_on_disks() {
    let (directory, store, debian) = store();
    let drivers = b"kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/ext4.ko\n\
                    kernel/vmw_vsock_virtio_transport.ko\n";
    let archive = archive_with(&[
        ("boot/vmlinuz-6.10", b"the newest"),
        ("boot/vmlinuz-6.9", b"an older one"),
        ("boot/vmlinuz-7.0", b"one without modules"),
        ("usr/lib/modules/6.10/modules.builtin", drivers),
        ("usr/lib/modules/6.9/modules.builtin", drivers),
        ("lib/modules/6.9/modules.order", b""),
        ("lib/modules/6.10/modules.builtin", drivers),
        ("lib/modules/6.9/modules.builtin", drivers),
    ]);
    let tar = directory.path().join("root.tar");
    fs::write(&tar, archive).unwrap();
    let own = || KernelFrom::Own { otherwise: Some(debian.clone()) };
    let from_tar = try_with(&store, own(), &tar, "tar").unwrap();
    assert_eq!(from_tar.meta().kernel, "6.10");

    let rootfs = fs::read(from_tar.rootfs()).unwrap();
    for (name, bytes) in [("whole.img", rootfs.clone()), ("parts.img", partitioned(&rootfs))] {
        let file = directory.path().join(name);
        fs::write(&file, bytes).unwrap();
        let image = try_with(&store, own(), &file, "disk").unwrap();
        assert_eq!(fs::read(image.kernel()).unwrap(), b"the newest");
        // One that is given says which modules are its.
        let given = directory.path().join("vmlinuz");
        fs::write(&given, bzimage("6.9 (me)")).unwrap();
        let image = try_with(&store, KernelFrom::File(given), &file, "given").unwrap();
        assert_eq!((image.meta().kernel.as_str(), image.meta().modules.len()), ("6.9", 0));
    }
}
