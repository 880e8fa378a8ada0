//! `KVM_INTERRUPT` (KVM API 4.16), which the crate lacks.
#![expect(unsafe_code, reason = "a plain ioctl")]

use std::os::fd::AsRawFd;

use kvm_bindings::kvm_interrupt;
use kvm_ioctls::VcpuFd;

/// `_IOW(KVMIO, 0x86, struct kvm_interrupt)`.
const KVM_INTERRUPT: libc::c_ulong = 0x4004_ae86;

/// Injects an interrupt whose vector comes from an 8259.
pub(super) fn interrupt(fd: &VcpuFd, vector: u8) -> std::io::Result<()> {
    let wanted = kvm_interrupt { irq: u32::from(vector) };
    // SAFETY: the kernel reads the 4 bytes of `wanted`, which outlives the call.
    match unsafe { libc::ioctl(fd.as_raw_fd(), KVM_INTERRUPT as _, &raw const wanted) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
