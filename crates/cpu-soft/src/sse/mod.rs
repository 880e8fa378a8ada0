//! SSE to SSE4.2 on the XMM registers.
//!
//! Most of these instructions are one function of two 128-bit values and an immediate, so a family
//! file is a table: a line says which instruction, what kind of operand its second one is, and what
//! becomes of the two. `table!` makes a type of each line, and the generic handlers here
//! (`into_xmm`, `into_general`, `into_flags`) do around it what is the same for all: whether
//! SSE may be used at all, the operand from register or memory, MXCSR and the exceptions in it.
//!
//! Where to begin: `lanes` for how vectors are taken apart, then `integer`.
//!
//! * `moves`: loads, stores and moves, to and from general registers too;
//! * `integer`: packed integer arithmetic, logic and shifts;
//! * `shuffle`: shuffles, blends, packs, unpacks, inserts, widening moves;
//! * `compare`: packed and scalar comparisons;
//! * `arith`: floating point arithmetic and rounding;
//! * `convert`: between floating point formats and integers;
//! * `strings`: PCMPESTRI and its family.
//!
//! Intel SDM volume 1, chapters 10 to 12; volume 2, the instructions' own pages; volume 3A, 13.1
//! (what the system must allow) and 2.6.3 of volume 2 (exception classes).
//!
//! Instructions that touch an MMX register too (MOVQ2DQ, CVTPI2PS, ...) are in [`mmx`](crate::mmx),
//! those that move MXCSR in [`xstate`](crate::xstate).

use iced_x86::Instruction;
use riad_cpu::x86::{cr0, cr4};

use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op};
use crate::softfloat::Env;

