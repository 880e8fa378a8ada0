//! What a Debian mirror says: release files, package indexes, relationships and versions; and the
//! host's own list of mirrors.

use riad_image::apt::{parse_conf, parse_deb822_sources, parse_one_line_sources};
use riad_image::deb822::Paragraphs;
use riad_image::dependency;
use riad_image::packages::{PackageSet, parse_packages};
use riad_image::release::{Keyring, Release, clear_text, parse_date, verify_clear_signed};
use riad_image::version::Version;

use super::Target;
use crate::mutate::mutate;
use crate::random::Random;
use crate::seeds::openpgp;

/// Package indexes.
pub(super) const PACKAGES: Target = Target {
    name: "packages",
    what: "package indexes, and the relationships in them",
    unit: "steps",
    run: packages,
    seeds: || {
        let last = PACKAGES_FILE.windows(2).position(|two| two == b"\n\n").map_or(0, |at| at + 2);
        vec![PACKAGES_FILE.to_vec(), PACKAGES_FILE[last..].to_vec()]
    },
    generate: None,
    words: CONTROL_WORDS,
};

/// Release files.
pub(super) const RELEASE: Target = Target {
    name: "release",
    what: "release files: clear-signed text, OpenPGP signatures, keyrings",
    unit: "steps",
    run: release,
    seeds: || {
        vec![
            openpgp::clear_signed(RELEASE_FILE),
            openpgp::clear_signed(b"Origin: Debian\n- -dash\n"),
            openpgp::public_key(),
            openpgp::public_key_armored(),
            RELEASE_FILE.to_vec(),
        ]
    },
    generate: Some(make_release),
    words: CONTROL_WORDS,
};

