//! `/dev/kvm`: opening it, what it can do, and what to do when it cannot.

use std::ffi::CStr;
use std::path::Path;
use std::sync::OnceLock;

use kvm_ioctls::{Cap, Kvm};
use riad_cpu::Error;

use super::cpuid;
use crate::Capabilities;

/// The device node, for people and for the kernel.
const DEVICE: &str = "/dev/kvm";
const NODE: &CStr = c"/dev/kvm";

/// The stable API (KVM API 4.1): anything else must not be used.
const API_VERSION: i32 = 12;

/// What this engine cannot do without. All are in Linux 4.20 and later, most since long before.
const NEEDED: [(Cap, &str); 14] = [
    (Cap::UserMemory, "user memory"),
    (Cap::ExtCpuid, "CPUID"),
    (Cap::MpState, "processor activity"),
    (Cap::VcpuEvents, "pending events"),
    (Cap::Debugregs, "debug registers"),
    (Cap::Xsave, "XSAVE"),
    (Cap::Xcrs, "extended control registers"),
    (Cap::GetTscKhz, "the time stamp counter's frequency"),
    (Cap::TscDeadlineTimer, "deadline timers"),
    (Cap::SignalMsi, "message-signalled interrupts"),
    (Cap::IrqRouting, "interrupt routing"),
    (Cap::SplitIrqchip, "local APICs without the other interrupt controllers"),
    (Cap::Ioeventfd, "event descriptors for writes"),
    (Cap::ImmediateExit, "immediate exits"),
];

/// This engine cannot be used, for this reason.
pub(super) fn unavailable(reason: impl Into<String>) -> Error {
    Error::Unavailable { engine: "kvm", reason: reason.into() }
}

/// Opens the device, and sees that it will do.
///
/// # Errors
/// [`Error::Unavailable`] with what to do.
pub(super) fn open() -> Result<Kvm, Error> {
    open_at(NODE)
}

/// The same, of the device node at this path.
fn open_at(path: &CStr) -> Result<Kvm, Error> {
    let kvm = Kvm::new_with_path(path).map_err(|error| unavailable(cannot_open(error.errno())))?;
    will_do(kvm.get_api_version(), |cap| kvm.check_extension(cap))?;
    Ok(kvm)
}

/// Whether a KVM with this version of the interface and these capabilities will do.
fn will_do(version: i32, has: impl Fn(Cap) -> bool) -> Result<(), Error> {
    if version < 0 {
        return Err(unavailable(format!(
            "{DEVICE} is not the kernel's KVM device: it does not know its requests. See who put it \
             there, or use --engine soft"
        )));
    }
    if version != API_VERSION {
        return Err(unavailable(format!(
            "{DEVICE} speaks version {version} of its interface and Riad version {API_VERSION}; \
             use --engine soft"
        )));
    }
    let lacking: Vec<_> =
        NEEDED.into_iter().filter(|(cap, _)| !has(*cap)).map(|(_, name)| name).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(unavailable(format!(
        "this host's KVM lacks {}; run Linux 4.20 or newer, or use --engine soft",
        lacking.join(", ")
    )))
}

/// Whether a machine may have this many processors, where KVM gives it at most `most`.
///
/// # Errors
/// [`Error::Unavailable`] with what to do.
pub(super) fn enough_processors(wanted: u32, most: u32) -> Result<(), Error> {
    if wanted <= most {
        return Ok(());
    }
    Err(unavailable(format!(
        "the machine has {wanted} processors, and this host's KVM gives a machine at most {most}: use \
         --cpus {most}, or --engine soft"
    )))
}

/// Why the device node could not be opened, and what to do.
pub(super) fn cannot_open(errno: i32) -> String {
    match errno {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => format!(
            "there is no {DEVICE}: turn virtualisation on in the computer's firmware and load \
             kvm_intel or kvm_amd; in a virtual machine, have its host allow nested virtualisation; \
             in a container, pass --device {DEVICE}; or use --engine soft"
        ),
        libc::EACCES | libc::EPERM => format!(
            "you may not use {DEVICE}: add yourself to its group (`sudo usermod -aG kvm $USER`) and \
             log in again; in a container, pass --device {DEVICE}; or use --engine soft"
        ),
        libc::EMFILE | libc::ENFILE => {
            format!("{DEVICE} could not be opened: too many files are open; raise `ulimit -n`")
        }
        _ => format!(
            "{DEVICE} could not be opened: {}; use --engine soft",
            std::io::Error::from_raw_os_error(errno)
        ),
    }
}

