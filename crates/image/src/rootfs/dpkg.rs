//! dpkg's database (the directory `/var/lib/dpkg`), as it is after unpacking and before configuring.
//!
//! Packages with nothing to configure (no scripts to run then, nothing to be triggered by) are
//! entered as installed, which is all that configuring them would do: on a slow processor every
//! package that the guest's dpkg need not visit counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::RootFs;
use super::unpack::control_field;
use crate::deb::DebError;
use crate::dependency::is_package_name;

/// Packages as dpkg knows them.
#[derive(Debug, Clone, Default)]
pub struct DpkgDatabase {
    packages: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    /// `name`, or `name:arch` for a package that may be installed for several architectures.
    file_name: String,
    architecture: String,
    is_configured: bool,
    status: String,
    /// Files of `info/`, by what follows the package's name and a dot.
    info: BTreeMap<String, Vec<u8>>,
    /// What it is interested in: path or name, and whether nobody waits for it.
    interests: Vec<(String, bool)>,
}

/// Control files that dpkg runs.
const SCRIPTS: [&str; 5] = ["preinst", "postinst", "prerm", "postrm", "config"];

/// Files of `triggers/` that are no trigger's.
const TRIGGER_FILES: [&str; 3] = ["File", "Unincorp", "Lock"];

impl DpkgDatabase {
    /// Enters a package: its control files, the paths it unpacked and its configuration files with
    /// their MD5s.
    ///
    /// # Errors
    ///
    /// The control file lacks what dpkg needs.
    pub fn add(
        &mut self,
        control: &BTreeMap<String, Vec<u8>>,
        paths: &[String],
        conffiles: &[(String, String)],
        arch: &str,
    ) -> Result<(), DebError> {
        let name = control_field(control, "Package").filter(|name| is_package_name(name));
        let Some(name) = name else {
            return Err(DebError::Format("its control file names no package"));
        };
        let architecture = control_field(control, "Architecture")
            .filter(|a| a == arch || a == "all")
            .ok_or(DebError::Format("it is for another architecture"))?;
        let is_same = control_field(control, "Multi-Arch").as_deref() == Some("same");
        let file_name = if is_same { format!("{name}:{architecture}") } else { name.clone() };

        let mut info: BTreeMap<String, Vec<u8>> = control
            .iter()
            .filter(|(file, _)| *file != "control")
            .map(|(file, bytes)| (file.clone(), bytes.clone()))
            .collect();
        let mut list = String::new();
        for path in paths {
            let _ = writeln!(list, "/{}", if path.is_empty() { "." } else { path });
        }
        info.insert("list".to_owned(), list.into_bytes());

        let interests = interests(control.get("triggers"));
        let is_configured = !control.contains_key("postinst")
            && !control.contains_key("preinst")
            && !control.contains_key("config")
            && interests.is_empty();
        let text = control.get("control").map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let status = status(&text.unwrap_or_default(), is_configured, conffiles);
        self.packages.push(Entry {
            name,
            file_name,
            architecture,
            is_configured,
            status,
            info,
            interests,
        });
        Ok(())
    }

    /// How many packages are left to configure in the guest.
    #[must_use]
    pub fn unconfigured(&self) -> usize {
        self.packages.iter().filter(|p| !p.is_configured).count()
    }

    /// The packages that have a script to run before they are unpacked, in the order entered.
    pub(crate) fn with_preinst(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.packages
            .iter()
            .filter(|p| p.info.contains_key("preinst"))
            .map(|p| (p.name.as_str(), p.file_name.as_str(), p.architecture.as_str()))
    }

