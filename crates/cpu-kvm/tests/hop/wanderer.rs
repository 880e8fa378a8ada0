//! A guest that does a bit of everything, whose outcome depends on no time: level 3 computes with
//! integers, x87 and SSE, copies strings, writes code and runs it, calls level 0 and divides by zero; a
//! periodic timer interrupts it, and level 0 plays with interrupt shadows.

use iced_x86::code_asm::*;
use riad_cpu::x86::{cr0, rflags};
use riad_memory::Gpa;

use crate::guests::machine::{DATA, Guest, USER_CODE, USER_DATA, stop};

const HANDLER: u64 = 0x1_8000;
const APIC: u64 = 0xfee0_0000;
const ROUNDS: u32 = 1500;
/// The timer's period: nanoseconds.
const PERIOD: u32 = 1_000_000;

/// Cells of level 0: calls, timer interrupts, divisions by zero, and whether it is over.
const CALLS: u64 = DATA;
const TIMER: u64 = DATA + 8;
const DIVISIONS: u64 = DATA + 16;
const OVER: u64 = DATA + 24;
/// Cells of level 3 that depend on time: the last value of the time stamp counter, and how often the
/// next was lower.
const LAST: u64 = USER_DATA + 0xa000;
const BACK: u64 = LAST + 8;

/// What it computed, however often it was interrupted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    computed: Vec<u8>,
    calls: u64,
    divisions: u64,
}

pub(crate) fn outcome(guest: &Guest) -> Outcome {
    Outcome {
        computed: guest.memory.read_vec(Gpa(USER_DATA), 0x9000).expect("RAM"),
        calls: guest.peek(CALLS),
        divisions: guest.peek(DIVISIONS),
    }
}

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
    let mut guest = Guest::long();
    guest.tables.map(APIC, APIC | 3);
    guest.enter_user();
    let s = &mut guest.state;
    s.rflags |= rflags::IF;
    s.control.cr0 |= cr0::MP;
    s.msrs.lstar = 0xffff_8000_1234_5678;
    s.msrs.kernel_gs_base = 0x7fff_0000;
    s.msrs.pat = 0x0007_0406_0007_0106;
    s.debug.address[1] = 0x1234;
    s.apic.svr = 0x1ff;
    s.apic.lvt[0] = 0x2_0040;
    s.apic.timer_divide = 0xb;
    s.apic.timer_initial = PERIOD;
    s.apic.timer_start = Some(0);
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
    // The timer: count, end of interrupt, with shadows on the way.
    guest.gate64(0x40, HANDLER + 0x100, 0x8e, 0);
    guest.code(HANDLER + 0x100, 64, |a| {
        a.push(rax)?;
        a.inc(qword_ptr(TIMER))?;
        a.mov(eax, APIC as u32)?;
        a.mov(dword_ptr(rax + 0xb0), 0)?;
        a.mov(eax, ss)?;
        a.mov(ss, eax)?;
        a.sti()?;
        a.nop()?;
        a.cli()?;
        a.pop(rax)?;
        a.iretq()
    });
    // #DE: skip the two-byte instruction.
    guest.gate64(0, HANDLER + 0x200, 0x8e, 1);
    guest.code(HANDLER + 0x200, 64, |a| {
        a.inc(qword_ptr(DIVISIONS))?;
        a.add(qword_ptr(rsp), 2)?;
        a.iretq()
    });
    guest.code(USER_CODE, 64, |a| {
        let (mut again, mut patched, mut forward) =
            (a.create_label(), a.create_label(), a.create_label());
        a.mov(r15d, ROUNDS)?;
        a.mov(ebx, USER_DATA as u32)?;
        a.fninit()?;
        a.fld1()?;
        a.fldpi()?;
        a.set_label(&mut again)?;
        a.fadd_2(st1, st0)?;
        a.fxch(st0, st1)?;
        a.fsqrt()?;
        a.fadd_2(st0, st1)?;
        a.cvtsi2sd(xmm0, r15)?;
        a.addsd(xmm1, xmm0)?;
        a.paddq(xmm15, xmm1)?;
        a.imul_3(r9, r15, 0x1003F)?;
        a.add(r10, r9)?;
        a.rol(r10, 7)?;
        a.adc(r11, r10)?;
        a.mov(qword_ptr(rbx + r15 * 8), r11)?;
        a.lea(rsi, qword_ptr(rbx + 0x1000))?;
        a.lea(rdi, qword_ptr(rbx + 0x3001))?;
        a.mov(ecx, 700)?;
        a.rep().movsb()?;
        a.lea(r8, qword_ptr(patched))?;
        a.mov(byte_ptr(r8 + 2), r10b)?;
        a.set_label(&mut patched)?;
        a.mov(r12d, 0)?;
        a.add(r11, r12)?;
        a.rdtsc()?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)?;
        a.cmp(rax, qword_ptr(LAST))?;
        a.jae(forward)?;
        a.inc(qword_ptr(BACK))?;
        a.set_label(&mut forward)?;
        a.mov(qword_ptr(LAST), rax)?;
        a.xor(ecx, ecx)?;
        a.mov(eax, 5)?;
        a.xor(edx, edx)?;
        a.div(ecx)?;
        a.ud2()?;
        a.dec(r15)?;
        a.jne(again)?;
        a.fstp(qword_ptr(rbx + 0x8000))?;
        a.fstp(qword_ptr(rbx + 0x8008))?;
        a.movupd(xmmword_ptr(rbx + 0x8010), xmm1)?;
        a.movdqu(xmmword_ptr(rbx + 0x8020), xmm15)?;
        a.mov(qword_ptr(rbx + 0x8030), r11)?;
        a.ud2()
    });
    guest
}
