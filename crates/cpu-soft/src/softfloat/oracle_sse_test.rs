//! SSE operations: result bits and MXCSR flags, with all exceptions masked.

#![expect(unsafe_code, reason = "runs the instruction under test on the host's processor")]

use std::arch::asm;

use super::super::{
    Env, F32, F64, Format, Relation, Rounding, add_f32, add_f64, compare, convert, div_f32,
    div_f64, from_int, max, min, mul_f32, mul_f64, rcp, round_to_integral, rsqrt, sqrt_f32,
    sqrt_f64, sub_f32, sub_f64, to_int,
};
use super::{Random, cases};

/// A host instruction: operands and MXCSR in, result and MXCSR out.
type Host = fn(u64, u64, u32) -> (u64, u32);

/// Runs an instruction on xmm0 (the destination, holding `a`), xmm1 (holding `b`) and rax (holding
/// `b` on entry); the result is read from xmm0.
macro_rules! on_xmm {
    ($instruction:literal) => {
        |a: u64, b: u64, mxcsr: u32| -> (u64, u32) {
            let mut control = [mxcsr, 0];
            let result: u64;
            // SAFETY: the instruction changes xmm0 only; MXCSR is put back before leaving.
            unsafe {
                asm!(
                    "stmxcsr [{c} + 4]",
                    "ldmxcsr [{c}]",
                    "movq xmm0, {a}",
                    "movq xmm1, rax",
                    $instruction,
                    "stmxcsr [{c}]",
                    "ldmxcsr [{c} + 4]",
                    "movq {r}, xmm0",
                    c = in(reg) control.as_mut_ptr(),
                    a = in(reg) a,
                    r = lateout(reg) result,
                    inout("rax") b => _,
                    out("xmm0") _,
                    out("xmm1") _,
                );
            }
            (result, control[0])
        }
    };
}

/// Runs an instruction on xmm0 (holding `a`) and xmm1 (holding `b`), its result in rax or EFLAGS.
macro_rules! to_rax {
    ($instruction:literal) => {
        |a: u64, b: u64, mxcsr: u32| -> (u64, u32) {
            let mut control = [mxcsr, 0];
            let result: u64;
            // SAFETY: the instruction changes rax and flags only; MXCSR is put back.
            unsafe {
                asm!(
                    "stmxcsr [{c} + 4]",
                    "ldmxcsr [{c}]",
                    "movq xmm0, {a}",
                    "movq xmm1, {b}",
                    "xor eax, eax",
                    $instruction,
                    "stmxcsr [{c}]",
                    "ldmxcsr [{c} + 4]",
                    c = in(reg) control.as_mut_ptr(),
                    a = in(reg) a,
                    b = in(reg) b,
                    out("rax") result,
                    out("xmm0") _,
                    out("xmm1") _,
                );
            }
            (result, control[0])
        }
    };
}

/// An MXCSR with all masks set; its flags are clear, or only PE is set so that the short cut runs.
fn mxcsr(random: &mut Random) -> u32 {
    let plain = 0x1f80 | if random.below(2) == 0 { 0x20 } else { 0 };
    match random.below(3) {
        0 => plain,
        _ => plain | (random.bits() as u32 & 0xe040),
    }
}

fn check(
    name: &str,
    host: Host,
    soft: impl Fn(u64, u64, &mut Env) -> u64,
    mask: u64,
    operands: impl Fn(&mut Random) -> (u64, u64),
) {
    let mut random = Random(0x5eed);
    for _ in 0..cases(1_000_000) {
        let (a, b) = operands(&mut random);
        let before = mxcsr(&mut random);
        let (expected, after) = host(a, b, before);
        let mut env = Env::sse(before);
        let result = soft(a, b, &mut env);
        let flags = before | u32::from(env.settle().flags.bits());
        assert!(
            result & mask == expected & mask && flags == after,
            "{name} {a:#x}, {b:#x} with MXCSR {before:#x}: got {result:#x} flags {flags:#x}, \
             the processor gives {expected:#x} flags {after:#x}"
        );
    }
}

const LOW: u64 = 0xffff_ffff;

fn singles(random: &mut Random) -> (u64, u64) {
    let a = random.f32();
    (u64::from(a.0), u64::from(random.f32_after(a).0))
}

fn doubles(random: &mut Random) -> (u64, u64) {
    let a = random.f64();
    (a.0, random.f64_after(a).0)
}

fn single(bits: u64) -> F32 {
    F32(bits as u32)
}

fn on_singles(operation: fn(F32, F32, &mut Env) -> F32) -> impl Fn(u64, u64, &mut Env) -> u64 {
    move |a, b, env| u64::from(operation(single(a), single(b), env).0)
}

fn on_doubles(operation: fn(F64, F64, &mut Env) -> F64) -> impl Fn(u64, u64, &mut Env) -> u64 {
    move |a, b, env| operation(F64(a), F64(b), env).0
}

