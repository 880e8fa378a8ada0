//! IN, OUT, INS, OUTS (Intel SDM 1, chapter 19).

use riad_cpu::x86::rflags;

use crate::cpu::Cpu;
use crate::fault::{Done, Fault};
use crate::op::{Op, gpr, seg};

/// Elements a repeated INS or OUTS moves before interrupts are looked at.
const CHUNK: u64 = 1024;

/// Whether the current privilege may use `size` ports from `port`.
fn check(cpu: &mut Cpu, port: u16, size: u8) -> Done {
    if !cpu.protected() || (cpu.cpl <= cpu.iopl() && !cpu.v86()) {
        return Ok(());
    }
    // The I/O permission bitmap of a 32-bit or 64-bit task-state segment.
    let limit = u64::from(cpu.tr.limit);
    if cpu.tr.kind() & 8 == 0 || limit < 0x67 {
        return Err(Fault::GP0);
    }
    let base = cpu.tr.base;
    let map =
        u64::from(cpu.as_supervisor(|cpu| cpu.read::<u16>(seg::DS, base.wrapping_add(0x66)))?);
    let byte = map + u64::from(port >> 3);
    if byte + 1 > limit {
        return Err(Fault::GP0);
    }
    let bits = cpu.as_supervisor(|cpu| cpu.read::<u16>(seg::DS, base.wrapping_add(byte)))?;
    let wanted = ((1u32 << size) - 1) << (port & 7);
    if u32::from(bits) & wanted != 0 { Err(Fault::GP0) } else { Ok(()) }
}

fn input(cpu: &mut Cpu, port: u16, size: u8) -> u32 {
    cpu.port_breakpoint(port, usize::from(size));
    let mut data = [0xff; 4];
    cpu.bus.port_read(port, &mut data[..usize::from(size)]);
    for byte in &mut data[usize::from(size)..] {
        *byte = 0;
    }
    u32::from_le_bytes(data)
}

fn output(cpu: &mut Cpu, port: u16, size: u8, value: u32) {
    cpu.port_breakpoint(port, usize::from(size));
    cpu.bus.port_write(port, &value.to_le_bytes()[..usize::from(size)]);
}

/// The port operand: an immediate byte (`reg[2]` is 1), or DX.
fn port(cpu: &Cpu, op: &Op) -> u16 {
    if op.reg[2] == 1 { op.imm as u16 & 0xff } else { cpu.regs[gpr::RDX] as u16 }
}

/// IN.
pub(super) fn port_in(cpu: &mut Cpu, op: &Op) -> Done {
    let port = port(cpu, op);
    check(cpu, port, op.size)?;
    let value = input(cpu, port, op.size);
    match op.size {
        1 => cpu.set::<u8>(0, value as u8),
        2 => cpu.set::<u16>(0, value as u16),
        _ => cpu.set::<u32>(0, value),
    }
    cpu.left = 0;
    Ok(())
}

/// OUT.
pub(super) fn port_out(cpu: &mut Cpu, op: &Op) -> Done {
    let port = port(cpu, op);
    check(cpu, port, op.size)?;
    let value = cpu.get::<u32>(0);
    output(cpu, port, op.size, value);
    cpu.left = 0;
    Ok(())
}

fn masked(op: &Op, value: u64) -> u64 {
    match op.address {
        8 => value,
        4 => value & 0xffff_ffff,
        _ => value & 0xffff,
    }
}

fn put_masked(cpu: &mut Cpu, op: &Op, reg: usize, value: u64) {
    match op.address {
        8 => cpu.regs[reg] = value,
        4 => cpu.regs[reg] = value & 0xffff_ffff,
        _ => cpu.set::<u16>(reg as u8, value as u16),
    }
}

/// INS and OUTS, with or without REP; `imm` is 1 for OUTS.
pub(super) fn string(cpu: &mut Cpu, op: &Op) -> Done {
    let port = cpu.regs[gpr::RDX] as u16;
    check(cpu, port, op.size)?;
    let out = op.imm == 1;
    let index = if out { gpr::RSI } else { gpr::RDI };
    let segment = if out { op.seg } else { seg::ES };
    let step = if cpu.flags.df() { u64::from(op.size).wrapping_neg() } else { u64::from(op.size) };
    let repeated = op.prefix & (Op::REP | Op::REPNE) != 0;
    let mut left = if repeated { masked(op, cpu.regs[gpr::RCX]) } else { 1 };
    // Single-stepping traps after every iteration, and so do breakpoints.
    let stepping = cpu.flags.bits & rflags::TF != 0 || cpu.debug.dr7 & 0xff != 0;
    let most = if stepping { 1 } else { CHUNK };
    let mut moved = 0;
    while left > 0 {
        if moved == most {
            // Let interrupts in, and come back to this instruction.
            cpu.set_rip(cpu.this_rip);
            break;
        }
        let offset = masked(op, cpu.regs[index]);
        let at = cpu.segmented(segment, offset, u32::from(op.size), !out)?;
        if out {
            let value = match op.size {
                1 => u32::from(cpu.read::<u8>(segment, at)?),
                2 => u32::from(cpu.read::<u16>(segment, at)?),
                _ => cpu.read::<u32>(segment, at)?,
            };
            output(cpu, port, op.size, value);
        } else {
            cpu.check_write(segment, at, usize::from(op.size))?;
            let value = input(cpu, port, op.size);
            match op.size {
                1 => cpu.write(segment, at, value as u8)?,
                2 => cpu.write(segment, at, value as u16)?,
                _ => cpu.write(segment, at, value)?,
            }
        }
        put_masked(cpu, op, index, offset.wrapping_add(step));
        left -= 1;
        moved += 1;
        if repeated {
            put_masked(cpu, op, gpr::RCX, left);
        }
    }
    cpu.left = 0;
    Ok(())
}
