//! The host's package configuration: which mirror it uses, for which suites, trusting which keys,
//! through which proxy.
//!
//! Riad brings no mirror of its own. It reads what the host's apt reads (sources.list(5),
//! apt.conf(5)), or takes the mirror it is told.

mod conf;
mod sources;
mod suite;

use std::path::{Path, PathBuf};

pub use conf::{AptConf, parse_conf};
pub use sources::{SignedBy, SourceEntry, parse_deb822_sources, parse_one_line_sources};
pub use suite::{KNOWN_SUITES, Suite};

/// The host's package configuration does not lead to a Debian archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AptError {
    /// No Debian archive is configured, and none was named.
    #[error(
        "this host's package configuration names no Debian archive ({found}); name a Debian mirror \
         with `--mirror URL` or in RIAD_DEBIAN_MIRROR"
    )]
    NoMirror {
        /// What was found instead.
        found: String,
    },
    /// A mirror's address that cannot be used.
    #[error("the mirror address '{url}' cannot be used: it must start with http:// or https://")]
    BadMirror {
        /// What was given.
        url: String,
    },
}

/// Where packages of one suite come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Base address, without a slash at the end.
    pub base: String,
    /// The suite: the directory below `dists/`.
    pub suite: String,
    /// Components to use.
    pub components: Vec<String>,
    /// The keys that may sign it.
    pub signed_by: SignedBy,
    /// True when the build goes on, with a warning, if it is not there.
    pub optional: bool,
}

impl Archive {
    /// The address of a file below the archive's base.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

/// What a build takes its packages from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The Debian release that will be built.
    pub suite: Suite,
    /// Its archives: the release itself, then its security and point-release updates.
    pub archives: Vec<Archive>,
}

/// The host's apt configuration, read once.
#[derive(Debug, Clone, Default)]
pub struct HostApt {
    /// Binary package sources, in the order apt reads them.
    pub entries: Vec<SourceEntry>,
    /// The settings.
    pub conf: AptConf,
}

impl HostApt {
    /// Reads `etc/apt` below `root` (which is `/` outside of tests). What is missing or unreadable
    /// counts as empty: a host without apt is no error until a mirror is wanted.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let apt = root.join("etc/apt");
        let mut conf = AptConf::default();
        for path in files_in(&apt.join("apt.conf.d"), &["conf", ""])
            .into_iter()
            .chain([apt.join("apt.conf")])
        {
            if let Some(text) = read_lossy(&path) {
                conf.merge(&text);
            }
        }
        let mut entries = Vec::new();
        if let Some(text) = read_lossy(&apt.join("sources.list")) {
            entries.extend(parse_one_line_sources(&text));
        }
        for path in files_in(&apt.join("sources.list.d"), &["list", "sources"]) {
            let Some(text) = read_lossy(&path) else { continue };
            if path.extension().is_some_and(|e| e == "list") {
                entries.extend(parse_one_line_sources(&text));
            } else {
                entries.extend(parse_deb822_sources(&text));
            }
        }
        Self { entries, conf }
    }

    /// The first usable entry for the release a suite name belongs to, whatever the release.
    fn debian_entries(&self) -> impl Iterator<Item = (&SourceEntry, Suite, Pocket)> {
        self.entries.iter().filter_map(|entry| {
            let (suite, pocket) = Suite::of_archive(&entry.suite)?;
            let usable = is_http(&entry.uri) && entry.components.iter().any(|c| c == "main");
            usable.then_some((entry, suite, pocket))
        })
    }

    /// Decides which archives to build `wanted` from; `None` means the host's own release, or
    /// bookworm when the host does not run one Riad knows by name.
    ///
    /// # Errors
    ///
    /// No Debian archive is configured and `mirror` is `None`, or `mirror` is not a web address.
    pub fn plan(&self, wanted: Option<Suite>, mirror: Option<&str>) -> Result<Plan, AptError> {
        if let Some(mirror) = mirror {
            return plan_from_mirror(wanted.unwrap_or_default(), mirror);
        }
        let suite = wanted.unwrap_or_else(|| {
            self.debian_entries()
                .filter(|(_, _, pocket)| *pocket == Pocket::Release)
                .find_map(|(_, suite, _)| suite.is_stable().then_some(suite))
                .unwrap_or_default()
        });
        let release = self
            .debian_entries()
            .filter(|(_, _, pocket)| *pocket == Pocket::Release)
            .min_by_key(|(_, of, _)| *of != suite)
            .ok_or_else(|| AptError::NoMirror { found: self.describe() })?;
        let mut archives = vec![archive(release.0, suite.codename().to_owned(), false)];
        for (pocket, suffix) in [(Pocket::Updates, "updates"), (Pocket::Security, "security")] {
            let found = self
                .debian_entries()
                .filter(|(_, _, p)| *p == pocket)
                .min_by_key(|(_, of, _)| *of != suite);
            if let Some((entry, of, _)) = found
                && suite.has_updates()
            {
                archives.push(archive(entry, format!("{suite}-{suffix}"), of != suite));
            }
        }
        Ok(Plan { suite, archives })
    }

    /// What the host's sources are, for an error message.
    fn describe(&self) -> String {
        let mut suites: Vec<&str> = self.entries.iter().map(|e| e.suite.as_str()).collect();
        suites.dedup();
        suites.truncate(6);
        match suites.as_slice() {
            [] => "it has no package sources".to_owned(),
            suites => format!("only {}", suites.join(", ")),
        }
    }
}

/// Which part of a release an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pocket {
    Release,
    Updates,
    Security,
}

fn archive(entry: &SourceEntry, suite: String, optional: bool) -> Archive {
    Archive {
        base: entry.uri.trim_end_matches('/').to_owned(),
        suite,
        components: vec!["main".to_owned()],
        signed_by: entry.signed_by.clone(),
        optional,
    }
}

fn plan_from_mirror(suite: Suite, mirror: &str) -> Result<Plan, AptError> {
    let base = mirror.trim().trim_end_matches('/');
    if !is_http(base) || base.contains(char::is_whitespace) {
        return Err(AptError::BadMirror { url: mirror.to_owned() });
    }
    let archive = |base: String, suite: String, optional| Archive {
        base,
        suite,
        components: vec!["main".to_owned()],
        signed_by: SignedBy::Default,
        optional,
    };
    let mut archives = vec![archive(base.to_owned(), suite.codename().to_owned(), false)];
    if suite.has_updates() {
        archives.push(archive(base.to_owned(), format!("{suite}-updates"), true));
        archives.push(archive(format!("{base}-security"), format!("{suite}-security"), true));
    }
    Ok(Plan { suite, archives })
}

fn is_http(uri: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| uri.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))
}

/// Files of a directory whose extension is in `extensions` (`""` is none), by name, as apt reads
/// them.
fn files_in(directory: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
            extensions.contains(&extension)
        })
        .collect();
    paths.sort();
    paths
}

/// Configuration files are small: at most 1 MiB of one is read.
fn read_lossy(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(1 << 20).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[path = "apt_test.rs"]
mod tests;