#[test]
fn single_arithmetic() {
    check("addss", on_xmm!("addss xmm0, xmm1"), on_singles(add_f32), LOW, singles);
    check("subss", on_xmm!("subss xmm0, xmm1"), on_singles(sub_f32), LOW, singles);
    check("mulss", on_xmm!("mulss xmm0, xmm1"), on_singles(mul_f32), LOW, singles);
    check("divss", on_xmm!("divss xmm0, xmm1"), on_singles(div_f32), LOW, singles);
    check("minss", on_xmm!("minss xmm0, xmm1"), on_singles(min), LOW, singles);
    check("maxss", on_xmm!("maxss xmm0, xmm1"), on_singles(max), LOW, singles);
    let sqrt = |_, b, env: &mut Env| u64::from(sqrt_f32(single(b), env).0);
    check("sqrtss", on_xmm!("sqrtss xmm0, xmm1"), sqrt, LOW, singles);
}

#[test]
fn double_arithmetic() {
    check("addsd", on_xmm!("addsd xmm0, xmm1"), on_doubles(add_f64), !0, doubles);
    check("subsd", on_xmm!("subsd xmm0, xmm1"), on_doubles(sub_f64), !0, doubles);
    check("mulsd", on_xmm!("mulsd xmm0, xmm1"), on_doubles(mul_f64), !0, doubles);
    check("divsd", on_xmm!("divsd xmm0, xmm1"), on_doubles(div_f64), !0, doubles);
    check("minsd", on_xmm!("minsd xmm0, xmm1"), on_doubles(min), !0, doubles);
    check("maxsd", on_xmm!("maxsd xmm0, xmm1"), on_doubles(max), !0, doubles);
    let sqrt = |_, b, env: &mut Env| sqrt_f64(F64(b), env).0;
    check("sqrtsd", on_xmm!("sqrtsd xmm0, xmm1"), sqrt, !0, doubles);
}

/// ZF, PF and CF as COMISS sets them, as LAHF reads them.
fn eflags(relation: Relation) -> u64 {
    match relation {
        Relation::Greater => 0x0200,
        Relation::Less => 0x0300,
        Relation::Equal => 0x4200,
        Relation::Unordered => 0x4700,
    }
}

#[test]
fn comparisons() {
    let on_single = |signaling| {
        move |a, b, env: &mut Env| {
            eflags(compare(single(a).unpack(), single(b).unpack(), signaling, env))
        }
    };
    let on_double = |signaling| {
        move |a, b, env: &mut Env| eflags(compare(F64(a).unpack(), F64(b).unpack(), signaling, env))
    };
    check("comiss", to_rax!("comiss xmm0, xmm1; lahf"), on_single(true), !0, singles);
    check("ucomiss", to_rax!("ucomiss xmm0, xmm1; lahf"), on_single(false), !0, singles);
    check("comisd", to_rax!("comisd xmm0, xmm1; lahf"), on_double(true), !0, doubles);
    check("ucomisd", to_rax!("ucomisd xmm0, xmm1; lahf"), on_double(false), !0, doubles);
}

#[test]
fn format_conversions() {
    let widen = |_, b, env: &mut Env| convert::<F64>(single(b).unpack(), env).0;
    check("cvtss2sd", on_xmm!("cvtss2sd xmm0, xmm1"), widen, !0, singles);
    let narrow = |_, b, env: &mut Env| u64::from(convert::<F32>(F64(b).unpack(), env).0);
    // The exponents of a single are rare among those of a double.
    let near_singles = |random: &mut Random| {
        let (a, b) = doubles(random);
        let field = 0x3ff - 160 + random.below(320);
        if random.below(2) == 0 { (a, b) } else { (a, b & !(0x7ff << 52) | field << 52) }
    };
    check("cvtsd2ss", on_xmm!("cvtsd2ss xmm0, xmm1"), narrow, LOW, near_singles);
}

/// Operands whose integer parts are around the ends of the integer types.
fn near_integers(random: &mut Random) -> (u64, u64) {
    let (a, b) = doubles(random);
    let places = [0u64, 0, 1, 15, 16, 31, 32, 52, 53, 62, 63, 64];
    let place = places[random.below(places.len() as u64) as usize] + random.below(3);
    match random.below(3) {
        0 => (a, b),
        1 => (a, b & !(0x7ff << 52) | (0x3fe + place) << 52),
        _ => {
            let halves = (random.bits() as i64 >> random.below(64)) as f64 / 2.0;
            (a, halves.to_bits())
        }
    }
}

fn near_integers_single(random: &mut Random) -> (u64, u64) {
    let (a, b) = near_integers(random);
    if random.below(4) == 0 {
        return singles(random);
    }
    (a & LOW, u64::from((f64::from_bits(b) as f32).to_bits()))
}

