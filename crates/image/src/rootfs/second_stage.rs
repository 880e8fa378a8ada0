//! The second stage: what has to run inside the guest to turn unpacked packages into installed ones.

use std::fmt::Write as _;

use super::DpkgDatabase;

/// Where the script lies in the guest. It is run once, as root, by `/bin/sh`, with `/proc`, `/sys`
/// and `/dev` mounted and the root file system writable; it prints progress lines and ends with
/// status 0 when every package is configured.
pub const SECOND_STAGE_PATH: &str = "/riad-second-stage";

/// What a progress line starts with; `n/m text` follows.
pub const PROGRESS_PREFIX: &str = "RIAD-PROGRESS ";

/// The list of packages with a script to run before everything else.
pub(super) const PREINST_PATH: &str = "/riad-second-stage.preinst";

/// Asked before a service is started.
pub(super) const POLICY_PATH: &str = "/usr/sbin/policy-rc.d";

/// The script.
pub const SECOND_STAGE: &str = include_str!("second_stage.sh");

/// The packages whose `preinst` has to run: name, name in dpkg's database, architecture. The one
/// that makes `/etc/passwd` comes first.
pub(super) fn preinst_list(database: &DpkgDatabase) -> String {
    let mut packages: Vec<_> = database.with_preinst().collect();
    packages.sort_by_key(|(name, _, _)| *name != "base-passwd");
    let mut text = String::new();
    for (name, file_name, architecture) in packages {
        let _ = writeln!(text, "{name} {file_name} {architecture}");
    }
    text
}

/// Reads a line the second stage printed: done, total and what is being done, if it is one of its
/// progress lines.
#[must_use]
pub fn parse_progress_line(line: &str) -> Option<(u64, u64, &str)> {
    let (numbers, text) = line.trim_end().strip_prefix(PROGRESS_PREFIX)?.split_once(' ')?;
    let (done, total) = numbers.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?, text))
}
