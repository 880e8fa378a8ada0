//! Loads, stores and moves, and what reads a vector into a general register.
//!
//! Intel SDM volume 1, sections 10.4.1.1, 11.4.1.1, 11.4.2 and 12.8.2 (non-temporal load). Hints
//! about caching mean nothing here: non-temporal moves are moves.

use iced_x86::Code;

use super::lanes::{LOW_32, LOW_64, merge};
use super::{ready, set_xmm, xmm};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op, gpr};

/// The handler of a move, or `None`.
pub(super) fn select(code: Code, op: &Op) -> Option<Exec> {
    loads(code, op).or_else(|| masks(code, op)).or_else(|| stores(code, op.has_memory()))
}

table! {
    /// What ends in an XMM register.
    loads -> into_xmm;
    Movaps_xmm_xmmm128: Aligned => |_, b| b;
    Movapd_xmm_xmmm128: Aligned => |_, b| b;
    Movdqa_xmm_xmmm128: Aligned => |_, b| b;
    Movntdqa_xmm_m128: Aligned => |_, b| b;
    Movups_xmm_xmmm128: Unaligned => |_, b| b;
    Movupd_xmm_xmmm128: Unaligned => |_, b| b;
    Movdqu_xmm_xmmm128: Unaligned => |_, b| b;
    Lddqu_xmm_m128: Unaligned => |_, b| b;
    Movd_xmm_rm32: General32 => |_, b| b & LOW_32;
    Movq_xmm_rm64: General64 => |_, b| b;
    Movq_xmm_xmmm64: Low64 => |_, b| b & LOW_64;
    Movlps_xmm_m64: Low64 => |a, b| merge(a, b, LOW_64);
    Movlpd_xmm_m64: Low64 => |a, b| merge(a, b, LOW_64);
    Movhps_xmm_m64: Low64 => |a, b| a & LOW_64 | b << 64;
    Movhpd_xmm_m64: Low64 => |a, b| a & LOW_64 | b << 64;
    Movlhps_xmm_xmm: Low64 => |a, b| a & LOW_64 | b << 64;
    Movhlps_xmm_xmm: Unaligned => |a, b| merge(a, b >> 64, LOW_64);
    Movddup_xmm_xmmm64: Low64 => |_, b| b & LOW_64 | b << 64;
    Movsldup_xmm_xmmm128: Aligned => |_, b| {
        let even = b & (LOW_32 << 64 | LOW_32);
        even | even << 32
    };
    Movshdup_xmm_xmmm128: Aligned => |_, b| {
        let odd = b >> 32 & (LOW_32 << 64 | LOW_32);
        odd | odd << 32
    };
}

