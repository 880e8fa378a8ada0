use std::fs::File;
use std::io::Write;

use super::*;
use crate::apt::{Archive, SignedBy};
use crate::deb::Deb;

/// An entry of a data archive: path, mode, and `file:…`, `dir`, `link:…` or `hard:…`.
type Item<'a> = (&'a str, u32, &'a str);

fn tar_of(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, what) in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_mtime(1_000);
        header.set_uid(0);
        header.set_gid(0);
        let (kind, value) = what.split_once(':').unwrap_or((what, ""));
        header.set_entry_type(match kind {
            "dir" => tar::EntryType::Directory,
            "link" => tar::EntryType::Symlink,
            "hard" => tar::EntryType::Link,
            _ => tar::EntryType::Regular,
        });
        let content = if kind == "file" { value.as_bytes() } else { b"" };
        header.set_size(content.len() as u64);
        if matches!(kind, "link" | "hard") {
            header.set_link_name(value).expect("a target");
        }
        // Written as bytes, so that paths can be ones no honest program would write.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, content).expect("appended");
    }
    builder.into_inner().expect("written")
}

fn deb(control: &[Item<'_>], data: &[Item<'_>]) -> Deb {
    let mut bytes = b"!<arch>\n".to_vec();
    let (control, data) = (tar_of(control), tar_of(data));
    for (name, content) in
        [("debian-binary", &b"2.0\n"[..]), ("control.tar", &control), ("data.tar", &data)]
    {
        bytes.extend(format!("{name:<16}{:<32}{:<10}`\n", 0, content.len()).bytes());
        bytes.extend(content);
    }
    let mut file: File = tempfile::tempfile().expect("a file");
    file.write_all(&bytes).expect("written");
    Deb::open(file).expect("a package")
}

fn rootfs() -> RootFs {
    // The spool is a nameless file: it outlives the directory it was made in.
    let directory = tempfile::tempdir().expect("a directory");
    let mut rootfs = RootFs::new(directory.path(), 5).expect("a spool");
    prepare(&mut rootfs, "amd64").expect("prepared");
    rootfs
}

fn text(rootfs: &RootFs, path: &str) -> String {
    let bytes = rootfs.read(path, 1 << 20).unwrap_or_else(|| panic!("{path} is not there"));
    String::from_utf8(bytes).expect("text")
}

const CONTROL: &str = "file:Package: a\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\n\
    Status: deinstall ok config-files\nDescription: short\n long\n";

