//! Package indexes: the `Packages` files of an archive, and what can be looked up in them.

use std::collections::HashMap;

use crate::deb822::{Paragraph, Paragraphs, SyntaxError};
use crate::dependency::{self, DependencyError, Group, is_package_name};
use crate::version::Version;

/// A package index that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Not a control file.
    #[error("the package index is malformed, {0}; the mirror is probably being updated, try again")]
    Syntax(#[from] SyntaxError),
    /// A package lacks a field, or the field makes no sense.
    #[error(
        "the package index is malformed: package '{package}' has no valid {field} field; the mirror \
         is probably being updated, try again"
    )]
    Field {
        /// The package, as far as known.
        package: String,
        /// The field.
        field: &'static str,
    },
    /// A relationship field makes no sense.
    #[error("the package index is malformed: {field} of package '{package}': {source}")]
    Relationship {
        /// The package.
        package: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: DependencyError,
    },
}

/// How much a system wants a package (Policy 2.5), the most wanted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Without it, dpkg may not work.
    Required,
    /// Expected on any Unix.
    Important,
    /// A reasonably small text-mode system.
    Standard,
    /// Everything else.
    Optional,
}

/// One package of an index: what is needed to choose it, fetch it and check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: Version,
    /// Architecture, or `all`.
    pub architecture: String,
    /// Whether it is essential (Policy 3.8).
    pub essential: bool,
    /// How much it is wanted.
    pub priority: Priority,
    /// Which of the build's archives it lies in.
    pub archive: usize,
    /// Path of the package file below the archive's base URL.
    pub filename: String,
    /// Size of the package file in bytes.
    pub size: u64,
    /// SHA-256 of the package file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Relationships as they are written; read on demand, as most packages are never looked at.
    relations: Relations,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Relations {
    depends: String,
    pre_depends: String,
    conflicts: String,
    breaks: String,
    provides: String,
}

impl Package {
    fn from_paragraph(
        paragraph: &Paragraph<'_>,
        archive: usize,
        arch: &str,
    ) -> Result<Option<Self>, IndexError> {
        let name = paragraph.get("Package").unwrap_or("");
        let field = |field: &'static str| {
            paragraph
                .get(field)
                .filter(|v| !v.is_empty())
                .ok_or_else(|| IndexError::Field { package: name.to_owned(), field })
        };
        let bad = |field| IndexError::Field { package: name.to_owned(), field };
        if !is_package_name(field("Package")?) {
            return Err(bad("Package"));
        }
        let architecture = field("Architecture")?;
        if architecture != arch && architecture != "all" {
            return Ok(None);
        }
        let filename = field("Filename")?;
        if filename.starts_with('/')
            || filename.split('/').any(|part| part == "..")
            || filename.contains(char::is_whitespace)
        {
            return Err(bad("Filename"));
        }
        let sha256 = field("SHA256")?.to_ascii_lowercase();
        if !is_sha256(&sha256) {
            return Err(bad("SHA256"));
        }
        let text = |field| paragraph.get(field).unwrap_or("").to_owned();
        Ok(Some(Self {
            name: name.to_owned(),
            version: Version::from(field("Version")?),
            architecture: architecture.to_owned(),
            essential: paragraph.is_yes("Essential"),
            priority: match paragraph.get("Priority").unwrap_or("") {
                "required" => Priority::Required,
                "important" => Priority::Important,
                "standard" => Priority::Standard,
                _ => Priority::Optional,
            },
            archive,
            filename: filename.to_owned(),
            size: field("Size")?.parse().map_err(|_| bad("Size"))?,
            sha256,
            relations: Relations {
                depends: text("Depends"),
                pre_depends: text("Pre-Depends"),
                conflicts: text("Conflicts"),
                breaks: text("Breaks"),
                provides: text("Provides"),
            },
        }))
    }

    /// What must be installed with it.
    ///
    /// # Errors
    ///
    /// The field is malformed.
    pub fn depends(&self, arch: &str) -> Result<Vec<Group>, IndexError> {
        self.groups("Depends", &self.relations.depends, arch)
    }

    /// What must be configured before it is unpacked.
    ///
    /// # Errors
    ///
    /// The field is malformed.
    pub fn pre_depends(&self, arch: &str) -> Result<Vec<Group>, IndexError> {
        self.groups("Pre-Depends", &self.relations.pre_depends, arch)
    }

    /// What cannot be installed with it: both Conflicts and Breaks.
    ///
    /// # Errors
    ///
    /// A field is malformed.
    pub fn refuses(&self, arch: &str) -> Result<Vec<Group>, IndexError> {
        let mut groups = self.groups("Conflicts", &self.relations.conflicts, arch)?;
        groups.extend(self.groups("Breaks", &self.relations.breaks, arch)?);
        Ok(groups)
    }

    /// The names it provides, with the versions it provides them at.
    ///
    /// # Errors
    ///
    /// The field is malformed.
    pub fn provides(&self, arch: &str) -> Result<Vec<(String, Option<Version>)>, IndexError> {
        let groups = self.groups("Provides", &self.relations.provides, arch)?;
        Ok(groups
            .into_iter()
            .flat_map(|group| group.alternatives)
            .map(|relation| (relation.name, relation.version.map(|(_, version)| version)))
            .collect())
    }

    fn groups(
        &self,
        field: &'static str,
        text: &str,
        arch: &str,
    ) -> Result<Vec<Group>, IndexError> {
        dependency::parse(text, arch).map_err(|source| IndexError::Relationship {
            package: self.name.clone(),
            field,
            source,
        })
    }
}

