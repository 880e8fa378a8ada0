//! Comparison, and the minimum and maximum that SSE builds from it.
//!
//! Intel SDM volume 1, section 8.1.4 (x87 condition codes); volume 2, CMPPS, COMISS, MINPS, MAXPS.

use super::env::{Env, Flags};
use super::format::{Format, Kind, Unpacked};

/// How two numbers stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The first is less.
    Less,
    /// They are equal; zeros are equal whatever their signs.
    Equal,
    /// The first is greater.
    Greater,
    /// At least one is a NaN or an unsupported encoding.
    Unordered,
}

/// Compares `a` with `b`. A quiet NaN raises invalid-operation only if `signaling`.
pub fn compare(a: Unpacked, b: Unpacked, signaling: bool, env: &mut Env) -> Relation {
    let a = a.operand(env);
    let b = b.operand(env);
    env.rounded_up = false;
    let always = |x: &Unpacked| matches!(x.kind, Kind::SignalingNan | Kind::Unsupported);
    if always(&a) || always(&b) {
        env.raise(Flags::INVALID);
        return Relation::Unordered;
    }
    if a.is_nan() || b.is_nan() {
        if signaling {
            env.raise(Flags::INVALID);
        }
        return Relation::Unordered;
    }
    a.note_denormal(env);
    b.note_denormal(env);
    // Zero, finite, infinity: in this order, by magnitude.
    let key = |x: &Unpacked| {
        let rank = match x.kind {
            Kind::Zero => 0,
            Kind::Finite => 1,
            _ => 2,
        };
        (rank, x.exponent, x.significand)
    };
    let magnitudes = key(&a).cmp(&key(&b));
    let order = match (a.sign, b.sign) {
        _ if a.kind == Kind::Zero && b.kind == Kind::Zero => std::cmp::Ordering::Equal,
        (false, false) => magnitudes,
        (true, true) => magnitudes.reverse(),
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
    };
    match order {
        std::cmp::Ordering::Less => Relation::Less,
        std::cmp::Ordering::Equal => Relation::Equal,
        std::cmp::Ordering::Greater => Relation::Greater,
    }
}

/// MINPS and its family: the second operand unless the first is less.
pub fn min<F: Format>(a: F, b: F, env: &mut Env) -> F {
    choose(a, b, Relation::Less, env)
}

/// MAXPS and its family: the second operand unless the first is greater.
pub fn max<F: Format>(a: F, b: F, env: &mut Env) -> F {
    choose(a, b, Relation::Greater, env)
}

fn choose<F: Format>(a: F, b: F, wanted: Relation, env: &mut Env) -> F {
    let chosen = if compare(a.unpack(), b.unpack(), true, env) == wanted { a } else { b };
    let unpacked = chosen.unpack();
    if unpacked.denormal && env.daz { F::zero(unpacked.sign) } else { chosen }
}
