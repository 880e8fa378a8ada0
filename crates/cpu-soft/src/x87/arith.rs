//! FADD, FSUB, FMUL, FDIV, their reversed, popping and integer forms.
//!
//! Intel SDM volume 2, FADD/FADDP/FIADD and the like. The destination is the first operand.

use iced_x86::Code;

use super::operand::{Double, Int16, Int32, Single, Source};
use super::stack::Stack;
use super::{begin, complete, indefinite, put, stack_fault};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op};
use crate::softfloat::{Env, F80, Format, Unpacked, add, div, mul, sub};

/// An arithmetic operation on destination and source.
trait Arithmetic {
    fn apply(destination: Unpacked, source: Unpacked, env: &mut Env) -> F80;
}

macro_rules! arithmetic {
    ($($name:ident: |$destination:ident, $source:ident, $env:ident| $body:expr;)*) => {$(
        struct $name;

        impl Arithmetic for $name {
            fn apply($destination: Unpacked, $source: Unpacked, $env: &mut Env) -> F80 {
                $body
            }
        }
    )*};
}

arithmetic! {
    Add: |a, b, env| add(a, b, env);
    Mul: |a, b, env| mul(a, b, env);
    Sub: |a, b, env| sub(a, b, env);
    SubReversed: |a, b, env| sub(b, a, env);
    Div: |a, b, env| div(a, b, env);
    DivReversed: |a, b, env| div(b, a, env);
}

pub(super) fn select(code: Code) -> Option<Exec> {
    use Code as C;
    Some(match code {
        C::Fadd_m32fp => memory::<Add, Single>,
        C::Fadd_m64fp => memory::<Add, Double>,
        C::Fiadd_m16int => memory::<Add, Int16>,
        C::Fiadd_m32int => memory::<Add, Int32>,
        C::Fadd_st0_sti | C::Fadd_sti_st0 => registers::<Add, false>,
        C::Faddp_sti_st0 => registers::<Add, true>,
        C::Fmul_m32fp => memory::<Mul, Single>,
        C::Fmul_m64fp => memory::<Mul, Double>,
        C::Fimul_m16int => memory::<Mul, Int16>,
        C::Fimul_m32int => memory::<Mul, Int32>,
        C::Fmul_st0_sti | C::Fmul_sti_st0 => registers::<Mul, false>,
        C::Fmulp_sti_st0 => registers::<Mul, true>,
        C::Fsub_m32fp => memory::<Sub, Single>,
        C::Fsub_m64fp => memory::<Sub, Double>,
        C::Fisub_m16int => memory::<Sub, Int16>,
        C::Fisub_m32int => memory::<Sub, Int32>,
        C::Fsub_st0_sti | C::Fsub_sti_st0 => registers::<Sub, false>,
        C::Fsubp_sti_st0 => registers::<Sub, true>,
        C::Fsubr_m32fp => memory::<SubReversed, Single>,
        C::Fsubr_m64fp => memory::<SubReversed, Double>,
        C::Fisubr_m16int => memory::<SubReversed, Int16>,
        C::Fisubr_m32int => memory::<SubReversed, Int32>,
        C::Fsubr_st0_sti | C::Fsubr_sti_st0 => registers::<SubReversed, false>,
        C::Fsubrp_sti_st0 => registers::<SubReversed, true>,
        C::Fdiv_m32fp => memory::<Div, Single>,
        C::Fdiv_m64fp => memory::<Div, Double>,
        C::Fidiv_m16int => memory::<Div, Int16>,
        C::Fidiv_m32int => memory::<Div, Int32>,
        C::Fdiv_st0_sti | C::Fdiv_sti_st0 => registers::<Div, false>,
        C::Fdivp_sti_st0 => registers::<Div, true>,
        C::Fdivr_m32fp => memory::<DivReversed, Single>,
        C::Fdivr_m64fp => memory::<DivReversed, Double>,
        C::Fidivr_m16int => memory::<DivReversed, Int16>,
        C::Fidivr_m32int => memory::<DivReversed, Int32>,
        C::Fdivr_st0_sti | C::Fdivr_sti_st0 => registers::<DivReversed, false>,
        C::Fdivrp_sti_st0 => registers::<DivReversed, true>,
        _ => return None,
    })
}

/// ST0 with a memory operand.
fn memory<A: Arithmetic, S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let source = S::read(cpu, op)?;
    let Some(destination) = cpu.fpu.st(0) else {
        if stack_fault(cpu, op, false) {
            put(cpu, 0, indefinite());
        }
        return Ok(());
    };
    let result = A::apply(destination.unpack(), source, &mut env);
    if complete(cpu, op, &env) {
        put(cpu, 0, result);
    }
    Ok(())
}

/// Two registers.
fn registers<A: Arithmetic, const POP: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let [destination, source, _] = op.reg;
    let (result, write) = match (cpu.fpu.st(destination), cpu.fpu.st(source)) {
        (Some(a), Some(b)) => {
            let result = A::apply(a.unpack(), b.unpack(), &mut env);
            (result, complete(cpu, op, &env))
        }
        _ => (indefinite(), stack_fault(cpu, op, false)),
    };
    if write {
        put(cpu, destination, result);
        if POP {
            cpu.fpu.pop();
        }
    }
    Ok(())
}
