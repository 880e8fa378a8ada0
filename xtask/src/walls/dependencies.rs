//! Every dependency has a line in `docs/dependencies.md`, and every line there has a dependency.

use std::collections::BTreeSet;

use super::Breach;
use crate::Error;
use crate::cargo::{cargo, output};

const PAGE: &str = "docs/dependencies.md";

/// The crates of other people that a `Cargo.toml` of the workspace names.
pub(super) fn read() -> Result<BTreeSet<String>, Error> {
    let text = output(cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array();
    let dependencies =
        packages.into_iter().flatten().filter_map(|package| package["dependencies"].as_array());
    Ok(dependencies
        .flatten()
        .filter(|needed| needed["path"].is_null())
        .filter_map(|needed| needed["name"].as_str().map(str::to_owned))
        .collect())
}

/// Compares the dependencies with the page.
pub(super) fn check(used: &BTreeSet<String>, page: &str) -> Vec<Breach> {
    let explained: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    let missing = used
        .difference(&explained)
        .map(|name| format!("{name} is used and not explained: why it, and not another?"));
    let stale = explained.difference(used).map(|name| format!("{name} is explained and not used"));
    missing.chain(stale).map(|what| Breach { place: PAGE.to_owned(), what }).collect()
}

/// Checks the repository's page.
pub(super) fn check_page(root: &std::path::Path) -> Result<Vec<Breach>, Error> {
    Ok(check(&read()?, &std::fs::read_to_string(root.join(PAGE))?))
}
