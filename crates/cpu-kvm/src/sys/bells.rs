//! Writes that ring a bell inside of the kernel, and leave the guest no further (KVM API 4.59).
//!
//! Of any length, as the driver's is nobody's business: on Intel's processors such a write is answered
//! where it faults, and the instruction is not even decoded (`KVM_CAP_IOEVENTFD_ANY_LENGTH`, Linux 4.4).
#![expect(unsafe_code, reason = "the crate has the request for descriptors of its own only")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_bindings::{
    KVM_CAP_IOEVENTFD_ANY_LENGTH, kvm_ioeventfd, kvm_ioeventfd_flag_nr_deassign as DEASSIGN,
};
use kvm_ioctls::{Kvm, VmFd};
use riad_memory::Gpa;

/// `_IOW(KVMIO, 0x79, struct kvm_ioeventfd)`.
const KVM_IOEVENTFD: libc::c_ulong = 0x4040_ae79;

/// Bytes that a driver writes to notify a queue (virtio 1.3, section 4.1.5.2), for kernels that want to
/// be told.
const NOTIFICATION: u32 = 2;

/// How a machine's bells are hung.
#[derive(Debug)]
pub(super) struct Bells {
    /// The writes' length in bytes; 0 for any.
    len: u32,
}

impl Bells {
    pub(super) fn new(kvm: &Kvm) -> Self {
        let any = kvm.check_extension_raw(KVM_CAP_IOEVENTFD_ANY_LENGTH.into()) > 0;
        Self { len: if any { 0 } else { NOTIFICATION } }
    }

    /// Has a write to `at` ring `bell`, an eventfd.
    ///
    /// # Errors
    /// The kernel's: there is a bell at this address already, or there are too many.
    pub(super) fn hang(&self, vm: &VmFd, at: Gpa, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.ask(vm, at, bell, 0)
    }

    /// Ends that.
    ///
    /// # Errors
    /// The kernel's: there is no such bell.
    pub(super) fn take_down(&self, vm: &VmFd, at: Gpa, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.ask(vm, at, bell, 1 << DEASSIGN)
    }

    fn ask(&self, vm: &VmFd, at: Gpa, bell: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
        let (addr, len, fd) = (at.0, self.len, bell.as_raw_fd());
        let bell = kvm_ioeventfd { addr, len, fd, flags, ..Default::default() };
        // SAFETY: the kernel reads the structure, which outlives the call, and takes a reference of its
        // own to the descriptor.
        match unsafe { libc::ioctl(vm.as_raw_fd(), KVM_IOEVENTFD as _, &raw const bell) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
