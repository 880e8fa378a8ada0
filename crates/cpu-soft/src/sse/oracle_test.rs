//! Every instruction against the host's own processor.
//!
//! A case holds an instruction assembled into this program, between two labels. Its bytes are
//! decoded and run on a software processor, and run as they are on the host's, from the same random
//! registers, memory and MXCSR; everything is compared. `RIAD_ORACLE_CASES` multiplies the number
//! of turns (default 1).
#![expect(unsafe_code, reason = "the oracle is the host's processor")]

use std::sync::Arc;

use riad_clock::ManualClock;
use riad_cpu::x86::{cr0, cr4};
use riad_cpu::{Nowhere, VcpuConfig};
use riad_memory::{Gpa, GuestMemory};

use crate::cpu::{Cpu, Mode};
use crate::engine::{SoftEngine, SoftVcpu};
use crate::fault::{Done, Fault};
use crate::flags::Flags;
use crate::lower::lower;
use crate::op::{Op, gpr};

/// Where the memory operand lies in the guest: RDI.
const DATA: u64 = 0x2000;
const STATUS: u64 = 0x8d5;

/// What an instruction sees and changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
struct State {
    xmm: [u128; 3],
    rax: u64,
    rcx: u64,
    rdx: u64,
    rflags: u64,
    mxcsr: u32,
    /// The first is where the host's own MXCSR is kept.
    host_mxcsr: [u32; 3],
    memory: [u8; 32],
}

/// What the host did with an instruction.
struct Ran {
    /// The addresses of its first byte and of the one after its last.
    start: *const u8,
    end: *const u8,
    /// It raised #XM, and changed nothing else than MXCSR.
    faulted: bool,
}

#[derive(Clone, Copy)]
struct Case {
    text: &'static str,
    /// Runs it on the host.
    run: fn(&mut State) -> Ran,
}

macro_rules! case {
    ($($text:expr),+) => {
        Case {
            text: concat!($($text),+),
            run: |state| {
                let (start, end): (*const u8, *const u8);
                let faulted: u64;
                // SAFETY: the instruction reads and writes registers named below and the 32 bytes
                // of `state.memory`; MXCSR and flags are put back. If it raises #XM, the handler
                // goes on behind it.
                unsafe {
                    std::arch::asm!(
                        "stmxcsr [rsi + 84]",
                        "ldmxcsr [rsi + 80]",
                        "movaps xmm0, [rsi]",
                        "movaps xmm1, [rsi + 16]",
                        "movaps xmm2, [rsi + 32]",
                        "mov rax, [rsi + 48]",
                        "mov rcx, [rsi + 56]",
                        "mov rdx, [rsi + 64]",
                        "lea r10, [rip + 3f]",
                        "xor r11d, r11d",
                        "push qword ptr [rsi + 72]",
                        "popfq",
                        "2:",
                        concat!($($text),+),
                        "3:",
                        "pushfq",
                        "pop qword ptr [rsi + 72]",
                        "mov [rsi + 48], rax",
                        "mov [rsi + 56], rcx",
                        "mov [rsi + 64], rdx",
                        "movaps [rsi], xmm0",
                        "movaps [rsi + 16], xmm1",
                        "movaps [rsi + 32], xmm2",
                        "stmxcsr [rsi + 80]",
                        "ldmxcsr [rsi + 84]",
                        "lea r8, [rip + 2b]",
                        "lea r9, [rip + 3b]",
                        in("rsi") std::ptr::from_mut(state),
                        in("rdi") state.memory.as_mut_ptr(),
                        out("r8") start,
                        out("r9") end,
                        out("r10") _,
                        out("r11") faulted,
                        out("rax") _, out("rcx") _, out("rdx") _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _,
                    );
                }
                Ran { start, end, faulted: faulted != 0 }
            },
        }
    };
}

/// `name xmm0, xmm1` and `name xmm0, [rdi]`.
macro_rules! both {
    ($($name:literal)*) => {
        [$(case!($name, " xmm0, xmm1"), case!($name, " xmm0, [rdi]")),*]
    };
}

/// `name xmm0, xmm1, imm` and one with memory, for each immediate.
macro_rules! with_immediate {
    ([$($name:literal)*], $imms:tt) => { [$(with_immediate!(@each $name, $imms)),*].concat() };
    (@each $name:literal, [$($imm:literal)*]) => {
        vec![$(
            case!($name, " xmm0, xmm1, ", $imm),
            case!($name, " xmm0, [rdi], ", $imm)
        ),*]
    };
}

