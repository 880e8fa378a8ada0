//! Far jumps, calls and returns, and call gates (Intel SDM 3A, 5.8). Hardware task switches are not
//! provided: a far transfer to a task gate or task-state segment raises #GP.

use riad_cpu::x86::Segment;

use super::segments::Descriptor;
use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::op::{Op, gpr};

/// The far pointer: immediate, or in memory.
fn pointer(cpu: &mut Cpu, op: &Op) -> Done<(u16, u64, u8)> {
    if !op.has_memory() {
        return Ok(((op.imm >> 32) as u16, op.imm & 0xffff_ffff, op.size));
    }
    let width = op.size - 2;
    let effective = cpu.effective(op);
    let at = cpu.segmented(op.seg, effective, u32::from(width), false)?;
    let offset = match width {
        2 => u64::from(cpu.read::<u16>(op.seg, at)?),
        4 => u64::from(cpu.read::<u32>(op.seg, at)?),
        _ => cpu.read::<u64>(op.seg, at)?,
    };
    let at = cpu.segmented(op.seg, effective.wrapping_add(u64::from(width)), 2, false)?;
    Ok((cpu.read::<u16>(op.seg, at)?, offset, width))
}

fn push_sized(cpu: &mut Cpu, width: u8, value: u64) -> Done {
    match width {
        2 => cpu.push::<u16>(value as u16),
        4 => cpu.push::<u32>(value as u32),
        _ => cpu.push::<u64>(value),
    }
}

fn pop_sized(cpu: &mut Cpu, width: u8) -> Done<u64> {
    Ok(match width {
        2 => u64::from(cpu.pop::<u16>()?),
        4 => u64::from(cpu.pop::<u32>()?),
        _ => cpu.pop::<u64>()?,
    })
}

/// Far JMP.
pub(super) fn jump(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.whole(|cpu| transfer(cpu, op, false))
}

/// Far CALL.
pub(super) fn call(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.whole(|cpu| transfer(cpu, op, true))
}

fn transfer(cpu: &mut Cpu, op: &Op, call: bool) -> Done {
    let (selector, offset, width) = pointer(cpu, op)?;
    let (old_cs, next) = (cpu.segs[1].selector, cpu.rip());
    if matches!(cpu.mode, Mode::Real | Mode::V86) {
        if offset > u64::from(cpu.segs[1].limit) {
            return Err(Fault::GP0);
        }
        if call {
            push_sized(cpu, width, u64::from(old_cs))?;
            push_sized(cpu, width, next)?;
        }
        cpu.segs[1] = if cpu.v86() {
            Segment { rights: 0xfb, ..Segment::real(selector) }
        } else {
            Segment { selector, base: u64::from(selector) << 4, ..cpu.segs[1] }
        };
        cpu.set_rip(offset);
        cpu.left = 0;
        return Ok(());
    }
    if selector & !3 == 0 {
        return Err(Fault::GP0);
    }
    let mut d = cpu.descriptor_or(selector, Fault::gp(selector))?;
    if !d.is_code_or_data() {
        return gate(cpu, selector, &d, call);
    }
    direct_target(cpu, selector, &d)?;
    cpu.mark_accessed(&mut d)?;
    let cpl = u16::from(cpu.cpl);
    let segment = Segment { selector: selector & !3 | cpl, ..d.segment(selector) };
    let to_long = cpu.long_active() && d.long();
    let offset = if to_long { offset } else { offset & 0xffff_ffff };
    if (to_long && !Cpu::canonical(offset)) || (!to_long && offset > u64::from(segment.limit)) {
        return Err(Fault::GP0);
    }
    if call {
        push_sized(cpu, width, u64::from(old_cs))?;
        push_sized(cpu, width, next)?;
    }
    cpu.segs[1] = segment;
    cpu.set_rip(offset);
    cpu.update_mode();
    Ok(())
}

/// Whether a code segment may be jumped to directly.
fn direct_target(cpu: &Cpu, selector: u16, d: &Descriptor) -> Done {
    let rpl = (selector & 3) as u8;
    let conforming = d.kind() & 4 != 0;
    let allowed =
        if conforming { d.dpl() <= cpu.cpl } else { rpl <= cpu.cpl && d.dpl() == cpu.cpl };
    if !d.is_code() || !allowed || (cpu.long_active() && d.long() && d.big()) {
        return Err(Fault::gp(selector));
    }
    if d.present() { Ok(()) } else { Err(Fault::np(selector)) }
}

