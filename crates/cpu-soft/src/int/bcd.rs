//! Decimal arithmetic: DAA, DAS, AAA, AAS, AAM, AAD (SDM 2). Outside of 64-bit mode only.

use iced_x86::{Instruction, Mnemonic};
use riad_cpu::x86::rflags::{AF, CF, OF};

use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Exec, Op, gpr};

const RAX: u8 = gpr::RAX as u8;

/// AL after an addition (or a subtraction) of packed digits. OF, undefined, is cleared.
fn packed(cpu: &mut Cpu, adjust: fn(u8, u8) -> u8) {
    let before = cpu.get::<u8>(RAX);
    let (low, high) = (before & 0xf > 9 || cpu.flags.af(), before > 0x99 || cpu.flags.cf());
    let by = if low { 0x06 } else { 0 } + if high { 0x60 } else { 0 };
    let after = adjust(before, by);
    cpu.set(RAX, after);
    cpu.flags.result(after);
    cpu.flags.put(AF, low);
    cpu.flags.put(OF, false);
    cpu.flags.put(CF, high);
}

fn daa(cpu: &mut Cpu, _: &Op) -> Done {
    packed(cpu, u8::wrapping_add);
    Ok(())
}

/// Unlike DAA, a borrow out of the low digit's correction counts.
fn das(cpu: &mut Cpu, _: &Op) -> Done {
    let before = cpu.get::<u8>(RAX);
    let borrow = (before & 0xf > 9 || cpu.flags.af()) && before < 6;
    packed(cpu, u8::wrapping_sub);
    if borrow {
        cpu.flags.put(CF, true);
    }
    Ok(())
}

/// AX after an addition or subtraction of unpacked digits.
fn unpacked(cpu: &mut Cpu, adjust: fn(u16, u16) -> u16) {
    let before = cpu.get::<u16>(RAX);
    let over = before & 0xf > 9 || cpu.flags.af();
    let after = if over { adjust(before, 0x106) } else { before } & 0xff0f;
    cpu.set(RAX, after);
    cpu.flags.result(after as u8);
    cpu.flags.put(AF, over);
    cpu.flags.put(CF, over);
    cpu.flags.put(OF, false);
}

fn aaa(cpu: &mut Cpu, _: &Op) -> Done {
    unpacked(cpu, u16::wrapping_add);
    Ok(())
}

fn aas(cpu: &mut Cpu, _: &Op) -> Done {
    unpacked(cpu, u16::wrapping_sub);
    Ok(())
}

fn aam(cpu: &mut Cpu, op: &Op) -> Done {
    let (al, base) = (cpu.get::<u8>(RAX), op.imm as u8);
    let (Some(high), Some(low)) = (al.checked_div(base), al.checked_rem(base)) else {
        return Err(Fault::DE);
    };
    cpu.set(RAX, u16::from(high) << 8 | u16::from(low));
    cpu.flags.logic(low);
    Ok(())
}

fn aad(cpu: &mut Cpu, op: &Op) -> Done {
    let ax = cpu.get::<u16>(RAX);
    let (low, tens) = (ax as u8, ((ax >> 8) as u8).wrapping_mul(op.imm as u8));
    let result = low.wrapping_add(tens);
    cpu.set(RAX, u16::from(result));
    cpu.flags.add(low, tens, result);
    Ok(())
}

/// The handler.
pub(super) fn select(i: &Instruction) -> Option<Exec> {
    Some(match i.mnemonic() {
        Mnemonic::Daa => daa,
        Mnemonic::Das => das,
        Mnemonic::Aaa => aaa,
        Mnemonic::Aas => aas,
        Mnemonic::Aam => aam,
        Mnemonic::Aad => aad,
        _ => return None,
    })
}
