//! Transcendental x87 operations: within one unit in the last place of the host's result, and the
//! same exceptions.
//!
//! Two processors may differ in the last bit (Intel SDM volume 1, section 8.3.10), so C1 is not
//! compared.

#![expect(unsafe_code, reason = "runs the instruction under test on the host's processor")]

use super::super::{
    Env, F80, Format, Kind, f2xm1, fcos, fpatan, fptan, fsin, fsincos, fyl2x, fyl2xp1,
};
use super::x87::{C2, Host, Outcome, control, on_x87, status};
use super::{Random, cases};

/// The place of a number on a line where neighbours are one apart.
fn place(a: F80) -> i128 {
    let integer = i128::from(a.sign_exponent & 0x7fff) << 63;
    let place = integer + i128::from(a.significand & !(1 << 63));
    if a.sign() { -place } else { place }
}

/// How far two results are apart, in units of the last place.
fn distance(a: F80, b: F80) -> u128 {
    if a == b {
        return 0;
    }
    let finite = |x: F80| matches!(x.unpack().kind, Kind::Zero | Kind::Finite);
    if finite(a) && finite(b) { (place(a) - place(b)).unsigned_abs() } else { u128::MAX }
}

const SMALLEST_NORMAL: F80 = F80 { significand: 1 << 63, sign_exponent: 1 };

fn check(
    name: &str,
    host: Host,
    operands: impl Fn(&mut Random) -> (F80, F80),
    soft: impl Fn(F80, F80, &mut Env) -> Option<F80>,
) {
    let mut random = Random(0x5eed);
    let (mut furthest, mut apart) = (0, 0u64);
    let count = cases(200_000);
    for _ in 0..count {
        let (a, b) = operands(&mut random);
        let control = control(&mut random);
        let expected = host(control, a, b, 0);
        let mut env = Env::x87(control);
        let result = soft(a, b, &mut env);
        let settled = env.settle();
        let top = result.filter(|_| !settled.fault_before).unwrap_or(a);
        let conditions = if result.is_none() { C2 } else { 0 };
        let status = status(&env) | conditions;
        let far = distance(top, expected.top);
        furthest = furthest.max(far);
        apart += (far != 0) as u64;
        // An underflow at the very edge, of a result that rounds to the smallest normal number,
        // depends on that last bit too.
        let edge = top.absolute() == SMALLEST_NORMAL;
        let compared = if edge { C2 | 0x2f } else { C2 | 0x3f };
        assert!(
            far <= 1 && status & compared == expected.status & compared,
            "{name} {a:x?}, {b:x?}, control {control:#x}: got {top:x?} status {status:#x}, the \
             processor gives {:x?} status {:#x}",
            expected.top,
            expected.status & compared,
        );
    }
    println!("{name}: {apart} of {count} differ, by {furthest} units in the last place at most");
}

/// A number with an exponent in this range, or now and then any.
fn ranged(random: &mut Random, lowest: i32, highest: i32) -> F80 {
    let mut a = random.f80();
    if random.below(16) != 0 {
        let field = lowest + random.below((highest - lowest + 1) as u64) as i32 + 16383;
        a.sign_exponent = a.sign_exponent & 0x8000 | field as u16;
        a.significand |= 1 << 63;
    }
    a
}

#[test]
fn exponential() {
    // Beyond [-1, 1] nothing is defined.
    let operands = |random: &mut Random| {
        let a = ranged(random, -70, -1);
        let defined = a.unpack().kind != Kind::Finite || a.unpack().exponent < 0;
        let end = if a.sign() { F80::ONE.negated() } else { F80::ONE };
        (if defined { a } else { end }, F80::ONE)
    };
    check("f2xm1", on_x87!("f2xm1"), operands, |a, _, env| Some(f2xm1(a, env)));
}

#[test]
fn logarithms() {
    let operands = |random: &mut Random| {
        let (a, b) = (ranged(random, -40, 40), ranged(random, -40, 40));
        (if random.below(8) == 0 { a } else { a.absolute() }, b)
    };
    check("fyl2x", on_x87!("fyl2x"), operands, |a, b, env| Some(fyl2x(a, b, env)));
    let near_one = |random: &mut Random| {
        let b = ranged(random, -40, 40);
        let wobble = random.bits() >> random.below(64);
        let one = F80::ONE;
        let a = if random.below(2) == 0 {
            F80 { significand: one.significand | wobble, ..one }
        } else {
            F80 { significand: (!wobble) | 1 << 63, sign_exponent: 0x3ffe }
        };
        (a, b)
    };
    check("fyl2x near 1", on_x87!("fyl2x"), near_one, |a, b, env| Some(fyl2x(a, b, env)));
    let operands = |random: &mut Random| {
        let (a, b) = (ranged(random, -70, -3), ranged(random, -40, 40));
        let defined = a.unpack().kind != Kind::Finite || a.unpack().exponent < -2;
        (if defined { a } else { F80::zero(a.sign()) }, b)
    };
    check("fyl2xp1", on_x87!("fyl2xp1"), operands, |a, b, env| Some(fyl2xp1(a, b, env)));
}

#[test]
fn trigonometric() {
    let operands = |random: &mut Random| {
        let highest = if random.below(2) == 0 { 3 } else { 70 };
        (ranged(random, -50, highest), F80::ONE)
    };
    check("fsin", on_x87!("fsin"), operands, |a, _, env| fsin(a, env));
    check("fcos", on_x87!("fcos"), operands, |a, _, env| fcos(a, env));
    check("fsincos", on_x87!("fsincos"), operands, |a, _, env| Some(fsincos(a, env)?.1));
    let host: Host = |control, a, b, memory| {
        let outcome = on_x87!("fptan")(control, a, b, memory);
        let pushed = outcome.status & 0x3800 == 5 << 11;
        Outcome { top: if pushed { outcome.next } else { outcome.top }, ..outcome }
    };
    check("fptan", host, operands, |a, _, env| fptan(a, env));
}

#[test]
fn arc_tangent() {
    let operands = |random: &mut Random| {
        let a = ranged(random, -40, 40);
        let b = if random.below(2) == 0 { random.f80_after(a) } else { ranged(random, -40, 40) };
        (a, b)
    };
    check("fpatan", on_x87!("fpatan"), operands, |a, b, env| Some(fpatan(a, b, env)));
}
