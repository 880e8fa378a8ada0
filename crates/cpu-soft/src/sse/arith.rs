//! Floating point arithmetic: lane by lane, across lanes, dot products, rounding.
//!
//! Intel SDM volume 1, sections 10.4.1.2, 11.4.1.2, 12.3 (SSE3) and 12.8.3 to 12.8.5 (SSE4.1);
//! section 11.5 for exceptions.

use iced_x86::Code;

use super::lanes::{LOW_64, join, merge, pd, ps, sd, split, ss};
use crate::op::{Exec, Op};
use crate::softfloat::{
    Env, F32, F64, Format, Rounding, add_f32, add_f64, div_f32, div_f64, max, min, mul_f32,
    mul_f64, rcp, round_to_integral, rsqrt, sqrt_f32, sqrt_f64, sub_f32, sub_f64,
};

/// The handler of a floating point instruction, or `None`.
pub(super) fn select(code: Code, op: &Op) -> Option<Exec> {
    arithmetic(code, op)
        .or_else(|| unary(code, op))
        .or_else(|| horizontal(code, op))
        .or_else(|| rounding(code, op))
}

/// A format that the host compares as the guest does, but for NaNs and denormals.
pub(super) trait Host: Format {
    /// The host's type.
    type Float: PartialOrd;
    /// Whether this is zero or a normal number.
    fn is_plain(self) -> bool;
    /// The host's number.
    fn float(self) -> Self::Float;
}

macro_rules! host {
    ($($format:ident, $bits:ty, $float:ty;)*) => {$(
        impl Host for $format {
            type Float = $float;
            #[inline(always)]
            fn is_plain(self) -> bool {
                let magnitude = self.0 << 1;
                let field = magnitude >> $format::BITS;
                magnitude == 0 || field.wrapping_sub(1) < <$bits>::from($format::SPECIAL as u16) - 1
            }
            #[inline(always)]
            fn float(self) -> $float {
                <$float>::from_bits(self.0)
            }
        }
    )*};
}

host! { F32, u32, f32; F64, u64, f64; }

/// The second unless the first is less.
#[inline(always)]
fn smaller<F: Host>(a: F, b: F, env: &mut Env) -> F {
    if a.is_plain() && b.is_plain() {
        return if a.float() < b.float() { a } else { b };
    }
    min(a, b, env)
}

/// The second unless the first is greater.
#[inline(always)]
fn larger<F: Host>(a: F, b: F, env: &mut Env) -> F {
    if a.is_plain() && b.is_plain() {
        return if a.float() > b.float() { a } else { b };
    }
    max(a, b, env)
}

table! {
    /// Two operands, lane by lane.
    arithmetic -> into_xmm;
    Addps_xmm_xmmm128: Aligned => |a, b, _, env| ps(a, b, env, add_f32);
    Addpd_xmm_xmmm128: Aligned => |a, b, _, env| pd(a, b, env, add_f64);
    Addss_xmm_xmmm32: Low32 => |a, b, _, env| ss(a, b, env, add_f32);
    Addsd_xmm_xmmm64: Low64 => |a, b, _, env| sd(a, b, env, add_f64);
    Subps_xmm_xmmm128: Aligned => |a, b, _, env| ps(a, b, env, sub_f32);
    Subpd_xmm_xmmm128: Aligned => |a, b, _, env| pd(a, b, env, sub_f64);
    Subss_xmm_xmmm32: Low32 => |a, b, _, env| ss(a, b, env, sub_f32);
    Subsd_xmm_xmmm64: Low64 => |a, b, _, env| sd(a, b, env, sub_f64);
    Mulps_xmm_xmmm128: Aligned => |a, b, _, env| ps(a, b, env, mul_f32);
    Mulpd_xmm_xmmm128: Aligned => |a, b, _, env| pd(a, b, env, mul_f64);
    Mulss_xmm_xmmm32: Low32 => |a, b, _, env| ss(a, b, env, mul_f32);
    Mulsd_xmm_xmmm64: Low64 => |a, b, _, env| sd(a, b, env, mul_f64);
    Divps_xmm_xmmm128: Aligned => |a, b, _, env| ps(a, b, env, div_f32);
    Divpd_xmm_xmmm128: Aligned => |a, b, _, env| pd(a, b, env, div_f64);
    Divss_xmm_xmmm32: Low32 => |a, b, _, env| ss(a, b, env, div_f32);
    Divsd_xmm_xmmm64: Low64 => |a, b, _, env| sd(a, b, env, div_f64);
    Minps_xmm_xmmm128: Aligned => |a, b, _, env| ps(a, b, env, smaller);
    Minpd_xmm_xmmm128: Aligned => |a, b, _, env| pd(a, b, env, smaller);
    Minss_xmm_xmmm32: Low32 => |a, b, _, env| ss(a, b, env, smaller);
    Minsd_xmm_xmmm64: Low64 => |a, b, _, env| sd(a, b, env, smaller);
    Maxps_xmm_xmmm128: Aligned => |a, b, _, env| ps(a, b, env, larger);
    Maxpd_xmm_xmmm128: Aligned => |a, b, _, env| pd(a, b, env, larger);
    Maxss_xmm_xmmm32: Low32 => |a, b, _, env| ss(a, b, env, larger);
    Maxsd_xmm_xmmm64: Low64 => |a, b, _, env| sd(a, b, env, larger);
}

