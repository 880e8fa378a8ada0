//! Shuffles, blends, packs, unpacks, inserts and widening moves.
//!
//! Intel SDM volume 1, sections 10.4.4, 11.4.1.5, 11.4.2, 12.6.5 to 12.6.6 and 12.10.

use iced_x86::Code;

use super::lanes::{LOW_32, LOW_64, Lanes, join, map, merge, split};
use super::{ready, set_xmm, source, xmm};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op};

/// The handler of a shuffle, or `None`.
pub(super) fn select(code: Code, op: &Op) -> Option<Exec> {
    shuffles(code, op)
        .or_else(|| packs(code, op))
        .or_else(|| blends(code, op))
        .or_else(|| inserts(code, op))
        .or_else(|| widening(code, op))
        .or_else(|| blends_by_xmm0(code, op.has_memory()))
}

/// The 2-bit field `i` of an immediate.
#[inline(always)]
const fn field(imm: u8, i: usize) -> usize {
    (imm >> (2 * i)) as usize & 3
}

#[inline(always)]
fn pshufb(a: u128, b: u128) -> u128 {
    let (a, b): ([u8; 16], [u8; 16]) = (split(a), split(b));
    join(b.map(|index| if index & 0x80 != 0 { 0 } else { a[usize::from(index & 15)] }))
}

/// Four words of `half` in the order of the immediate.
#[inline(always)]
fn shuffle_words(half: u64, imm: u8) -> u64 {
    (0..4).fold(0, |result, i| result | (half >> (16 * field(imm, i)) & 0xffff) << (16 * i))
}

#[inline(always)]
fn pshufd(b: u128, imm: u8) -> u128 {
    let b: [u32; 4] = split(b);
    join::<[u32; 4]>(std::array::from_fn(|i| b[field(imm, i)]))
}

#[inline(always)]
fn shufps(a: u128, b: u128, imm: u8) -> u128 {
    let (a, b): ([u32; 4], [u32; 4]) = (split(a), split(b));
    join([a[field(imm, 0)], a[field(imm, 1)], b[field(imm, 2)], b[field(imm, 3)]])
}

/// The 16 bytes that lie `imm` bytes up in `a` above `b`.
#[inline(always)]
fn palignr(a: u128, b: u128, imm: u8) -> u128 {
    let shift = u32::from(imm) * 8;
    match shift {
        0 => b,
        1..128 => b >> shift | a << (128 - shift),
        128..256 => a >> (shift - 128),
        _ => 0,
    }
}

table! {
    /// Lanes put in another order.
    shuffles -> into_xmm;
    Pshufb_xmm_xmmm128: Aligned => |a, b| pshufb(a, b);
    Pshufd_xmm_xmmm128_imm8: Aligned => |_, b, imm| pshufd(b, imm);
    Pshuflw_xmm_xmmm128_imm8: Aligned => |_, b, imm| {
        merge(b, shuffle_words(b as u64, imm).into(), LOW_64)
    };
    Pshufhw_xmm_xmmm128_imm8: Aligned => |_, b, imm| {
        b & LOW_64 | u128::from(shuffle_words((b >> 64) as u64, imm)) << 64
    };
    Shufps_xmm_xmmm128_imm8: Aligned => |a, b, imm| shufps(a, b, imm);
    Shufpd_xmm_xmmm128_imm8: Aligned => |a, b, imm| {
        a >> (u32::from(imm & 1) * 64) & LOW_64 | (b >> (u32::from(imm >> 1 & 1) * 64)) << 64
    };
    Palignr_xmm_xmmm128_imm8: Aligned => |a, b, imm| palignr(a, b, imm);
}

/// The lanes of `a` and `b` in turn, from lane `FROM` up.
#[inline(always)]
fn interleave<T: Copy, const N: usize, const FROM: usize>(a: u128, b: u128) -> u128
where
    [T; N]: Lanes,
{
    let (a, b): ([T; N], [T; N]) = (split(a), split(b));
    join::<[T; N]>(std::array::from_fn(
        |i| if i & 1 == 0 { a[FROM + i / 2] } else { b[FROM + i / 2] },
    ))
}

/// The lanes of `a` and then of `b`, each narrowed.
#[inline(always)]
fn narrow<T: Copy, U, const N: usize, const M: usize>(a: u128, b: u128, f: impl Fn(T) -> U) -> u128
where
    [T; N]: Lanes,
    [U; M]: Lanes,
{
    let (a, b): ([T; N], [T; N]) = (split(a), split(b));
    join::<[U; M]>(std::array::from_fn(|i| f(if i < N { a[i] } else { b[i - N] })))
}

