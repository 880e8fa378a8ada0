//! CBW, CWDE, CDQE, CWD, CDQ, CQO; LAHF, SAHF, CLC, STC, CMC, CLD, STD, SALC; BOUND (SDM 2).

use iced_x86::{Instruction, Mnemonic};
use riad_cpu::x86::rflags::{CF, DF, ONE, STATUS};

use super::Int;
use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Exec, HIGH, Op, gpr};

const RAX: u8 = gpr::RAX as u8;
const RDX: u8 = gpr::RDX as u8;
const AH: u8 = HIGH | RAX;

/// The accumulator, from its lower half.
fn widen<F: Int, T: Int>(cpu: &mut Cpu, _: &Op) -> Done {
    let value = cpu.get::<F>(RAX).sx();
    cpu.set(RAX, T::low(value));
    Ok(())
}

/// The accumulator's sign throughout (E/R)DX.
fn spread<T: Int>(cpu: &mut Cpu, _: &Op) -> Done {
    let sign = (cpu.get::<T>(RAX).sx() as i64 >> 63) as u64;
    cpu.set(RDX, T::low(sign));
    Ok(())
}

/// CBW, CWDE, CDQE, CWD, CDQ, CQO.
pub(super) fn sign(i: &Instruction) -> Option<Exec> {
    Some(match i.mnemonic() {
        Mnemonic::Cbw => widen::<u8, u16>,
        Mnemonic::Cwde => widen::<u16, u32>,
        Mnemonic::Cdqe => widen::<u32, u64>,
        Mnemonic::Cwd => spread::<u16>,
        Mnemonic::Cdq => spread::<u32>,
        Mnemonic::Cqo => spread::<u64>,
        _ => return None,
    })
}

fn lahf(cpu: &mut Cpu, _: &Op) -> Done {
    let low = cpu.flags.rflags() & STATUS & 0xff | ONE;
    cpu.set(AH, low as u8);
    Ok(())
}

fn sahf(cpu: &mut Cpu, _: &Op) -> Done {
    let low = u64::from(cpu.get::<u8>(AH));
    let keep = cpu.flags.rflags() & !0xff;
    cpu.flags.set_status(keep | low);
    Ok(())
}

/// Instructions on single flags, and LAHF and SAHF.
pub(super) fn flags(i: &Instruction) -> Option<Exec> {
    Some(match i.mnemonic() {
        Mnemonic::Lahf => lahf,
        Mnemonic::Sahf => sahf,
        Mnemonic::Clc => |cpu, _| {
            cpu.flags.put(CF, false);
            Ok(())
        },
        Mnemonic::Stc => |cpu, _| {
            cpu.flags.put(CF, true);
            Ok(())
        },
        Mnemonic::Cmc => |cpu, _| {
            cpu.flags.bits ^= CF;
            Ok(())
        },
        Mnemonic::Cld => |cpu, _| {
            cpu.flags.put(DF, false);
            Ok(())
        },
        Mnemonic::Std => |cpu, _| {
            cpu.flags.put(DF, true);
            Ok(())
        },
        Mnemonic::Salc => |cpu, _| {
            let value = if cpu.flags.cf() { 0xff } else { 0 };
            cpu.set::<u8>(RAX, value);
            Ok(())
        },
        _ => return None,
    })
}

/// #BR unless the index lies within the two bounds in memory, all signed.
fn within<T: Int>(cpu: &mut Cpu, op: &Op) -> Done {
    let address = cpu.linear(op, 2 * T::BYTES as u32, false)?;
    let lower: T = cpu.read(op.seg, address)?;
    let upper = address.wrapping_add(T::BYTES as u64) & 0xffff_ffff;
    let upper: T = cpu.read(op.seg, upper)?;
    let index = cpu.get::<T>(op.reg[0]).sx() as i64;
    if index < lower.sx() as i64 || index > upper.sx() as i64 {
        return Err(Fault::BR);
    }
    Ok(())
}

/// BOUND.
pub(super) fn bound(op: &Op) -> Option<Exec> {
    Some(if op.size == 4 { within::<u16> } else { within::<u32> })
}