table! {
    /// One operand, lane by lane. The approximations report no exceptions.
    unary -> into_xmm;
    Sqrtps_xmm_xmmm128: Aligned => |a, b, _, env| ps(a, b, env, |_, b, env| sqrt_f32(b, env));
    Sqrtpd_xmm_xmmm128: Aligned => |a, b, _, env| pd(a, b, env, |_, b, env| sqrt_f64(b, env));
    Sqrtss_xmm_xmmm32: Low32 => |a, b, _, env| ss(a, b, env, |_, b, env| sqrt_f32(b, env));
    Sqrtsd_xmm_xmmm64: Low64 => |a, b, _, env| sd(a, b, env, |_, b, env| sqrt_f64(b, env));
    Rcpps_xmm_xmmm128: Aligned => |a, b, _, env| ps(a, b, env, |_, b, _| rcp(b));
    Rcpss_xmm_xmmm32: Low32 => |a, b, _, env| ss(a, b, env, |_, b, _| rcp(b));
    Rsqrtps_xmm_xmmm128: Aligned => |a, b, _, env| ps(a, b, env, |_, b, _| rsqrt(b));
    Rsqrtss_xmm_xmmm32: Low32 => |a, b, _, env| ss(a, b, env, |_, b, _| rsqrt(b));
}

/// The even lanes of four pairs of neighbours, and the odd ones.
#[inline(always)]
fn single_pairs(a: u128, b: u128) -> (u128, u128) {
    let (a, b): ([u32; 4], [u32; 4]) = (split(a), split(b));
    let even = join([a[0], a[2], b[0], b[2]]);
    (even, join([a[1], a[3], b[1], b[3]]))
}

/// The lower doubles, and the upper ones.
#[inline(always)]
fn double_pairs(a: u128, b: u128) -> (u128, u128) {
    (a & LOW_64 | b << 64, merge(b, a >> 64, LOW_64))
}

/// Subtracts in even lanes and adds in odd ones.
#[inline(always)]
fn addsubps(a: u128, b: u128, env: &mut Env) -> u128 {
    // Lane by lane in order: a difference and a sum may not report each other's exceptions.
    let (a, b): ([u32; 4], [u32; 4]) = (split(a), split(b));
    join::<[u32; 4]>(std::array::from_fn(|i| {
        let (a, b) = (F32(a[i]), F32(b[i]));
        if i & 1 == 0 { sub_f32(a, b, env).0 } else { add_f32(a, b, env).0 }
    }))
}

#[inline(always)]
fn addsubpd(a: u128, b: u128, env: &mut Env) -> u128 {
    let low = sub_f64(F64(a as u64), F64(b as u64), env);
    let high = add_f64(F64((a >> 64) as u64), F64((b >> 64) as u64), env);
    u128::from(low.0) | u128::from(high.0) << 64
}

/// Whether the instruction stops here, with an unmasked exception in an earlier one of its steps.
#[inline(always)]
fn stops(env: &Env) -> bool {
    !env.flags.is_empty() && env.settle().fault
}

