//! SYSCALL, SYSENTER and their returns, SWAPGS and the base registers (Intel SDM 2B; 3A, 5.8.7 and
//! 5.8.8).

use riad_cpu::x86::{Segment, cr4, efer, rflags};

use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::op::{Op, gpr};

/// Flat segments as the fast calls load them, without looking at descriptors.
fn code(selector: u16, dpl: u8, long: bool) -> Segment {
    let size = if long { Segment::L } else { Segment::DB };
    Segment { selector, base: 0, limit: u32::MAX, rights: 0x809b | u32::from(dpl) << 5 | size }
}

fn data(selector: u16, dpl: u8) -> Segment {
    Segment { selector, base: 0, limit: u32::MAX, rights: 0xc093 | u32::from(dpl) << 5 }
}

/// SYSCALL.
pub(super) fn syscall(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.mode != Mode::Long || cpu.control.efer & efer::SCE == 0 {
        return Err(Fault::UD);
    }
    let flags = cpu.flags.rflags();
    cpu.regs[gpr::RCX] = cpu.rip();
    cpu.regs[11] = flags & !rflags::RF;
    cpu.set_rip(cpu.msrs.lstar);
    let selector = (cpu.msrs.star >> 32) as u16;
    cpu.segs[1] = code(selector & !3, 0, true);
    cpu.segs[2] = data((selector & !3).wrapping_add(8), 0);
    cpu.cpl = 0;
    cpu.flags =
        crate::flags::Flags::from_rflags(flags & !cpu.msrs.sfmask & !rflags::RF | rflags::ONE);
    // A kernel that masks TF is not stepped into.
    cpu.step_trap = cpu.flags.bits & rflags::TF != 0;
    cpu.update_mode();
    Ok(())
}

/// SYSRET; `size` 8 returns to 64-bit code.
pub(super) fn sysret(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.mode != Mode::Long || cpu.control.efer & efer::SCE == 0 {
        return Err(Fault::UD);
    }
    if cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    let to_long = op.size == 8;
    let target = cpu.regs[gpr::RCX];
    if to_long && !Cpu::canonical(target) {
        return Err(Fault::GP0);
    }
    const CHANGED: u64 = 0x3c_7fd7;
    let flags = cpu.regs[11] & CHANGED;
    let selector = (cpu.msrs.star >> 48) as u16;
    let cs = if to_long { selector.wrapping_add(16) } else { selector };
    cpu.segs[1] = code(cs | 3, 3, to_long);
    cpu.segs[2] = data(selector.wrapping_add(8) | 3, 3);
    cpu.cpl = 3;
    cpu.set_rip(if to_long { target } else { target & 0xffff_ffff });
    cpu.set_rflags(flags, u64::MAX);
    // The trap that SYSCALL did not take comes now.
    cpu.step_trap = cpu.flags.bits & rflags::TF != 0;
    cpu.update_mode();
    Ok(())
}

/// SYSENTER.
pub(super) fn sysenter(cpu: &mut Cpu, _op: &Op) -> Done {
    let selector = cpu.msrs.sysenter_cs as u16 & !3;
    if !cpu.protected() || selector == 0 {
        return Err(Fault::GP0);
    }
    let long = cpu.long_active();
    let cut = |value: u64| if long { value } else { value & 0xffff_ffff };
    cpu.regs[gpr::RSP] = cut(cpu.msrs.sysenter_esp);
    cpu.set_rip(cut(cpu.msrs.sysenter_eip));
    cpu.flags.bits &= !(rflags::VM | rflags::IF | rflags::RF);
    cpu.segs[1] = code(selector, 0, long);
    cpu.segs[2] = data(selector.wrapping_add(8), 0);
    cpu.cpl = 0;
    cpu.update_mode();
    Ok(())
}

/// SYSEXIT; `size` 8 returns to 64-bit code.
pub(super) fn sysexit(cpu: &mut Cpu, op: &Op) -> Done {
    let selector = cpu.msrs.sysenter_cs as u16 & !3;
    if !cpu.protected() || selector == 0 || cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    let to_long = op.size == 8;
    let (target, stack) = (cpu.regs[gpr::RDX], cpu.regs[gpr::RCX]);
    if to_long && (!Cpu::canonical(target) || !Cpu::canonical(stack)) {
        return Err(Fault::GP0);
    }
    let (cs, ss) = if to_long { (32, 40) } else { (16, 24) };
    cpu.segs[1] = code(selector.wrapping_add(cs) | 3, 3, to_long);
    cpu.segs[2] = data(selector.wrapping_add(ss) | 3, 3);
    let cut = |value: u64| if to_long { value } else { value & 0xffff_ffff };
    cpu.regs[gpr::RSP] = cut(stack);
    cpu.set_rip(cut(target));
    cpu.cpl = 3;
    cpu.update_mode();
    Ok(())
}

/// SWAPGS.
pub(super) fn swapgs(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.mode != Mode::Long {
        return Err(Fault::UD);
    }
    if cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    std::mem::swap(&mut cpu.segs[5].base, &mut cpu.msrs.kernel_gs_base);
    Ok(())
}

fn bases_available(cpu: &Cpu) -> Done {
    if cpu.mode == Mode::Long && cpu.control.cr4 & cr4::FSGSBASE != 0 {
        Ok(())
    } else {
        Err(Fault::UD)
    }
}

/// RDFSBASE and RDGSBASE: the segment is in `imm`.
pub(super) fn read_base(cpu: &mut Cpu, op: &Op) -> Done {
    bases_available(cpu)?;
    let base = cpu.segs[op.imm as usize & 7].base;
    if op.size == 4 {
        cpu.set::<u32>(op.reg[0], base as u32);
    } else {
        cpu.set::<u64>(op.reg[0], base);
    }
    Ok(())
}

/// WRFSBASE and WRGSBASE: the segment is in `imm`.
pub(super) fn write_base(cpu: &mut Cpu, op: &Op) -> Done {
    bases_available(cpu)?;
    let base =
        if op.size == 4 { u64::from(cpu.get::<u32>(op.reg[0])) } else { cpu.get::<u64>(op.reg[0]) };
    if !Cpu::canonical(base) {
        return Err(Fault::GP0);
    }
    cpu.segs[op.imm as usize & 7].base = base;
    Ok(())
}
