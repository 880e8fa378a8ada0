//! Packed integer arithmetic, logic and shifts.
//!
//! Intel SDM volume 1, sections 11.4.2 (SSE2), 12.6 (SSSE3) and 12.10 (SSE4.1). The logic of
//! floating point vectors (ANDPS, ...) is the same as that of integers and is here too.

use iced_x86::Code;

use super::lanes::{each, join, map, split};
use crate::op::{Exec, Op};

/// The handler of a packed integer instruction, or `None`.
pub(super) fn select(code: Code, op: &Op) -> Option<Exec> {
    arithmetic(code, op)
        .or_else(|| products(code, op))
        .or_else(|| logic(code, op))
        .or_else(|| shifts(code, op))
        .or_else(|| horizontal(code, op))
}

table! {
    /// Lane by lane.
    arithmetic -> into_xmm;
    Paddb_xmm_xmmm128: Aligned => |a, b| each(a, b, u8::wrapping_add);
    Paddw_xmm_xmmm128: Aligned => |a, b| each(a, b, u16::wrapping_add);
    Paddd_xmm_xmmm128: Aligned => |a, b| each(a, b, u32::wrapping_add);
    Paddq_xmm_xmmm128: Aligned => |a, b| each(a, b, u64::wrapping_add);
    Paddsb_xmm_xmmm128: Aligned => |a, b| each(a, b, i8::saturating_add);
    Paddsw_xmm_xmmm128: Aligned => |a, b| each(a, b, i16::saturating_add);
    Paddusb_xmm_xmmm128: Aligned => |a, b| each(a, b, u8::saturating_add);
    Paddusw_xmm_xmmm128: Aligned => |a, b| each(a, b, u16::saturating_add);
    Psubb_xmm_xmmm128: Aligned => |a, b| each(a, b, u8::wrapping_sub);
    Psubw_xmm_xmmm128: Aligned => |a, b| each(a, b, u16::wrapping_sub);
    Psubd_xmm_xmmm128: Aligned => |a, b| each(a, b, u32::wrapping_sub);
    Psubq_xmm_xmmm128: Aligned => |a, b| each(a, b, u64::wrapping_sub);
    Psubsb_xmm_xmmm128: Aligned => |a, b| each(a, b, i8::saturating_sub);
    Psubsw_xmm_xmmm128: Aligned => |a, b| each(a, b, i16::saturating_sub);
    Psubusb_xmm_xmmm128: Aligned => |a, b| each(a, b, u8::saturating_sub);
    Psubusw_xmm_xmmm128: Aligned => |a, b| each(a, b, u16::saturating_sub);
    Pminub_xmm_xmmm128: Aligned => |a, b| each(a, b, <u8 as Ord>::min);
    Pminuw_xmm_xmmm128: Aligned => |a, b| each(a, b, <u16 as Ord>::min);
    Pminud_xmm_xmmm128: Aligned => |a, b| each(a, b, <u32 as Ord>::min);
    Pminsb_xmm_xmmm128: Aligned => |a, b| each(a, b, <i8 as Ord>::min);
    Pminsw_xmm_xmmm128: Aligned => |a, b| each(a, b, <i16 as Ord>::min);
    Pminsd_xmm_xmmm128: Aligned => |a, b| each(a, b, <i32 as Ord>::min);
    Pmaxub_xmm_xmmm128: Aligned => |a, b| each(a, b, <u8 as Ord>::max);
    Pmaxuw_xmm_xmmm128: Aligned => |a, b| each(a, b, <u16 as Ord>::max);
    Pmaxud_xmm_xmmm128: Aligned => |a, b| each(a, b, <u32 as Ord>::max);
    Pmaxsb_xmm_xmmm128: Aligned => |a, b| each(a, b, <i8 as Ord>::max);
    Pmaxsw_xmm_xmmm128: Aligned => |a, b| each(a, b, <i16 as Ord>::max);
    Pmaxsd_xmm_xmmm128: Aligned => |a, b| each(a, b, <i32 as Ord>::max);
    Pavgb_xmm_xmmm128: Aligned => |a, b| {
        each(a, b, |x: u8, y| ((u16::from(x) + u16::from(y) + 1) >> 1) as u8)
    };
    Pavgw_xmm_xmmm128: Aligned => |a, b| {
        each(a, b, |x: u16, y| ((u32::from(x) + u32::from(y) + 1) >> 1) as u16)
    };
    Pabsb_xmm_xmmm128: Aligned => |_, b| map(b, i8::wrapping_abs);
    Pabsw_xmm_xmmm128: Aligned => |_, b| map(b, i16::wrapping_abs);
    Pabsd_xmm_xmmm128: Aligned => |_, b| map(b, i32::wrapping_abs);
    Psignb_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i8, y| x.wrapping_mul(y.signum()));
    Psignw_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i16, y| x.wrapping_mul(y.signum()));
    Psignd_xmm_xmmm128: Aligned => |a, b| each(a, b, |x: i32, y| x.wrapping_mul(y.signum()));
}

