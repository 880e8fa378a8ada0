//! Moves to and from MMX registers, conversions between MMX and XMM registers, and EMMS.
//!
//! Intel SDM volume 1, sections 9.4.2, 9.6.3 (EMMS), 10.4.4 and 11.4.1.6; volume 2, each.

use iced_x86::Code;

use super::{TOP, enter, get, ready, set, source};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op, gpr};
use crate::softfloat::{Env, F32, F64, Format, Rounding, from_int, to_int};
use crate::sse;

/// The handler of a move, or `None`.
pub(super) fn select(code: Code, op: &Op) -> Option<Exec> {
    use Code as C;
    let memory = op.has_memory();
    Some(match code {
        C::Emms => emms,
        C::Movd_mm_rm32 if memory => {
            |cpu, op| load(cpu, op, |cpu, op| Ok(cpu.load::<u32>(op)?.into()))
        }
        C::Movd_mm_rm32 => |cpu, op| load(cpu, op, |cpu, op| Ok(cpu.get::<u32>(op.reg[1]).into())),
        C::Movq_mm_rm64 if memory => |cpu, op| load(cpu, op, Cpu::load::<u64>),
        C::Movq_mm_rm64 => |cpu, op| load(cpu, op, |cpu, op| Ok(cpu.get::<u64>(op.reg[1]))),
        C::Movq_mm_mmm64 if memory => |cpu, op| load(cpu, op, source::<true>),
        C::Movq_mm_mmm64 => |cpu, op| load(cpu, op, source::<false>),
        C::Movd_rm32_mm if memory => |cpu, op| store(cpu, op, |cpu, op, v| cpu.store(op, v as u32)),
        C::Movd_rm32_mm => |cpu, op| store(cpu, op, |cpu, op, v| general(cpu, op, v & 0xffff_ffff)),
        C::Movq_rm64_mm if memory => |cpu, op| store(cpu, op, Cpu::store::<u64>),
        C::Movq_rm64_mm => |cpu, op| store(cpu, op, general),
        C::Movq_mmm64_mm if memory => |cpu, op| store(cpu, op, Cpu::store::<u64>),
        C::Movq_mmm64_mm => |cpu, op| {
            store(cpu, op, |cpu, op, value| {
                set(cpu, op.reg[0], value);
                Ok(())
            })
        },
        C::Movntq_m64_mm => |cpu, op| store(cpu, op, Cpu::store::<u64>),
        C::Maskmovq_rDI_mm_mm => masked_store,
        C::Pmovmskb_r32_mm | C::Pmovmskb_r64_mm => |cpu, op| {
            store(cpu, op, |cpu, op, value| {
                let mask = (0..8).fold(0, |mask, i| mask | (value >> (8 * i + 7) & 1) << i);
                general(cpu, op, mask)
            })
        },
        C::Pextrw_r32_mm_imm8 | C::Pextrw_r64_mm_imm8 => |cpu, op| {
            store(cpu, op, |cpu, op, value| general(cpu, op, value >> (16 * (op.imm & 3)) & 0xffff))
        },
        C::Pinsrw_mm_r32m16_imm8 | C::Pinsrw_mm_r64m16_imm8 if memory => |cpu, op| {
            load(cpu, op, |cpu, op| {
                let word = cpu.load(op)?;
                Ok(insert(cpu, op, word))
            })
        },
        C::Pinsrw_mm_r32m16_imm8 | C::Pinsrw_mm_r64m16_imm8 => {
            |cpu, op| load(cpu, op, |cpu, op| Ok(insert(cpu, op, cpu.get::<u16>(op.reg[1]))))
        }
        C::Movq2dq_xmm_mm => to_xmm,
        C::Movdq2q_mm_xmm => from_xmm,
        C::Cvtpi2ps_xmm_mmm64 if memory => integers_to_singles::<true>,
        C::Cvtpi2ps_xmm_mmm64 => integers_to_singles::<false>,
        C::Cvtpi2pd_xmm_mmm64 if memory => integers_to_doubles::<true>,
        C::Cvtpi2pd_xmm_mmm64 => integers_to_doubles::<false>,
        C::Cvtps2pi_mm_xmmm64 => singles_to_integers::<false>,
        C::Cvttps2pi_mm_xmmm64 => singles_to_integers::<true>,
        C::Cvtpd2pi_mm_xmmm128 => doubles_to_integers::<false>,
        C::Cvttpd2pi_mm_xmmm128 => doubles_to_integers::<true>,
        _ => return None,
    })
}

/// Empties the registers. TOP becomes 0 as with every MMX instruction, though the manual is silent.
fn emms(cpu: &mut Cpu, _: &Op) -> Done {
    ready(cpu)?;
    enter(cpu);
    cpu.fpu.ftw = 0;
    Ok(())
}

/// Writes a value to operand 0, an MMX register.
#[inline]
fn load(cpu: &mut Cpu, op: &Op, value: impl Fn(&mut Cpu, &Op) -> Done<u64>) -> Done {
    ready(cpu)?;
    let value = value(cpu, op)?;
    set(cpu, op.reg[0], value);
    Ok(())
}

/// Does something with the value of operand 1, an MMX register.
///
/// A store that faults leaves TOP at 0, here as on processors: it is the one thing that a faulting
/// instruction changes, and doing it again changes nothing more.
#[inline]
fn store(cpu: &mut Cpu, op: &Op, put: impl Fn(&mut Cpu, &Op, u64) -> Done) -> Done {
    ready(cpu)?;
    cpu.fpu.fsw &= !TOP;
    let value = get(cpu, op.reg[1]);
    put(cpu, op, value)?;
    enter(cpu);
    Ok(())
}

