//! Floating point as x86 defines it, computed without the host's floating point unit.
//!
//! The guest's numbers must come out the same on every host, with the guest's rounding mode, its
//! exception flags and its rules for NaNs, none of which portable Rust arithmetic can be asked for.
//! So each operation here unpacks its operands ([`Unpacked`]), works on integers, and rounds once
//! into the format of the result ([`Format`]: [`F32`], [`F64`] or the x87's [`F80`]).
//!
//! An [`Env`] carries what an instruction reads (rounding, precision, masks, DAZ, FTZ) and what it
//! reports (exception flags, and whether the result was rounded up, the x87's C1). One `Env` serves
//! one instruction: build it from MXCSR or from the x87 control word, run the operation on each
//! element, then take [`Env::settle`].
//!
//! Where to begin: `env` for the environment, `format` for the three encodings, `round` for the one
//! place where results are rounded, `arith` for the five operations, `fast` for the short cut the
//! SSE instructions take nearly always, `wide` and its users for the x87's transcendental functions.
//!
//! References: Intel SDM volume 1, chapters 4 (formats, NaNs, exceptions), 8 (x87) and 11 (SSE2).
//! The tests in `oracle_test` compare every operation with the host's own processor.

mod approx;
mod arith;
mod bcd;
mod compare;
mod constants;
mod convert;
mod env;
mod exponential;
mod fast;
mod format;
mod logarithm;
mod remainder;
mod round;
mod scale;
mod trigonometry;
mod wide;

pub use approx::{rcp, rsqrt};
pub use arith::{add, div, mul, sqrt, sub};
pub use bcd::{from_bcd, to_bcd};
pub use compare::{Relation, compare, max, min};
pub use constants::Constant;
pub use convert::{convert, from_int, load, round_to_integral, store, to_int};
pub use env::{Env, Flags, Precision, Rounding, Settled};
pub use exponential::f2xm1;
pub use fast::{
    add_f32, add_f64, div_f32, div_f64, mul_f32, mul_f64, sqrt_f32, sqrt_f64, sub_f32, sub_f64,
};
pub use format::{F32, F64, F80, Format, Kind, Unpacked};
pub use logarithm::{fyl2x, fyl2xp1};
pub use remainder::{Remainder, fprem, fprem1};
pub use scale::{fscale, fxtract};
pub use trigonometry::{fcos, fpatan, fptan, fsin, fsincos};

#[cfg(all(test, target_arch = "x86_64"))]
mod oracle_test;
#[cfg(test)]
mod softfloat_test;
