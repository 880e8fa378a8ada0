//! Segment registers and descriptors (Intel SDM 3A, chapters 3 and 5).

use riad_cpu::x86::{DescriptorTable, Segment, rflags};

use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::op::{Op, seg};

/// A descriptor as it lies in a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptor {
    /// The first eight bytes.
    pub(super) raw: u64,
    /// Its linear address.
    pub(super) at: u64,
}

impl Descriptor {
    /// The segment register it makes.
    #[must_use]
    pub(super) fn segment(&self, selector: u16) -> Segment {
        let raw = self.raw;
        let base = raw >> 16 & 0xff_ffff | raw >> 56 << 24;
        let mut limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
        if raw >> 55 & 1 != 0 {
            limit = limit << 12 | 0xfff;
        }
        Segment { selector, base, limit, rights: (raw >> 40 & 0xf0ff) as u32 }
    }

    /// Descriptor privilege level.
    #[must_use]
    pub(super) fn dpl(&self) -> u8 {
        (self.raw >> 45 & 3) as u8
    }

    /// Type, four bits.
    #[must_use]
    pub(super) fn kind(&self) -> u8 {
        (self.raw >> 40 & 15) as u8
    }

    /// Code or data.
    #[must_use]
    pub(super) fn is_code_or_data(&self) -> bool {
        self.raw >> 44 & 1 != 0
    }

    /// Code.
    #[must_use]
    pub(super) fn is_code(&self) -> bool {
        self.is_code_or_data() && self.kind() & 8 != 0
    }

    /// Present.
    #[must_use]
    pub(super) fn present(&self) -> bool {
        self.raw >> 47 & 1 != 0
    }

    /// The L bit.
    #[must_use]
    pub(super) fn long(&self) -> bool {
        self.raw >> 53 & 1 != 0
    }

    /// The D bit.
    #[must_use]
    pub(super) fn big(&self) -> bool {
        self.raw >> 54 & 1 != 0
    }
}

impl Cpu {
    /// Reads eight bytes of a descriptor table as supervisor.
    pub(super) fn table_read(&mut self, at: u64) -> Done<u64> {
        self.as_supervisor(|cpu| cpu.read::<u64>(seg::DS, at))
    }

    /// The descriptor a selector names; `None` when it lies outside its table.
    pub(super) fn descriptor(&mut self, selector: u16) -> Done<Option<Descriptor>> {
        let (base, limit) = if selector & 4 == 0 {
            (self.gdtr.base, u32::from(self.gdtr.limit))
        } else if self.ldtr.unusable() || !self.ldtr.present() {
            return Ok(None);
        } else {
            (self.ldtr.base, self.ldtr.limit)
        };
        if u32::from(selector | 7) > limit {
            return Ok(None);
        }
        let mut at = base.wrapping_add(u64::from(selector & !7));
        if self.mode != Mode::Long && !self.long_active() {
            at &= 0xffff_ffff;
        }
        Ok(Some(Descriptor { raw: self.table_read(at)?, at }))
    }

    /// The upper eight bytes of a 16-byte system descriptor (SDM 3A, 3.5.2).
    pub(super) fn upper_half(&mut self, selector: u16, lower: &Descriptor) -> Done<u64> {
        let limit = if selector & 4 == 0 { u32::from(self.gdtr.limit) } else { self.ldtr.limit };
        if u32::from(selector & !7) + 15 > limit {
            return Err(Fault::gp(selector));
        }
        self.table_read(lower.at.wrapping_add(8))
    }

    /// The descriptor a selector names, or this fault.
    pub(super) fn descriptor_or(&mut self, selector: u16, fault: Fault) -> Done<Descriptor> {
        self.descriptor(selector)?.ok_or(fault)
    }

    /// Sets the accessed bit of a code or data descriptor, as loading it does.
    pub(super) fn mark_accessed(&mut self, descriptor: &mut Descriptor) -> Done {
        const ACCESSED: u64 = 1 << 40;
        if descriptor.raw & ACCESSED == 0 {
            let at = descriptor.at.wrapping_add(5);
            self.as_supervisor(|cpu| cpu.modify::<u8>(seg::DS, at, true, |byte| byte | 1))?;
            descriptor.raw |= ACCESSED;
        }
        Ok(())
    }