/// Why KVM would not make a machine, and what to do.
pub(super) fn cannot_create(errno: i32) -> String {
    match errno {
        libc::EBUSY => "another hypervisor holds the processor's virtualisation (VirtualBox and \
                        VMware do): end its machines, or use --engine soft"
            .to_owned(),
        libc::ENOMEM => "the kernel has no memory for another machine: end other programs, or use \
                         --engine soft"
            .to_owned(),
        libc::EMFILE | libc::ENFILE => "too many files are open: raise `ulimit -n`".to_owned(),
        _ => format!(
            "KVM refused to make a machine: {}; use --engine soft",
            std::io::Error::from_raw_os_error(errno)
        ),
    }
}

/// Whether there is a device that this user may open, without opening it.
#[must_use]
pub fn is_there() -> bool {
    use rustix::fs::{Access, access};
    access(DEVICE, Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// Looks at this host's KVM.
///
/// # Errors
/// [`Error::Unavailable`] with what to do.
pub fn capabilities() -> Result<Capabilities, Error> {
    let kvm = open()?;
    Kind::here();
    let vm = create_vm(&kvm)?;
    // The frequency is told by processors; one is made for it.
    let vcpu = vm.create_vcpu(0).map_err(|error| unavailable(cannot_create(error.errno())))?;
    let tsc_khz = vcpu.get_tsc_khz().map_err(|error| {
        unavailable(format!("the time stamp counter has no constant frequency ({error})"))
    })?;
    Ok(Capabilities {
        api_version: kvm.get_api_version(),
        driver: driver(),
        most_cpus: u32::try_from(kvm.get_max_vcpus()).unwrap_or(u32::MAX),
        tsc_khz,
        scales_tsc: kvm.check_extension(Cap::TscControl),
        lacking: cpuid::lacking(&kvm)?,
    })
}

/// Makes a machine. `KVM_CREATE_VM` gives up when a signal comes, and is asked again.
pub(super) fn create_vm(kvm: &Kvm) -> Result<kvm_ioctls::VmFd, Error> {
    created(|| kvm.create_vm())
}

/// What comes of asking for a machine by `create`, which may have to be done again.
fn created<T>(mut create: impl FnMut() -> Result<T, kvm_ioctls::Error>) -> Result<T, Error> {
    loop {
        match create() {
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(unavailable(cannot_create(error.errno()))),
            Ok(vm) => return Ok(vm),
        }
    }
}

/// How KVM goes about it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// Guests are run by emulation, at least of their kernels, and not by the processor.
    pub(super) emulates: bool,
    /// The kernel keeps shadows of the guest's page tables, and not the processor walks them.
    pub(super) shadows: bool,
}

impl Kind {
    /// What this host's does; found out once, as a machine's process may not look later.
    pub(super) fn here() -> Self {
        static HERE: OnceLock<Kind> = OnceLock::new();
        *HERE.get_or_init(|| Self::of(driver().as_deref()))
    }

    /// What a driver does.
    fn of(driver: Option<&str>) -> Self {
        let walks = |module: &str, parameter: &str| {
            let path = format!("/sys/module/{module}/parameters/{parameter}");
            std::fs::read_to_string(path).is_ok_and(|on| matches!(on.trim(), "Y" | "1"))
        };
        match driver {
            Some("kvm_intel") => Self { emulates: false, shadows: !walks("kvm_intel", "ept") },
            Some("kvm_amd") => Self { emulates: false, shadows: !walks("kvm_amd", "npt") },
            // Built in under no name, or nothing is told: be careful where it costs little.
            None => Self { emulates: false, shadows: true },
            Some(_) => Self { emulates: true, shadows: true },
        }
    }
}

/// The module behind KVM: `/sys/module/kvm_*`, or `None` when it is built in under no name.
fn driver() -> Option<String> {
    let modules = std::fs::read_dir(Path::new("/sys/module")).ok()?;
    let mut names: Vec<_> = modules
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("kvm_"))
        .collect();
    // Both of the processor makers' may be built in; the one in use has parameters of its own.
    names.sort_by_key(|name| !Path::new("/sys/module").join(name).join("parameters").exists());
    names.into_iter().next()
}

#[cfg(test)]
#[path = "host_test.rs"]
mod tests;
