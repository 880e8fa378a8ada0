//! The time stamp counter, and guest time that stands still.
//!
//! The kernel gives each processor `host counter * ratio + offset`. While the machine is paused the
//! host's counter runs on; when it goes on, every processor's offset is moved back by the same number
//! of counts, so that guests see no jump and their processors stay in step to the count.
#![expect(unsafe_code, reason = "the host's time stamp counter is an instruction")]

use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_device_attr};
use kvm_ioctls::VcpuFd;
use riad_cpu::x86::msr as number;

use super::msr;

/// `_IOW(KVMIO, 0xe2, struct kvm_device_attr)`, which the crate has for devices only.
const KVM_GET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee2;
/// `_IOW(KVMIO, 0xe1, struct kvm_device_attr)`, likewise.
const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;

/// A processor's offset from the host's counter (KVM vcpu devices API, 4.1; Linux 5.16), or `None`
/// where the kernel does not tell it.
pub(super) fn offset(fd: &VcpuFd) -> Option<u64> {
    let mut value = 0u64;
    let attr = attribute(&raw mut value);
    // SAFETY: the kernel writes the 8 bytes of `value`, to which `attr` points and which outlives the
    // call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_GET_DEVICE_ATTR as _, &raw const attr) };
    (result == 0).then_some(value)
}

fn attribute(value: *mut u64) -> kvm_device_attr {
    kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: value as u64,
        flags: 0,
    }
}

/// Sets a processor's offset. Returns whether the kernel takes it.
fn set_offset(fd: &VcpuFd, mut value: u64) -> bool {
    let attr = attribute(&raw mut value);
    // SAFETY: the kernel reads the 8 bytes of `value`, to which `attr` points and which outlives the
    // call.
    unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SET_DEVICE_ATTR as _, &raw const attr) == 0 }
}

/// A processor's counter now, for the guest: it stands still while guest time does.
pub(super) fn guest_tsc(fd: &VcpuFd, base: &TimeBase) -> u64 {
    match offset(fd) {
        Some(offset) => base.scale(base.now()).wrapping_add(offset),
        None => {
            let read = msr::get(fd, &[number::TSC]).ok().and_then(|values| values[0]);
            read.unwrap_or(0).wrapping_sub(base.since_pause())
        }
    }
}

/// Makes a processor's counter read `value` now, or when guest time goes on.
pub(super) fn set_guest_tsc(fd: &VcpuFd, base: &TimeBase, value: u64) {
    let wanted = value.wrapping_sub(base.scale(base.now()));
    if !set_offset(fd, wanted) {
        // The kernel brings processors that are set within a second into step by itself.
        let _ = msr::set(fd, &[(number::TSC, value.wrapping_add(base.since_pause()))]);
    }
}

/// Moves a processor's counter back.
pub(super) fn hold_back(fd: &VcpuFd, counts: u64) {
    if let Some(offset) = offset(fd)
        && set_offset(fd, offset.wrapping_sub(counts))
    {
        return;
    }
    if let Ok(values) = msr::get(fd, &[number::TSC])
        && let Some(now) = values[0]
    {
        let _ = msr::set(fd, &[(number::TSC, now.wrapping_sub(counts))]);
    }
}

/// The host's time stamp counter.
pub(super) fn host_tsc() -> u64 {
    // SAFETY: RDTSC is there on every x86-64 processor and changes nothing.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// How guests' counters relate to the host's.
#[derive(Debug)]
pub(super) struct TimeBase {
    host_khz: u32,
    guest_khz: u32,
    /// The host's counter at which guest time stood still; `None` while it runs.
    paused_at: Mutex<Option<u64>>,
}

impl TimeBase {
    pub(super) fn new(host_khz: u32, guest_khz: u32) -> Self {
        Self { host_khz: host_khz.max(1), guest_khz, paused_at: Mutex::new(None) }
    }

    fn paused_at(&self) -> MutexGuard<'_, Option<u64>> {
        self.paused_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts of the host's counter in a millisecond.
    pub(super) fn host_khz(&self) -> u32 {
        self.host_khz
    }

    /// Guest counts in this many of the host's.
    pub(super) fn scale(&self, host: u64) -> u64 {
        if self.host_khz == self.guest_khz {
            return host;
        }
        (u128::from(host) * u128::from(self.guest_khz) / u128::from(self.host_khz)) as u64
    }

    /// The host's counter as far as the guest is concerned.
    pub(super) fn now(&self) -> u64 {
        self.paused_at().unwrap_or_else(host_tsc)
    }

    /// Guest counts since guest time stood still; 0 while it runs.
    pub(super) fn since_pause(&self) -> u64 {
        self.paused_at().map_or(0, |at| self.scale(host_tsc().saturating_sub(at)))
    }

    /// Whether guest time stands still.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_at().is_some()
    }

    /// Guest time stands still. Returns whether it ran before.
    pub(super) fn pause(&self) -> bool {
        let mut paused = self.paused_at();
        let ran = paused.is_none();
        paused.get_or_insert_with(host_tsc);
        ran
    }

    /// Guest time goes on. Gives the counts that guests must not see, or `None` when it ran.
    pub(super) fn resume(&self) -> Option<u64> {
        let at = self.paused_at().take()?;
        Some(self.scale(host_tsc().saturating_sub(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::{TimeBase, host_tsc};

    #[test]
    fn counts_are_scaled_without_overflow() {
        let base = TimeBase::new(2_500_000, 1_000_000);
        assert_eq!(base.scale(5_000_000), 2_000_000);
        assert_eq!(base.scale(5 << 61), 2 << 61);
        assert_eq!(TimeBase::new(7, 7).scale(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_pause_is_taken_out() {
        let base = TimeBase::new(1, 1);
        assert!(base.pause());
        let frozen = base.now();
        assert!(!base.pause(), "again");
        assert_eq!(base.now(), frozen);
        let before = host_tsc();
        let skipped = base.resume().expect("it stood still");
        assert!(skipped >= before - frozen);
        assert_eq!(base.resume(), None);
        assert!(base.now() > frozen);
    }
}