/// The sums of the products of neighbours (PMADDWD).
#[inline(always)]
fn multiply_add(a: u128, b: u128) -> u128 {
    let (a, b): ([i16; 8], [i16; 8]) = (split(a), split(b));
    let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
    join::<[i32; 4]>(std::array::from_fn(|i| product(2 * i).wrapping_add(product(2 * i + 1))))
}

/// The saturated sums of the products of neighbours, unsigned by signed (PMADDUBSW).
#[inline(always)]
fn multiply_add_bytes(a: u128, b: u128) -> u128 {
    let (a, b): ([u8; 16], [i8; 16]) = (split(a), split(b));
    // A product of a u8 and an i8 fits in an i16.
    let product = |i: usize| i16::from(a[i]) * i16::from(b[i]);
    join::<[i16; 8]>(std::array::from_fn(|i| product(2 * i).saturating_add(product(2 * i + 1))))
}

table! {
    /// Products and sums of products.
    products -> into_xmm;
    Pmullw_xmm_xmmm128: Aligned => |a, b| each(a, b, u16::wrapping_mul);
    Pmulld_xmm_xmmm128: Aligned => |a, b| each(a, b, u32::wrapping_mul);
    Pmulhw_xmm_xmmm128: Aligned => |a, b| {
        each(a, b, |x: i16, y| ((i32::from(x) * i32::from(y)) >> 16) as i16)
    };
    Pmulhuw_xmm_xmmm128: Aligned => |a, b| {
        each(a, b, |x: u16, y| ((u32::from(x) * u32::from(y)) >> 16) as u16)
    };
    Pmulhrsw_xmm_xmmm128: Aligned => |a, b| {
        each(a, b, |x: i16, y| ((((i32::from(x) * i32::from(y)) >> 14) + 1) >> 1) as i16)
    };
    Pmuludq_xmm_xmmm128: Aligned => |a, b| {
        each(a, b, |x: u64, y| u64::from(x as u32) * u64::from(y as u32))
    };
    Pmuldq_xmm_xmmm128: Aligned => |a, b| {
        each(a, b, |x: i64, y| i64::from(x as i32) * i64::from(y as i32))
    };
    Pmaddwd_xmm_xmmm128: Aligned => |a, b| multiply_add(a, b);
    Pmaddubsw_xmm_xmmm128: Aligned => |a, b| multiply_add_bytes(a, b);
}

table! {
    /// Bit by bit.
    logic -> into_xmm;
    Pand_xmm_xmmm128: Aligned => |a, b| a & b;
    Andps_xmm_xmmm128: Aligned => |a, b| a & b;
    Andpd_xmm_xmmm128: Aligned => |a, b| a & b;
    Pandn_xmm_xmmm128: Aligned => |a, b| !a & b;
    Andnps_xmm_xmmm128: Aligned => |a, b| !a & b;
    Andnpd_xmm_xmmm128: Aligned => |a, b| !a & b;
    Por_xmm_xmmm128: Aligned => |a, b| a | b;
    Orps_xmm_xmmm128: Aligned => |a, b| a | b;
    Orpd_xmm_xmmm128: Aligned => |a, b| a | b;
    Pxor_xmm_xmmm128: Aligned => |a, b| a ^ b;
    Xorps_xmm_xmmm128: Aligned => |a, b| a ^ b;
    Xorpd_xmm_xmmm128: Aligned => |a, b| a ^ b;
}

/// The count of a shift by a vector: its low 64 bits, all large ones alike.
#[inline(always)]
fn count(b: u128) -> u32 {
    (b as u64).min(255) as u32
}

#[inline(always)]
fn psrlw(a: u128, count: u32) -> u128 {
    map(a, |x: u16| x.checked_shr(count).unwrap_or(0))
}

#[inline(always)]
fn psrld(a: u128, count: u32) -> u128 {
    map(a, |x: u32| x.checked_shr(count).unwrap_or(0))
}

#[inline(always)]
fn psrlq(a: u128, count: u32) -> u128 {
    map(a, |x: u64| x.checked_shr(count).unwrap_or(0))
}

#[inline(always)]
fn psraw(a: u128, count: u32) -> u128 {
    map(a, |x: i16| x >> count.min(15))
}

#[inline(always)]
fn psrad(a: u128, count: u32) -> u128 {
    map(a, |x: i32| x >> count.min(31))
}

#[inline(always)]
fn psllw(a: u128, count: u32) -> u128 {
    map(a, |x: u16| x.checked_shl(count).unwrap_or(0))
}

#[inline(always)]
fn pslld(a: u128, count: u32) -> u128 {
    map(a, |x: u32| x.checked_shl(count).unwrap_or(0))
}

#[inline(always)]
fn psllq(a: u128, count: u32) -> u128 {
    map(a, |x: u64| x.checked_shl(count).unwrap_or(0))
}

