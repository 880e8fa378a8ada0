//! Package versions and their order (Debian Policy 5.6.12, deb-version(7)).

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A package version: `[epoch:]upstream[-revision]`.
///
/// Ordered as dpkg orders them. Two versions that are spelled differently may be equal (`1.0` and
/// `1.00`). Every string is a version as far as ordering goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(String);

impl Version {
    /// The version as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Epoch, upstream version and Debian revision.
    fn parts(&self) -> (&str, &str, &str) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("0", &self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        (epoch, upstream, revision)
    }
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (epoch_a, upstream_a, revision_a) = self.parts();
        let (epoch_b, upstream_b, revision_b) = other.parts();
        compare_numbers(epoch_a, epoch_b)
            .then_with(|| compare_part(upstream_a, upstream_b))
            .then_with(|| compare_part(revision_a, revision_b))
    }
}

/// Compares two runs of digits of any length as numbers.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let a = a.trim_start_matches('0');
    let b = b.trim_start_matches('0');
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Compares upstream versions or revisions: runs of non-digits and runs of digits in turn.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    loop {
        if a.is_empty() && b.is_empty() {
            return Ordering::Equal;
        }
        let (word_a, rest_a) = a.split_at(a.find(|c: char| c.is_ascii_digit()).unwrap_or(a.len()));
        let (word_b, rest_b) = b.split_at(b.find(|c: char| c.is_ascii_digit()).unwrap_or(b.len()));
        let words = compare_words(word_a, word_b);
        if words != Ordering::Equal {
            return words;
        }
        let end_a = rest_a.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest_a.len());
        let end_b = rest_b.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest_b.len());
        let numbers = compare_numbers(&rest_a[..end_a], &rest_b[..end_b]);
        if numbers != Ordering::Equal {
            return numbers;
        }
        a = &rest_a[end_a..];
        b = &rest_b[end_b..];
    }
}

/// Compares runs of non-digits: `~` before the end, the end before letters, letters before the rest.
fn compare_words(a: &str, b: &str) -> Ordering {
    let mut a = a.chars().map(weight);
    let mut b = b.chars().map(weight);
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (x, y) => {
                let order = x.unwrap_or(0).cmp(&y.unwrap_or(0));
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    }
}

/// The place of a character in the order; the end of the string weighs 0.
fn weight(c: char) -> i64 {
    match c {
        '~' => -1,
        c if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
        c => i64::from(u32::from(c)) + 0x100,
    }
}

#[cfg(test)]
#[path = "version_test.rs"]
mod tests;
