//! From archives to packages: fetching, verifying and reading release files and package indexes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::apt::{Archive, SignedBy};
use crate::deb::{Bounded, decompress};
use crate::error::Error;
use crate::fetch::{FetchError, Fetcher, Job};
use crate::packages::{Package, PackageSet, parse_packages};
use crate::progress::{Progress, Stage};
use crate::release::{Keyring, Release, ReleaseError, clear_text, verify_clear_signed};

/// The largest release file that is read. Debian's have 150 kB.
const RELEASE_LIMIT: u64 = 16 << 20;
/// The largest package index, unpacked. Debian's has 50 MB.
const INDEX_LIMIT: u64 = 512 << 20;

/// How release files are verified.
#[derive(Debug)]
pub(crate) enum Trust<'a> {
    /// By this keyring, whatever the sources say.
    Keyring(&'a Path),
    /// By the keyring that the source names, or Debian's.
    Sources,
    /// Not at all.
    Nobody,
}

/// What the archives have.
#[derive(Debug)]
pub(crate) struct Indexes {
    /// The archives that answered; [`Package::archive`] counts in this list.
    pub(crate) archives: Vec<Archive>,
    /// Their packages.
    pub(crate) set: PackageSet,
    /// When the newest of them was made, seconds since the Unix epoch.
    pub(crate) date: u64,
}

/// Reads the archives of a plan. `lists` is where indexes are cached, `now` the time in seconds
/// since the Unix epoch.
pub(crate) fn read(
    fetcher: &Fetcher,
    plan: &[Archive],
    trust: &Trust<'_>,
    arch: &str,
    lists: &Path,
    now: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Indexes, Error> {
    let mut archives = Vec::new();
    let mut packages: Vec<Package> = Vec::new();
    let mut date = 0;
    let total = plan.len() as u64;
    for (done, archive) in (0..).zip(plan) {
        progress(Progress::step(Stage::Indexes, done, total, archive.suite.clone()));
        let release = match release(fetcher, archive, trust, now, progress) {
            Ok(release) => release,
            Err(Error::Fetch(error @ (FetchError::NotFound { .. } | FetchError::Http { .. })))
                if archive.optional =>
            {
                let text = format!("the image goes without {}: {error}", archive.suite);
                progress(Progress::warning(Stage::Indexes, text));
                continue;
            }
            Err(error) => return Err(error),
        };
        let number = archives.len();
        for component in &archive.components {
            let text = index(fetcher, archive, &release, component, arch, lists)?;
            packages.extend(parse_packages(&text, number, arch)?);
        }
        date = date.max(release.date);
        archives.push(archive.clone());
    }
    progress(Progress::step(Stage::Indexes, total, total, "read"));
    Ok(Indexes { archives, set: PackageSet::new(arch, packages)?, date })
}

/// Fetches and verifies an archive's release file.
fn release(
    fetcher: &Fetcher,
    archive: &Archive,
    trust: &Trust<'_>,
    now: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Release, Error> {
    let url = archive.url(&format!("dists/{}/InRelease", archive.suite));
    // A missing keyring is said before anything is waited for.
    let keyring = match (trust, &archive.signed_by) {
        (Trust::Nobody, _) => None,
        (Trust::Keyring(path), _) => Some(Keyring::read(&[path.to_path_buf()])?),
        (Trust::Sources, SignedBy::Default) => Some(Keyring::read_default()?),
        (Trust::Sources, SignedBy::Files(files)) => Some(Keyring::read(files)?),
        (Trust::Sources, SignedBy::Inline(text)) => {
            Some(Keyring::parse(text.as_bytes()).map_err(|reason| ReleaseError::BadKeyring {
                path: "the key in the package source".into(),
                reason,
            })?)
        }
    };
    let file = fetcher.get(&url, RELEASE_LIMIT)?;
    let text = match &keyring {
        Some(keyring) => verify_clear_signed(&file, keyring, now)
            .map_err(|reason| ReleaseError::BadSignature { url: url.clone(), reason })?,
        None => clear_text(&file)
            .map_err(|reason| ReleaseError::Malformed { url: url.clone(), reason })?,
    };
    let release = Release::parse(&text)
        .map_err(|reason| ReleaseError::Malformed { url: url.clone(), reason })?;
    if release.origin != "Debian" {
        return Err(ReleaseError::NotDebian { url, origin: release.origin }.into());
    }
    // Without this, a mirror could answer with another release that Debian signed.
    if ![&release.codename, &release.suite].contains(&&archive.suite) {
        let (found, wanted) = (release.codename, archive.suite.clone());
        return Err(ReleaseError::WrongSuite { url, found, wanted }.into());
    }
    if release.valid_until.is_some_and(|until| until < now) {
        let text = format!(
            "the mirror's {} is out of date by its own account: newer packages may exist elsewhere",
            archive.suite
        );
        progress(Progress::warning(Stage::Indexes, text));
    }
    Ok(release)
}

/// Fetches, verifies and unpacks a component's package index.
fn index(
    fetcher: &Fetcher,
    archive: &Archive,
    release: &Release,
    component: &str,
    arch: &str,
    lists: &Path,
) -> Result<Vec<u8>, Error> {
    let directory = archive.url(&format!("dists/{}", archive.suite));
    let forms = release.package_indexes(component, arch);
    let mut last = None;
    for form in &forms {
        let plain = format!("{directory}/{}", form.path);
        let parent = form.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let mut urls = Vec::new();
        if release.by_hash {
            // Right even while the mirror is being updated.
            urls.push(format!("{directory}/{parent}/by-hash/SHA256/{}", form.sha256));
        }
        urls.push(plain);
        let suffix = if form.path.ends_with(".xz") { ".xz" } else { ".gz" };
        let job = Job {
            urls,
            sha256: form.sha256.clone(),
            size: form.size,
            suffix,
            label: format!("{} {}", archive.suite, form.path),
        };
        let path = match fetcher.ensure(&job, lists, &mut |_| {}) {
            Ok(path) => path,
            Err(error @ FetchError::NotFound { .. }) => {
                last = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let file = File::open(&path).map_err(Error::io("read", &path))?;
        let plain = decompress(BufReader::new(file), suffix).map_err(Error::io("read", &path))?;
        let mut text = Vec::new();
        if let Some(plain) = plain {
            Bounded::new(plain, "package index", INDEX_LIMIT)
                .read_to_end(&mut text)
                .map_err(Error::io("unpack", &path))?;
        }
        return Ok(text);
    }
    match last {
        Some(error) => Err(error.into()),
        None => Err(ReleaseError::NoIndex {
            url: directory,
            component: component.to_owned(),
            arch: arch.to_owned(),
        }
        .into()),
    }
}
