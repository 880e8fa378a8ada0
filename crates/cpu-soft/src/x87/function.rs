//! Functions of ST0, or of ST0 and ST1: square root, remainders, scaling, transcendentals.
//!
//! Intel SDM volume 1, sections 8.3.5 to 8.3.10.

use iced_x86::Code;

use super::stack::{C0, C1, C2, C3, Stack};
use super::{begin, complete, indefinite, put, stack_fault};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op};
use crate::softfloat::{
    self, Env, F80, Flags, Format, Remainder, f2xm1, fpatan, fprem, fprem1, fptan, fscale, fsincos,
    fxtract, fyl2x, fyl2xp1, round_to_integral, sqrt,
};

/// A function of ST0 that replaces it; `None` if the argument is too large (C2).
trait Unary {
    fn apply(x: F80, env: &mut Env) -> Option<F80>;
    /// Whether the function has a say in C2.
    const PARTIAL: bool = false;
}

/// A function of ST0 and ST1 that replaces ST1 and pops.
trait Binary {
    fn apply(st0: F80, st1: F80, env: &mut Env) -> F80;
}

/// A function of ST0 that replaces it and pushes a second result.
trait Twofold {
    /// What replaces ST0, and what is pushed.
    fn apply(x: F80, env: &mut Env) -> Option<(F80, F80)>;
    const PARTIAL: bool;
}

pub(super) fn select(code: Code) -> Option<Exec> {
    use Code as C;
    Some(match code {
        C::Fsqrt => unary::<SquareRoot>,
        C::Frndint => unary::<RoundToInteger>,
        C::F2xm1 => unary::<Exponential>,
        C::Fsin => unary::<Sine>,
        C::Fcos => unary::<Cosine>,
        C::Fabs => sign::<true>,
        C::Fchs => sign::<false>,
        C::Fscale => scale,
        C::Fprem => remainder::<false>,
        C::Fprem1 => remainder::<true>,
        C::Fyl2x => binary::<Logarithm>,
        C::Fyl2xp1 => binary::<LogarithmPlusOne>,
        C::Fpatan => binary::<ArcTangent>,
        C::Fptan => twofold::<Tangent>,
        C::Fsincos => twofold::<SineCosine>,
        C::Fxtract => twofold::<Extract>,
        _ => return None,
    })
}

struct SquareRoot;
impl Unary for SquareRoot {
    fn apply(x: F80, env: &mut Env) -> Option<F80> {
        Some(sqrt(x.unpack(), env))
    }
}

struct RoundToInteger;
impl Unary for RoundToInteger {
    fn apply(x: F80, env: &mut Env) -> Option<F80> {
        if x.unpack().denormal {
            env.raise(Flags::DENORMAL);
        }
        Some(round_to_integral(x, env.rounding, true, env))
    }
}

struct Exponential;
impl Unary for Exponential {
    fn apply(x: F80, env: &mut Env) -> Option<F80> {
        Some(f2xm1(x, env))
    }
}

struct Sine;
impl Unary for Sine {
    const PARTIAL: bool = true;
    fn apply(x: F80, env: &mut Env) -> Option<F80> {
        softfloat::fsin(x, env)
    }
}

struct Cosine;
impl Unary for Cosine {
    const PARTIAL: bool = true;
    fn apply(x: F80, env: &mut Env) -> Option<F80> {
        softfloat::fcos(x, env)
    }
}

struct Logarithm;
impl Binary for Logarithm {
    fn apply(st0: F80, st1: F80, env: &mut Env) -> F80 {
        fyl2x(st0, st1, env)
    }
}

struct LogarithmPlusOne;
impl Binary for LogarithmPlusOne {
    fn apply(st0: F80, st1: F80, env: &mut Env) -> F80 {
        fyl2xp1(st0, st1, env)
    }
}

struct ArcTangent;
impl Binary for ArcTangent {
    fn apply(st0: F80, st1: F80, env: &mut Env) -> F80 {
        fpatan(st0, st1, env)
    }
}

struct Tangent;
impl Twofold for Tangent {
    const PARTIAL: bool = true;
    fn apply(x: F80, env: &mut Env) -> Option<(F80, F80)> {
        let tangent = fptan(x, env)?;
        let pushed = if tangent.unpack().is_nan() { tangent } else { F80::ONE };
        Some((tangent, pushed))
    }
}

