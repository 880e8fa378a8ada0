//! A guest that does a bit of everything, whose outcome depends on no time: level 3 computes with
//! integers, x87 and SSE, copies strings, writes code and runs it, calls level 0 and divides by zero; a
//! periodic timer interrupts it, and level 0 plays with interrupt shadows. How level 3 calls, and what
//! answers, is for who uses it.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use riad_cpu::x86::{cr0, rflags};
use riad_memory::Gpa;

use super::machine::{DATA, Guest, USER_CODE, USER_DATA};

/// Where handlers are; that of calls has the first 256 bytes.
pub(crate) const HANDLER: u64 = 0x1_8000;
const APIC: u64 = 0xfee0_0000;
/// Rounds of level 3.
pub(crate) const ROUNDS: u32 = 1500;

/// Cells of level 0: calls, which their handler counts; timer interrupts; divisions by zero.
pub(crate) const CALLS: u64 = DATA;
pub(crate) const TIMER: u64 = DATA + 8;
const DIVISIONS: u64 = DATA + 16;

/// Instructions that are written into the program.
type Part = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// What it computed, however often it was interrupted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    computed: Vec<u8>,
    pub(crate) calls: u64,
    pub(crate) divisions: u64,
}

pub(crate) fn outcome(guest: &Guest) -> Outcome {
    Outcome {
        computed: guest.memory.read_vec(Gpa(USER_DATA), 0x9000).expect("RAM"),
        calls: guest.peek(CALLS),
        divisions: guest.peek(DIVISIONS),
    }
}

/// The guest, with a timer of this period in nanoseconds. Level 3 calls level 0 by `call` in each round,
/// and once more with R15 0 at its end; `also` is run in each round.
pub(crate) fn busy(period: u32, call: Part, also: Part) -> Guest {
    let mut guest = Guest::long();
    guest.tables.map(APIC, APIC | 3);
    guest.enter_user();
    let s = &mut guest.state;
    s.rflags |= rflags::IF;
    s.control.cr0 |= cr0::MP;
    s.apic.svr = 0x1ff;
    s.apic.lvt[0] = 0x2_0040;
    s.apic.timer_divide = 0xb;
    s.apic.timer_initial = period;
    s.apic.timer_start = Some(0);
    // Timer: count, end of interrupt, with shadows on the way.
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
        let (mut again, mut patched) = (a.create_label(), a.create_label());
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
        also(a)?;
        a.xor(ecx, ecx)?;
        a.mov(eax, 5)?;
        a.xor(edx, edx)?;
        a.div(ecx)?;
        call(a)?;
        a.dec(r15)?;
        a.jne(again)?;
        a.fstp(qword_ptr(rbx + 0x8000))?;
        a.fstp(qword_ptr(rbx + 0x8008))?;
        a.movupd(xmmword_ptr(rbx + 0x8010), xmm1)?;
        a.movdqu(xmmword_ptr(rbx + 0x8020), xmm15)?;
        a.mov(qword_ptr(rbx + 0x8030), r11)?;
        call(a)?;
        a.ud2()
    });
    guest
}
