//! Known answers, for hosts whose processor cannot be asked.

use super::*;

const MASKED: u32 = 0x1f80;

fn f64(value: f64) -> F64 {
    F64(value.to_bits())
}

fn f80(value: f64) -> F80 {
    load(f64(value).unpack(), &mut Env::x87(0x37f))
}

#[test]
fn sums_round_as_told() {
    let tiny = f64(1.0 / (1u64 << 60) as f64);
    for (mode, expected) in [(0, 1.0), (1, 1.0), (2, 1.0 + f64::EPSILON), (3, 1.0)] {
        let mut env = Env::sse(MASKED | mode << 13);
        assert_eq!(add_f64(f64(1.0), tiny, &mut env), f64(expected));
        assert_eq!(env.flags, Flags::PRECISION);
    }
}

#[test]
fn exceptions_are_reported() {
    let cases: [(f64, f64, f64, Flags); 5] = [
        (1.0, 0.0, f64::INFINITY, Flags::ZERO_DIVIDE),
        (1e308, 1e-10, f64::INFINITY, Flags::OVERFLOW | Flags::PRECISION),
        (f64::MIN_POSITIVE, 3.0, f64::MIN_POSITIVE / 3.0, Flags::UNDERFLOW | Flags::PRECISION),
        (f64::MIN_POSITIVE, 2.0, f64::MIN_POSITIVE / 2.0, Flags::NONE),
        (f64::MIN_POSITIVE / 2.0, 1.0, f64::MIN_POSITIVE / 2.0, Flags::DENORMAL),
    ];
    for (a, b, quotient, flags) in cases {
        let mut env = Env::sse(MASKED);
        assert_eq!(div_f64(f64(a), f64(b), &mut env), f64(quotient), "{a} / {b}");
        assert_eq!(env.flags, flags, "{a} / {b}");
    }
    let mut env = Env::sse(MASKED);
    assert_eq!(sqrt_f64(f64(-1.0), &mut env), F64::default_nan());
    assert_eq!(env.flags, Flags::INVALID);
}

#[test]
fn denormals_are_flushed_when_asked() {
    let tiny = f64(f64::MIN_POSITIVE / 2.0);
    let mut env = Env::sse(MASKED | 0x40);
    assert_eq!(add_f64(tiny, tiny, &mut env), f64(0.0));
    assert_eq!(env.flags, Flags::NONE);
    let mut env = Env::sse(MASKED | 0x8000);
    assert_eq!(mul_f64(f64(-f64::MIN_POSITIVE), f64(0.5), &mut env), f64(-0.0));
    assert_eq!(env.flags, Flags::UNDERFLOW | Flags::PRECISION);
}

#[test]
fn nans_follow_their_unit() {
    let (small, large) = (F64(0x7ff8_0000_0000_0001), F64(0xfff8_0000_0000_0002));
    let mut env = Env::sse(MASKED);
    assert_eq!(add_f64(small, large, &mut env), small, "SSE: the first");
    let mut env = Env::x87(0x37f);
    let sum: F80 = add(small.unpack(), large.unpack(), &mut env);
    assert_eq!(sum, F80::quieted(large.unpack()), "x87: the larger");
    let mut env = Env::sse(MASKED);
    let signaling = F64(0x7ff0_0000_0000_0001);
    assert_eq!(add_f64(signaling, large, &mut env), F64(0x7ff8_0000_0000_0001));
    assert_eq!(env.flags, Flags::INVALID);
}

#[test]
fn an_unmasked_exception_stops_before_computing() {
    let tiny = f64(f64::MIN_POSITIVE / 2.0);
    let mut env = Env::sse(MASKED & !0x100);
    let _ = div_f64(tiny, f64(3.0), &mut env);
    let settled = env.settle();
    assert_eq!(settled.flags, Flags::DENORMAL, "neither underflow nor precision");
    assert!(settled.fault_before && settled.fault);
}

#[test]
fn integers_that_do_not_fit_are_indefinite() {
    let mut env = Env::sse(MASKED);
    assert_eq!(to_int(f64(2147483647.4).unpack(), 32, Rounding::Nearest, &mut env), 2147483647);
    assert_eq!(env.flags, Flags::PRECISION);
    for value in [2147483648.0, -2147483649.0, f64::NAN, f64::INFINITY] {
        let mut env = Env::sse(MASKED);
        let integer = to_int(f64(value).unpack(), 32, Rounding::Nearest, &mut env);
        assert_eq!((integer, env.flags), (i64::from(i32::MIN), Flags::INVALID), "{value}");
    }
}

#[test]
fn decimals_round_trip() {
    for value in [0i64, 1, -1, 999_999_999_999_999_999, -123_456_789_012_345_678] {
        let mut env = Env::x87(0x37f);
        let number: F80 = from_int(value, &mut env);
        assert_eq!(from_bcd(to_bcd(number, &mut env), &mut env), number, "{value}");
        assert_eq!(env.flags, Flags::NONE);
    }
    let mut env = Env::x87(0x37f);
    assert_eq!(to_bcd(f80(1e18), &mut env), 0xffff_c000_0000_0000_0000);
    assert_eq!(env.flags, Flags::INVALID);
}

#[test]
fn transcendentals_know_their_values() {
    let bits = |value: F80| (value.sign_exponent, value.significand);
    let env = &mut Env::x87(0x37f);
    let one = F80::ONE;
    // Each to 64 bits, correctly rounded.
    assert_eq!(bits(fpatan(one, one, env)), (0x3ffe, 0xc90f_daa2_2168_c235));
    assert_eq!(bits(f2xm1(f80(0.5), env)), (0x3ffd, 0xd413_cccf_e779_9211));
    assert_eq!(bits(fyl2x(f80(10.0), one, env)), (0x4000, 0xd49a_784b_cd1b_8afe));
    assert_eq!(fsin(one, env).map(bits), Some((0x3ffe, 0xd76a_a478_4867_7021)));
    assert_eq!(fcos(one, env).map(bits), Some((0x3ffe, 0x8a51_407d_a834_5c92)));
    assert_eq!(fptan(one, env).map(bits), Some((0x3fff, 0xc759_22e5_f71d_2dc5)));
    assert_eq!(fsin(f80(9.3e18), env), None, "2^63 and more is software's");
}