/// Defines a `select` function from a table of instructions.
///
/// A line is `Code: Source => |a, b, immediate, env| value;` with any number of the four
/// parameters: the old value of the destination, the second operand, the immediate and the floating
/// point environment. The handler named in the head says where the value goes.
macro_rules! table {
    (
        $(#[$attribute:meta])*
        $select:ident -> $into:ident;
        $($code:ident: $source:ident => |$a:tt $(, $b:tt $(, $imm:tt $(, $env:tt)?)?)?| $value:expr;)*
    ) => {
        $(#[$attribute])*
        pub(super) fn $select(code: iced_x86::Code, op: &crate::op::Op) -> Option<crate::op::Exec> {
            Some(match code {
                $(iced_x86::Code::$code => {
                    struct It;
                    impl crate::sse::Operation for It {
                        type Source = crate::sse::$source;
                        #[inline(always)]
                        #[allow(unused_variables, reason = "lines name what they need")]
                        fn apply(
                            destination: u128,
                            source: u128,
                            immediate: u8,
                            environment: &mut crate::softfloat::Env,
                        ) -> u128 {
                            let $a = destination;
                            $(let $b = source;
                            $(let $imm = immediate;
                            $(let $env = environment;)?)?)?
                            $value
                        }
                    }
                    if op.has_memory() {
                        crate::sse::$into::<It, true>
                    } else {
                        crate::sse::$into::<It, false>
                    }
                })*
                _ => return None,
            })
        }
    };
}

mod arith;
mod compare;
mod convert;
mod integer;
mod lanes;
mod moves;
#[cfg(all(test, target_arch = "x86_64"))]
mod oracle_test;
mod shuffle;
mod strings;

/// The handler of an SSE instruction, or `None` when it is not one.
#[must_use]
pub fn select(i: &Instruction, op: &mut Op) -> Option<Exec> {
    let (code, op) = (i.code(), &*op);
    moves::select(code, op)
        .or_else(|| integer::select(code, op))
        .or_else(|| shuffle::select(code, op))
        .or_else(|| arith::select(code, op))
        .or_else(|| compare::select(code, op))
        .or_else(|| convert::select(code, op))
        .or_else(|| strings::select(code, op))
}

/// What a line of a [`table!`] is: a function of the destination's old value, the second operand,
/// the immediate and the floating point environment.
trait Operation {
    /// What kind of operand the second one is.
    type Source: Source;
    /// Computes. The result counts only if the environment has no unmasked exception then.
    fn apply(a: u128, b: u128, imm: u8, env: &mut Env) -> u128;
}

/// A kind of second operand.
trait Source {
    /// Its value when it is a register. Higher bits than the operand's may be set.
    fn register(cpu: &Cpu, op: &Op) -> u128;
    /// Its value when it is in memory, zero-extended.
    fn memory(cpu: &mut Cpu, op: &Op) -> Done<u128>;
}

/// Defines kinds of operands: the register's value, and the width of memory.
macro_rules! sources {
    ($($(#[$attribute:meta])* $name:ident: $register:ident, $load:ident $(::<$memory:ty>)?;)*) => {$(
        $(#[$attribute])*
        struct $name;
        impl Source for $name {
            #[inline(always)]
            fn register(cpu: &Cpu, op: &Op) -> u128 {
                $register(cpu, op.reg[1])
            }
            #[inline(always)]
            fn memory(cpu: &mut Cpu, op: &Op) -> Done<u128> {
                Ok(cpu.$load$(::<$memory>)?(op)?.into())
            }
        }
    )*};
}

sources! {
    /// XMM, or 16 bytes that must be aligned.
    Aligned: xmm, load_aligned;
    /// XMM, or 16 bytes anywhere.
    Unaligned: xmm, load::<u128>;
    /// XMM, or 8 bytes.
    Low64: xmm, load::<u64>;
    /// XMM, or 4 bytes.
    Low32: xmm, load::<u32>;
    /// XMM, or 2 bytes.
    Low16: xmm, load::<u16>;
    /// A general register, or 8 bytes.
    General64: general, load::<u64>;
    /// A general register's low half, or 4 bytes.
    General32: general, load::<u32>;
    /// A general register, of which the low 2 bytes count, or 2 bytes.
    General16: general, load::<u16>;
    /// A general register, of which the low byte counts, or 1 byte.
    General8: general, load::<u8>;
}

/// The single of an XMM register that bits 6 and 7 of the immediate name, or 4 bytes (INSERTPS).
struct ChosenSingle;

impl Source for ChosenSingle {
    #[inline(always)]
    fn register(cpu: &Cpu, op: &Op) -> u128 {
        xmm(cpu, op.reg[1]) >> (32 * (op.imm as u32 >> 6 & 3))
    }
    #[inline(always)]
    fn memory(cpu: &mut Cpu, op: &Op) -> Done<u128> {
        Low32::memory(cpu, op)
    }
}

/// The value of an XMM register.
#[inline(always)]
fn xmm(cpu: &Cpu, register: u8) -> u128 {
    cpu.fpu.xmm[usize::from(register & 15)]
}

/// Sets an XMM register.
#[inline(always)]
fn set_xmm(cpu: &mut Cpu, register: u8, value: u128) {
    cpu.fpu.xmm[usize::from(register & 15)] = value;
}

/// The value of a general register, all of it.
#[inline(always)]
fn general(cpu: &Cpu, register: u8) -> u128 {
    cpu.get::<u64>(register).into()
}

/// Whether the system lets SSE be used.
///
/// # Errors
/// #UD if CR0.EM is set or CR4.OSFXSR clear, else #NM if CR0.TS is set.
#[inline(always)]
pub(crate) fn ready(cpu: &Cpu) -> Done {
    if cpu.control.cr0 & (cr0::EM | cr0::TS) | !cpu.control.cr4 & cr4::OSFXSR != 0 {
        return Err(not_ready(cpu));
    }
    Ok(())
}

#[cold]
fn not_ready(cpu: &Cpu) -> Fault {
    if cpu.control.cr0 & cr0::EM != 0 || cpu.control.cr4 & cr4::OSFXSR == 0 {
        Fault::UD
    } else {
        Fault::NM
    }
}

/// Adds an instruction's exceptions to MXCSR.
///
/// # Errors
/// #XM if one of them is not masked, or #UD if the system does not know that exception; the
/// instruction must not write its result then.
#[inline(always)]
pub(crate) fn settle(cpu: &mut Cpu, env: &Env) -> Done {
    if env.flags.is_empty() {
        return Ok(());
    }
    let settled = env.settle();
    cpu.fpu.mxcsr |= u32::from(settled.flags.bits());
    if settled.fault {
        let known = cpu.control.cr4 & cr4::OSXMMEXCPT != 0;
        return Err(if known { Fault::XM } else { Fault::UD });
    }
    Ok(())
}

/// Operand 1, from memory or register.
#[inline(always)]
fn source<S: Source, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done<u128> {
    if MEMORY { S::memory(cpu, op) } else { Ok(S::register(cpu, op)) }
}

/// Writes the result of an operation to an XMM register, operand 0, whose old value it also sees.
fn into_xmm<O: Operation, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let b = source::<O::Source, MEMORY>(cpu, op)?;
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let result = O::apply(xmm(cpu, op.reg[0]), b, op.imm as u8, &mut env);
    settle(cpu, &env)?;
    set_xmm(cpu, op.reg[0], result);
    Ok(())
}

/// Writes the low 64 bits of the result to a general register, operand 0.
fn into_general<O: Operation, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let b = source::<O::Source, MEMORY>(cpu, op)?;
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let result = O::apply(0, b, op.imm as u8, &mut env);
    settle(cpu, &env)?;
    cpu.set::<u64>(op.reg[0], result as u64);
    Ok(())
}

/// Makes the result the status flags, in their places in RFLAGS; both operands are only read.
fn into_flags<O: Operation, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    ready(cpu)?;
    let b = source::<O::Source, MEMORY>(cpu, op)?;
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let result = O::apply(xmm(cpu, op.reg[0]), b, op.imm as u8, &mut env);
    settle(cpu, &env)?;
    cpu.flags.set_status(result as u64);
    Ok(())
}