/// Through a call gate.
fn gate(cpu: &mut Cpu, selector: u16, gate: &Descriptor, call: bool) -> Done {
    let rpl = (selector & 3) as u8;
    let long = cpu.long_active();
    let right_kind = if long { gate.kind() == 12 } else { matches!(gate.kind(), 4 | 12) };
    if !right_kind || gate.dpl() < cpu.cpl || gate.dpl() < rpl {
        return Err(Fault::gp(selector));
    }
    if !gate.present() {
        return Err(Fault::np(selector));
    }
    let width = match (long, gate.kind()) {
        (true, _) => 8,
        (false, 12) => 4,
        _ => 2,
    };
    let mut offset = gate.raw & 0xffff | gate.raw >> 32 & 0xffff_0000;
    if width == 2 {
        offset &= 0xffff;
    }
    if long {
        let high = cpu.upper_half(selector, gate)?;
        if high >> 40 & 0x1f != 0 {
            return Err(Fault::gp(selector));
        }
        offset |= high << 32;
    }
    let code = (gate.raw >> 16) as u16;
    if code & !3 == 0 {
        return Err(Fault::GP0);
    }
    let mut d = cpu.descriptor_or(code, Fault::gp(code))?;
    if !d.is_code() || d.dpl() > cpu.cpl || (long && (!d.long() || d.big())) {
        return Err(Fault::gp(code));
    }
    if !d.present() {
        return Err(Fault::np(code));
    }
    cpu.mark_accessed(&mut d)?;
    let conforming = d.kind() & 4 != 0;
    if !call && !conforming && d.dpl() != cpu.cpl {
        return Err(Fault::gp(code));
    }
    let (old_cs, next) = (cpu.segs[1].selector, cpu.rip());
    let cpl = if call && !conforming { d.dpl() } else { cpu.cpl };
    let segment = Segment { selector: code & !3 | u16::from(cpl), ..d.segment(code) };
    if call && cpl < cpu.cpl {
        let count = (gate.raw >> 32 & 31) as usize;
        inner_call(cpu, segment, cpl, width, count)?;
    } else {
        cpu.segs[1] = segment;
        cpu.update_mode();
    }
    if call {
        push_sized(cpu, width, u64::from(old_cs))?;
        push_sized(cpu, width, next)?;
    }
    if (long && !Cpu::canonical(offset)) || (!long && offset > u64::from(segment.limit)) {
        return Err(Fault::GP0);
    }
    cpu.set_rip(offset);
    cpu.left = 0;
    Ok(())
}

/// Switches to an inner level's stack: pushes the old one and copies parameters.
fn inner_call(cpu: &mut Cpu, code: Segment, cpl: u8, width: u8, count: usize) -> Done {
    let (old_ss, old_sp) = (cpu.segs[2].selector, cpu.regs[gpr::RSP]);
    if width == 8 {
        let rsp = cpu.inner_rsp(cpl)?;
        cpu.cpl = cpl;
        cpu.segs[1] = code;
        cpu.segs[2] = Cpu::null_stack(u16::from(cpl));
        cpu.update_mode();
        cpu.regs[gpr::RSP] = rsp;
        push_sized(cpu, 8, u64::from(old_ss))?;
        return push_sized(cpu, 8, old_sp);
    }
    let mut parameters = [0u64; 31];
    for (n, parameter) in parameters[..count].iter_mut().enumerate() {
        *parameter = if width == 4 {
            u64::from(cpu.peek::<u32>(n as u64 * 4)?)
        } else {
            u64::from(cpu.peek::<u16>(n as u64 * 2)?)
        };
    }
    let (ss, esp) = cpu.task_stack(cpl)?;
    let stack = cpu.inner_stack(ss, cpl)?;
    cpu.cpl = cpl;
    cpu.segs[1] = code;
    cpu.segs[2] = stack;
    cpu.update_mode();
    cpu.regs[gpr::RSP] = u64::from(esp);
    push_sized(cpu, width, u64::from(old_ss))?;
    push_sized(cpu, width, old_sp)?;
    for parameter in parameters[..count].iter().rev() {
        push_sized(cpu, width, *parameter)?;
    }
    Ok(())
}

/// Far RET: operand size in `size`, bytes to release in `imm`.
pub(super) fn ret(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.whole(|cpu| ret_inner(cpu, op))
}

fn ret_inner(cpu: &mut Cpu, op: &Op) -> Done {
    let ip = pop_sized(cpu, op.size)?;
    let cs = pop_sized(cpu, op.size)? as u16;
    if matches!(cpu.mode, Mode::Real | Mode::V86) {
        if ip > u64::from(cpu.segs[1].limit) {
            return Err(Fault::GP0);
        }
        cpu.segs[1] = if cpu.v86() {
            Segment { rights: 0xfb, ..Segment::real(cs) }
        } else {
            Segment { selector: cs, base: u64::from(cs) << 4, ..cpu.segs[1] }
        };
        cpu.set_sp(cpu.sp().wrapping_add(op.imm));
        cpu.set_rip(ip);
        cpu.left = 0;
        return Ok(());
    }
    let rpl = (cs & 3) as u8;
    if cs & !3 == 0 {
        return Err(Fault::GP0);
    }
    let mut d = cpu.descriptor_or(cs, Fault::gp(cs))?;
    let conforming = d.kind() & 4 != 0;
    let level_fits = if conforming { d.dpl() <= rpl } else { d.dpl() == rpl };
    if !d.is_code() || rpl < cpu.cpl || !level_fits || (cpu.long_active() && d.long() && d.big()) {
        return Err(Fault::gp(cs));
    }
    if !d.present() {
        return Err(Fault::np(cs));
    }
    cpu.mark_accessed(&mut d)?;
    let segment = d.segment(cs);
    let to_long = cpu.long_active() && d.long();
    if (to_long && !Cpu::canonical(ip)) || (!to_long && ip > u64::from(segment.limit)) {
        return Err(Fault::GP0);
    }
    cpu.set_sp(cpu.sp().wrapping_add(op.imm));
    if rpl > cpu.cpl {
        let sp = pop_sized(cpu, op.size)?;
        let ss = pop_sized(cpu, op.size)? as u16;
        let stack = if ss & !3 == 0 {
            if !to_long || rpl == 3 {
                return Err(Fault::GP0);
            }
            Cpu::null_stack(ss)
        } else {
            cpu.stack_segment(ss, rpl)?
        };
        cpu.cpl = rpl;
        cpu.segs[1] = segment;
        cpu.segs[2] = stack;
        cpu.update_mode();
        cpu.set_sp(sp.wrapping_add(op.imm));
        cpu.drop_inner_segments();
    } else {
        cpu.segs[1] = segment;
    }
    cpu.set_rip(ip);
    cpu.update_mode();
    Ok(())
}
