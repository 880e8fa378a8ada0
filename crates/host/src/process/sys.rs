//! What only Linux does.
#![expect(unsafe_code, reason = "close_range exists only as a system call")]

/// Marks every descriptor but the standard ones to be closed by exec: what whoever called us left
/// open (a lock that a script holds, say) must not live on in a machine's process. Kernels before 5.11
/// do not know the call, and leave them open.
pub(super) fn inherit_nothing() {
    let first: libc::c_uint = 3;
    // SAFETY: the call takes plain numbers and touches no memory; with this flag it closes nothing.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
        );
    }
}
