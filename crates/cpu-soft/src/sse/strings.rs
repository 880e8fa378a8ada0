//! The string comparisons of SSE4.2: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM.
//!
//! Intel SDM volume 2B, section 4.1: what the immediate says, which comparisons count beyond the
//! end of a string, and what becomes of the flags.

use iced_x86::Code;
use riad_cpu::x86::rflags::{CF, OF, SF, ZF};

use super::{Unaligned, ready, set_xmm, source, xmm};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op, gpr};

/// The handler of a string comparison, or `None`.
pub(super) fn select(code: Code, op: &Op) -> Option<Exec> {
    macro_rules! pick {
        ($lengths:expr, $into_mask:literal) => {
            if op.has_memory() {
                string_compare::<$lengths, $into_mask, true>
            } else {
                string_compare::<$lengths, $into_mask, false>
            }
        };
    }
    Some(match code {
        Code::Pcmpestri_xmm_xmmm128_imm8 => pick!(IN_EAX, false),
        Code::Pcmpestri64_xmm_xmmm128_imm8 => pick!(IN_RAX, false),
        Code::Pcmpistri_xmm_xmmm128_imm8 => pick!(IMPLICIT, false),
        Code::Pcmpestrm_xmm_xmmm128_imm8 => pick!(IN_EAX, true),
        Code::Pcmpestrm64_xmm_xmmm128_imm8 => pick!(IN_RAX, true),
        Code::Pcmpistrm_xmm_xmmm128_imm8 => pick!(IMPLICIT, true),
        _ => return None,
    })
}

/// Where the lengths of the strings are: each ends at its first zero.
const IMPLICIT: u8 = 0;
/// In EAX and EDX.
const IN_EAX: u8 = 1;
/// In RAX and RDX (REX.W).
const IN_RAX: u8 = 2;

fn string_compare<const LENGTHS: u8, const INTO_MASK: bool, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Done {
    ready(cpu)?;
    let b = source::<Unaligned, MEMORY>(cpu, op)?;
    let a = xmm(cpu, op.reg[0]);
    let imm = op.imm as u8;
    let words = imm & 1 != 0;
    let count = if words { 8 } else { 16 };

    let length = |elements: &[i32; 16], register: usize| match LENGTHS {
        IMPLICIT => elements.iter().take(count).position(|&x| x == 0).unwrap_or(count),
        IN_EAX => (cpu.regs[register] as i32).unsigned_abs().min(16) as usize,
        _ => (cpu.regs[register] as i64).unsigned_abs().min(16) as usize,
    };
    let (x, y) = (elements(a, imm), elements(b, imm));
    let length_a = length(&x, gpr::RAX).min(count);
    let length_b = length(&y, gpr::RDX).min(count);

    let all = (1u32 << count) - 1;
    let found = aggregate(imm, count, &x[..length_a], &y[..length_b]);
    let found = match imm >> 4 & 3 {
        1 => found ^ all,
        // Negated only where the second string is.
        3 => found ^ ((1 << length_b) - 1),
        _ => found,
    };

    if INTO_MASK {
        let mask = match (imm & 0x40 != 0, words) {
            (false, _) => found.into(),
            (true, false) => spread::<16>(found),
            (true, true) => spread::<8>(found),
        };
        set_xmm(cpu, 0, mask);
    } else {
        let index = match found {
            0 => count as u64,
            _ if imm & 0x40 != 0 => 31 - u64::from(found.leading_zeros()),
            _ => u64::from(found.trailing_zeros()),
        };
        cpu.set::<u64>(gpr::RCX as u8, index);
    }
    let flag = |bit: u64, on: bool| if on { bit } else { 0 };
    cpu.flags.set_status(
        flag(CF, found != 0)
            | flag(ZF, length_b < count)
            | flag(SF, length_a < count)
            | flag(OF, found & 1 != 0),
    );
    Ok(())
}

/// The elements of a vector as the immediate's low bits say: bytes or words, unsigned or signed.
fn elements(vector: u128, imm: u8) -> [i32; 16] {
    std::array::from_fn(|i| match imm & 3 {
        0 => i32::from((vector >> (8 * i)) as u8),
        1 => i32::from((vector >> (16 * (i & 7))) as u16),
        2 => i32::from((vector >> (8 * i)) as i8),
        _ => i32::from((vector >> (16 * (i & 7))) as i16),
    })
}

/// Compares as bits 2 and 3 of the immediate say: a bit for each element of `b`, or place in it.
/// The slices end where the strings do; `count` elements would fit.
fn aggregate(imm: u8, count: usize, a: &[i32], b: &[i32]) -> u32 {
    let bits = |holds: &dyn Fn(usize) -> bool| {
        (0..count).fold(0u32, |bits, j| bits | u32::from(holds(j)) << j)
    };
    match imm >> 2 & 3 {
        // Equal any: is it one of the set?
        0 => bits(&|j| b.get(j).is_some_and(|y| a.contains(y))),
        // Ranges: is it within one of the pairs? A pair without its second bound is none.
        1 => bits(&|j| {
            b.get(j).is_some_and(|y| {
                a.chunks_exact(2).any(|pair| matches!(pair, [low, high] if low <= y && y <= high))
            })
        }),
        // Equal each: the same in both, or neither string has it.
        2 => bits(&|j| a.get(j) == b.get(j)),
        // Equal ordered: does all of `a` lie here, as far as the vector goes?
        _ => bits(&|j| a.iter().take(count - j).enumerate().all(|(i, x)| b.get(j + i) == Some(x))),
    }
}

/// Bit i for all of lane i, of `N` lanes.
fn spread<const N: u32>(bits: u32) -> u128 {
    let width = 128 / N;
    let ones = u128::MAX >> (128 - width);
    (0..N).fold(0, |mask, i| mask | if bits >> i & 1 != 0 { ones << (i * width) } else { 0 })
}