macro_rules! plain {
    ($($text:literal)*) => { [$(case!($text)),*] };
}

#[path = "oracle_float_test.rs"]
mod float;
#[path = "oracle_integer_test.rs"]
mod integer;
#[path = "rules_test.rs"]
mod rules;

/// A source of random values: SplitMix64, so that a failing case comes again.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// 64 bits that are random, sparse, or at the edges of lanes.
    fn word(&mut self) -> u64 {
        let random = self.bits();
        match random >> 60 {
            0 => 0,
            1 => u64::MAX,
            2 => random & 0x0707_0707_0707_0707,
            3 => 0x8080_8080_8080_8080 ^ random & 0x0101_0101_0101_0101,
            4 => 0x7fff_8000_7fff_8000 ^ random & 0x0001_0001_0001_0001,
            5 => 0x8000_0000_7fff_ffff ^ random & 0x0000_0001_0000_0001,
            6 => random & 0xff,
            7 => 1u64 << (random & 63),
            8 => random & (random >> 8) & (random << 16),
            _ => random,
        }
    }

    fn integers(&mut self) -> u128 {
        u128::from(self.word()) << 64 | u128::from(self.word())
    }

    /// Significands that are sparse, dense or random, in the top bits.
    fn significand(&mut self) -> u64 {
        let random = self.bits();
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1u64 << (random & 63),
            3 => u64::MAX << (random & 63),
            4 => random << 40,
            _ => random,
        }
    }

    /// An exponent field of `bits` bits: special, near the bias, or anywhere.
    fn exponent(&mut self, bits: u32) -> u64 {
        let top = (1u64 << bits) - 1;
        match self.below(16) {
            0 => 0,
            1 => top,
            2 => 1 + self.below(4),
            3 => top - 1 - self.below(4),
            4 => self.below(top + 1),
            5 => top / 2 + self.below(70),
            6 => top / 4 + self.below(4),
            _ => top / 2 + 12 - self.below(24),
        }
    }

    fn single(&mut self) -> u32 {
        let sign = self.bits() as u32 & 1;
        sign << 31 | (self.exponent(8) as u32) << 23 | (self.significand() >> 41) as u32
    }

    fn double(&mut self) -> u64 {
        (self.bits() & 1) << 63 | self.exponent(11) << 52 | self.significand() >> 12
    }

    fn singles(&mut self) -> u128 {
        (0..4).fold(0, |vector, _| vector << 32 | u128::from(self.single()))
    }

    /// Doubles, some of which are near the range of singles or halves of integers.
    fn doubles(&mut self) -> u128 {
        let mut one = || match self.below(8) {
            0 => f64::from(f32::from_bits(self.single())).to_bits() ^ self.below(3) << 28,
            1 => ((self.word() as i64 >> self.below(64)) as f64 / 2.0).to_bits(),
            2 => f64::to_bits(2_147_483_647.0 + self.below(9) as f64 / 4.0) | self.bits() & 1 << 63,
            _ => self.double(),
        };
        u128::from(one()) << 64 | u128::from(one())
    }

    /// Text: few different letters, with ends.
    fn text(&mut self) -> u128 {
        let shift = if self.below(2) == 0 { 8 } else { 16 };
        let letters = 2 + self.below(4) as u128;
        let signs = if self.below(3) == 0 { 0x7d } else { 0 };
        (0..128 / shift).fold(0, |vector, _| {
            vector << shift | (u128::from(self.bits()) % letters + signs) & ((1 << shift) - 1)
        })
    }
}

fn turns(ordinary: u64) -> u64 {
    let factor = std::env::var("RIAD_ORACLE_CASES").ok().and_then(|text| text.parse().ok());
    ordinary.saturating_mul(factor.unwrap_or(1))
}

/// A processor in 64-bit mode with SSE on and flat, unpaged memory.
fn processor() -> SoftVcpu {
    let memory = GuestMemory::new(&[(Gpa(0), 0x10000)]).expect("64 KiB");
    let clock = Arc::new(ManualClock::new(0));
    let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
    let mut vcpu = SoftEngine::new(memory, clock, config).vcpu(0, Arc::new(Nowhere));
    let cpu = &mut vcpu.cpu;
    cpu.control.cr0 = cr0::PE | cr0::NE | cr0::ET;
    cpu.control.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT;
    cpu.mode = Mode::Long;
    cpu.flat = true;
    vcpu
}

