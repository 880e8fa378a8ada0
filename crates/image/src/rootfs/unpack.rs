//! Putting a package's files into the tree.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read};

use md5::{Digest, Md5};

use super::{Attributes, Content, DpkgDatabase, Kind, RootFs, components};
use crate::deb::{Bounded, Deb, DebError, decompress, limits};
use crate::deb822::Paragraphs;
use crate::hash::hex;

/// What is left out of images, as patterns in the notation of dpkg's path-exclude. The guest's dpkg
/// is told the same (in `/etc/dpkg/dpkg.cfg.d/riad`), so packages installed later match.
pub(crate) const EXCLUDED: [&str; 6] = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/groff/*",
];

/// What is kept all the same: the licences.
pub(crate) const INCLUDED: &str = "/usr/share/doc/*/copyright";

/// Whether an image leaves a file out. `path` has no slash at its start.
#[must_use]
pub fn is_excluded(path: &str) -> bool {
    let below = |pattern: &str| {
        let directory = pattern.trim_start_matches('/').trim_end_matches('*');
        path.strip_prefix(directory).is_some_and(|rest| !rest.is_empty())
    };
    let is_licence = path
        .strip_prefix("usr/share/doc/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, name)| name == "copyright");
    EXCLUDED.iter().any(|pattern| below(pattern)) && !is_licence
}

/// What dpkg remembers of an unpacked package.
struct Unpacked {
    /// Paths, without a slash at the start, as the package has them.
    paths: Vec<String>,
    /// MD5 of the configuration files, by path.
    md5: HashMap<String, String>,
}

/// Unpacks a package and enters it into dpkg's database.
///
/// # Errors
///
/// The package is damaged, or contains what no package may contain.
pub fn unpack_package(
    rootfs: &mut RootFs,
    database: &mut DpkgDatabase,
    deb: &mut Deb,
    arch: &str,
) -> Result<(), DebError> {
    let control = deb.control()?;
    let conffiles = conffiles(&control);
    let unpacked = unpack(rootfs, deb, &conffiles)?;
    let conffiles: Vec<(String, String)> = conffiles
        .into_iter()
        .filter_map(|path| {
            let md5 = unpacked.md5.get(path.trim_start_matches('/'))?.clone();
            Some((path, md5))
        })
        .collect();
    database.add(&control, &unpacked.paths, &conffiles, arch)
}

/// Unpacks a kernel package: its modules go into the tree, its image is handed back
/// by its version. Modules are
/// stored as they are loaded, not compressed, so that no guest has to unpack them. The package
/// itself is not entered into dpkg's database: as a package it would ask for an initramfs builder,
/// and have the guest build one, which Riad has no use for.
///
/// # Errors
///
/// The package is damaged.
pub fn unpack_kernel(
    rootfs: &mut RootFs,
    deb: &mut Deb,
) -> Result<BTreeMap<String, Vec<u8>>, DebError> {
    let mut images = BTreeMap::new();
    let mut data = deb.data()?;
    let mut count = 0;
    for entry in data.entries()? {
        let mut entry = entry?;
        let path = entry_path(&entry)?;
        count_entry(&mut count)?;
        if let Some(version) = kernel_version(&path)
            && entry.header().entry_type().is_file()
        {
            let mut image = Vec::new();
            entry.read_to_end(&mut image)?;
            images.insert(version.to_owned(), image);
        } else if path.trim_start_matches("usr/").starts_with("lib/modules/") {
            match path.rsplit_once(".ko.") {
                Some((stem, extension)) if entry.header().entry_type().is_file() => {
                    let attributes = attributes(&path, entry.header())?;
                    let plain = decompress(BufReader::new(entry), &format!(".{extension}"))?
                        .ok_or_else(|| DebError::Compression(path.clone()))?;
                    let plain = Bounded::new(plain, "kernel module", limits::MODULE);
                    let content = rootfs.spool.add(plain, |_| {})?;
                    rootfs.tree.put(&format!("{stem}.ko"), attributes, Kind::File(content))?;
                }
                _ => put(rootfs, &path, &mut entry, &mut |_| {})?,
            }
        }
    }
    Ok(images)
}

/// Unpacks an archive of a whole root file system, as it is. `each` is told how many entries there
/// were so far.
///
/// # Errors
///
/// The archive is damaged, or contains what no file system can have.
pub fn unpack_archive(
    rootfs: &mut RootFs,
    archive: impl Read,
    each: &mut dyn FnMut(u64),
) -> Result<(), DebError> {
    let mut archive = tar::Archive::new(archive);
    let mut count = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry_path(&entry)?;
        count_entry(&mut count)?;
        // Extended headers speak of the archive, not of files in it.
        if !entry.header().entry_type().is_pax_global_extensions() {
            put(rootfs, &path, &mut entry, &mut |_| {})?;
        }
        if count.is_multiple_of(256) {
            each(count as u64);
        }
    }
    Ok(())
}