    /// Whether a package was entered.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.packages.iter().any(|p| p.name == name)
    }

    /// Writes the database into the tree. `automatic` are the packages that only dependencies
    /// brought in.
    ///
    /// # Errors
    ///
    /// A package contains something else in one of the database's places.
    pub fn write(
        &self,
        rootfs: &mut RootFs,
        arch: &str,
        automatic: &[&str],
    ) -> Result<(), DebError> {
        let dpkg = "var/lib/dpkg";
        let mut sorted: Vec<&Entry> = self.packages.iter().collect();
        sorted.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        let mut status = String::new();
        for package in &sorted {
            status.push_str(&package.status);
            status.push('\n');
            for (kind, bytes) in &package.info {
                let mode = if SCRIPTS.contains(&kind.as_str()) { 0o755 } else { 0o644 };
                let path = format!("{dpkg}/info/{}.{kind}", package.file_name);
                rootfs.write(&path, mode, bytes.clone())?;
            }
        }
        rootfs.write(&format!("{dpkg}/status"), 0o644, status.clone())?;
        rootfs.write(&format!("{dpkg}/status-old"), 0o644, status)?;
        rootfs.write(&format!("{dpkg}/info/format"), 0o644, "1\n")?;
        rootfs.write(&format!("{dpkg}/arch"), 0o644, format!("{arch}\n"))?;
        rootfs.write(&format!("{dpkg}/cmethopt"), 0o644, "apt apt\n")?;
        for empty in ["available", "diversions", "statoverride", "lock", "lock-frontend"] {
            rootfs.write(&format!("{dpkg}/{empty}"), 0o644, "")?;
        }
        for (file, text) in self.triggers() {
            rootfs.write(&format!("{dpkg}/triggers/{file}"), 0o644, text)?;
        }
        let mut states = String::new();
        for package in sorted.iter().filter(|p| automatic.contains(&p.name.as_str())) {
            let arch = if package.architecture == "all" { arch } else { &package.architecture };
            let _ = write!(
                states,
                "Package: {}\nArchitecture: {arch}\nAuto-Installed: 1\n\n",
                package.name
            );
        }
        rootfs.write("var/lib/apt/extended_states", 0o644, states)
    }

    /// The files of `triggers/`: who is interested in which path, and in which name.
    fn triggers(&self) -> BTreeMap<String, String> {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for empty in TRIGGER_FILES {
            files.insert(empty.to_owned(), String::new());
        }
        for package in &self.packages {
            for (what, no_await) in &package.interests {
                let who =
                    format!("{}{}", package.file_name, if *no_await { "/noawait" } else { "" });
                if what.starts_with('/') {
                    let _ = writeln!(files.entry("File".to_owned()).or_default(), "{what} {who}");
                } else {
                    let _ = writeln!(files.entry(what.clone()).or_default(), "{who}");
                }
            }
        }
        files
    }
}

/// Reads what a package is interested in (deb-triggers(5)).
fn interests(file: Option<&Vec<u8>>) -> Vec<(String, bool)> {
    let text = file.map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let no_await = match words.next()? {
                "interest" | "interest-await" => false,
                "interest-noawait" => true,
                _ => return None,
            };
            let what = words.next()?;
            let is_path = what.starts_with('/');
            // A name becomes the name of a file, next to dpkg's own.
            let is_sound = is_path || is_package_name(what) && !TRIGGER_FILES.contains(&what);
            (is_sound && words.next().is_none()).then(|| (what.to_owned(), no_await))
        })
        .collect()
}

/// A package's paragraph of the status file, with the line feed that ends it.
fn status(control: &str, is_configured: bool, conffiles: &[(String, String)]) -> String {
    let state = if is_configured { "installed" } else { "unpacked" };
    let mut out = String::new();
    let mut skip = false;
    for line in control.lines().filter(|line| !line.trim().is_empty()) {
        if !line.starts_with([' ', '\t']) {
            let name = line.split(':').next().unwrap_or("");
            // dpkg writes these itself; a package has no say in them.
            skip =
                ["status", "conffiles", "config-version", "triggers-pending", "triggers-awaited"]
                    .contains(&name.to_ascii_lowercase().as_str());
            if name.eq_ignore_ascii_case("Description") && !conffiles.is_empty() {
                out.push_str("Conffiles:\n");
                for (path, md5) in conffiles {
                    let _ = writeln!(out, " {path} {md5}");
                }
            }
        }
        if skip {
            continue;
        }
        out.push_str(line);
        out.push('\n');
        if line.starts_with("Package:") {
            let _ = writeln!(out, "Status: install ok {state}");
        }
    }
    out
}