fn decode(bytes: &[u8]) -> Op {
    let instruction = iced_x86::Decoder::new(64, bytes, 0).decode();
    lower(&instruction, Mode::Long)
}

/// Makes #XM in an instruction of a [`Case`] go on at the address in R10 with 1 in R11.
fn catch_exceptions() {
    extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel gives a context, which this thread alone uses.
        let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
        let registers = &mut context.uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] = registers[libc::REG_R10 as usize];
        registers[libc::REG_R11 as usize] = 1;
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a function of the three-argument kind; an empty mask is a mask.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGFPE, &raw const action, std::ptr::null_mut()), 0);
        }
    });
}

/// Runs an instruction on the software processor.
fn soft(cpu: &mut Cpu, op: &Op, state: &mut State) -> Done {
    cpu.fpu.xmm[..3].copy_from_slice(&state.xmm);
    cpu.regs[gpr::RAX] = state.rax;
    cpu.regs[gpr::RCX] = state.rcx;
    cpu.regs[gpr::RDX] = state.rdx;
    cpu.regs[gpr::RDI] = DATA;
    cpu.flags = Flags::from_rflags(state.rflags);
    cpu.fpu.mxcsr = state.mxcsr;
    cpu.memory.write(Gpa(DATA), &state.memory).expect("in RAM");
    let done = (op.exec)(cpu, op);
    state.xmm.copy_from_slice(&cpu.fpu.xmm[..3]);
    state.rax = cpu.regs[gpr::RAX];
    state.rcx = cpu.regs[gpr::RCX];
    state.rdx = cpu.regs[gpr::RDX];
    state.rflags = cpu.flags.rflags();
    state.mxcsr = cpu.fpu.mxcsr;
    cpu.memory.read(Gpa(DATA), &mut state.memory).expect("in RAM");
    done
}

/// Compares software and host on random states whose vectors come from `operands`.
fn check(cases: impl IntoIterator<Item = Case>, operands: fn(&mut Random) -> u128) {
    check_by(cases, operands, |a, b| a == b);
}

fn check_by(
    cases: impl IntoIterator<Item = Case>,
    operands: fn(&mut Random) -> u128,
    same: fn(&State, &State) -> bool,
) {
    catch_exceptions();
    let mut vcpu = processor();
    let mut random = Random(0x5eed);
    for case in cases {
        let mut op = None;
        for _ in 0..turns(5_000) {
            let mut before = State {
                xmm: std::array::from_fn(|_| operands(&mut random)),
                rax: random.word(),
                rcx: random.word(),
                rdx: random.word(),
                rflags: 0x202 | random.bits() & STATUS,
                mxcsr: 0x1f80 | random.bits() as u32 & 0x3f,
                host_mxcsr: [0; 3],
                memory: [0; 32],
            };
            if random.below(3) == 0 {
                before.xmm[1] =
                    before.xmm[0] ^ random.integers() & random.integers() & operands(&mut random);
            }
            if random.below(8) == 0 {
                before.rax %= 20;
                before.rdx %= 20;
            }
            if random.below(2) == 0 {
                before.mxcsr |= random.bits() as u32 & 0xe040;
            }
            if random.below(8) == 0 {
                before.mxcsr &= !(random.bits() as u32 & 0x1f80);
            }
            before.memory[..16].copy_from_slice(&before.xmm[1].to_le_bytes());
            before.memory[16..].copy_from_slice(&operands(&mut random).to_le_bytes());

            let mut expected = before;
            let Ran { start, end, faulted } = (case.run)(&mut expected);
            expected.host_mxcsr = [0; 3];
            expected.rflags &= STATUS;
            let op = op.get_or_insert_with(|| {
                // SAFETY: the bytes between the labels, in this program's text.
                let bytes = unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) };
                decode(bytes)
            });
            let mut got = before;
            let done = soft(&mut vcpu.cpu, op, &mut got);
            got.rflags &= STATUS;
            let expected_done = if faulted { Err(Fault::XM) } else { Ok(()) };
            assert!(
                done == expected_done && same(&got, &expected),
                "{}: {done:?}, the host {expected_done:?}\nfrom {before:x?}\ngot  {got:x?}\nhost {expected:x?}",
                case.text
            );
        }
    }
}