/// The version of the kernel whose image lies at a path: `boot/vmlinuz-VERSION`, or since Debian 14
/// `usr/lib/modules/VERSION/vmlinuz`. Some architectures leave the image unpacked: `vmlinux`.
fn kernel_version(path: &str) -> Option<&str> {
    let version = match path.strip_prefix("boot/vmlinu") {
        Some(rest) => rest.strip_prefix("z-").or_else(|| rest.strip_prefix("x-"))?,
        None => {
            let (version, file) = path.strip_prefix("usr/lib/modules/")?.split_once('/')?;
            matches!(file, "vmlinuz" | "vmlinux").then_some(version)?
        }
    };
    (!version.is_empty() && !version.contains('/')).then_some(version)
}

/// The configuration files a package names, without those it wants removed.
fn conffiles(control: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let text = control.get("conffiles").map(|bytes| String::from_utf8_lossy(bytes));
    text.iter()
        .flat_map(|text| text.lines())
        .map(str::trim)
        .filter(|line| line.starts_with('/') && !line.contains(char::is_whitespace))
        .map(str::to_owned)
        .collect()
}

fn unpack(rootfs: &mut RootFs, deb: &mut Deb, conffiles: &[String]) -> Result<Unpacked, DebError> {
    let mut unpacked = Unpacked { paths: Vec::new(), md5: HashMap::new() };
    let mut data = deb.data()?;
    let mut count = 0;
    for entry in data.entries()? {
        let mut entry = entry?;
        let path = entry_path(&entry)?;
        count_entry(&mut count)?;
        unpacked.paths.push(path.clone());
        if is_excluded(&path) {
            continue;
        }
        let is_conffile = conffiles.iter().any(|c| c.trim_start_matches('/') == path);
        if is_conffile && entry.header().entry_type().is_file() {
            let mut md5 = Md5::new();
            put(rootfs, &path, &mut entry, &mut |piece| md5.update(piece))?;
            unpacked.md5.insert(path, hex(&md5.finalize()));
        } else {
            put(rootfs, &path, &mut entry, &mut |_| {})?;
        }
    }
    Ok(unpacked)
}

fn count_entry(count: &mut usize) -> Result<(), DebError> {
    *count += 1;
    if *count > limits::ENTRIES {
        return Err(DebError::TooLarge { what: "list of entries", limit: limits::ENTRIES as u64 });
    }
    Ok(())
}

/// An entry's path without `./` and slashes at the end.
fn entry_path<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, DebError> {
    let bytes = entry.path_bytes();
    let text = std::str::from_utf8(&bytes).map_err(|_| DebError::Entry {
        path: String::from_utf8_lossy(&bytes).chars().take(200).collect(),
        reason: "has a name that is not UTF-8".to_owned(),
    })?;
    Ok(components(text)?.join("/"))
}

fn attributes(path: &str, header: &tar::Header) -> Result<Attributes, DebError> {
    let id = |id: u64| {
        u32::try_from(id).map_err(|_| DebError::Entry {
            path: path.to_owned(),
            reason: "has an impossible owner".to_owned(),
        })
    };
    Ok(Attributes {
        // The mask makes it fit.
        mode: (header.mode()? & 0o7777) as u16,
        uid: id(header.uid()?)?,
        gid: id(header.gid()?)?,
        mtime: header.mtime()?.min(u64::from(u32::MAX)),
    })
}

fn put<R: Read>(
    rootfs: &mut RootFs,
    path: &str,
    entry: &mut tar::Entry<'_, R>,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), DebError> {
    let refuse =
        |reason: &str| DebError::Entry { path: path.to_owned(), reason: reason.to_owned() };
    let header = entry.header();
    let attributes = attributes(path, header)?;
    let kind = header.entry_type();
    let target = |entry: &tar::Entry<'_, R>| {
        let bytes = entry.link_name_bytes().ok_or_else(|| refuse("is a link to nothing"))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| refuse("is a link to no name"))?;
        if text.is_empty() || text.len() >= 4096 || text.contains('\0') {
            return Err(refuse("is a link to an impossible path"));
        }
        Ok(text.to_owned())
    };
    let numbers = || -> Result<(u32, u32), DebError> {
        let major = header.device_major()?.unwrap_or(0);
        let minor = header.device_minor()?.unwrap_or(0);
        if major > 0xfff || minor > 0xf_ffff {
            return Err(refuse("is an impossible device"));
        }
        Ok((major, minor))
    };
    let node = if kind.is_dir() {
        Kind::Directory(BTreeMap::new())
    } else if kind.is_symlink() {
        Kind::Symlink(target(entry)?)
    } else if kind.is_hard_link() {
        return rootfs.tree.link(path, &target(entry)?);
    } else if kind.is_character_special() || kind.is_block_special() {
        let (major, minor) = numbers()?;
        Kind::Device { block: kind.is_block_special(), major, minor }
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_file() || kind.is_contiguous() {
        let content: Content = rootfs.spool.add(entry, each)?;
        Kind::File(content)
    } else {
        return Err(refuse("is of a kind that no package has"));
    };
    rootfs.tree.put(path, attributes, node)
}

/// A field of a package's control file.
pub(crate) fn control_field(control: &BTreeMap<String, Vec<u8>>, field: &str) -> Option<String> {
    let text = String::from_utf8_lossy(control.get("control")?);
    let paragraph = Paragraphs::new(&text).next()?.ok()?;
    paragraph.get(field).map(|value| value.trim().to_owned())
}