struct SineCosine;
impl Twofold for SineCosine {
    const PARTIAL: bool = true;
    fn apply(x: F80, env: &mut Env) -> Option<(F80, F80)> {
        fsincos(x, env)
    }
}

struct Extract;
impl Twofold for Extract {
    const PARTIAL: bool = false;
    fn apply(x: F80, env: &mut Env) -> Option<(F80, F80)> {
        Some(fxtract(x, env))
    }
}

/// Replaces C2: set when the argument was out of range.
fn set_partial(cpu: &mut Cpu, out_of_range: bool) {
    cpu.fpu.fsw = cpu.fpu.fsw & !C2 | if out_of_range { C2 } else { 0 };
}

fn unary<U: Unary>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let (result, write) = match cpu.fpu.st(0) {
        Some(x) => {
            let result = U::apply(x, &mut env);
            (result, complete(cpu, op, &env))
        }
        None => (Some(indefinite()), stack_fault(cpu, op, false)),
    };
    if U::PARTIAL {
        set_partial(cpu, result.is_none());
    }
    if let Some(result) = result
        && write
    {
        put(cpu, 0, result);
    }
    Ok(())
}

fn binary<B: Binary>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let (result, write) = match (cpu.fpu.st(0), cpu.fpu.st(1)) {
        (Some(st0), Some(st1)) => {
            let result = B::apply(st0, st1, &mut env);
            (result, complete(cpu, op, &env))
        }
        _ => (indefinite(), stack_fault(cpu, op, false)),
    };
    if write {
        put(cpu, 1, result);
        cpu.fpu.pop();
    }
    Ok(())
}

fn twofold<T: Twofold>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let source = cpu.fpu.st(0);
    let Some(x) = source.filter(|_| cpu.fpu.is_empty(7)) else {
        if T::PARTIAL {
            set_partial(cpu, false);
        }
        if stack_fault(cpu, op, source.is_some()) {
            put(cpu, 0, indefinite());
            cpu.fpu.push(indefinite());
        }
        return Ok(());
    };
    let results = T::apply(x, &mut env);
    let write = complete(cpu, op, &env);
    if T::PARTIAL {
        set_partial(cpu, results.is_none());
    }
    if let Some((replaced, pushed)) = results
        && write
    {
        put(cpu, 0, replaced);
        cpu.fpu.push(pushed);
    }
    Ok(())
}

/// FABS and FCHS: whatever ST0 encodes, nothing is reported.
fn sign<const CLEAR: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let env = begin(cpu)?;
    let (result, write) = match cpu.fpu.st(0) {
        Some(x) => (if CLEAR { x.absolute() } else { x.negated() }, complete(cpu, op, &env)),
        None => (indefinite(), stack_fault(cpu, op, false)),
    };
    if write {
        put(cpu, 0, result);
    }
    Ok(())
}

fn scale(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let (result, write) = match (cpu.fpu.st(0), cpu.fpu.st(1)) {
        (Some(st0), Some(st1)) => {
            let result = fscale(st0, st1, &mut env);
            (result, complete(cpu, op, &env))
        }
        _ => (indefinite(), stack_fault(cpu, op, false)),
    };
    if write {
        put(cpu, 0, result);
    }
    Ok(())
}

fn remainder<const NEAREST: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let (Some(st0), Some(st1)) = (cpu.fpu.st(0), cpu.fpu.st(1)) else {
        set_partial(cpu, false);
        if stack_fault(cpu, op, false) {
            put(cpu, 0, indefinite());
        }
        return Ok(());
    };
    let step = if NEAREST { fprem1 } else { fprem };
    let step = step(st0, st1, &mut env);
    env.rounded_up = false;
    if !complete(cpu, op, &env) {
        set_partial(cpu, false);
        return Ok(());
    }
    let value = match step {
        Remainder::Complete(value, quotient) => {
            let bit = |n: u8, condition| if quotient >> n & 1 != 0 { condition } else { 0 };
            cpu.fpu.set_conditions(bit(2, C0) | bit(1, C3));
            cpu.fpu.fsw |= bit(0, C1);
            value
        }
        Remainder::Partial(value) => {
            cpu.fpu.set_conditions(C2);
            value
        }
        Remainder::Nan(value) => {
            set_partial(cpu, false);
            value
        }
    };
    put(cpu, 0, value);
    Ok(())
}
