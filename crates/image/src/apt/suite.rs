//! Debian's releases and the names their archives go by.

use std::fmt;

use super::Pocket;
use crate::error::Error;

/// A release of Debian that Riad can build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Suite {
    /// Debian 12.
    #[default]
    Bookworm,
    /// Debian 13.
    Trixie,
    /// Debian 14.
    Forky,
    /// Debian unstable.
    Sid,
}

/// The releases as a sentence lists them.
pub const KNOWN_SUITES: &str = "bookworm (12), trixie (13), forky (14) and sid";

impl Suite {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Bookworm, "bookworm", "12"),
        (Self::Trixie, "trixie", "13"),
        (Self::Forky, "forky", "14"),
        (Self::Sid, "sid", "unstable"),
    ];

    /// The release of that codename or number.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSuite`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::ALL
            .iter()
            .find(|(_, codename, number)| text == *codename || text == *number)
            .map(|(suite, _, _)| *suite)
            .ok_or_else(|| Error::UnknownSuite {
                suite: text.to_owned(),
                known: KNOWN_SUITES.to_owned(),
            })
    }

    /// The codename.
    #[must_use]
    pub fn codename(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Forky => "forky",
            Self::Sid => "sid",
        }
    }

    /// Whether it was released: only such a one is built without being asked for by name.
    #[must_use]
    pub fn is_stable(self) -> bool {
        matches!(self, Self::Bookworm | Self::Trixie)
    }

    /// Whether it has security and point-release updates in suites of their own.
    #[must_use]
    pub fn has_updates(self) -> bool {
        self != Self::Sid
    }

    /// The release and part of it that the suite of a package source is, if it is Debian's by its
    /// name.
    pub(crate) fn of_archive(suite: &str) -> Option<(Self, Pocket)> {
        let suite = suite.trim_end_matches('/');
        let (name, pocket) = [
            ("-security", Pocket::Security),
            ("/updates", Pocket::Security),
            ("-updates", Pocket::Updates),
        ]
        .iter()
        .find_map(|(suffix, pocket)| Some((suite.strip_suffix(suffix)?, *pocket)))
        .unwrap_or((suite, Pocket::Release));
        let release = match name {
            // No releases Riad builds, but their mirrors carry the others too.
            "bullseye" | "oldoldstable" | "experimental" | "rc-buggy" => Self::default(),
            // Moving names, as of 2026. A wrong guess costs nothing: the codename is what is used.
            "oldstable" => Self::Bookworm,
            "stable" => Self::Trixie,
            "testing" => Self::Forky,
            name => Self::parse(name).ok()?,
        };
        Some((release, pocket))
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.codename())
    }
}
