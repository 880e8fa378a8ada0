//! Hosts without KVM for x86-64 guests.

use std::sync::Arc;

use riad_clock::SharedClock;
use riad_cpu::{Bus, Engine, Error, Vcpu, VcpuConfig};
use riad_memory::GuestMemory;

use crate::{Capabilities, Model};

fn unavailable() -> Error {
    Error::Unavailable {
        engine: "kvm",
        reason: "it takes Linux on an x86-64 processor; use --engine soft".to_owned(),
    }
}

/// Whether there is a device that this user may open: never.
#[must_use]
pub fn is_there() -> bool {
    false
}

/// Looks at this host's KVM.
///
/// # Errors
/// Always: there is none.
pub fn capabilities() -> Result<Capabilities, Error> {
    Err(unavailable())
}

/// A machine's processors; there are none on this host.
#[derive(Debug)]
pub enum KvmEngine {}

impl KvmEngine {
    /// An engine for this machine.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: GuestMemory, _: SharedClock, _: VcpuConfig, _: Model) -> Result<Self, Error> {
        Err(unavailable())
    }

    /// What CPUID answers, when that is the host's own.
    #[must_use]
    pub fn host_cpu(&self) -> Option<Vec<[u32; 6]>> {
        match *self {}
    }
}

impl Engine for KvmEngine {
    fn name(&self) -> &'static str {
        match *self {}
    }
    fn add_vcpu(&self, _: u32, _: Arc<dyn Bus>) -> Result<Box<dyn Vcpu>, Error> {
        match *self {}
    }
    fn send_msi(&self, _: u64, _: u32) {
        match *self {}
    }
    fn set_extint(&self, _: bool) {
        match *self {}
    }
    fn memory(&self) -> &GuestMemory {
        match *self {}
    }
    fn clock(&self) -> &SharedClock {
        match *self {}
    }
}