/// Whether `text` is a SHA-256 in lower-case hexadecimal, and so safe as a file name.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads a `Packages` file: the packages that can be installed on `arch`, in the file's order.
/// Bytes that are not UTF-8 are replaced.
///
/// # Errors
///
/// The file is malformed. Hostile input is refused, never trusted; the cost is linear.
pub fn parse_packages(text: &[u8], archive: usize, arch: &str) -> Result<Vec<Package>, IndexError> {
    let text = String::from_utf8_lossy(text);
    let mut packages = Vec::new();
    for paragraph in Paragraphs::new(&text) {
        packages.extend(Package::from_paragraph(&paragraph?, archive, arch)?);
    }
    Ok(packages)
}

/// All packages of a build's archives: of each name, the highest version.
#[derive(Debug, Clone, Default)]
pub struct PackageSet {
    arch: String,
    packages: Vec<Package>,
    by_name: HashMap<String, usize>,
    /// Who provides a virtual name, and at which version.
    providers: HashMap<String, Vec<(usize, Option<Version>)>>,
}

impl PackageSet {
    /// Merges indexes. Of equal versions the first one seen is kept.
    ///
    /// # Errors
    ///
    /// A Provides field is malformed.
    pub fn new(
        arch: &str,
        packages: impl IntoIterator<Item = Package>,
    ) -> Result<Self, IndexError> {
        let mut set = Self { arch: arch.to_owned(), ..Self::default() };
        for package in packages {
            match set.by_name.get(&package.name) {
                Some(&at) if set.packages[at].version >= package.version => {}
                Some(&at) => set.packages[at] = package,
                None => {
                    set.by_name.insert(package.name.clone(), set.packages.len());
                    set.packages.push(package);
                }
            }
        }
        for (at, package) in set.packages.iter().enumerate() {
            for (name, version) in package.provides(arch)? {
                set.providers.entry(name).or_default().push((at, version));
            }
        }
        Ok(set)
    }

    /// The architecture the set is for.
    #[must_use]
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// The package of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.by_name.get(name).and_then(|&at| self.packages.get(at))
    }

    /// All packages.
    pub fn iter(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter()
    }

    /// How many packages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// The number of a package, for [`Self::at`].
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The package of that number.
    pub(crate) fn at(&self, index: usize) -> &Package {
        &self.packages[index]
    }

    /// Everything that meets one relation: the package of that name first, then its providers with
    /// the most wanted first.
    pub(crate) fn meeting(&self, relation: &dependency::Relation) -> Vec<usize> {
        let qualifier_fits = match relation.qualifier.as_deref() {
            None | Some("any" | "native") => true,
            Some(arch) => arch == self.arch,
        };
        if !qualifier_fits {
            return Vec::new();
        }
        let real = self
            .index_of(&relation.name)
            .filter(|&at| relation.accepts(&self.packages[at].version));
        let mut providers: Vec<usize> = self
            .providers
            .get(&relation.name)
            .into_iter()
            .flatten()
            .filter(|(at, version)| {
                Some(*at) != real && relation.accepts_provided(version.as_ref())
            })
            .map(|(at, _)| *at)
            .collect();
        providers.sort_by(|&a, &b| {
            let (a, b) = (&self.packages[a], &self.packages[b]);
            a.priority.cmp(&b.priority).then_with(|| a.name.cmp(&b.name))
        });
        providers.dedup();
        real.into_iter().chain(providers).collect()
    }
}

#[cfg(test)]
#[path = "packages_test.rs"]
mod tests;
