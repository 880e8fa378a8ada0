//! FCOM, FUCOM, FICOM, FCOMI, FUCOMI, FTST and FXAM.
//!
//! Intel SDM volume 1, sections 8.3.6 and 8.3.7; tables 8-6 to 8-9 for the condition codes.

use iced_x86::Code;
use riad_cpu::x86::rflags::{CF, PF, ZF};

use super::operand::{Double, Int16, Int32, Single, Source};
use super::stack::{C0, C1, C2, C3, Stack};
use super::{begin, complete, note_pointers, stack_fault};
use crate::cpu::Cpu;
use crate::fault::Done;
use crate::op::{Exec, Op};
use crate::softfloat::{F80, Format, Kind, Relation, Unpacked, compare};

/// Comparison with a quiet NaN is an invalid operation (FCOM), or not (FUCOM).
const ORDERED: bool = true;
const UNORDERED: bool = false;

pub(super) fn select(code: Code, op: &mut Op) -> Option<Exec> {
    use Code as C;
    Some(match code {
        C::Fcom_m32fp => memory::<Single, 0>,
        C::Fcom_m64fp => memory::<Double, 0>,
        C::Ficom_m16int => memory::<Int16, 0>,
        C::Ficom_m32int => memory::<Int32, 0>,
        C::Fcomp_m32fp => memory::<Single, 1>,
        C::Fcomp_m64fp => memory::<Double, 1>,
        C::Ficomp_m16int => memory::<Int16, 1>,
        C::Ficomp_m32int => memory::<Int32, 1>,
        C::Fcom_st0_sti | C::Fcom_st0_sti_DCD0 => registers::<ORDERED, 0>,
        C::Fcomp_st0_sti | C::Fcomp_st0_sti_DCD8 | C::Fcomp_st0_sti_DED0 => registers::<ORDERED, 1>,
        C::Fucom_st0_sti => registers::<UNORDERED, 0>,
        C::Fucomp_st0_sti => registers::<UNORDERED, 1>,
        C::Fcompp => {
            op.reg[1] = 1;
            registers::<ORDERED, 2>
        }
        C::Fucompp => {
            op.reg[1] = 1;
            registers::<UNORDERED, 2>
        }
        C::Fcomi_st0_sti => to_eflags::<ORDERED, 0>,
        C::Fcomip_st0_sti => to_eflags::<ORDERED, 1>,
        C::Fucomi_st0_sti => to_eflags::<UNORDERED, 0>,
        C::Fucomip_st0_sti => to_eflags::<UNORDERED, 1>,
        C::Ftst => ftst,
        C::Fxam => fxam,
        _ => return None,
    })
}

fn conditions(relation: Relation) -> u16 {
    match relation {
        Relation::Greater => 0,
        Relation::Less => C0,
        Relation::Equal => C3,
        Relation::Unordered => C0 | C2 | C3,
    }
}

fn eflags(relation: Relation) -> u64 {
    match relation {
        Relation::Greater => 0,
        Relation::Less => CF,
        Relation::Equal => ZF,
        Relation::Unordered => CF | PF | ZF,
    }
}

/// Compares what both operands hold, `None` being an empty register. Gives the relation, and
/// whether to pop.
///
/// The condition codes tell the relation even when an unmasked exception keeps the stack as it was.
fn relate(
    cpu: &mut Cpu,
    op: &Op,
    operands: Option<(Unpacked, Unpacked)>,
    signaling: bool,
) -> Done<(Relation, bool)> {
    let mut env = begin(cpu)?;
    let Some((a, b)) = operands else {
        return Ok((Relation::Unordered, stack_fault(cpu, op, false)));
    };
    let relation = compare(a, b, signaling, &mut env);
    Ok((relation, complete(cpu, op, &env)))
}

fn pops(cpu: &mut Cpu, count: u8) {
    for _ in 0..count {
        cpu.fpu.pop();
    }
}

fn memory<S: Source, const POPS: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    begin(cpu)?;
    let source = S::read(cpu, op)?;
    let operands = cpu.fpu.st(0).map(|a| (a.unpack(), source));
    let (relation, proceed) = relate(cpu, op, operands, ORDERED)?;
    cpu.fpu.set_conditions(conditions(relation));
    if proceed {
        pops(cpu, POPS);
    }
    Ok(())
}

fn both(cpu: &Cpu, i: u8) -> Option<(Unpacked, Unpacked)> {
    Some((cpu.fpu.st(0)?.unpack(), cpu.fpu.st(i)?.unpack()))
}

fn registers<const SIGNALING: bool, const POPS: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    let operands = both(cpu, op.reg[1]);
    let (relation, proceed) = relate(cpu, op, operands, SIGNALING)?;
    cpu.fpu.set_conditions(conditions(relation));
    if proceed {
        pops(cpu, POPS);
    }
    Ok(())
}

/// Comparison into EFLAGS; C1 stays as it was but for a stack fault.
fn to_eflags<const SIGNALING: bool, const POPS: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    let operands = both(cpu, op.reg[1]);
    let c1 = cpu.fpu.fsw & C1;
    let (relation, proceed) = relate(cpu, op, operands, SIGNALING)?;
    if operands.is_some() {
        cpu.fpu.fsw |= c1;
    }
    cpu.flags.set_status(eflags(relation));
    if proceed {
        pops(cpu, POPS);
    }
    Ok(())
}

fn ftst(cpu: &mut Cpu, op: &Op) -> Done {
    let operands = cpu.fpu.st(0).map(|a| (a.unpack(), Unpacked::zero(false)));
    let (relation, _) = relate(cpu, op, operands, ORDERED)?;
    cpu.fpu.set_conditions(conditions(relation));
    Ok(())
}

/// Says what ST0 is; C1 is its sign, even when it is empty.
fn fxam(cpu: &mut Cpu, op: &Op) -> Done {
    begin(cpu)?;
    note_pointers(cpu, op);
    let value: F80 = cpu.fpu.raw(0);
    let unpacked = value.unpack();
    let class = match unpacked.kind {
        _ if cpu.fpu.is_empty(0) => C3 | C0,
        Kind::Unsupported => 0,
        Kind::QuietNan | Kind::SignalingNan => C0,
        Kind::Finite if unpacked.denormal => C3 | C2,
        Kind::Finite => C2,
        Kind::Infinity => C2 | C0,
        Kind::Zero => C3,
    };
    cpu.fpu.set_conditions(class);
    cpu.fpu.fsw = cpu.fpu.fsw & !C1 | if value.sign() { C1 } else { 0 };
    Ok(())
}
