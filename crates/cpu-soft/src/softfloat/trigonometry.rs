//! Sine, cosine, tangent and arc tangent (FSIN, FCOS, FSINCOS, FPTAN, FPATAN).
//!
//! Intel SDM volume 1, section 8.3.8: the argument is reduced with a pi of 66 significant bits, so
//! results near multiples of pi are those of Intel's processors, not those of mathematics. An
//! argument of 2^63 or more is left to software (`None` here, C2 set in the status word).

use super::arith::note_denormals;
use super::env::Env;
use super::format::{F80, Format, Kind, Unpacked};
use super::round::{invalid, special_operand, special_operands};
use super::wide::{Wide, inverse_factorials, inverse_odds, series};

/// The processor's pi/2, in units of 2^-65.
const HALF_PI_66: u128 = 0x3_243f_6a88_85a3_08d3;

const SINE: [u128; 16] = inverse_factorials(1, 2);
const COSINE: [u128; 16] = inverse_factorials(0, 2);
const ARC_TANGENT: [u128; 16] = inverse_odds();

/// atan(i/8) in units of 2^-128, for i from 1 to 8.
const ARC_TANGENT_OF_EIGHTHS: [u128; 8] = [
    0x1fd5_ba9a_ac2f_6dc6_5912_f313_e7d1_11de,
    0x3eb6_ebf2_5901_bac5_5b71_e7bd_7de8_85f9,
    0x5bd8_6507_937b_c239_c551_9091_6e7f_2241,
    0x76b1_9c15_86ed_3da2_b7f2_22f6_5e1d_4681,
    0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3747,
    0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9e,
    0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d,
    0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1,
];

/// Sine and cosine of one argument, before rounding.
struct Circle {
    sine: Wide,
    cosine: Wide,
}

/// What stands before computing: a result that is known, or the argument to compute with.
enum Argument {
    /// The result is this NaN.
    Nan(F80),
    /// A zero of this sign.
    Zero(bool),
    /// Too large to be reduced.
    TooLarge,
    Reduced(Circle),
}

fn argument(a: F80, env: &mut Env) -> Argument {
    let x = a.unpack();
    if let Some(nan) = special_operand(x, env) {
        return Argument::Nan(nan);
    }
    env.rounded_up = false;
    match x.kind {
        Kind::Zero => return Argument::Zero(x.sign),
        Kind::Infinity => return Argument::Nan(invalid(env)),
        _ if x.exponent >= 63 => return Argument::TooLarge,
        _ => x.note_denormal(env),
    }
    let (quadrant, reduced) = reduce(x);
    let square = reduced.mul(reduced).fraction();
    let sine = reduced.mul(Wide::new(false, series(&SINE, square, true), -127));
    let cosine = Wide::new(false, series(&COSINE, square, true), -127);
    let (sine, cosine) = match quadrant {
        0 => (sine, cosine),
        1 => (cosine, sine.negated_if(true)),
        2 => (sine.negated_if(true), cosine.negated_if(true)),
        _ => (cosine.negated_if(true), sine),
    };
    Argument::Reduced(Circle { sine, cosine })
}

/// Takes the nearest multiple of pi/2 off: its number modulo four, and what is left.
fn reduce(x: Unpacked) -> (u8, Wide) {
    if x.exponent < -1 {
        return (0, Wide::from(x));
    }
    // x in units of 2^-65, taken in one bit of its exponent after the other would be slow: 60 at a
    // time leave room in 128 bits. The first step has the 64 bits of the significand, 2^-64 each.
    let mut shift = (x.exponent + 2).unsigned_abs();
    let mut rest = x.significand as u128;
    let mut quotient = rest / HALF_PI_66;
    rest %= HALF_PI_66;
    while shift > 0 {
        let step = shift.min(60);
        rest <<= step;
        quotient = (quotient << step) + rest / HALF_PI_66;
        rest %= HALF_PI_66;
        shift -= step;
    }
    let mut sign = x.sign;
    if rest > HALF_PI_66 / 2 {
        quotient += 1;
        rest = HALF_PI_66 - rest;
        sign = !sign;
    }
    let quadrant = if x.sign { 4 - (quotient & 3) } else { quotient };
    ((quadrant & 3) as u8, Wide::new(sign, rest, -65))
}