    /// Loads a segment register other than CS from a selector.
    ///
    /// # Errors
    /// #GP, #SS or #NP with the selector; #PF.
    pub fn load_segment(&mut self, s: u8, selector: u16) -> Done {
        let index = usize::from(s);
        if !self.protected() {
            self.segs[index].selector = selector;
            self.segs[index].base = u64::from(selector) << 4;
            return Ok(());
        }
        if self.v86() {
            self.segs[index] = Segment { rights: 0xf3, ..Segment::real(selector) };
            return Ok(());
        }
        let segment = if s == seg::SS {
            self.stack_segment(selector, self.cpl)?
        } else {
            self.data_segment(selector)?
        };
        self.segs[index] = segment;
        if self.mode != Mode::Long || s == seg::SS {
            self.update_mode();
        }
        Ok(())
    }

    fn data_segment(&mut self, selector: u16) -> Done<Segment> {
        if selector & !3 == 0 {
            return Ok(Segment { selector, rights: Segment::UNUSABLE, ..Segment::default() });
        }
        let mut d = self.descriptor_or(selector, Fault::gp(selector))?;
        let readable = d.is_code_or_data() && (!d.is_code() || d.kind() & 2 != 0);
        let conforming = d.is_code() && d.kind() & 4 != 0;
        let rpl = (selector & 3) as u8;
        if !readable || (!conforming && (rpl > d.dpl() || self.cpl > d.dpl())) {
            return Err(Fault::gp(selector));
        }
        if !d.present() {
            return Err(Fault::np(selector));
        }
        self.mark_accessed(&mut d)?;
        Ok(d.segment(selector))
    }

    /// The stack segment a selector gives at a privilege level.
    pub(super) fn stack_segment(&mut self, selector: u16, cpl: u8) -> Done<Segment> {
        let rpl = (selector & 3) as u8;
        if selector & !3 == 0 {
            if self.mode == Mode::Long && cpl != 3 && rpl == cpl {
                return Ok(Self::null_stack(selector));
            }
            return Err(Fault::GP0);
        }
        let mut d = self.descriptor_or(selector, Fault::gp(selector))?;
        let writable = d.is_code_or_data() && !d.is_code() && d.kind() & 2 != 0;
        if rpl != cpl || !writable || d.dpl() != cpl {
            return Err(Fault::gp(selector));
        }
        if !d.present() {
            return Err(Fault::ss(selector));
        }
        self.mark_accessed(&mut d)?;
        Ok(d.segment(selector))
    }

    /// The null stack segment of 64-bit mode.
    pub(super) fn null_stack(selector: u16) -> Segment {
        Segment {
            selector,
            base: 0,
            limit: 0,
            rights: Segment::UNUSABLE | u32::from(selector & 3) << 5,
        }
    }

    /// After a return to an outer level: data segments that level may not use become null
    /// (SDM 3A, 5.8.6).
    pub(super) fn drop_inner_segments(&mut self) {
        for s in [seg::ES, seg::DS, seg::FS, seg::GS] {
            let segment = &mut self.segs[usize::from(s)];
            let conforming = segment.is_code() && segment.kind() & 4 != 0;
            if !segment.unusable() && !conforming && segment.dpl() < self.cpl {
                *segment = Segment { selector: 0, rights: Segment::UNUSABLE, ..*segment };
            }
        }
    }
}

/// MOV Sreg, r/m16.
pub(super) fn mov_to_segment(cpu: &mut Cpu, op: &Op) -> Done {
    let s = op.reg[0];
    if s == seg::CS || s > seg::GS {
        return Err(Fault::UD);
    }
    let selector = if op.has_memory() { cpu.load::<u16>(op)? } else { cpu.get::<u16>(op.reg[1]) };
    cpu.load_segment(s, selector)?;
    if s == seg::SS {
        cpu.shadow_stack_switch();
    }
    Ok(())
}