/// Versions and relationships.
pub(super) const VERSIONS: Target = Target {
    name: "versions",
    what: "package versions and their order, relationships between packages",
    unit: "steps",
    run: versions,
    seeds: || {
        [
            "1.0-1\n1.0-2",
            "2:1.2.3~rc1+dfsg-4+deb12u5\n1:9",
            "a (>= 1), b | c:any [amd64 !i386], d (= 2:1-1) <!nocheck>\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    generate: None,
    words: &[b"~", b":", b"-", b"(>= ", b")", b" | ", b", ", b"[!", b"]", b"<!", b":any", b"\n"],
};

/// Configuration of the host's apt.
pub(super) const SOURCES: Target = Target {
    name: "sources",
    what: "the host's apt configuration: sources and settings",
    unit: "steps",
    run: sources,
    seeds: || {
        [
            "deb [ arch=amd64 signed-by=/a.gpg ] http://mirror.test/debian trixie main # x\n",
            "Types: deb\nURIs: http://mirror.test/debian\nSuites: trixie\nComponents: main\n\
             Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n",
            "Acquire { http { Proxy \"http://p.test:3128/\"; }; Retries 3; }; // x\n/* y */ a::b 1;\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    generate: None,
    words: &[
        b"deb ", b"[", b"]", b"{", b"}", b";", b"\"", b"//", b"/*", b"*/", b"::", b"\n ", b"#",
    ],
};

const CONTROL_WORDS: &[&[u8]] = &[
    b"Package: ",
    b"\nVersion: 1:2-3",
    b"\nDepends: ",
    b"\nProvides: x (= 1)",
    b"\nEssential: yes",
    b"\n\n",
    b"\n ",
    b"\n#",
    b"\n.\n",
    b"\r\n",
    b"\nSize: 18446744073709551615",
    b"\nSHA256: ",
    b"-----BEGIN PGP SIGNED MESSAGE-----\n",
    b"-----BEGIN PGP SIGNATURE-----\n",
    b"-----END PGP SIGNATURE-----\n",
    b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
    b"Hash: SHA512\n",
    b"\n=AAAA\n",
    b"\xff",
    b"../",
];

const PACKAGES_FILE: &[u8] = b"Package: bash
Version: 5.2.15-2+b8
Essential: yes
Installed-Size: 7164
Architecture: amd64
Replaces: bash-completion (<< 20060301-0)
Depends: base-files (>= 2.1.12), debianutils (>= 5.6-0.1)
Pre-Depends: libc6 (>= 2.36), libtinfo6 (>= 6) | libtinfo5
Conflicts: bash-completion (<< 20060301-0)
Breaks: other (= 1:2~3), more:any
Provides: shell (= 5.2), sh-thing
Description: GNU Bourne Again SHell
 A long one
 .
Multi-Arch: foreign
Section: shells
Priority: required
Filename: pool/main/b/bash/bash_5.2.15-2+b8_amd64.deb
Size: 1492128
SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

Package: data
Version: 0
Architecture: all
Priority: optional
Filename: pool/main/d/data/data_0_all.deb
Size: 0
SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
";

const RELEASE_FILE: &[u8] = b"Origin: Debian
Label: Debian
Suite: stable
Codename: trixie
Date: Sat, 06 Sep 2025 08:13:06 UTC
Valid-Until: Sat, 13 Sep 2025 08:13:06 UTC
Acquire-By-Hash: yes
Architectures: all amd64
Components: main
SHA256:
 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 1234 main/binary-amd64/Packages.xz
 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 5678 main/binary-amd64/Packages.gz
";

/// A release file, its signature or a keyring, changed below the letters that carry it.
fn make_release(random: &mut Random) -> Vec<u8> {
    let mut text = RELEASE_FILE.to_vec();
    let mut packets = openpgp::signature_packet();
    match random.below(4) {
        0 => mutate(&mut text, CONTROL_WORDS, &[], random),
        1 => {
            let mut key = openpgp::public_key();
            mutate(&mut key, &[], &[packets], random);
            return key;
        }
        _ => mutate(&mut packets, &[], &[openpgp::public_key()], random),
    }
    openpgp::signed_with(&text, &packets)
}

fn packages(bytes: &[u8]) -> u64 {
    let Ok(packages) = parse_packages(bytes, 0, "amd64") else { return 0 };
    for package in &packages {
        assert!(!package.filename.starts_with('/'), "an absolute path");
        assert!(package.filename.split('/').all(|part| part != ".."), "a way out of the archive");
        let _ = package.depends("amd64");
        let _ = package.pre_depends("amd64");
        let _ = package.refuses("amd64");
    }
    let Ok(set) = PackageSet::new("amd64", packages) else { return 0 };
    let names: Vec<String> = set.iter().take(8).map(|package| package.name.clone()).collect();
    for name in &names {
        assert!(set.get(name).is_some());
    }
    set.len() as u64
}

fn release(bytes: &[u8]) -> u64 {
    let mut indexes = 0;
    if let Ok(text) = clear_text(bytes) {
        let release = Release::parse(&text).unwrap_or_default();
        indexes = 1 + release.package_indexes("main", "amd64").len() as u64;
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Release::parse(text);
        let _ = parse_date(text);
    }
    // A keyring comes from the host; but --keyring names any file.
    if let Ok(keyring) = Keyring::parse(bytes) {
        let signed = openpgp::clear_signed(RELEASE_FILE);
        assert!(verify_clear_signed(&signed, &keyring, 1_800_000_000).is_err(), "nobody signed it");
        indexes += keyring.len() as u64;
    }
    indexes
}

fn versions(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let versions: Vec<Version> = text.lines().take(8).map(Version::from).collect();
    for a in &versions {
        assert_eq!(a.cmp(a), std::cmp::Ordering::Equal);
        for b in &versions {
            assert_eq!(a.cmp(b), b.cmp(a).reverse(), "{a} and {b} have an order");
        }
    }
    let mut relations = 0;
    for line in text.lines().take(8) {
        for group in dependency::parse(line, "amd64").unwrap_or_default() {
            for relation in &group.alternatives {
                relations += 1;
                let _ = versions.iter().filter(|version| relation.accepts(version)).count();
            }
        }
    }
    relations
}

fn sources(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let entries = parse_one_line_sources(&text).len() + parse_deb822_sources(&text).len();
    let _ = parse_conf(&text).proxy_for("http://mirror.test/debian");
    let _ = Paragraphs::new(&text).take_while(Result::is_ok).count();
    entries as u64
}
