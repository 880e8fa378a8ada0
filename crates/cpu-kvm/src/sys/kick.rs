//! Calling a processor out of the guest, without a signal handler (wall 9).
//!
//! The thread that runs a processor blocks one real-time signal, and `KVM_SET_SIGNAL_MASK` (KVM API
//! 4.21) lets it through inside of `KVM_RUN` alone. A signal sent at any moment therefore ends the
//! present or the next `KVM_RUN` with EINTR and stays pending, blocked, until it is taken off the
//! queue here; no handler is ever called, and nobody else's signals are touched.
#![expect(unsafe_code, reason = "signals and their masks are plain system calls")]

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kvm_ioctls::VcpuFd;
use riad_cpu::VcpuHandle;

use super::turns::Turns;

/// `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`: the header is 4 bytes long.
const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;

/// The signal: a real-time one, which neither Rust's library nor ours uses.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 4
}

/// What other threads see of a processor.
pub(super) struct Mailbox {
    stop: AtomicBool,
    /// The software processor that stands in for it at times: a stretch ends, too, when it is asked to
    /// stop, and so do the guest's own requests, right after the instruction that made them.
    stand_in: OnceLock<Arc<dyn VcpuHandle>>,
    /// The thread that is in `run`, if any.
    runner: Mutex<Option<libc::pid_t>>,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl Mailbox {
    pub(super) fn new() -> Self {
        let stop = AtomicBool::new(false);
        Self { stop, stand_in: OnceLock::new(), runner: Mutex::new(None) }
    }

    /// This software processor stands in from now on.
    pub(super) fn set_stand_in(&self, handle: Arc<dyn VcpuHandle>) {
        let _ = self.stand_in.set(handle);
    }

    fn runner(&self) -> MutexGuard<'_, Option<libc::pid_t>> {
        self.runner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the processor come out of the guest, to look at what it is asked.
    pub(super) fn kick(&self) {
        let runner = self.runner();
        if let Some(thread) = *runner {
            // SAFETY: a plain system call. The thread is alive and keeps the signal blocked: it
            // unregisters itself, under this lock, before it unblocks the signal or ends.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }

    /// Takes a request to stop.
    pub(super) fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::SeqCst)
    }
}

impl VcpuHandle for Mailbox {
    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(stand_in) = self.stand_in.get() {
            stand_in.stop();
        }
        self.kick();
    }
}

/// A thread inside of `run`: it can be kicked while this lives.
pub(super) struct Runner<'a> {
    mailbox: &'a Mailbox,
    /// Where KVM has it for a turn at a time.
    turns: Option<Turns>,
    old_mask: libc::sigset_t,
}

impl<'a> Runner<'a> {
    /// This thread is about to run the processor, `in_turns` with a software processor or alone.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn new(mailbox: &'a Mailbox, fd: &VcpuFd, in_turns: bool) -> Result<Self, String> {
        // SAFETY: the sets are ours and initialised by the calls before they are read; the mask
        // structure is 4 bytes of length and 8 of the kernel's set, as KVM API 4.21 has it, and lives
        // until the call returns.
        let old_mask = unsafe {
            let mut only = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut only);
            libc::sigaddset(&mut only, signal());
            let mut old = std::mem::zeroed::<libc::sigset_t>();
            libc::pthread_sigmask(libc::SIG_BLOCK, &only, &mut old);
            let mut inside = old;
            libc::sigdelset(&mut inside, signal());
            let set = std::ptr::from_ref(&inside).cast::<[u8; 8]>().read();
            let mut mask = [0u32; 3];
            mask[0] = 8;
            mask[1] = u32::from_ne_bytes([set[0], set[1], set[2], set[3]]);
            mask[2] = u32::from_ne_bytes([set[4], set[5], set[6], set[7]]);
            if libc::ioctl(fd.as_raw_fd(), KVM_SET_SIGNAL_MASK as _, mask.as_ptr()) != 0 {
                let error = std::io::Error::last_os_error();
                libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
                return Err(format!("KVM_SET_SIGNAL_MASK: {error}"));
            }
            old
        };
        // SAFETY: a plain system call.
        *mailbox.runner() = Some(unsafe { libc::gettid() });
        let mut runner = Self { mailbox, turns: None, old_mask };
        if in_turns {
            runner.turns = Some(Turns::begin(signal())?);
        }
        Ok(runner)
    }

    /// Takes the signals that came off the queue. Returns whether one said that a turn is over.
    pub(super) fn take_signals(&self) -> bool {
        let mut is_over = false;
        // SAFETY: sets and times are ours; the call waits for nothing.
        unsafe {
            let mut only = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut only);
            libc::sigaddset(&mut only, signal());
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let mut info = std::mem::zeroed::<libc::siginfo_t>();
            while libc::sigtimedwait(&only, &mut info, &at_once) > 0 {
                is_over |= info.si_code == libc::SI_TIMER;
            }
        }
        is_over
    }
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        self.turns = None;
        *self.mailbox.runner() = None;
        // From here on nobody sends; what was sent is taken before the signal is let through again.
        self.take_signals();
        // SAFETY: the set is the one that `new` was given.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.old_mask, std::ptr::null_mut());
        }
    }
}
