//! Packages: `ar`, compression, `tar`, and the file system they are unpacked into.

use std::fs::File;
use std::io::Write;

use riad_image::deb::Deb;
use riad_image::rootfs::{DpkgDatabase, RootFs, unpack_kernel, unpack_package};

use super::Target;
use crate::mutate::mutate;
use crate::random::Random;
use crate::seeds::archive::{Entry, ar, gzip, tar};

/// Packages.
pub(super) const DEB: Target = Target {
    name: "deb",
    what: "Debian packages: ar, tar, compression, paths and links in them",
    unit: "steps",
    run: unpack,
    seeds,
    generate: Some(make),
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

/// A package of any entries: headers are right, and what they say is not.
fn make(random: &mut Random) -> Vec<u8> {
    const PARTS: [&str; 14] = [
        "usr",
        "bin",
        "lib",
        "etc",
        "a",
        "b",
        ".",
        "..",
        "",
        "boot/vmlinuz-1",
        "lib/modules",
        "\u{fc}",
        "a-name-that-is-longer-than-most-names-are-and-longer-still",
        "\u{1}",
    ];
    const KINDS: [u8; 14] = *b"0000115522347L";
    let path = |random: &mut Random| {
        let start = ["./", "./", "", "/"][random.below(4)];
        let parts: Vec<&str> =
            (0..1 + random.below(4)).map(|_| PARTS[random.below(PARTS.len())]).collect();
        format!("{start}{}", parts.join("/"))
    };
    let names: Vec<(String, u8, Vec<u8>, String)> = (0..random.below(12))
        .map(|_| {
            let kind =
                if random.one_in(12) { random.byte() } else { KINDS[random.below(KINDS.len())] };
            let (name, target, len) = (path(random), path(random), random.below(40));
            // The GNU forms of long names and pax headers hold the name in the content.
            let content = match kind {
                b'L' | b'K' => path(random).repeat(1 + random.below(6)).into_bytes(),
                b'x' => format!("30 path={}\n", path(random)).into_bytes(),
                b'0' => random.bytes(len),
                _ => Vec::new(),
            };
            (name, kind, content, target)
        })
        .collect();
    let entries: Vec<Entry<'_>> = names
        .iter()
        .map(|(name, kind, content, target)| Entry { name, kind: *kind, content, target })
        .collect();
    let mut data = tar(&entries);
    if random.one_in(4) {
        mutate(&mut data, DEB.words, &[], random);
    }
    let mut text = b"Package: a\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\n".to_vec();
    if random.one_in(4) {
        mutate(&mut text, &[b"\n ", b"\n\n", b": "], &[], random);
    }
    let name = path(random);
    let control =
        tar(&[Entry::file("./control", &text), Entry::file("./conffiles", name.as_bytes())]);
    let (data_name, data) =
        if random.one_in(4) { ("data.tar.gz", gzip(&data)) } else { ("data.tar", data) };
    ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (data_name, &data)])
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