table! {
    /// Shifts, by a vector and by an immediate.
    shifts -> into_xmm;
    Psrlw_xmm_xmmm128: Aligned => |a, b| psrlw(a, count(b));
    Psrld_xmm_xmmm128: Aligned => |a, b| psrld(a, count(b));
    Psrlq_xmm_xmmm128: Aligned => |a, b| psrlq(a, count(b));
    Psraw_xmm_xmmm128: Aligned => |a, b| psraw(a, count(b));
    Psrad_xmm_xmmm128: Aligned => |a, b| psrad(a, count(b));
    Psllw_xmm_xmmm128: Aligned => |a, b| psllw(a, count(b));
    Pslld_xmm_xmmm128: Aligned => |a, b| pslld(a, count(b));
    Psllq_xmm_xmmm128: Aligned => |a, b| psllq(a, count(b));
    Psrlw_xmm_imm8: Unaligned => |a, _, imm| psrlw(a, imm.into());
    Psrld_xmm_imm8: Unaligned => |a, _, imm| psrld(a, imm.into());
    Psrlq_xmm_imm8: Unaligned => |a, _, imm| psrlq(a, imm.into());
    Psraw_xmm_imm8: Unaligned => |a, _, imm| psraw(a, imm.into());
    Psrad_xmm_imm8: Unaligned => |a, _, imm| psrad(a, imm.into());
    Psllw_xmm_imm8: Unaligned => |a, _, imm| psllw(a, imm.into());
    Pslld_xmm_imm8: Unaligned => |a, _, imm| pslld(a, imm.into());
    Psllq_xmm_imm8: Unaligned => |a, _, imm| psllq(a, imm.into());
    Psrldq_xmm_imm8: Unaligned => |a, _, imm| a.checked_shr(u32::from(imm) * 8).unwrap_or(0);
    Pslldq_xmm_imm8: Unaligned => |a, _, imm| a.checked_shl(u32::from(imm) * 8).unwrap_or(0);
}

/// Neighbours of `a`, then of `b`, each pair made one word.
#[inline(always)]
fn word_pairs(a: u128, b: u128, f: impl Fn(i16, i16) -> i16) -> u128 {
    let (a, b): ([i16; 8], [i16; 8]) = (split(a), split(b));
    let at = |i: usize| if i < 8 { a[i] } else { b[i - 8] };
    join::<[i16; 8]>(std::array::from_fn(|i| f(at(2 * i), at(2 * i + 1))))
}

/// Neighbours of `a`, then of `b`, each pair made one doubleword.
#[inline(always)]
fn dword_pairs(a: u128, b: u128, f: impl Fn(i32, i32) -> i32) -> u128 {
    let (a, b): ([i32; 4], [i32; 4]) = (split(a), split(b));
    join([f(a[0], a[1]), f(a[2], a[3]), f(b[0], b[1]), f(b[2], b[3])])
}

/// The sum of absolute differences of each half (PSADBW).
#[inline(always)]
fn psadbw(a: u128, b: u128) -> u128 {
    let (a, b): ([u8; 16], [u8; 16]) = (split(a), split(b));
    let sum = |from: usize| (from..from + 8).map(|i| u64::from(a[i].abs_diff(b[i]))).sum::<u64>();
    join([sum(0), sum(8)])
}

/// Eight sums of absolute differences of four bytes, sliding along `a` (MPSADBW).
#[inline(always)]
fn mpsadbw(a: u128, b: u128, imm: u8) -> u128 {
    let (a, b): ([u8; 16], [u8; 16]) = (split(a), split(b));
    let from_a = usize::from(imm >> 2 & 1) * 4;
    let from_b = usize::from(imm & 3) * 4;
    let sum = |i: usize| {
        (0..4).map(|j| u16::from(a[from_a + i + j].abs_diff(b[from_b + j]))).sum::<u16>()
    };
    join::<[u16; 8]>(std::array::from_fn(sum))
}

/// The smallest word and, above it, where it first occurs (PHMINPOSUW).
#[inline(always)]
fn phminposuw(b: u128) -> u128 {
    let words: [u16; 8] = split(b);
    let smallest = (0u32..).zip(words).map(|(i, word)| i | u32::from(word) << 16).min();
    smallest.map_or(0, |found| u128::from(found.rotate_left(16)))
}

table! {
    /// Across lanes.
    horizontal -> into_xmm;
    Phaddw_xmm_xmmm128: Aligned => |a, b| word_pairs(a, b, i16::wrapping_add);
    Phaddsw_xmm_xmmm128: Aligned => |a, b| word_pairs(a, b, i16::saturating_add);
    Phaddd_xmm_xmmm128: Aligned => |a, b| dword_pairs(a, b, i32::wrapping_add);
    Phsubw_xmm_xmmm128: Aligned => |a, b| word_pairs(a, b, i16::wrapping_sub);
    Phsubsw_xmm_xmmm128: Aligned => |a, b| word_pairs(a, b, i16::saturating_sub);
    Phsubd_xmm_xmmm128: Aligned => |a, b| dword_pairs(a, b, i32::wrapping_sub);
    Psadbw_xmm_xmmm128: Aligned => |a, b| psadbw(a, b);
    Mpsadbw_xmm_xmmm128_imm8: Aligned => |a, b, imm| mpsadbw(a, b, imm);
    Phminposuw_xmm_xmmm128: Aligned => |_, b| phminposuw(b);
}
