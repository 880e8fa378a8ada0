//! Looking at the host: what is there, what is missing, and what to do about it.

use std::path::Path;

use riad_image::Store;
use riad_image::apt::{HostApt, SignedBy};
use riad_image::release::Keyring;
use riad_vmm::EngineKind;
use rustix::fs::statvfs;
use serde::Serialize;

use crate::Size;

/// Memory that should be free: what a machine gets when nothing is said, and some for Riad.
const WANTED_MEMORY: u64 = 1280 << 20;
/// Disk space that should be free: downloads, an image, and what guests write.
const WANTED_DISK: u64 = 3 << 30;

/// The software engine, as a subject.
const SOFT: &str = "engine soft";
/// The other one.
const KVM: &str = "engine kvm";

/// How a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Riad works, but something could be better.
    Note,
    /// Something will not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: a stable word.
    pub subject: &'static str,
    /// How it matters.
    pub verdict: Verdict,
    /// What was found, one sentence.
    pub found: String,
    /// What to do, if anything.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn note(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { subject, verdict: Verdict::Note, found: found.into(), advice }
    }

    fn problem(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, ..Self::note(subject, found, advice) }
    }
}

/// Looks at everything.
#[must_use]
pub fn examine() -> Vec<Finding> {
    let mut findings = vec![soft_engine(), kvm_engine(), agents(), memory()];
    findings.extend(cache());
    findings.extend(packages());
    findings
}

fn soft_engine() -> Finding {
    let cpus = crate::host_cpus();
    let plural = if cpus == 1 { "" } else { "s" };
    let here = format!("works here, on {cpus} host processor{plural}");
    if EngineKind::translates_here() {
        return Finding::ok(SOFT, format!("{here}: translates 64-bit code, interprets the rest"));
    }
    Finding::note(
        SOFT,
        format!("{here}, but only interprets: translated code needs Linux on x86-64"),
        "nothing to do; machines are several times slower than on such a host",
    )
}

/// The device, its interface and driver, and whether it is worth it.
fn kvm_engine() -> Finding {
    let kvm = match EngineKind::kvm_capabilities() {
        Ok(kvm) => kvm,
        Err(error) => {
            let advice = "machines run on the software engine; the reason says what KVM would take";
            return Finding::note(KVM, error.to_string(), advice);
        }
    };
    let driver = kvm.driver.as_deref().unwrap_or("built into the kernel");
    let mut found = format!(
        "/dev/kvm can be used: interface version {}, driver {driver}, up to {} processors",
        kvm.api_version, kvm.most_cpus
    );
    if !kvm.lacking.is_empty() {
        found += &format!("; guests lack {}", kvm.lacking.join(", "));
    }
    let measured = riad_vmm::measured();
    match measured.kvm {
        Err(error) => Finding::note(
            KVM,
            format!("{found}; but a small guest did not run: {error}"),
            "machines run on the software engine",
        ),
        Ok(speed) => {
            let soft = measured.soft;
            let speed = if speed == 0 { "less than 1".to_owned() } else { speed.to_string() };
            found += &format!(
                "; measured: {speed} million instructions a second, the software engine {soft}"
            );
            if matches!(riad_vmm::choose_engine(EngineKind::Auto), Ok(EngineKind::Kvm)) {
                return Finding::ok(KVM, format!("{found}; machines run on it"));
            }
            let advice = if !kvm.runs_programs() {
                "machines run on the software engine: programs cannot run on this KVM, where SYSCALL \
                 does not take them to their kernel; use a host with kvm_intel or \
                 kvm_amd, or have this one's host allow nested virtualisation"
            } else if kvm.is_hardware() {
                "machines run on the software engine, which is faster here; see whether this host's \
                 own host is overloaded, and delete engines.json from Riad's cache to measure again"
            } else {
                "machines run on the software engine, which is faster here: this KVM emulates; for \
                 the processor's own speed use a host with kvm_intel or kvm_amd, or have this one's \
                 host allow nested virtualisation"
            };
            Finding::note(KVM, found, advice)
        }
    }
}