#[test]
fn a_package_is_entered_as_dpkg_would() {
    let mut rootfs = rootfs();
    let mut database = DpkgDatabase::default();
    let mut a = deb(
        &[
            ("./control", 0o644, CONTROL),
            ("./postinst", 0o755, "file:#!/bin/sh\n"),
            ("./conffiles", 0o644, "file:/etc/a.conf\nremove-on-upgrade /etc/old\n"),
            ("./triggers", 0o644, "file:interest-noawait /usr/lib/x\ninterest named\nactivate y\n"),
        ],
        &[
            ("./", 0o755, "dir"),
            ("./etc/", 0o755, "dir"),
            ("./etc/a.conf", 0o640, "file:hello\n"),
            ("./bin/a", 0o4755, "file:program"),
            ("./bin/b", 0o777, "link:a"),
            ("./bin/c", 0o755, "hard:./bin/a"),
            ("./usr/share/doc/a/README", 0o644, "file:long"),
            ("./usr/share/doc/a/copyright", 0o644, "file:free"),
            ("./usr/share/man/man1/a.1.gz", 0o644, "file:manual"),
        ],
    );
    unpack_package(&mut rootfs, &mut database, &mut a, "amd64").expect("unpacked");
    database.write(&mut rootfs, "amd64", &["a"]).expect("written");

    assert_eq!(text(&rootfs, "usr/bin/c"), "program");
    assert_eq!(rootfs.tree.get("usr/bin/b").expect("there").attributes.mode, 0o4755);
    assert_eq!(text(&rootfs, "usr/share/doc/a/copyright"), "free");
    assert!(rootfs.tree.get("usr/share/doc/a/README").is_none());
    assert!(rootfs.tree.get("usr/share/man/man1").is_some());
    assert!(rootfs.tree.get("usr/share/man/man1/a.1.gz").is_none());

    assert_eq!(
        text(&rootfs, "var/lib/dpkg/status"),
        "Package: a\nStatus: install ok unpacked\nVersion: 1\nArchitecture: amd64\n\
         Multi-Arch: same\nConffiles:\n /etc/a.conf b1946ac92492d2347c6235b4d2611184\n\
         Description: short\n long\n\n"
    );
    let list = text(&rootfs, "var/lib/dpkg/info/a:amd64.list");
    assert!(list.starts_with("/.\n/etc\n/etc/a.conf\n/bin/a\n"), "{list}");
    assert!(list.contains("/usr/share/doc/a/README\n"));
    let script = rootfs.tree.get("var/lib/dpkg/info/a:amd64.postinst").expect("there");
    assert_eq!(script.attributes.mode, 0o755);
    assert_eq!(text(&rootfs, "var/lib/dpkg/triggers/File"), "/usr/lib/x a:amd64/noawait\n");
    assert_eq!(text(&rootfs, "var/lib/dpkg/triggers/named"), "a:amd64\n");
    assert!(text(&rootfs, "var/lib/apt/extended_states").contains("Package: a\n"));
    assert_eq!(database.unconfigured(), 1);
}

#[test]
fn a_package_with_nothing_to_configure_is_installed_at_once() {
    let mut rootfs = rootfs();
    let mut database = DpkgDatabase::default();
    let control = "file:Package: b\nVersion: 1\nArchitecture: all\nDescription: x\n";
    let mut b = deb(&[("./control", 0o644, control)], &[("./", 0o755, "dir")]);
    unpack_package(&mut rootfs, &mut database, &mut b, "amd64").expect("unpacked");
    database.write(&mut rootfs, "amd64", &[]).expect("written");
    assert_eq!(database.unconfigured(), 0);
    assert!(text(&rootfs, "var/lib/dpkg/status").contains("Status: install ok installed\n"));
}

#[test]
fn what_no_package_may_contain_is_refused() {
    let control = [("./control", 0o644, CONTROL)];
    for item in [
        ("../../etc/passwd", 0o644, "file:x"),
        ("./a/../../b", 0o644, "file:x"),
        ("./hard", 0o644, "hard:/etc/shadow"),
        ("./usr", 0o644, "file:x"),
    ] {
        let mut rootfs = rootfs();
        let mut database = DpkgDatabase::default();
        let mut bad = deb(&control, &[item]);
        let result = unpack_package(&mut rootfs, &mut database, &mut bad, "amd64");
        assert!(result.is_err(), "{item:?}");
    }
    // A link out of the tree stays inside it.
    let mut rootfs = rootfs();
    let mut database = DpkgDatabase::default();
    let mut sly =
        deb(&control, &[("./out", 0o777, "link:/../../../../tmp"), ("./out/x", 0o644, "file:x")]);
    unpack_package(&mut rootfs, &mut database, &mut sly, "amd64").expect("unpacked");
    assert_eq!(text(&rootfs, "tmp/x"), "x");
    // And a package for another architecture is none for this one.
    let other = CONTROL.replace("amd64", "arm64");
    let mut other = deb(&[("./control", 0o644, &other)], &[]);
    assert!(unpack_package(&mut rootfs, &mut database, &mut other, "amd64").is_err());
}

