//! Package sources as apt writes them down (sources.list(5)): one line each, or deb822 paragraphs.

use std::path::PathBuf;

use crate::deb822::{Paragraph, Paragraphs};

/// Which keys may sign an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SignedBy {
    /// Debian's own keyring.
    #[default]
    Default,
    /// These keyring files.
    Files(Vec<PathBuf>),
    /// Keys written into the source itself, ASCII-armored.
    Inline(String),
}

impl SignedBy {
    /// From the words of a `signed-by` option: paths, or fingerprints (which select keys from the
    /// default keyring, and so stand for it here).
    fn from_words<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let files: Vec<PathBuf> =
            words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
        if files.is_empty() { Self::Default } else { Self::Files(files) }
    }

    /// From the field of a deb822 source, where a key's lines are indented and a lone dot stands
    /// for an empty line.
    fn from_field(paragraph: &Paragraph<'_>) -> Self {
        if !paragraph.get("Signed-By").is_some_and(|v| v.contains("BEGIN PGP")) {
            return Self::from_words(paragraph.words("Signed-By"));
        }
        let lines: Vec<&str> =
            paragraph.lines("Signed-By").map(|line| if line == "." { "" } else { line }).collect();
        Self::Inline(lines.join("\n") + "\n")
    }
}

/// One place of binary packages: one address, one suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    /// Base address.
    pub uri: String,
    /// Suite.
    pub suite: String,
    /// Components.
    pub components: Vec<String>,
    /// The keys that may sign it.
    pub signed_by: SignedBy,
}

/// Reads the one-line style: `deb [options] uri suite components...`. Lines that are not
/// understood are left out, as are source packages.
#[must_use]
pub fn parse_one_line_sources(text: &str) -> Vec<SourceEntry> {
    text.lines().filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<SourceEntry> {
    let line = line.split('#').next().unwrap_or("").trim();
    let rest = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '[']))?;
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let uri = words.next()?.to_owned();
    let suite = words.next()?.to_owned();
    let signed_by = options
        .split_whitespace()
        .filter_map(|option| option.split_once('='))
        .find(|(name, _)| name.trim_end_matches(['+', '-']).eq_ignore_ascii_case("signed-by"))
        .map(|(_, value)| SignedBy::from_words(value.split(',')))
        .unwrap_or_default();
    Some(SourceEntry { uri, suite, components: words.map(str::to_owned).collect(), signed_by })
}

/// Reads the deb822 style. A malformed file gives the paragraphs before the mistake.
#[must_use]
pub fn parse_deb822_sources(text: &str) -> Vec<SourceEntry> {
    let mut entries = Vec::new();
    for paragraph in Paragraphs::new(text).map_while(Result::ok) {
        let is_disabled = paragraph.get("Enabled").is_some_and(|v| {
            matches!(v.trim().to_ascii_lowercase().as_str(), "no" | "false" | "0")
        });
        if is_disabled || !paragraph.words("Types").any(|t| t == "deb") {
            continue;
        }
        let components: Vec<String> = paragraph.words("Components").map(str::to_owned).collect();
        let signed_by = SignedBy::from_field(&paragraph);
        for uri in paragraph.words("URIs") {
            for suite in paragraph.words("Suites") {
                entries.push(SourceEntry {
                    uri: uri.to_owned(),
                    suite: suite.to_owned(),
                    components: components.clone(),
                    signed_by: signed_by.clone(),
                });
            }
        }
    }
    entries
}
