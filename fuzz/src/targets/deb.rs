//! Packages: `ar`, compression, `tar`, and the file system they are unpacked into.

use std::fs::File;
use std::io::Write;

use riad_image::deb::Deb;
use riad_image::rootfs::{DpkgDatabase, RootFs, unpack_kernel, unpack_package};

use super::Target;
use crate::seeds::archive::{Entry, ar, gzip, tar};

/// Packages.
pub(super) const DEB: Target = Target {
    name: "deb",
    what: "Debian packages: ar, tar, compression, paths and links in them",
    run: unpack,
    seeds,
    generate: None,
    words: &[
        b"debian-binary   ",
        b"control.tar     ",
        b"data.tar        ",
        b"data.tar.xz     ",
        b"`\n",
        b"../",
        b"/",
        b"./",
        b"ustar\x0000",
        b"ustar  \0",
        b"\0\0\0\0",
        b"0777777\0",
        b"L",
        b"K",
        b"x",
        b"2",
    ],
};

fn unpack(bytes: &[u8]) -> u64 {
    let (Ok(mut file), Ok(mut second)) = (tempfile::tempfile(), tempfile::tempfile()) else {
        return 0;
    };
    if file.write_all(bytes).is_err() || second.write_all(bytes).is_err() {
        return 0;
    }
    let depth = install(file);
    if let (Ok(mut deb), Ok(mut rootfs)) = (Deb::open(second), new_root()) {
        let _ = unpack_kernel(&mut rootfs, &mut deb);
    }
    depth
}

/// Tells how many nodes the file system has then, if the package was taken.
fn install(file: File) -> u64 {
    let (Ok(mut deb), Ok(mut rootfs)) = (Deb::open(file), new_root()) else { return 0 };
    let mut database = DpkgDatabase::default();
    let taken = unpack_package(&mut rootfs, &mut database, &mut deb, "amd64").is_ok();
    let _ = rootfs.read("usr/bin/a", 1 << 20);
    if taken { rootfs.tree.len() as u64 } else { 0 }
}

fn new_root() -> std::io::Result<RootFs> {
    RootFs::new(&tempfile::env::temp_dir(), 0)
}

fn seeds() -> Vec<Vec<u8>> {
    let control_text = b"Package: a\nVersion: 1\nArchitecture: amd64\nMaintainer: x\n";
    let control = tar(&[
        Entry::file("./control", control_text),
        Entry::file("./conffiles", b"/etc/a.conf\n"),
        Entry::file("./md5sums", b"d41d8cd98f00b204e9800998ecf8427e  usr/bin/a\n"),
        Entry::file("./postinst", b"#!/bin/sh\n"),
    ]);
    let data = tar(&[
        Entry::directory("./"),
        Entry::directory("./usr/"),
        Entry::directory("./usr/bin/"),
        Entry::file("./usr/bin/a", b"program"),
        Entry::file("./etc/a.conf", b"setting"),
        Entry::link("./usr/bin/b", "a"),
        Entry::link("./lib", "usr/lib"),
        Entry::hard_link("./usr/bin/c", "./usr/bin/a"),
        Entry::file("./lib/modules/1/kernel/x.ko", b"module"),
        Entry::file("./boot/vmlinuz-1", b"kernel"),
    ]);
    let package = |control: (&str, Vec<u8>), data: (&str, Vec<u8>)| {
        ar(&[("debian-binary", b"2.0\n"), (control.0, &control.1), (data.0, &data.1)])
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap_or_default();
    vec![
        package(("control.tar", control.clone()), ("data.tar", data.clone())),
        package(("control.tar.gz", gzip(&control)), ("data.tar.gz", gzip(&data))),
        package(("control.tar.zst", zstd(&control)), ("data.tar.zst", zstd(&data))),
    ]
}
