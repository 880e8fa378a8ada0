//! Injecting an interrupt whose vector comes from an 8259.
//!
//! `KVM_INTERRUPT` (KVM API 4.16) is made for this, and keeps the vector where nothing can read it until
//! the processor goes on: a machine that is saved right then would lose it. As an event that was
//! injected (KVM API 4.32) it is part of the state that can be read.

use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, kvm_mp_state};
use kvm_ioctls::VcpuFd;

/// Injects an interrupt into a processor that said that it would take one.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn interrupt(fd: &VcpuFd, vector: u8) -> Result<(), kvm_ioctls::Error> {
    let mut events = fd.get_vcpu_events()?;
    events.flags = 0;
    events.interrupt.injected = 1;
    events.interrupt.nr = vector;
    events.interrupt.soft = 0;
    fd.set_vcpu_events(&events)?;
    // The kernel wakes a processor that halts for what comes by its local APIC alone.
    if fd.get_mp_state()?.mp_state == KVM_MP_STATE_HALTED {
        fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })?;
    }
    Ok(())
}
