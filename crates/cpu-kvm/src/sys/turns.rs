//! Turns, where KVM emulates kernel code: a timer that goes by the time that this thread computes calls
//! it out of `KVM_RUN`, so that a software processor can take over (`rescue.rs`). A processor that
//! halts computes nothing, and is left in peace.
#![expect(unsafe_code, reason = "timers of a thread are plain system calls")]

/// How long KVM has a processor for itself, nanoseconds of its thread's time.
const TURN: libc::c_long = 1_000_000;

/// A timer that signals the thread that made it, again and again.
pub(super) struct Turns(libc::timer_t);

// SAFETY: the number of a timer of this process, which any thread may delete.
unsafe impl Send for Turns {}

impl Turns {
    /// Has the kernel send this thread a signal after each turn.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn begin(signal: libc::c_int) -> Result<Self, String> {
        let refused = |call| format!("{call}: {}", std::io::Error::last_os_error());
        // SAFETY: the structure is plain data; all bytes zero is a value of it.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: a plain system call.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both structures are ours and live until the call returns.
        let made = unsafe {
            libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut event, &raw mut timer)
        };
        if made != 0 {
            return Err(refused("timer_create"));
        }
        let turns = Self(timer);
        let turn = libc::timespec { tv_sec: 0, tv_nsec: TURN };
        let times = libc::itimerspec { it_interval: turn, it_value: turn };
        // SAFETY: the timer was made above, and the structure lives until the call returns.
        match unsafe { libc::timer_settime(turns.0, 0, &raw const times, std::ptr::null_mut()) } {
            0 => Ok(turns),
            _ => Err(refused("timer_settime")),
        }
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's own.
        unsafe { libc::timer_delete(self.0) };
    }
}