#[test]
fn a_kernel_gives_its_image_and_plain_modules() {
    let mut rootfs = rootfs();
    let mut kernel = deb(
        &[("./control", 0o644, CONTROL)],
        &[
            ("./boot/vmlinuz-6.1-x", 0o644, "file:kernel"),
            ("./boot/config-6.1-x", 0o644, "file:config"),
            ("./lib/modules/6.1-x/kernel/a.ko", 0o644, "file:module"),
        ],
    );
    let images = unpack_kernel(&mut rootfs, &mut kernel).expect("unpacked");
    assert_eq!(images["6.1-x"], b"kernel");
    assert_eq!(images.len(), 1);
    assert_eq!(text(&rootfs, "usr/lib/modules/6.1-x/kernel/a.ko"), "module");
    assert!(rootfs.tree.get("boot/config-6.1-x").is_none());
    let mut kernel = deb(
        &[("./control", 0o644, CONTROL)],
        &[("./usr/lib/modules/7.2-y/vmlinuz", 0o644, "file:newer")],
    );
    assert_eq!(unpack_kernel(&mut rootfs, &mut kernel).expect("unpacked")["7.2-y"], b"newer");
}

#[test]
fn base_files_name_the_archives_and_the_second_stage() {
    let mut rootfs = rootfs();
    let mut database = DpkgDatabase::default();
    for name in ["zz", "base-passwd"] {
        let control = format!("file:Package: {name}\nVersion: 1\nArchitecture: amd64\n");
        let mut package = deb(
            &[("./control", 0o644, &control), ("./preinst", 0o755, "file:#!/bin/sh\n")],
            &[("./", 0o755, "dir")],
        );
        unpack_package(&mut rootfs, &mut database, &mut package, "amd64").expect("unpacked");
    }
    let archive = Archive {
        base: "http://mirror.test/debian".to_owned(),
        suite: "trixie".to_owned(),
        components: vec!["main".to_owned()],
        signed_by: SignedBy::Default,
        optional: false,
    };
    let files = BaseFiles { hostname: "riad", archives: &[archive] };
    add_base_files(&mut rootfs, &database, files).expect("added");
    assert_eq!(
        text(&rootfs, "etc/apt/sources.list.d/debian.sources"),
        "Types: deb\nURIs: http://mirror.test/debian\nSuites: trixie\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    );
    assert!(text(&rootfs, SECOND_STAGE_PATH).starts_with("#!/bin/sh"));
    assert_eq!(
        text(&rootfs, "riad-second-stage.preinst"),
        "base-passwd base-passwd amd64\nzz zz amd64\n"
    );
    let settings = text(&rootfs, "etc/dpkg/dpkg.cfg.d/riad");
    assert!(settings.contains("path-exclude=/usr/share/man/*\n"));
    assert!(settings.contains("path-include=/usr/share/doc/*/copyright\n"));
}

#[test]
fn exclusions_spare_the_licences() {
    for (path, excluded) in [
        ("usr/share/doc/a/changelog.gz", true),
        ("usr/share/doc/a/copyright", false),
        ("usr/share/doc/a/b/copyright", true),
        ("usr/share/doc", false),
        ("usr/share/locale/de/x.mo", true),
        ("usr/share/document", false),
        ("usr/bin/man", false),
    ] {
        assert_eq!(is_excluded(path), excluded, "{path}");
    }
}

#[test]
fn progress_lines_are_read() {
    assert_eq!(parse_progress_line("RIAD-PROGRESS 3/40 dash\n"), Some((3, 40, "dash")));
    for other in
        ["", "RIAD-PROGRESS", "RIAD-PROGRESS x/1 a", "Setting up dash", "RIAD-PROGRESS 1 a"]
    {
        assert_eq!(parse_progress_line(other), None);
    }
}

/// The script is a POSIX shell script.
#[test]
fn the_second_stage_parses() {
    let Ok(mut child) =
        std::process::Command::new("sh").arg("-n").stdin(std::process::Stdio::piped()).spawn()
    else {
        return;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(SECOND_STAGE.as_bytes()).expect("written");
    drop(stdin);
    assert!(child.wait().expect("ran").success());
}