/// The sine, or `None` if the argument is too large (FSIN).
pub fn fsin(a: F80, env: &mut Env) -> Option<F80> {
    match argument(a, env) {
        Argument::Nan(nan) => Some(nan),
        Argument::Zero(sign) => Some(F80::zero(sign)),
        Argument::TooLarge => None,
        Argument::Reduced(circle) => Some(circle.sine.round(env)),
    }
}

/// The cosine, or `None` if the argument is too large (FCOS).
pub fn fcos(a: F80, env: &mut Env) -> Option<F80> {
    match argument(a, env) {
        Argument::Nan(nan) => Some(nan),
        Argument::Zero(_) => Some(F80::ONE),
        Argument::TooLarge => None,
        Argument::Reduced(circle) => Some(circle.cosine.round(env)),
    }
}

/// The sine and the cosine, or `None` if the argument is too large (FSINCOS).
pub fn fsincos(a: F80, env: &mut Env) -> Option<(F80, F80)> {
    match argument(a, env) {
        Argument::Nan(nan) => Some((nan, nan)),
        Argument::Zero(sign) => Some((F80::zero(sign), F80::ONE)),
        Argument::TooLarge => None,
        Argument::Reduced(circle) => {
            let sine = circle.sine.round(env);
            Some((sine, circle.cosine.round(env)))
        }
    }
}

/// The tangent, or `None` if the argument is too large (FPTAN).
pub fn fptan(a: F80, env: &mut Env) -> Option<F80> {
    match argument(a, env) {
        Argument::Nan(nan) => Some(nan),
        Argument::Zero(sign) => Some(F80::zero(sign)),
        Argument::TooLarge => None,
        Argument::Reduced(circle) => Some(circle.sine.div(circle.cosine).round(env)),
    }
}

/// The angle of the point (`x`, `y`): the arc tangent of `y/x` in its quadrant (FPATAN: `x` is ST0
/// and `y` is ST1).
pub fn fpatan(x: F80, y: F80, env: &mut Env) -> F80 {
    let (a, b) = (x.unpack(), y.unpack());
    if let Some(result) = special_operands(a, b, env) {
        return result;
    }
    note_denormals(a, b, env);
    env.rounded_up = false;
    let angle = match (b.kind, a.kind) {
        (Kind::Infinity, Kind::Infinity) => {
            // One or three quarters of pi.
            let quarter = Wide { exponent: -1, ..Wide::PI };
            if a.sign { Wide::HALF_PI.add(quarter) } else { quarter }
        }
        (Kind::Infinity, _) | (Kind::Finite, Kind::Zero) => Wide::HALF_PI,
        (Kind::Zero, _) | (_, Kind::Infinity) => {
            if !a.sign {
                return F80::zero(b.sign);
            }
            Wide::PI
        }
        _ => {
            let angle = first_quadrant(a, b);
            if a.sign { Wide::PI.add(angle.negated_if(true)) } else { angle }
        }
    };
    angle.negated_if(b.sign).round(env)
}

/// atan(|b|/|a|) for finite numbers other than zero.
fn first_quadrant(a: Unpacked, b: Unpacked) -> Wide {
    let key = |x: &Unpacked| (x.exponent, x.significand);
    let steep = key(&b) > key(&a);
    let (large, small) = if steep { (b, a) } else { (a, b) };
    let distance = (large.exponent - small.exponent).unsigned_abs();
    let large = Wide { sign: false, ..Wide::from(large) };
    let small = Wide { sign: false, ..Wide::from(small) };

    // The nearest eighth c, and then atan(t) = atan(c) + atan((t - c)/(1 + t c)).
    let eighth = if distance > 8 {
        0
    } else {
        let ratio = (small.significand >> 64 << 8 >> distance) / (large.significand >> 64);
        (ratio + 16) >> 5
    };
    let scaled = |x: Wide, factor: u128| x.mul(Wide::new(false, factor, 0));
    let above = scaled(small, 8).add(scaled(large, eighth).negated_if(true));
    let below = scaled(large, 8).add(scaled(small, eighth));
    let z = above.div(below);
    let sum = series(&ARC_TANGENT, z.mul(z).fraction(), true);
    let rest = z.mul(Wide::new(false, sum, -127));
    let base = match (eighth as usize).checked_sub(1).and_then(|i| ARC_TANGENT_OF_EIGHTHS.get(i)) {
        Some(&angle) => Wide::new(false, angle, -128),
        None => Wide::new(false, 0, 0),
    };
    let angle = base.add(rest);
    if steep { Wide::HALF_PI.add(angle.negated_if(true)) } else { angle }
}