/// MOV r/m16, Sreg: a register gets the selector zero-extended to its width.
pub(super) fn mov_from_segment(cpu: &mut Cpu, op: &Op) -> Done {
    if op.has_memory() {
        let selector = cpu.segs[usize::from(op.reg[1])].selector;
        return cpu.store::<u16>(op, selector);
    }
    let selector = cpu.segs[usize::from(op.reg[1])].selector;
    match op.size {
        2 => cpu.set::<u16>(op.reg[0], selector),
        _ => cpu.set::<u64>(op.reg[0], u64::from(selector)),
    }
    Ok(())
}

/// PUSH Sreg.
pub(super) fn push_segment(cpu: &mut Cpu, op: &Op) -> Done {
    let selector = cpu.segs[usize::from(op.reg[0])].selector;
    match op.imm {
        2 => cpu.push::<u16>(selector),
        4 => {
            // Only 16 bits are written (SDM 2B, PUSH).
            let sp = cpu.stack_mask(cpu.sp().wrapping_sub(4));
            let address = cpu.segmented(seg::SS, sp, 2, true)?;
            cpu.write::<u16>(seg::SS, address, selector)?;
            cpu.set_sp(sp);
            Ok(())
        }
        _ => cpu.push::<u64>(u64::from(selector)),
    }
}

/// POP Sreg.
pub(super) fn pop_segment(cpu: &mut Cpu, op: &Op) -> Done {
    let s = op.reg[0];
    let selector = cpu.peek::<u16>(0)?;
    let width = cpu.stack_width();
    let sp = cpu.sp().wrapping_add(op.imm);
    cpu.load_segment(s, selector)?;
    // The pointer moves by the width of the stack that was popped from.
    let reg = crate::op::gpr::RSP as u8;
    match width {
        8 => cpu.set::<u64>(reg, sp),
        4 => cpu.set::<u32>(reg, sp as u32),
        _ => cpu.set::<u16>(reg, sp as u16),
    }
    if s == seg::SS {
        cpu.shadow_stack_switch();
    }
    Ok(())
}

/// LDS, LES, LFS, LGS, LSS: the segment is in `reg[2]`.
pub(super) fn load_far_pointer(cpu: &mut Cpu, op: &Op) -> Done {
    let width = op.size - 2;
    let offset = cpu.effective(op);
    let selector_at = cpu.segmented(op.seg, offset.wrapping_add(u64::from(width)), 2, false)?;
    let selector = cpu.read::<u16>(op.seg, selector_at)?;
    let at = cpu.linear(op, u32::from(width), false)?;
    let value = match width {
        2 => u64::from(cpu.read::<u16>(op.seg, at)?),
        4 => u64::from(cpu.read::<u32>(op.seg, at)?),
        _ => cpu.read::<u64>(op.seg, at)?,
    };
    cpu.load_segment(op.reg[2], selector)?;
    match width {
        2 => cpu.set::<u16>(op.reg[0], value as u16),
        4 => cpu.set::<u32>(op.reg[0], value as u32),
        _ => cpu.set::<u64>(op.reg[0], value),
    }
    Ok(())
}

fn supervisor(cpu: &Cpu) -> Done {
    if cpu.cpl == 0 { Ok(()) } else { Err(Fault::GP0) }
}

fn real_is_undefined(cpu: &Cpu) -> Done {
    if cpu.protected() && !cpu.v86() { Ok(()) } else { Err(Fault::UD) }
}

