//! The engine `kvm`: processors lent by the host's kernel.
//!
//! [`KvmEngine`] implements [`riad_cpu::Engine`] on `/dev/kvm`, as the kernel's
//! `Documentation/virt/kvm/api.rst` describes it ("KVM API" in comments). What it is made of:
//!
//! * local APICs are the kernel's, because that is where interrupts, timers and messages between
//!   processors cost no exit; IOAPIC, 8259 pair and everything else stay with the board ("split"
//!   interrupt controllers, KVM API 7.5);
//! * the CPU model is `riad-v1`, less what the host lacks, or the host's own ([`Model`]);
//! * everything architectural is got and set through the one table of state, so that a machine hops
//!   between this engine and the software one at any moment it can be stopped at;
//! * what KVM's own emulator gives up on, a software processor ([`riad_cpu_soft`]) does, on the same
//!   memory and bus, and KVM goes on (`sys/rescue.rs`): nothing above this crate notices. A KVM that
//!   emulates kernel code takes turns with it.
//!
//! No signal handler is installed: a processor is called out of the guest by a signal that its thread
//! keeps blocked except inside of `KVM_RUN` (`sys/kick.rs`).
//!
//! All of it is the host's business and stands in `sys`; on hosts that are not Linux on x86-64 there
//! is `unavailable` and nothing else. Where to begin: `sys/engine.rs`, then `sys/vcpu.rs`.

mod sys;

pub use sys::*;

/// Whose features guests see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Model {
    /// `riad-v1`, as on every engine: what is saved goes on anywhere.
    #[default]
    Riad,
    /// The host's own: faster where programs use it, and tied to hosts like this one.
    Host,
}

/// What this host's KVM is, for those who choose engines and for `riad doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `KVM_GET_API_VERSION`; 12 since 2007.
    pub api_version: i32,
    /// The kernel module that drives the processor: `kvm_intel`, `kvm_amd`, or something else.
    pub driver: Option<String>,
    /// Processors that one machine may have.
    pub most_cpus: u32,
    /// Frequency of the host's time stamp counter, kHz.
    pub tsc_khz: u32,
    /// Guests may have a time stamp counter of another frequency.
    pub scales_tsc: bool,
    /// Features of `riad-v1` that guests lack here.
    pub lacking: Vec<&'static str>,
}

impl Capabilities {
    /// Whether the driver is one that runs guests by the processor's own virtualisation.
    #[must_use]
    pub fn is_hardware(&self) -> bool {
        matches!(self.driver.as_deref(), Some("kvm_intel" | "kvm_amd"))
    }

    /// Whether programs can run in guests: whether SYSCALL takes them to their kernel. Under `kvm_pvm`
    /// it leaves the privilege level as it was, for kernels that do not speak that driver's own protocol
    /// (`tests/guests/differences.rs` lists the guests that show it).
    #[must_use]
    pub fn runs_programs(&self) -> bool {
        self.driver.as_deref() != Some("kvm_pvm")
    }
}
