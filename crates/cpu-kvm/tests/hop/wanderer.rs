//! A busy guest that calls by UD2, which is the same on every engine, and looks whether the time stamp
//! counter ever goes back.

use iced_x86::code_asm::*;

use crate::guests::busy::{self, CALLS, HANDLER, TIMER};
use crate::guests::machine::{DATA, Guest, USER_DATA, stop};

/// The timer's period: nanoseconds.
const PERIOD: u32 = 1_000_000;

/// A cell of level 0: whether it is over.
const OVER: u64 = DATA + 24;
/// Cells of level 3 that depend on time: the last value of the time stamp counter, and how often the
/// next was lower.
const LAST: u64 = USER_DATA + 0xa000;
const BACK: u64 = LAST + 8;

pub(crate) fn is_over(guest: &Guest) -> bool {
    guest.peek(OVER) != 0
}

pub(crate) fn timer_interrupts(guest: &Guest) -> u64 {
    guest.peek(TIMER)
}

pub(crate) fn counter_went_back(guest: &Guest) -> u64 {
    guest.peek(BACK)
}

pub(crate) fn guest() -> Guest {
    let mut guest = busy::busy(
        PERIOD,
        |a| a.ud2(),
        |a| {
            let mut forward = a.create_label();
            a.rdtsc()?;
            a.shl(rdx, 32)?;
            a.or(rax, rdx)?;
            a.cmp(rax, qword_ptr(LAST))?;
            a.jae(forward)?;
            a.inc(qword_ptr(BACK))?;
            a.set_label(&mut forward)?;
            a.mov(qword_ptr(LAST), rax)
        },
    );
    let s = &mut guest.state;
    s.msrs.lstar = 0xffff_8000_1234_5678;
    s.msrs.kernel_gs_base = 0x7fff_0000;
    s.msrs.pat = 0x0007_0406_0007_0106;
    s.debug.address[1] = 0x1234;
    // A call, by UD2: count, and end when R15 says so.
    guest.gate64(6, HANDLER, 0x8e, 0);
    guest.code(HANDLER, 64, |a| {
        let mut on = a.create_label();
        a.inc(qword_ptr(CALLS))?;
        a.add(qword_ptr(rsp), 2)?;
        a.test(r15, r15)?;
        a.jne(on)?;
        a.mov(qword_ptr(OVER), 1)?;
        stop(a)?;
        a.set_label(&mut on)?;
        a.iretq()
    });
    guest
}