/// LGDT and LIDT; `imm` is 1 for LIDT.
pub(super) fn load_table(cpu: &mut Cpu, op: &Op) -> Done {
    supervisor(cpu)?;
    let offset = cpu.effective(op);
    let at = cpu.segmented(op.seg, offset, 2, false)?;
    let limit = cpu.read::<u16>(op.seg, at)?;
    let at = cpu.segmented(op.seg, offset.wrapping_add(2), 4, false)?;
    let base = if cpu.long() {
        cpu.read::<u64>(op.seg, at)?
    } else {
        let base = u64::from(cpu.read::<u32>(op.seg, at)?);
        if op.reg[2] == 2 { base & 0xff_ffff } else { base }
    };
    if cpu.long() && !Cpu::canonical(base) {
        return Err(Fault::GP0);
    }
    let table = DescriptorTable { base, limit };
    if op.imm == 1 {
        cpu.idtr = table;
    } else {
        cpu.gdtr = table;
    }
    Ok(())
}

/// SGDT and SIDT; `imm` is 1 for SIDT.
pub(super) fn store_table(cpu: &mut Cpu, op: &Op) -> Done {
    super::user_mode_prevention(cpu)?;
    let table = if op.imm == 1 { cpu.idtr } else { cpu.gdtr };
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&table.base.to_le_bytes());
    let len = if cpu.long() { 10 } else { 6 };
    let at = cpu.linear(op, len, true)?;
    cpu.write_bytes(op.seg, at, &bytes[..len as usize])
}

/// LLDT and LTR; `imm` is 1 for LTR.
pub(super) fn load_system_segment(cpu: &mut Cpu, op: &Op) -> Done {
    real_is_undefined(cpu)?;
    supervisor(cpu)?;
    let selector = if op.has_memory() { cpu.load::<u16>(op)? } else { cpu.get::<u16>(op.reg[0]) };
    let task = op.imm == 1;
    if selector & !3 == 0 {
        if task {
            return Err(Fault::GP0);
        }
        cpu.ldtr = Segment { selector, rights: Segment::UNUSABLE, ..Segment::default() };
        return Ok(());
    }
    if selector & 4 != 0 {
        return Err(Fault::gp(selector));
    }
    let d = cpu.descriptor_or(selector, Fault::gp(selector))?;
    let right_kind = match (task, cpu.long_active()) {
        (false, _) => d.kind() == 2,
        (true, true) => d.kind() == 9,
        (true, false) => d.kind() == 1 || d.kind() == 9,
    };
    if d.is_code_or_data() || !right_kind {
        return Err(Fault::gp(selector));
    }
    if !d.present() {
        return Err(Fault::np(selector));
    }
    let mut segment = d.segment(selector);
    if cpu.long_active() {
        let high = cpu.upper_half(selector, &d)?;
        segment.base |= high << 32;
        if !Cpu::canonical(segment.base) || high >> 40 & 0x1f != 0 {
            return Err(Fault::gp(selector));
        }
    }
    if task {
        cpu.as_supervisor(|cpu| {
            cpu.modify::<u8>(seg::DS, d.at.wrapping_add(5), true, |byte| byte | 2)
        })?;
        segment.rights |= 2;
        cpu.tr = segment;
    } else {
        cpu.ldtr = segment;
    }
    Ok(())
}

/// SLDT and STR; `imm` is 1 for STR.
pub(super) fn store_system_segment(cpu: &mut Cpu, op: &Op) -> Done {
    real_is_undefined(cpu)?;
    super::user_mode_prevention(cpu)?;
    let selector = if op.imm == 1 { cpu.tr.selector } else { cpu.ldtr.selector };
    store_word(cpu, op, selector)
}

/// Stores 16 bits to memory, or zero-extended to a register of the operand's width.
pub(super) fn store_word(cpu: &mut Cpu, op: &Op, value: u16) -> Done {
    if op.has_memory() {
        return cpu.store::<u16>(op, value);
    }
    match op.size {
        2 => cpu.set::<u16>(op.reg[0], value),
        4 => cpu.set::<u32>(op.reg[0], u32::from(value)),
        _ => cpu.set::<u64>(op.reg[0], u64::from(value)),
    }
    Ok(())
}