#[test]
fn to_integers() {
    let double = |bits: u32, truncate: bool| {
        move |_, b, env: &mut Env| {
            let rounding = if truncate { Rounding::Zero } else { env.rounding };
            to_int(F64(b).unpack(), bits, rounding, env) as u64
        }
    };
    let float = |bits: u32, truncate: bool| {
        move |_, b, env: &mut Env| {
            let rounding = if truncate { Rounding::Zero } else { env.rounding };
            to_int(single(b).unpack(), bits, rounding, env) as u64
        }
    };
    check("cvtsd2si", to_rax!("cvtsd2si eax, xmm1"), double(32, false), LOW, near_integers);
    check("cvtsd2si", to_rax!("cvtsd2si rax, xmm1"), double(64, false), !0, near_integers);
    check("cvttsd2si", to_rax!("cvttsd2si eax, xmm1"), double(32, true), LOW, near_integers);
    check("cvttsd2si", to_rax!("cvttsd2si rax, xmm1"), double(64, true), !0, near_integers);
    check("cvtss2si", to_rax!("cvtss2si eax, xmm1"), float(32, false), LOW, near_integers_single);
    check("cvtss2si", to_rax!("cvtss2si rax, xmm1"), float(64, false), !0, near_integers_single);
    check("cvttss2si", to_rax!("cvttss2si eax, xmm1"), float(32, true), LOW, near_integers_single);
    check("cvttss2si", to_rax!("cvttss2si rax, xmm1"), float(64, true), !0, near_integers_single);
}

#[test]
fn from_integers() {
    let integers =
        |random: &mut Random| (0, (random.significand() as i64 >> random.below(64)) as u64);
    let double = |_, b, env: &mut Env| from_int::<F64>(b as i64, env).0;
    let double32 = |_, b, env: &mut Env| from_int::<F64>(i64::from(b as i32), env).0;
    let float = |_, b, env: &mut Env| u64::from(from_int::<F32>(b as i64, env).0);
    let float32 = |_, b, env: &mut Env| u64::from(from_int::<F32>(i64::from(b as i32), env).0);
    check("cvtsi2sd", on_xmm!("cvtsi2sd xmm0, rax"), double, !0, integers);
    check("cvtsi2sd", on_xmm!("cvtsi2sd xmm0, eax"), double32, !0, integers);
    check("cvtsi2ss", on_xmm!("cvtsi2ss xmm0, rax"), float, LOW, integers);
    check("cvtsi2ss", on_xmm!("cvtsi2ss xmm0, eax"), float32, LOW, integers);
}

#[test]
fn integral_rounding() {
    let modes = [Rounding::Nearest, Rounding::Down, Rounding::Up, Rounding::Zero];
    let double = |mode: Option<Rounding>, report: bool| {
        move |_, b, env: &mut Env| {
            round_to_integral(F64(b), mode.unwrap_or(env.rounding), report, env).0
        }
    };
    let float = |mode: Option<Rounding>, report: bool| {
        move |_, b, env: &mut Env| {
            let mode = mode.unwrap_or(env.rounding);
            u64::from(round_to_integral(single(b), mode, report, env).0)
        }
    };
    let doubles: [Host; 4] = [
        on_xmm!("roundsd xmm0, xmm1, 0"),
        on_xmm!("roundsd xmm0, xmm1, 1"),
        on_xmm!("roundsd xmm0, xmm1, 2"),
        on_xmm!("roundsd xmm0, xmm1, 3"),
    ];
    for (host, mode) in doubles.into_iter().zip(modes) {
        check("roundsd", host, double(Some(mode), true), !0, near_integers);
    }
    check("roundsd 12", on_xmm!("roundsd xmm0, xmm1, 12"), double(None, false), !0, near_integers);
    let host = on_xmm!("roundss xmm0, xmm1, 4");
    check("roundss 4", host, float(None, true), LOW, near_integers_single);
    let host = on_xmm!("roundss xmm0, xmm1, 9");
    check("roundss 9", host, float(Some(Rounding::Down), false), LOW, near_integers_single);
}

/// The reciprocal approximations: exactly the host's where it is Intel's, and near the truth anywhere.
#[test]
fn approximations() {
    let intel = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|t| t.contains("GenuineIntel"));
    let reciprocal = |_, b, _: &mut Env| u64::from(rcp(single(b)).0);
    let root = |_, b, _: &mut Env| u64::from(rsqrt(single(b)).0);
    if intel {
        check("rcpss", on_xmm!("rcpss xmm0, xmm1"), reciprocal, LOW, singles);
        check("rsqrtss", on_xmm!("rsqrtss xmm0, xmm1"), root, LOW, singles);
    }
    let bound = 1.5 / 4096.0;
    for bits in (0x0080_0000..0x7e00_0000).step_by(997) {
        let exact = f64::from(f32::from_bits(bits));
        let near = |F32(bits): F32| f64::from(f32::from_bits(bits));
        assert!((near(rcp(F32(bits))) * exact - 1.0).abs() <= bound, "rcp {bits:#x}");
        assert!((near(rsqrt(F32(bits))) * exact.sqrt() - 1.0).abs() <= bound, "rsqrt {bits:#x}");
    }
}
