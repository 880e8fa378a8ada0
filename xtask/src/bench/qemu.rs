//! The peer: QEMU as Debian's backports ship it, unpacked beside the build and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;
use crate::cargo::output;

/// The packages without which there is no TCG for x86; what they need comes with them.
const PACKAGES: [&str; 4] =
    ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];
/// Where Debian's own keys are.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A QEMU, and what it needs to run.
#[derive(Debug, Clone)]
pub(super) struct Qemu {
    program: PathBuf,
    /// Where it was unpacked; none for one that is installed.
    prefix: Option<PathBuf>,
}

impl Qemu {
    /// The user's own.
    pub(super) fn at(program: &str) -> Self {
        Self { program: program.into(), prefix: None }
    }

    /// The one unpacked in `directory`; fetched first if it is not there.
    pub(super) fn from_backports(directory: &Path) -> Result<Self, Error> {
        let prefix = directory.join("root");
        let found = Self {
            program: prefix.join("usr/bin/qemu-system-x86_64"),
            prefix: Some(prefix.clone()),
        };
        if found.version().is_ok() {
            return Ok(found);
        }
        println!("fetching QEMU from the backports of this host's Debian");
        unpack(directory, &PACKAGES)?;
        found.version()?;
        Ok(found)
    }

    /// A command line that begins with the program.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(prefix) = &self.prefix {
            // Debian's triplet for the only architecture that the yardstick is for. Some packages
            // still bring their libraries in /lib.
            let libraries = ["usr/lib", "lib"]
                .map(|path| prefix.join(path).join("x86_64-linux-gnu").display().to_string());
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
            for data in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(prefix.join(data));
            }
        }
        command
    }

    /// What it calls itself.
    pub(super) fn version(&self) -> Result<String, Error> {
        let mut command = self.command();
        command.arg("--version");
        if !self.program.exists() && self.program.components().count() > 1 {
            return Err(format!("{} does not exist", self.program.display()).into());
        }
        Ok(output(command)?.lines().next().unwrap_or_default().to_owned())
    }
}

/// Fetches packages, and what the host lacks of what they need, and unpacks them below `root` in
/// `directory`, which is made anew.
pub(super) fn unpack(directory: &Path, packages: &[&str]) -> Result<(), Error> {
    let (debs, prefix) = (directory.join("debs"), directory.join("root"));
    let _ = fs::remove_dir_all(directory);
    for path in [&debs, &prefix, &directory.join("lists/partial")] {
        fs::create_dir_all(path)?;
    }
    Apt::new(directory)?.download(&debs, packages)?;
    for deb in fs::read_dir(&debs)? {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(deb?.path()).arg(&prefix);
        output(unpack)?;
    }
    Ok(())
}

/// apt with lists of its own: the host's configuration, mirror and knowledge of what is installed,
/// and nothing written where the host's apt would see it.
struct Apt {
    options: Vec<String>,
    /// The release with newer versions.
    backports: String,
}

impl Apt {
    fn new(directory: &Path) -> Result<Self, Error> {
        let (mirror, codename) = mirror()?;
        let backports = format!("{codename}-backports");
        let signed = if Path::new(KEYRING).exists() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        let sources = directory.join("sources.list");
        let lines =
            [&codename, &backports].map(|suite| format!("deb {signed}{mirror} {suite} main\n"));
        fs::write(&sources, lines.concat())?;
        let option = |name: &str, path: &Path| format!("-oDir::{name}={}", path.display());
        let options = vec![
            option("Etc::sourcelist", &sources),
            option("Etc::sourceparts", Path::new("/dev/null")),
            option("State::lists", &directory.join("lists")),
            option("Cache", &directory.join("cache")),
            "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // Whoever runs this may write here, and the user that apt would change to may not.
            "-oAPT::Sandbox::User=".to_owned(),
            "-qq".to_owned(),
        ];
        fs::create_dir_all(directory.join("cache/archives/partial"))?;
        Ok(Self { options, backports })
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options);
        command
    }

    /// Puts the packages into `debs`: those named, and what the host lacks of what they need.
    fn download(&self, debs: &Path, packages: &[&str]) -> Result<(), Error> {
        let mut update = self.get();
        update.arg("update");
        output(update)?;
        let mut plan = self.get();
        plan.args(["--simulate", "--no-install-recommends", "-t", &self.backports, "install"]);
        plan.args(packages);
        let plan = output(plan)?;
        let mut wanted: Vec<&str> = plan
            .lines()
            .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next())
            // Windows are not wanted.
            .filter(|name| !name.contains("gui") && !name.contains("opengl"))
            .collect();
        wanted.extend(packages);
        wanted.sort_unstable();
        wanted.dedup();
        let mut download = self.get();
        download.current_dir(debs).args(["-t", &self.backports, "download"]).args(wanted);
        output(download)?;
        Ok(())
    }
}

/// The mirror that the host's apt uses for its own release, and the release's name.
fn mirror() -> Result<(String, String), Error> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned());
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]);
    let targets = output(targets)?;
    codename
        .and_then(|codename| {
            let line =
                targets.lines().find_map(|line| line.strip_prefix(&format!("{codename} ")))?;
            Some((line.to_owned(), codename))
        })
        .ok_or_else(|| {
            "this host's apt has no lists of its own Debian release to find a mirror in: run \
             `apt-get update`, or give a QEMU with --qemu PATH, or leave it out with --skip-qemu"
                .into()
        })
}
