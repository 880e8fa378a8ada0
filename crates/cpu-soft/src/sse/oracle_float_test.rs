//! Floating point instructions against the host's processor.

use super::*;

#[test]
fn comparisons() {
    check(with_immediate!(["cmpps" "cmpss"], [0 1 2 3 4 5 6 7]), Random::singles);
    check(with_immediate!(["cmppd" "cmpsd"], [0 1 2 3 4 5 6 7]), Random::doubles);
    check(both!["comiss" "ucomiss"], Random::singles);
    check(both!["comisd" "ucomisd"], Random::doubles);
}

#[test]
fn float_arithmetic() {
    check(
        both!["addps" "addss" "subps" "subss" "mulps" "mulss" "divps" "divss" "sqrtps" "sqrtss"
              "minps" "minss" "maxps" "maxss" "haddps" "hsubps" "addsubps"],
        Random::singles,
    );
    check(
        both!["addpd" "addsd" "subpd" "subsd" "mulpd" "mulsd" "divpd" "divsd" "sqrtpd" "sqrtsd"
              "minpd" "minsd" "maxpd" "maxsd" "haddpd" "hsubpd" "addsubpd"],
        Random::doubles,
    );
}

#[test]
fn rounding() {
    check(with_immediate!(["roundps" "roundss"], [0 1 2 3 4 7 8 9 10 11 12 15]), Random::singles);
    check(with_immediate!(["roundpd" "roundsd"], [0 1 2 3 4 7 8 9 10 11 12 15]), Random::doubles);
}

/// Where one of their steps raises an unmasked exception the host reports more or fewer flags than
/// the manual's steps do, depending on what its microcode was assisted with: not compared then.
#[test]
fn dot_products() {
    fn same(got: &State, host: &State) -> bool {
        let unmasked = |state: &State| state.mxcsr & !(state.mxcsr >> 7) & 0x3f != 0;
        let mxcsr = if unmasked(host) && unmasked(got) { host.mxcsr } else { got.mxcsr };
        State { mxcsr, ..*got } == *host
    }
    check_by(
        with_immediate!(["dpps"], [0 1 15 16 31 33 63 79 99 127 143 165 175 207 240 241 245 255]),
        Random::singles,
        same,
    );
    check_by(
        with_immediate!(["dppd"], [0 1 2 3 16 17 18 19 32 33 34 35 48 49 50 51 204 255]),
        Random::doubles,
        same,
    );
}

#[test]
fn conversions() {
    check(both!["cvtss2sd" "cvtps2pd" "cvtps2dq" "cvttps2dq"], Random::singles);
    check(both!["cvtsd2ss" "cvtpd2ps" "cvtpd2dq" "cvttpd2dq"], Random::doubles);
    check(both!["cvtdq2ps" "cvtdq2pd"], Random::integers);
    check(
        plain!["cvtsi2ss xmm0, eax" "cvtsi2ss xmm0, rax" "cvtsi2sd xmm0, eax" "cvtsi2sd xmm0, rax"
               "cvtsi2ss xmm0, dword ptr [rdi]" "cvtsi2ss xmm0, qword ptr [rdi]"
               "cvtsi2sd xmm0, dword ptr [rdi]" "cvtsi2sd xmm0, qword ptr [rdi]"],
        |random| random.integers() >> random.below(64),
    );
    check(
        plain!["cvtss2si eax, xmm1" "cvtss2si rax, xmm1" "cvttss2si eax, xmm1" "cvttss2si rax, xmm1"
               "cvtss2si eax, [rdi]" "cvtss2si rax, [rdi]" "cvttss2si eax, [rdi]"
               "cvttss2si rax, [rdi]"],
        Random::singles,
    );
    check(
        plain!["cvtsd2si eax, xmm1" "cvtsd2si rax, xmm1" "cvttsd2si eax, xmm1" "cvttsd2si rax, xmm1"
               "cvtsd2si eax, [rdi]" "cvtsd2si rax, [rdi]" "cvttsd2si eax, [rdi]"
               "cvttsd2si rax, [rdi]"],
        Random::doubles,
    );
}

/// The manual promises a relative error of at most 1.5 * 2^-12; makers differ within it.
#[test]
fn approximations() {
    fn near(a: u32, b: u32) -> bool {
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        a == b || ((x - y) / y).abs() <= 1.5 / 2048.0
    }
    check_by(both!["rcpps" "rcpss" "rsqrtps" "rsqrtss"], Random::singles, |got, host| {
        let lanes = |state: &State| crate::sse::lanes::split::<[u32; 4]>(state.xmm[0]);
        let vectors = lanes(got).into_iter().zip(lanes(host)).all(|(a, b)| near(a, b));
        vectors && State { xmm: host.xmm, ..*got } == *host
    });
}
