//! What a system has besides its packages: the skeleton they are unpacked into, and the few files
//! an installer would write.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::second_stage::{self, SECOND_STAGE_PATH};
use super::unpack::{EXCLUDED, INCLUDED};
use super::{Attributes, DpkgDatabase, Kind, RootFs};
use crate::apt::Archive;
use crate::deb::DebError;

/// Where the agent says who knows names (`agent/src/guest/network.rs`): in the guest's `/run`, in memory.
const RESOLV_CONF: &str = "/run/riad/resolv.conf";

/// What the files of [`add_base_files`] say.
#[derive(Debug, Clone, Copy)]
pub struct BaseFiles<'a> {
    /// The machine's name.
    pub hostname: &'a str,
    /// Where the guest's apt gets packages from.
    pub archives: &'a [Archive],
}

/// Makes the skeleton: the directories that must be there, and merged-`/usr` links, so that what
/// packages have in `/bin` lands in `/usr/bin`.
///
/// # Errors
///
/// Never on an empty tree.
pub fn prepare(rootfs: &mut RootFs, arch: &str) -> Result<(), DebError> {
    let mtime = rootfs.mtime;
    let mut links = vec!["bin", "sbin", "lib"];
    if matches!(arch, "amd64" | "ppc64el" | "loong64" | "mips64el") {
        links.push("lib64");
    }
    for link in links {
        let target = format!("usr/{link}");
        let directory = Kind::Directory(BTreeMap::new());
        rootfs.tree.put(&target, Attributes::root(0o755, mtime), directory)?;
        let link_mode = Attributes::root(0o777, mtime);
        rootfs.tree.put(link, link_mode, Kind::Symlink(target))?;
    }
    // Scripts expect these even when no manual pages are installed.
    let manuals = (1..=8).map(|section| (format!("usr/share/man/man{section}"), 0o755));
    let directories = [
        ("dev", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("run", 0o755),
        ("tmp", 0o1777),
        ("root", 0o700),
        ("var/lib/dpkg/updates", 0o755),
        ("var/lib/dpkg/parts", 0o755),
        ("var/lib/dpkg/alternatives", 0o755),
    ];
    let directories = directories.map(|(path, mode)| (path.to_owned(), mode));
    for (path, mode) in directories.into_iter().chain(manuals) {
        let directory = Kind::Directory(BTreeMap::new());
        rootfs.tree.put(&path, Attributes::root(mode, mtime), directory)?;
    }
    Ok(())
}

/// Adds what an installer would: names, package sources, dpkg's settings; and the second stage,
/// which takes itself away.
///
/// # Errors
///
/// A package has put something else in one of the places.
pub fn add_base_files(
    rootfs: &mut RootFs,
    database: &DpkgDatabase,
    files: BaseFiles<'_>,
) -> Result<(), DebError> {
    let BaseFiles { hostname, archives } = files;
    rootfs.write("etc/hostname", 0o644, format!("{hostname}\n"))?;
    rootfs.write(
        "etc/hosts",
        0o644,
        format!(
            "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n"
        ),
    )?;
    // Written by the agent, at each start: in memory, so that nothing is written to the disk for it.
    // Who wants another puts a file in the link's place.
    let link = Attributes::root(0o777, rootfs.mtime);
    rootfs.tree.put("etc/resolv.conf", link, Kind::Symlink(RESOLV_CONF.to_owned()))?;
    rootfs.write(
        "etc/fstab",
        0o644,
        format!("LABEL={} / ext4 defaults 0 1\n", crate::ext4::LABEL),
    )?;
    let sources = sources(rootfs, archives);
    rootfs.write("etc/apt/sources.list.d/debian.sources", 0o644, sources)?;
    rootfs.write("etc/dpkg/dpkg.cfg.d/riad", 0o644, dpkg_settings())?;
    if rootfs.tree.get_link("bin/sh").is_none() {
        let link = Attributes::root(0o777, rootfs.mtime);
        rootfs.tree.put("bin/sh", link, Kind::Symlink("dash".to_owned()))?;
    }
    // invoke-rc.d(8) asks this before it starts a service. There is nobody to serve yet.
    rootfs.write(second_stage::POLICY_PATH, 0o755, "#!/bin/sh\nexit 101\n")?;
    rootfs.write(SECOND_STAGE_PATH, 0o755, second_stage::SECOND_STAGE)?;
    rootfs.write(second_stage::PREINST_PATH, 0o644, second_stage::preinst_list(database))
}

/// The guest's package sources, in deb822 style.
fn sources(rootfs: &RootFs, archives: &[Archive]) -> String {
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring";
    let extension =
        if rootfs.tree.get(&format!("{KEYRING}.pgp")).is_some() { "pgp" } else { "gpg" };
    let mut text = String::new();
    for archive in archives {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = write!(
            text,
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\nSigned-By: {KEYRING}.{extension}\n",
            archive.base,
            archive.suite,
            archive.components.join(" "),
        );
    }
    text
}

/// dpkg's settings.
fn dpkg_settings() -> String {
    let mut text = String::from(
        "# This image was made without documentation and translations, and packages installed\n\
         # later leave them out too. Remove these lines to have them; the packages that are here\n\
         # already get theirs back with `apt-get install --reinstall`.\n",
    );
    for pattern in EXCLUDED {
        let _ = writeln!(text, "path-exclude={pattern}");
    }
    let _ = writeln!(text, "path-include={INCLUDED}");
    text.push_str(
        "\n# Do not wait for the disk after each file. A machine that must survive a power cut\n\
         # in the middle of an upgrade should remove this.\nforce-unsafe-io\n",
    );
    text
}