/// Sets operand 0, a general register, clearing what is above.
fn general(cpu: &mut Cpu, op: &Op, value: u64) -> Done {
    cpu.set::<u64>(op.reg[0], value);
    Ok(())
}

/// Operand 0 with one word replaced.
fn insert(cpu: &Cpu, op: &Op, word: u16) -> u64 {
    let shift = 16 * (op.imm & 3);
    get(cpu, op.reg[0]) & !(0xffff << shift) | u64::from(word) << shift
}

/// MASKMOVQ: stores the bytes of operand 1 whose top bit is set in operand 2, at DS:rDI. It faults
/// as a store of all eight would, whatever the mask.
fn masked_store(cpu: &mut Cpu, op: &Op) -> Done {
    store(cpu, op, |cpu, op, value| {
        let mask = get(cpu, op.reg[2]);
        let offset = match op.address {
            2 => cpu.regs[gpr::RDI] & 0xffff,
            4 => cpu.regs[gpr::RDI] & 0xffff_ffff,
            _ => cpu.regs[gpr::RDI],
        };
        let address = cpu.segmented(op.seg, offset, 8, true)?;
        cpu.check_write(op.seg, address, 8)?;
        for i in 0..8u64 {
            if mask >> (8 * i + 7) & 1 != 0 {
                cpu.write::<u8>(op.seg, address.wrapping_add(i), (value >> (8 * i)) as u8)?;
            }
        }
        Ok(())
    })
}

fn xmm(cpu: &Cpu, register: u8) -> u128 {
    cpu.fpu.xmm[usize::from(register & 15)]
}

fn set_xmm(cpu: &mut Cpu, register: u8, value: u128) {
    cpu.fpu.xmm[usize::from(register & 15)] = value;
}

/// Reports a conversion's exceptions. The transition to MMX has taken place by then.
fn settle(cpu: &mut Cpu, env: &Env) -> Done {
    enter(cpu);
    sse::settle(cpu, env)
}

/// What instructions on registers of both kinds check.
fn both_ready(cpu: &Cpu) -> Done {
    sse::ready(cpu)?;
    ready(cpu)
}

fn to_xmm(cpu: &mut Cpu, op: &Op) -> Done {
    both_ready(cpu)?;
    set_xmm(cpu, op.reg[0], get(cpu, op.reg[1]).into());
    enter(cpu);
    Ok(())
}

fn from_xmm(cpu: &mut Cpu, op: &Op) -> Done {
    both_ready(cpu)?;
    set(cpu, op.reg[0], xmm(cpu, op.reg[1]) as u64);
    Ok(())
}

/// CVTPI2PS: two integers to the two lower singles. From memory, no MMX register is concerned and
/// processors leave the x87 alone.
fn integers_to_singles<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    sse::ready(cpu)?;
    if !MEMORY {
        ready(cpu)?;
    }
    let integers = source::<MEMORY>(cpu, op)?;
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let low: F32 = from_int(i64::from(integers as i32), &mut env);
    let high: F32 = from_int(integers as i64 >> 32, &mut env);
    if MEMORY {
        sse::settle(cpu, &env)?;
    } else {
        settle(cpu, &env)?;
    }
    let old = xmm(cpu, op.reg[0]) & !u128::from(u64::MAX);
    set_xmm(cpu, op.reg[0], old | u128::from(low.0) | u128::from(high.0) << 32);
    Ok(())
}

/// CVTPI2PD: two integers to two doubles. From memory, as above.
fn integers_to_doubles<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    sse::ready(cpu)?;
    if !MEMORY {
        ready(cpu)?;
    }
    let integers = source::<MEMORY>(cpu, op)?;
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let low: F64 = from_int(i64::from(integers as i32), &mut env);
    let high: F64 = from_int(integers as i64 >> 32, &mut env);
    set_xmm(cpu, op.reg[0], u128::from(low.0) | u128::from(high.0) << 64);
    if !MEMORY {
        enter(cpu);
    }
    Ok(())
}

fn rounding<const TRUNCATE: bool>(env: &Env) -> Rounding {
    if TRUNCATE { Rounding::Zero } else { env.rounding }
}

/// CVTPS2PI and CVTTPS2PI: the two lower singles to integers.
fn singles_to_integers<const TRUNCATE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    both_ready(cpu)?;
    let singles = if op.has_memory() { cpu.load(op)? } else { xmm(cpu, op.reg[1]) as u64 };
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let rounding = rounding::<TRUNCATE>(&env);
    let mut integer = |bits: u64| to_int(F32(bits as u32).unpack(), 32, rounding, &mut env) as u32;
    let (low, high) = (integer(singles), integer(singles >> 32));
    settle(cpu, &env)?;
    set(cpu, op.reg[0], u64::from(low) | u64::from(high) << 32);
    Ok(())
}

/// CVTPD2PI and CVTTPD2PI: two doubles to integers.
fn doubles_to_integers<const TRUNCATE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    both_ready(cpu)?;
    let doubles = if op.has_memory() { cpu.load_aligned(op)? } else { xmm(cpu, op.reg[1]) };
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let rounding = rounding::<TRUNCATE>(&env);
    let mut integer = |bits: u128| to_int(F64(bits as u64).unpack(), 32, rounding, &mut env) as u32;
    let (low, high) = (integer(doubles), integer(doubles >> 64));
    settle(cpu, &env)?;
    set(cpu, op.reg[0], u64::from(low) | u64::from(high) << 32);
    Ok(())
}