#[inline(always)]
fn i16_to_i8(x: i16) -> i8 {
    x.clamp(i8::MIN.into(), i8::MAX.into()) as i8
}

#[inline(always)]
fn i16_to_u8(x: i16) -> u8 {
    x.clamp(0, u8::MAX.into()) as u8
}

#[inline(always)]
fn i32_to_i16(x: i32) -> i16 {
    x.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

#[inline(always)]
fn i32_to_u16(x: i32) -> u16 {
    x.clamp(0, u16::MAX.into()) as u16
}

table! {
    /// Lanes interleaved, and lanes narrowed with saturation.
    packs -> into_xmm;
    Punpcklbw_xmm_xmmm128: Aligned => |a, b| interleave::<u8, 16, 0>(a, b);
    Punpcklwd_xmm_xmmm128: Aligned => |a, b| interleave::<u16, 8, 0>(a, b);
    Punpckldq_xmm_xmmm128: Aligned => |a, b| interleave::<u32, 4, 0>(a, b);
    Punpcklqdq_xmm_xmmm128: Aligned => |a, b| a & LOW_64 | b << 64;
    Punpckhbw_xmm_xmmm128: Aligned => |a, b| interleave::<u8, 16, 8>(a, b);
    Punpckhwd_xmm_xmmm128: Aligned => |a, b| interleave::<u16, 8, 4>(a, b);
    Punpckhdq_xmm_xmmm128: Aligned => |a, b| interleave::<u32, 4, 2>(a, b);
    Punpckhqdq_xmm_xmmm128: Aligned => |a, b| merge(b, a >> 64, LOW_64);
    Unpcklps_xmm_xmmm128: Aligned => |a, b| interleave::<u32, 4, 0>(a, b);
    Unpcklpd_xmm_xmmm128: Aligned => |a, b| a & LOW_64 | b << 64;
    Unpckhps_xmm_xmmm128: Aligned => |a, b| interleave::<u32, 4, 2>(a, b);
    Unpckhpd_xmm_xmmm128: Aligned => |a, b| merge(b, a >> 64, LOW_64);
    Packsswb_xmm_xmmm128: Aligned => |a, b| narrow::<i16, i8, 8, 16>(a, b, i16_to_i8);
    Packuswb_xmm_xmmm128: Aligned => |a, b| narrow::<i16, u8, 8, 16>(a, b, i16_to_u8);
    Packssdw_xmm_xmmm128: Aligned => |a, b| narrow::<i32, i16, 4, 8>(a, b, i32_to_i16);
    Packusdw_xmm_xmmm128: Aligned => |a, b| narrow::<i32, u16, 4, 8>(a, b, i32_to_u16);
}

/// A mask of `N` lanes: bit i of the immediate for all of lane i.
#[inline(always)]
fn lane_mask<const N: usize>(imm: u8) -> u128 {
    let bits = 128 / N as u32;
    let ones = u128::MAX >> (128 - bits);
    (0..N as u32).fold(0, |mask, i| mask | if imm >> i & 1 != 0 { ones << (i * bits) } else { 0 })
}

table! {
    /// Lanes chosen from two vectors by an immediate.
    blends -> into_xmm;
    Blendps_xmm_xmmm128_imm8: Aligned => |a, b, imm| merge(a, b, lane_mask::<4>(imm));
    Blendpd_xmm_xmmm128_imm8: Aligned => |a, b, imm| merge(a, b, lane_mask::<2>(imm));
    Pblendw_xmm_xmmm128_imm8: Aligned => |a, b, imm| merge(a, b, lane_mask::<8>(imm));
}

/// Lanes chosen from two vectors by the top bits of the lanes of XMM0.
fn blends_by_xmm0(code: Code, memory: bool) -> Option<Exec> {
    Some(match (code, memory) {
        (Code::Pblendvb_xmm_xmmm128, false) => blend::<1, false>,
        (Code::Pblendvb_xmm_xmmm128, true) => blend::<1, true>,
        (Code::Blendvps_xmm_xmmm128, false) => blend::<4, false>,
        (Code::Blendvps_xmm_xmmm128, true) => blend::<4, true>,
        (Code::Blendvpd_xmm_xmmm128, false) => blend::<8, false>,
        (Code::Blendvpd_xmm_xmmm128, true) => blend::<8, true>,
        _ => return None,
    })
}

fn blend<const BYTES: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let b = source::<super::Aligned, MEMORY>(cpu, op)?;
    let selector = xmm(cpu, 0);
    let mask = match BYTES {
        1 => map(selector, |x: i8| x >> 7),
        4 => map(selector, |x: i32| x >> 31),
        _ => map(selector, |x: i64| x >> 63),
    };
    set_xmm(cpu, op.reg[0], merge(xmm(cpu, op.reg[0]), b, mask));
    Ok(())
}