/// What LAR, LSL, VERR and VERW look at: the descriptor, if the selector may be inspected.
fn inspected(cpu: &mut Cpu, selector: u16) -> Done<Option<Descriptor>> {
    if selector & !3 == 0 {
        return Ok(None);
    }
    let Some(d) = cpu.descriptor(selector)? else { return Ok(None) };
    let conforming = d.is_code() && d.kind() & 4 != 0;
    let rpl = (selector & 3) as u8;
    let visible = conforming || (cpu.cpl <= d.dpl() && rpl <= d.dpl());
    Ok(visible.then_some(d))
}

/// LAR and LSL; `imm` is 1 for LSL.
pub(super) fn load_rights_or_limit(cpu: &mut Cpu, op: &Op) -> Done {
    real_is_undefined(cpu)?;
    let selector = if op.has_memory() { cpu.load::<u16>(op)? } else { cpu.get::<u16>(op.reg[1]) };
    let limit = op.imm == 1;
    let long = cpu.long_active();
    let found = inspected(cpu, selector)?.filter(|d| {
        d.is_code_or_data()
            || match d.kind() {
                2 | 9 | 11 => true,
                1 | 3 => !long,
                4 | 5 => !limit && !long,
                12 => !limit,
                _ => false,
            }
    });
    cpu.flags.put_zf(found.is_some());
    if let Some(d) = found {
        let value =
            if limit { d.segment(selector).limit } else { (d.raw >> 32) as u32 & 0x00f0_ff00 };
        match op.reg[2] {
            2 => cpu.set::<u16>(op.reg[0], value as u16),
            4 => cpu.set::<u32>(op.reg[0], value),
            _ => cpu.set::<u64>(op.reg[0], u64::from(value)),
        }
    }
    Ok(())
}

/// VERR and VERW; `imm` is 1 for VERW.
pub(super) fn verify(cpu: &mut Cpu, op: &Op) -> Done {
    real_is_undefined(cpu)?;
    let selector = if op.has_memory() { cpu.load::<u16>(op)? } else { cpu.get::<u16>(op.reg[0]) };
    let write = op.imm == 1;
    let good = inspected(cpu, selector)?.is_some_and(|d| {
        d.is_code_or_data()
            && match (write, d.is_code()) {
                (true, code) => !code && d.kind() & 2 != 0,
                (false, code) => !code || d.kind() & 2 != 0,
            }
    });
    cpu.flags.put_zf(good);
    Ok(())
}

/// ARPL.
pub(super) fn adjust_rpl(cpu: &mut Cpu, op: &Op) -> Done {
    real_is_undefined(cpu)?;
    let source = cpu.get::<u16>(op.reg[1]) & 3;
    let target = if op.has_memory() { cpu.load::<u16>(op)? } else { cpu.get::<u16>(op.reg[0]) };
    let lower = target & 3 < source;
    if lower {
        let adjusted = target & !3 | source;
        if op.has_memory() {
            cpu.store::<u16>(op, adjusted)?;
        } else {
            cpu.set::<u16>(op.reg[0], adjusted);
        }
    }
    cpu.flags.put_zf(lower);
    Ok(())
}

impl Cpu {
    /// MOV SS and POP SS hold interrupts, NMIs and debug traps back for one instruction.
    fn shadow_stack_switch(&mut self) {
        self.events.interrupt_shadow = true;
        self.events.mov_ss_shadow = true;
        self.left = 0;
    }

    /// Sets the flags under `mask`, and sees to what depends on them: pending interrupts when IF
    /// comes on, single-stepping, SMAP's override.
    pub fn set_rflags(&mut self, value: u64, mask: u64) {
        let old = self.flags.rflags();
        let new = old & !mask | value & mask | rflags::ONE;
        self.flags = crate::flags::Flags::from_rflags(new);
        let changed = old ^ new;
        // One that was asked for and held back; those that were not looked at are still asked for.
        if changed & new & rflags::IF != 0 && self.interrupts_held {
            self.local.post(crate::apic::request::INTERRUPT);
        }
        if changed & (rflags::IF | rflags::TF | rflags::RF) != 0 {
            self.left = 0;
        }
        if changed & rflags::VM != 0 {
            self.update_mode();
        } else if changed & rflags::AC != 0 {
            self.update_tlb_view();
        }
    }
}