/// The dot product of the singles named by the immediate's high bits, put where its low bits say
/// (DPPS). Products are added in pairs, in every lane: sums of the same numbers, but where there is
/// more than one NaN the lanes differ in which comes first.
fn dpps(a: u128, b: u128, imm: u8, env: &mut Env) -> u128 {
    let (a, b): ([u32; 4], [u32; 4]) = (split(a), split(b));
    let product: [u32; 4] = std::array::from_fn(|i| {
        if imm >> (4 + i) & 1 != 0 { mul_f32(F32(a[i]), F32(b[i]), env).0 } else { 0 }
    });
    if stops(env) {
        return 0;
    }
    let pair: [u32; 4] =
        std::array::from_fn(|i| add_f32(F32(product[i ^ 1]), F32(product[i]), env).0);
    if stops(env) {
        return 0;
    }
    join::<[u32; 4]>(std::array::from_fn(|i| {
        let sum = add_f32(F32(pair[i]), F32(pair[i ^ 2]), env).0;
        if imm >> i & 1 != 0 { sum } else { 0 }
    }))
}

/// The same on doubles (DPPD).
fn dppd(a: u128, b: u128, imm: u8, env: &mut Env) -> u128 {
    let (a, b): ([u64; 2], [u64; 2]) = (split(a), split(b));
    let product: [F64; 2] = std::array::from_fn(|i| {
        if imm >> (4 + i) & 1 != 0 { mul_f64(F64(a[i]), F64(b[i]), env) } else { F64(0) }
    });
    if stops(env) {
        return 0;
    }
    join::<[u64; 2]>(std::array::from_fn(|i| {
        let sum = add_f64(product[i], product[i ^ 1], env).0;
        if imm >> i & 1 != 0 { sum } else { 0 }
    }))
}

table! {
    /// Across lanes.
    horizontal -> into_xmm;
    Haddps_xmm_xmmm128: Aligned => |a, b, _, env| {
        let (even, odd) = single_pairs(a, b);
        ps(even, odd, env, add_f32)
    };
    Haddpd_xmm_xmmm128: Aligned => |a, b, _, env| {
        let (even, odd) = double_pairs(a, b);
        pd(even, odd, env, add_f64)
    };
    Hsubps_xmm_xmmm128: Aligned => |a, b, _, env| {
        let (even, odd) = single_pairs(a, b);
        ps(even, odd, env, sub_f32)
    };
    Hsubpd_xmm_xmmm128: Aligned => |a, b, _, env| {
        let (even, odd) = double_pairs(a, b);
        pd(even, odd, env, sub_f64)
    };
    Addsubps_xmm_xmmm128: Aligned => |a, b, _, env| addsubps(a, b, env);
    Addsubpd_xmm_xmmm128: Aligned => |a, b, _, env| addsubpd(a, b, env);
    Dpps_xmm_xmmm128_imm8: Aligned => |a, b, imm, env| dpps(a, b, imm, env);
    Dppd_xmm_xmmm128_imm8: Aligned => |a, b, imm, env| dppd(a, b, imm, env);
}

/// Rounds as bits 0 to 1 of the immediate say, or MXCSR if bit 2 is set; bit 3 keeps quiet about
/// what was lost.
#[inline(always)]
fn round<F: Format>(b: F, imm: u8, env: &mut Env) -> F {
    let rounding = if imm & 4 != 0 { env.rounding } else { Rounding::from_bits(imm.into()) };
    round_to_integral(b, rounding, imm & 8 == 0, env)
}

table! {
    /// To integers that stay floating point numbers.
    rounding -> into_xmm;
    Roundps_xmm_xmmm128_imm8: Aligned => |a, b, imm, env| {
        ps(a, b, env, |_, b, env| round(b, imm, env))
    };
    Roundpd_xmm_xmmm128_imm8: Aligned => |a, b, imm, env| {
        pd(a, b, env, |_, b, env| round(b, imm, env))
    };
    Roundss_xmm_xmmm32_imm8: Low32 => |a, b, imm, env| {
        ss(a, b, env, |_, b, env| round(b, imm, env))
    };
    Roundsd_xmm_xmmm64_imm8: Low64 => |a, b, imm, env| {
        sd(a, b, env, |_, b, env| round(b, imm, env))
    };
}