fn agents() -> Finding {
    let has = riad_agent_image::architectures().collect::<Vec<_>>().join(", ");
    if has.is_empty() {
        let found = "this Riad was built without an agent for any guest";
        return Finding::problem("agent", found, "build Riad again from its repository");
    }
    Finding::ok("agent", format!("for {has} guests"))
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match available_memory(&text) {
        None => Finding::note(
            "memory",
            "how much is free could not be found out",
            "see that there is as much as machines are given (--memory)",
        ),
        Some(free) if free < WANTED_MEMORY => Finding::note(
            "memory",
            format!("{} are free, and a machine gets 1 GiB when nothing is said", Size(free)),
            "end other programs, or give machines less with --memory (256M is enough for a shell)",
        ),
        Some(free) => Finding::ok("memory", format!("{} are free", Size(free))),
    }
}

/// `MemAvailable` of `/proc/meminfo`, bytes (proc(5)).
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The cache directory, its free space, and what is in it.
fn cache() -> Vec<Finding> {
    let directory = match Store::default_directory() {
        Ok(directory) => directory,
        Err(error) => {
            let advice = "set RIAD_CACHE to a directory with a few gigabytes free";
            return vec![Finding::problem("cache", error.to_string(), advice)];
        }
    };
    let shown = directory.display();
    let store = match Store::open(&directory) {
        Ok(store) => store,
        Err(error) => {
            let advice = "make it writable, or set RIAD_CACHE to another directory";
            return vec![Finding::problem("cache", error.to_string(), advice)];
        }
    };
    let mut findings = vec![match statvfs(&directory) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{shown}, {} free", Size(free));
            if free < WANTED_DISK {
                let advice = format!(
                    "free some space, or set RIAD_CACHE to a directory with {}",
                    Size(WANTED_DISK)
                );
                Finding::problem("cache", found, advice)
            } else {
                Finding::ok("cache", found)
            }
        }
        Err(error) => Finding::problem(
            "cache",
            format!("how much space {shown} has could not be found out: {error}"),
            "set RIAD_CACHE to another directory",
        ),
    }];
    findings.push(match store.list() {
        Err(error) => {
            let advice = "set RIAD_CACHE to another directory";
            Finding::problem("images", error.to_string(), advice)
        }
        Ok(images) => {
            let damaged: Vec<_> = images.iter().filter(|listed| listed.image.is_err()).collect();
            match damaged.first() {
                Some(first) => Finding::problem(
                    "images",
                    format!("{} of {} are damaged", damaged.len(), images.len()),
                    format!("riad image rm {}", first.id),
                ),
                None if images.is_empty() => {
                    Finding::ok("images", "none yet: `riad run debian` builds one")
                }
                None => Finding::ok("images", format!("{} built", images.len())),
            }
        }
    });
    findings
}

/// Where Debian packages would come from, and who vouches for them.
fn packages() -> Vec<Finding> {
    let mirror = std::env::var("RIAD_DEBIAN_MIRROR").ok().filter(|m| !m.trim().is_empty());
    let apt = HostApt::read(Path::new("/"));
    let plan = match apt.plan(None, mirror.as_deref()) {
        Ok(plan) => plan,
        Err(error) => {
            let advice = "pass --mirror URL to `riad run`, or set RIAD_DEBIAN_MIRROR";
            return vec![Finding::problem("mirror", error.to_string(), advice)];
        }
    };
    let Some(archive) = plan.archives.first() else { return Vec::new() };
    let origin = if mirror.is_some() { "RIAD_DEBIAN_MIRROR" } else { "this host's apt" };
    let found = format!("{} for Debian {}, from {origin}", archive.base, plan.suite);
    let keyring = match &archive.signed_by {
        SignedBy::Default => Keyring::read_default().map(|_| "Debian's".to_owned()),
        SignedBy::Files(files) => Keyring::read(files).map(|_| {
            let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            names.join(", ")
        }),
        SignedBy::Inline(_) => Ok("in the package source".to_owned()),
    };
    let keyring = match keyring {
        Ok(which) => Finding::ok("keyring", which),
        Err(error) => Finding::problem(
            "keyring",
            error.to_string(),
            "install the package debian-archive-keyring, or pass --keyring FILE",
        ),
    };
    vec![Finding::ok("mirror", found), keyring]
}

#[cfg(test)]
#[path = "doctor_test.rs"]
mod tests;
