//! Names of computers: a repository that stands alone names no mirror, registry or proxy of
//! whoever works on it.

use super::Breach;

/// Hosts that may be named, and everything below them.
const KNOWN: [&str; 14] = [
    // For documentation and tests (RFC 2606, RFC 6761).
    "example",
    "example.com",
    "example.org",
    "invalid",
    "localhost",
    "test",
    "127.0.0.1",
    // References.
    "apache.org",
    // Debian's mirrors are below its domain too, and are the user's to name.
    "wiki.debian.org",
    "www.debian.org",
    "github.com",
    "rustsec.org",
    "semver.org",
    "spdx.org",
];

/// Checks one file.
pub(super) fn check(file: &str, text: &str) -> Vec<Breach> {
    // The rule's own tests are full of what it forbids.
    if file.ends_with("walls_test.rs") {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for host in hosts(line) {
            let below = |known: &str| host == known || host.ends_with(&format!(".{known}"));
            if !KNOWN.iter().any(|known| below(known)) {
                let place = format!("{file}:{}", number + 1);
                let what =
                    format!("names the host {host}, which is not in xtask/src/walls/hosts.rs");
                breaches.push(Breach { place, what });
            }
        }
    }
    breaches
}

/// The hosts of the addresses in a line.
fn hosts(line: &str) -> Vec<String> {
    line.split("://")
        .skip(1)
        .map(|rest| {
            let authority = rest.split(['/', '"', '\'', '`', ' ', '>', ')', '\\']).next();
            let host = authority.unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default();
            host.split(':').next().unwrap_or_default().trim_end_matches('.').to_lowercase()
        })
        // What a program fills in, an address that ends right there and a word without a domain
        // name nobody.
        .filter(|host| {
            let is_name = host.chars().all(|c| c.is_alphanumeric() || ".-".contains(c));
            is_name && (host.contains('.') || KNOWN.contains(&host.as_str()))
        })
        .collect()
}