/// Replaces the lane of `mask`'s width that `lane` counts.
#[inline(always)]
fn insert(a: u128, value: u128, mask: u128, lane: u8) -> u128 {
    let shift = mask.count_ones() * u32::from(lane);
    merge(a, (value & mask) << shift, mask << shift)
}

/// The single is chosen from a register by bits 6 and 7, put where bits 4 and 5 say, and lanes
/// named by the low bits become zero.
#[inline(always)]
fn insertps(a: u128, value: u128, imm: u8) -> u128 {
    insert(a, value, LOW_32, imm >> 4 & 3) & !lane_mask::<4>(imm)
}

table! {
    /// One lane replaced.
    inserts -> into_xmm;
    Pinsrb_xmm_r32m8_imm8: General8 => |a, b, imm| insert(a, b, 0xff, imm & 15);
    Pinsrb_xmm_r64m8_imm8: General8 => |a, b, imm| insert(a, b, 0xff, imm & 15);
    Pinsrw_xmm_r32m16_imm8: General16 => |a, b, imm| insert(a, b, 0xffff, imm & 7);
    Pinsrw_xmm_r64m16_imm8: General16 => |a, b, imm| insert(a, b, 0xffff, imm & 7);
    Pinsrd_xmm_rm32_imm8: General32 => |a, b, imm| insert(a, b, LOW_32, imm & 3);
    Pinsrq_xmm_rm64_imm8: General64 => |a, b, imm| insert(a, b, LOW_64, imm & 1);
    Insertps_xmm_xmmm32_imm8: ChosenSingle => |a, b, imm| insertps(a, b, imm);
}

/// The low lanes of a vector, each made wider.
#[inline(always)]
fn widen<T: Copy, U, const N: usize, const M: usize>(b: u128, f: impl Fn(T) -> U) -> u128
where
    [T; N]: Lanes,
    [U; M]: Lanes,
{
    let b: [T; N] = split(b);
    join::<[U; M]>(std::array::from_fn(|i| f(b[i])))
}

table! {
    /// Low lanes made wider.
    widening -> into_xmm;
    Pmovsxbw_xmm_xmmm64: Low64 => |_, b| widen::<i8, i16, 16, 8>(b, i16::from);
    Pmovsxbd_xmm_xmmm32: Low32 => |_, b| widen::<i8, i32, 16, 4>(b, i32::from);
    Pmovsxbq_xmm_xmmm16: Low16 => |_, b| widen::<i8, i64, 16, 2>(b, i64::from);
    Pmovsxwd_xmm_xmmm64: Low64 => |_, b| widen::<i16, i32, 8, 4>(b, i32::from);
    Pmovsxwq_xmm_xmmm32: Low32 => |_, b| widen::<i16, i64, 8, 2>(b, i64::from);
    Pmovsxdq_xmm_xmmm64: Low64 => |_, b| widen::<i32, i64, 4, 2>(b, i64::from);
    Pmovzxbw_xmm_xmmm64: Low64 => |_, b| widen::<u8, u16, 16, 8>(b, u16::from);
    Pmovzxbd_xmm_xmmm32: Low32 => |_, b| widen::<u8, u32, 16, 4>(b, u32::from);
    Pmovzxbq_xmm_xmmm16: Low16 => |_, b| widen::<u8, u64, 16, 2>(b, u64::from);
    Pmovzxwd_xmm_xmmm64: Low64 => |_, b| widen::<u16, u32, 8, 4>(b, u32::from);
    Pmovzxwq_xmm_xmmm32: Low32 => |_, b| widen::<u16, u64, 8, 2>(b, u64::from);
    Pmovzxdq_xmm_xmmm64: Low64 => |_, b| widen::<u32, u64, 4, 2>(b, u64::from);
}