/// The top bit of each byte of a word, gathered in its low 8 bits.
#[inline(always)]
const fn byte_signs(word: u64) -> u64 {
    // The multiplier brings bit 8i to bit 56 + i; no two products meet.
    (word >> 7 & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[inline(always)]
const fn pmovmskb(b: u128) -> u128 {
    (byte_signs(b as u64) | byte_signs((b >> 64) as u64) << 8) as u128
}

#[inline(always)]
const fn movmskps(b: u128) -> u128 {
    b >> 31 & 1 | b >> 62 & 2 | b >> 93 & 4 | b >> 124 & 8
}

#[inline(always)]
const fn movmskpd(b: u128) -> u128 {
    b >> 63 & 1 | b >> 126 & 2
}

table! {
    /// What gathers bits of a vector in a general register.
    masks -> into_general;
    Pmovmskb_r32_xmm: Unaligned => |_, b| pmovmskb(b);
    Pmovmskb_r64_xmm: Unaligned => |_, b| pmovmskb(b);
    Movmskps_r32_xmm: Unaligned => |_, b| movmskps(b);
    Movmskps_r64_xmm: Unaligned => |_, b| movmskps(b);
    Movmskpd_r32_xmm: Unaligned => |_, b| movmskpd(b);
    Movmskpd_r64_xmm: Unaligned => |_, b| movmskpd(b);
    Pextrw_r32_xmm_imm8: Unaligned => |_, b, imm| b >> ((imm & 7) * 16) & 0xffff;
    Pextrw_r64_xmm_imm8: Unaligned => |_, b, imm| b >> ((imm & 7) * 16) & 0xffff;
}

/// What ends in memory, or in an operand 0 that may be memory.
fn stores(code: Code, memory: bool) -> Option<Exec> {
    Some(match (code, memory) {
        (Code::Movaps_xmmm128_xmm | Code::Movapd_xmmm128_xmm | Code::Movdqa_xmmm128_xmm, true)
        | (Code::Movntps_m128_xmm | Code::Movntpd_m128_xmm | Code::Movntdq_m128_xmm, _) => {
            store_aligned
        }
        (Code::Movups_xmmm128_xmm | Code::Movupd_xmmm128_xmm | Code::Movdqu_xmmm128_xmm, true) => {
            store_unaligned
        }
        (
            Code::Movaps_xmmm128_xmm
            | Code::Movapd_xmmm128_xmm
            | Code::Movdqa_xmmm128_xmm
            | Code::Movups_xmmm128_xmm
            | Code::Movupd_xmmm128_xmm
            | Code::Movdqu_xmmm128_xmm,
            false,
        ) => copy,
        (Code::Movss_xmm_xmmm32, true) => load_single,
        (Code::Movsd_xmm_xmmm64, true) => load_double,
        (Code::Movss_xmm_xmmm32 | Code::Movss_xmmm32_xmm, false) => copy_single,
        (Code::Movsd_xmm_xmmm64 | Code::Movsd_xmmm64_xmm, false) => copy_double,
        (Code::Movss_xmmm32_xmm | Code::Movd_rm32_xmm, true) => extract::<u32, false, true>,
        (
            Code::Movsd_xmmm64_xmm
            | Code::Movq_rm64_xmm
            | Code::Movq_xmmm64_xmm
            | Code::Movlps_m64_xmm
            | Code::Movlpd_m64_xmm,
            true,
        ) => extract::<u64, false, true>,
        (Code::Movhps_m64_xmm | Code::Movhpd_m64_xmm, _) => store_high,
        (Code::Movq_xmmm64_xmm, false) => copy_low,
        (Code::Movd_rm32_xmm, false) => extract::<u32, false, false>,
        (Code::Movq_rm64_xmm, false) => extract::<u64, false, false>,
        (Code::Pextrb_r32m8_xmm_imm8 | Code::Pextrb_r64m8_xmm_imm8, true) => {
            extract::<u8, true, true>
        }
        (Code::Pextrb_r32m8_xmm_imm8 | Code::Pextrb_r64m8_xmm_imm8, false) => {
            extract::<u8, true, false>
        }
        (Code::Pextrw_r32m16_xmm_imm8 | Code::Pextrw_r64m16_xmm_imm8, true) => {
            extract::<u16, true, true>
        }
        (Code::Pextrw_r32m16_xmm_imm8 | Code::Pextrw_r64m16_xmm_imm8, false) => {
            extract::<u16, true, false>
        }
        (
            Code::Pextrd_rm32_xmm_imm8
            | Code::Extractps_rm32_xmm_imm8
            | Code::Extractps_r64m32_xmm_imm8,
            true,
        ) => extract::<u32, true, true>,
        (
            Code::Pextrd_rm32_xmm_imm8
            | Code::Extractps_rm32_xmm_imm8
            | Code::Extractps_r64m32_xmm_imm8,
            false,
        ) => extract::<u32, true, false>,
        (Code::Pextrq_rm64_xmm_imm8, true) => extract::<u64, true, true>,
        (Code::Pextrq_rm64_xmm_imm8, false) => extract::<u64, true, false>,
        (Code::Maskmovdqu_rDI_xmm_xmm, _) => maskmovdqu,
        (Code::Movnti_m32_r32, _) => movnti::<u32>,
        (Code::Movnti_m64_r64, _) => movnti::<u64>,
        _ => return None,
    })
}

fn store_aligned(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    cpu.store_aligned(op, xmm(cpu, op.reg[1]))
}

fn store_unaligned(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    cpu.store(op, xmm(cpu, op.reg[1]))
}

fn copy(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    set_xmm(cpu, op.reg[0], xmm(cpu, op.reg[1]));
    Ok(())
}

/// MOVSS from memory clears the rest of the register.
fn load_single(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let value: u32 = cpu.load(op)?;
    set_xmm(cpu, op.reg[0], value.into());
    Ok(())
}

/// MOVSD from memory clears the rest of the register.
fn load_double(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let value: u64 = cpu.load(op)?;
    set_xmm(cpu, op.reg[0], value.into());
    Ok(())
}

/// MOVSS between registers leaves the rest of the destination.
fn copy_single(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    set_xmm(cpu, op.reg[0], merge(xmm(cpu, op.reg[0]), xmm(cpu, op.reg[1]), LOW_32));
    Ok(())
}

/// MOVSD between registers leaves the rest of the destination.
fn copy_double(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    set_xmm(cpu, op.reg[0], merge(xmm(cpu, op.reg[0]), xmm(cpu, op.reg[1]), LOW_64));
    Ok(())
}

/// MOVQ between registers clears the rest of the destination.
fn copy_low(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    set_xmm(cpu, op.reg[0], xmm(cpu, op.reg[1]) & LOW_64);
    Ok(())
}

fn store_high(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    cpu.store(op, (xmm(cpu, op.reg[1]) >> 64) as u64)
}

/// Stores the lane the immediate names (lane 0 without one), or puts it zero-extended into a
/// general register.
fn extract<T: crate::word::Word + crate::mem::Mem, const INDEXED: bool, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Done {
    ready(cpu)?;
    let lane = if INDEXED { op.imm as u32 & (16 / T::BYTES as u32 - 1) } else { 0 };
    let value = T::low((xmm(cpu, op.reg[1]) >> (lane * T::BITS)) as u64);
    if MEMORY {
        return cpu.store(op, value);
    }
    cpu.set::<u64>(op.reg[0], value.zx());
    Ok(())
}

/// MOVNTI works on general registers, whether or not SSE may be used.
fn movnti<T: crate::word::Word + crate::mem::Mem>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.store(op, cpu.get::<T>(op.reg[1]))
}

/// MASKMOVDQU: the bytes of operand 1 whose byte of operand 2 has its top bit set go to DS:RDI.
///
/// Bytes that are not selected are not touched, so that another processor may own them.
fn maskmovdqu(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let bytes = xmm(cpu, op.reg[1]).to_le_bytes();
    let mask = pmovmskb(xmm(cpu, op.reg[2])) as u16;
    if mask == 0 {
        return Ok(());
    }
    let offset = match op.address {
        8 => cpu.regs[gpr::RDI],
        4 => cpu.regs[gpr::RDI] & 0xffff_ffff,
        _ => cpu.regs[gpr::RDI] & 0xffff,
    };
    let start = cpu.segmented(op.seg, offset, 16, true)?;
    let (first, last) = (mask.trailing_zeros(), 15 - mask.leading_zeros());
    cpu.check_write(op.seg, start.wrapping_add(first.into()), (last - first + 1) as usize)?;
    for (i, byte) in (0u64..).zip(bytes) {
        if mask >> i & 1 != 0 {
            cpu.write(op.seg, start.wrapping_add(i), byte)?;
        }
    }
    Ok(())
}
