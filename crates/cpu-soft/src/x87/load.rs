//! Loads, stores, moves and exchanges: FLD, FST, FILD, FIST, FISTTP, FBLD, FBSTP, FXCH, FCMOVcc and
//! the constants.
//!
//! Intel SDM volume 1, section 8.3.3 and 8.3.4.

use iced_x86::Code;

use super::operand::{Double, Int16, Int32, Int64, Single, Source, read_ten, write_ten};
use super::stack::Stack;
use super::{begin, complete, indefinite, note_pointers, put, stack_fault, unmasked};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::mem::Mem;
use crate::op::{Exec, Op};
use crate::softfloat::{
    Constant, Env, F32, F64, F80, Flags, Format, Rounding, from_bcd, load, store, to_bcd, to_int,
};

pub(super) fn select(code: Code, op: &mut Op) -> Option<Exec> {
    use Code as C;
    Some(match code {
        C::Fld_m32fp => fld::<Single>,
        C::Fld_m64fp => fld::<Double>,
        C::Fild_m16int => fld::<Int16>,
        C::Fild_m32int => fld::<Int32>,
        C::Fild_m64int => fld::<Int64>,
        C::Fld_m80fp => fld_ten,
        C::Fbld_m80bcd => fbld,
        C::Fld_sti => fld_register,
        C::Fld1 => constant::<0>,
        C::Fldl2t => constant::<1>,
        C::Fldl2e => constant::<2>,
        C::Fldpi => constant::<3>,
        C::Fldlg2 => constant::<4>,
        C::Fldln2 => constant::<5>,
        C::Fldz => constant::<6>,
        C::Fst_m32fp => fst::<F32, false>,
        C::Fst_m64fp => fst::<F64, false>,
        C::Fstp_m32fp => fst::<F32, true>,
        C::Fstp_m64fp => fst::<F64, true>,
        C::Fstp_m80fp => fstp_ten,
        C::Fbstp_m80bcd => fbstp,
        C::Fist_m16int => fist::<u16, false, false>,
        C::Fist_m32int => fist::<u32, false, false>,
        C::Fistp_m16int => fist::<u16, true, false>,
        C::Fistp_m32int => fist::<u32, true, false>,
        C::Fistp_m64int => fist::<u64, true, false>,
        C::Fisttp_m16int => fist::<u16, true, true>,
        C::Fisttp_m32int => fist::<u32, true, true>,
        C::Fisttp_m64int => fist::<u64, true, true>,
        C::Fst_sti => fst_register::<false, false>,
        C::Fstp_sti | C::Fstp_sti_DFD0 | C::Fstp_sti_DFD8 => fst_register::<true, false>,
        C::Fstpnce_sti => fst_register::<true, true>,
        C::Fxch_st0_sti | C::Fxch_st0_sti_DDC8 | C::Fxch_st0_sti_DFC8 => fxch,
        C::Fcmovb_st0_sti => on_condition(op, 2),
        C::Fcmovnb_st0_sti => on_condition(op, 3),
        C::Fcmove_st0_sti => on_condition(op, 4),
        C::Fcmovne_st0_sti => on_condition(op, 5),
        C::Fcmovbe_st0_sti => on_condition(op, 6),
        C::Fcmovnbe_st0_sti => on_condition(op, 7),
        C::Fcmovu_st0_sti => on_condition(op, 10),
        C::Fcmovnu_st0_sti => on_condition(op, 11),
        _ => return None,
    })
}

/// Pushes a value that reports nothing, or reports a stack overflow.
fn push(cpu: &mut Cpu, op: &Op, value: F80, env: &Env) {
    if !cpu.fpu.is_empty(7) {
        if stack_fault(cpu, op, true) {
            cpu.fpu.push(indefinite());
        }
        return;
    }
    complete(cpu, op, env);
    // An unmasked denormal operand is loaded and reported; an unmasked invalid one is not loaded.
    if !unmasked(env, Flags::INVALID) {
        cpu.fpu.push(value);
    }
}

fn fld<S: Source>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let source = S::read(cpu, op)?;
    let value = load(source, &mut env);
    push(cpu, op, value, &env);
    Ok(())
}

fn fld_ten(cpu: &mut Cpu, op: &Op) -> Done {
    let env = begin(cpu)?;
    let bits = read_ten(cpu, op)?;
    push(cpu, op, F80::from_bits(bits), &env);
    Ok(())
}

fn fbld(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let bits = read_ten(cpu, op)?;
    let value = from_bcd(bits, &mut env);
    push(cpu, op, value, &env);
    Ok(())
}

fn fld_register(cpu: &mut Cpu, op: &Op) -> Done {
    let env = begin(cpu)?;
    match cpu.fpu.st(op.reg[0]) {
        Some(value) => push(cpu, op, value, &env),
        // Also when there is no room: the source is looked at first.
        None => {
            if stack_fault(cpu, op, false) {
                cpu.fpu.push(indefinite());
            }
        }
    }
    Ok(())
}

fn constant<const N: usize>(cpu: &mut Cpu, op: &Op) -> Done {
    const CONSTANTS: [Constant; 7] = [
        Constant::One,
        Constant::Log2Of10,
        Constant::Log2OfE,
        Constant::Pi,
        Constant::Log10Of2,
        Constant::LnOf2,
        Constant::Zero,
    ];
    let env = begin(cpu)?;
    let value = const { CONSTANTS[N] }.load(env.rounding);
    push(cpu, op, value, &env);
    Ok(())
}

