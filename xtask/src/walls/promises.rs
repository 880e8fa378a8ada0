//! `SPECIFICATION.md` names tests and files that exist.

use std::fs;
use std::path::Path;

use super::Breach;
use crate::Error;

const PAGE: &str = "SPECIFICATION.md";

/// Checks the repository's page.
pub(super) fn check_page(root: &Path) -> Result<Vec<Breach>, Error> {
    let page = fs::read_to_string(root.join(PAGE))?;
    Ok(check(&page, &|file| fs::read_to_string(root.join(file)).ok()))
}

/// Checks every `file.rs` and `file.rs::test` in the last column of the tables.
pub(super) fn check(page: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (number, line) in page.lines().enumerate() {
        let Some(holders) = line.trim_end_matches('|').rsplit(" | ").next() else { continue };
        if !line.starts_with("| ") || line.starts_with("| promise ") {
            continue;
        }
        let mut breach =
            |what: String| breaches.push(Breach { place: format!("{PAGE}:{}", number + 1), what });
        let named: Vec<&str> =
            holders.split('`').skip(1).step_by(2).filter(|word| word.contains(".rs")).collect();
        if named.is_empty() {
            breach("nothing holds this promise: name a test".to_owned());
        }
        for name in named {
            let (file, test) = name.split_once("::").unwrap_or((name, ""));
            match read(file) {
                None => breach(format!("there is no file {file}")),
                Some(text) if !test.is_empty() && !text.contains(&format!("fn {test}(")) => {
                    breach(format!("there is no test {test} in {file}"));
                }
                Some(_) => {}
            }
        }
    }
    breaches
}
