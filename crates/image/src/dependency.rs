//! Relationships between packages (Debian Policy chapter 7): `a (>= 1) | b:any, c [amd64]`.

use std::fmt;

use crate::version::Version;

/// A malformed relationship field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a package relationship")]
pub struct DependencyError {
    /// The piece that could not be read.
    pub text: String,
}

/// How a version is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `<<`
    Less,
    /// `<=`
    LessEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterEqual,
    /// `>>`
    Greater,
}

impl Op {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Self::Less,
            // The single characters are obsolete spellings of "or equal".
            "<=" | "<" => Self::LessEqual,
            "=" => Self::Equal,
            ">=" | ">" => Self::GreaterEqual,
            ">>" => Self::Greater,
            _ => return None,
        })
    }

    /// Whether `version` stands in this relation to `limit`.
    #[must_use]
    pub fn holds(self, version: &Version, limit: &Version) -> bool {
        match self {
            Self::Less => version < limit,
            Self::LessEqual => version <= limit,
            Self::Equal => version == limit,
            Self::GreaterEqual => version >= limit,
            Self::Greater => version > limit,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Less => "<<",
            Self::LessEqual => "<=",
            Self::Equal => "=",
            Self::GreaterEqual => ">=",
            Self::Greater => ">>",
        })
    }
}

/// One package name with what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The package or virtual package.
    pub name: String,
    /// An architecture after a colon: `any`, `native` or an architecture's name.
    pub qualifier: Option<String>,
    /// The version asked for.
    pub version: Option<(Op, Version)>,
}

impl Relation {
    /// Whether a package of version `version` will do.
    #[must_use]
    pub fn accepts(&self, version: &Version) -> bool {
        self.version.as_ref().is_none_or(|(op, limit)| op.holds(version, limit))
    }

    /// Whether a name provided (Policy 7.5) with `version`, if any, will do: a version asked for is
    /// only met by a version provided.
    #[must_use]
    pub fn accepts_provided(&self, version: Option<&Version>) -> bool {
        self.version.is_none() || version.is_some_and(|v| self.accepts(v))
    }

    fn parse(text: &str, arch: &str) -> Result<Option<Self>, DependencyError> {
        let bad = || DependencyError { text: text.trim().chars().take(80).collect() };
        let mut rest = text.trim();
        let end = rest.find([' ', '\t', '\n', '(', '[', '<']).unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        rest = tail.trim_start();
        let (name, qualifier) = match name.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier.to_owned())),
            None => (name, None),
        };
        if !is_package_name(name) {
            return Err(bad());
        }
        let mut version = None;
        let mut applies = true;
        while !rest.is_empty() {
            let (close, kind) = match rest.as_bytes()[0] {
                b'(' => (')', 'v'),
                b'[' => (']', 'a'),
                b'<' => ('>', 'p'),
                _ => return Err(bad()),
            };
            let (inside, tail) = rest[1..].split_once(close).ok_or_else(bad)?;
            match kind {
                'v' => {
                    let inside = inside.trim();
                    let end =
                        inside.find(|c| !matches!(c, '<' | '=' | '>')).unwrap_or(inside.len());
                    let (op, limit) = inside.split_at(end);
                    let op = Op::parse(op).ok_or_else(bad)?;
                    if limit.trim().is_empty() {
                        return Err(bad());
                    }
                    version = Some((op, Version::from(limit)));
                }
                'a' => applies = architecture_list_names(inside, arch),
                // Build profiles mean nothing in a binary package.
                _ => {}
            }
            rest = tail.trim_start();
        }
        Ok(applies.then(|| Self { name: name.to_owned(), qualifier, version }))
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(qualifier) = &self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some((op, version)) = &self.version {
            write!(f, " ({op} {version})")?;
        }
        Ok(())
    }
}

/// Whether a name could be a package's (Policy 5.6.7).
#[must_use]
pub fn is_package_name(name: &str) -> bool {
    name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_'))
}

/// Whether `[list]` covers the architecture: names, or names that are all denied by `!`.
fn architecture_list_names(list: &str, arch: &str) -> bool {
    let mut denied_only = true;
    for word in list.split_whitespace() {
        match word.strip_prefix('!') {
            Some(name) if name == arch => return false,
            Some(_) => {}
            None if matches!(word, "any" | "linux-any") || word == arch => return true,
            None => denied_only = false,
        }
    }
    denied_only
}

/// Alternatives, in order of preference: any one of them will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The alternatives; never empty.
    pub alternatives: Vec<Relation>,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, relation) in self.alternatives.iter().enumerate() {
            if i > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{relation}")?;
        }
        Ok(())
    }
}

/// Reads a relationship field as seen on `arch`: every group must be met.
///
/// # Errors
///
/// Names the first piece that is not a relationship.
pub fn parse(field: &str, arch: &str) -> Result<Vec<Group>, DependencyError> {
    let mut groups = Vec::new();
    for group in field.split(',').filter(|g| !g.trim().is_empty()) {
        let mut alternatives = Vec::new();
        for alternative in group.split('|') {
            alternatives.extend(Relation::parse(alternative, arch)?);
        }
        if !alternatives.is_empty() {
            groups.push(Group { alternatives });
        }
    }
    Ok(groups)
}

#[cfg(test)]
#[path = "dependency_test.rs"]
mod tests;