/// The memory form of a single or double.
trait Memory: Format {
    type Bits: Mem;
    fn bits(self) -> Self::Bits;
}

impl Memory for F32 {
    type Bits = u32;
    fn bits(self) -> u32 {
        self.0
    }
}

impl Memory for F64 {
    type Bits = u64;
    fn bits(self) -> u64 {
        self.0
    }
}

fn fst<F: Memory, const POP: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    let value = match cpu.fpu.st(0) {
        Some(value) => store::<F>(value, &mut env),
        None if env.masked(Flags::INVALID) => Some(F::default_nan()),
        None => None,
    };
    if let Some(value) = value {
        cpu.store(op, value.bits())?;
    }
    finish_store(cpu, op, &env, value.is_some(), POP);
    Ok(())
}

/// Reports what a store to memory came to, and pops if it took place.
fn finish_store(cpu: &mut Cpu, op: &Op, env: &Env, stored: bool, pop: bool) {
    if cpu.fpu.is_empty(0) {
        stack_fault(cpu, op, false);
    } else {
        complete(cpu, op, env);
    }
    if stored && pop {
        cpu.fpu.pop();
    }
}

fn fist<T: Mem + TryFromInt, const POP: bool, const TRUNCATE: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Done {
    let mut env = begin(cpu)?;
    let rounding = if TRUNCATE { Rounding::Zero } else { env.rounding };
    let bits = 8 * T::SIZE as u32;
    let value = match cpu.fpu.st(0) {
        Some(value) => to_int(value.unpack(), bits, rounding, &mut env),
        None => i64::MIN >> (64 - bits),
    };
    let forbidden =
        unmasked(&env, Flags::INVALID) || (cpu.fpu.is_empty(0) && !env.masked(Flags::INVALID));
    if !forbidden {
        cpu.store(op, T::cut(value))?;
    }
    finish_store(cpu, op, &env, !forbidden, POP);
    Ok(())
}

/// The memory form of an integer.
trait TryFromInt {
    fn cut(value: i64) -> Self;
}

impl TryFromInt for u16 {
    fn cut(value: i64) -> u16 {
        value as u16
    }
}

impl TryFromInt for u32 {
    fn cut(value: i64) -> u32 {
        value as u32
    }
}

impl TryFromInt for u64 {
    fn cut(value: i64) -> u64 {
        value as u64
    }
}

fn fstp_ten(cpu: &mut Cpu, op: &Op) -> Done {
    let env = begin(cpu)?;
    let value = match cpu.fpu.st(0) {
        Some(value) => Some(value),
        None if env.masked(Flags::INVALID) => Some(indefinite()),
        None => None,
    };
    if let Some(value) = value {
        write_ten(cpu, op, value.to_bits())?;
    }
    finish_store(cpu, op, &env, value.is_some(), true);
    Ok(())
}

fn fbstp(cpu: &mut Cpu, op: &Op) -> Done {
    let mut env = begin(cpu)?;
    // What an empty register gives is what any NaN does.
    let bits = to_bcd(cpu.fpu.st(0).unwrap_or(indefinite()), &mut env);
    let forbidden = unmasked(&env, Flags::INVALID);
    if !forbidden {
        write_ten(cpu, op, bits)?;
    }
    finish_store(cpu, op, &env, !forbidden, true);
    Ok(())
}

/// FST and FSTP to a register. The undocumented D9 D8+i (`QUIET`) reports no stack underflow, and
/// then only pops.
fn fst_register<const POP: bool, const QUIET: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let env = begin(cpu)?;
    let proceed = match cpu.fpu.st(0) {
        Some(value) => {
            complete(cpu, op, &env);
            put(cpu, op.reg[0], value);
            true
        }
        None if QUIET => complete(cpu, op, &env),
        None => {
            let masked = stack_fault(cpu, op, false);
            if masked {
                put(cpu, op.reg[0], indefinite());
            }
            masked
        }
    };
    if POP && proceed {
        cpu.fpu.pop();
    }
    Ok(())
}

fn fxch(cpu: &mut Cpu, op: &Op) -> Done {
    let env = begin(cpu)?;
    let i = op.reg[1];
    let (a, b) = (cpu.fpu.st(0), cpu.fpu.st(i));
    let proceed = if a.is_some() && b.is_some() {
        complete(cpu, op, &env)
    } else {
        stack_fault(cpu, op, false)
    };
    if proceed {
        put(cpu, 0, b.unwrap_or(indefinite()));
        put(cpu, i, a.unwrap_or(indefinite()));
    }
    Ok(())
}

fn on_condition(op: &mut Op, condition: u64) -> Exec {
    op.imm = condition;
    fcmov
}

/// FCMOVcc: moves ST(i) to ST0 on the condition code in `imm`. C1 stays as it was but for a stack
/// fault.
fn fcmov(cpu: &mut Cpu, op: &Op) -> Done {
    begin(cpu)?;
    let (Some(_), Some(source)) = (cpu.fpu.st(0), cpu.fpu.st(op.reg[1])) else {
        if stack_fault(cpu, op, false) {
            put(cpu, 0, indefinite());
        }
        return Ok(());
    };
    note_pointers(cpu, op);
    if cpu.flags.condition(op.imm as u8) {
        put(cpu, 0, source);
    }
    Ok(())
}
