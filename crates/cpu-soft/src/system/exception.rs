//! Exceptions and interrupts: from a vector to its handler, and IRET back (Intel SDM 3A, chapter 6).

use riad_cpu::x86::{Activity, Segment, rflags};

use super::segments::Descriptor;
use crate::apic::request;
use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::op::{Op, gpr, seg};
use crate::run::Shutdown;

/// How a vector came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// INT n, INT3, INTO: the gate's privilege counts.
    Software,
    /// An exception or an external interrupt.
    Hardware,
}

/// Data segment registers in the order they are pushed on leaving virtual-8086 mode.
const DATA: [u8; 4] = [seg::GS, seg::FS, seg::DS, seg::ES];

/// Registers that delivering an event changes, to go back to when it fails half-way.
#[derive(Clone)]
pub(super) struct Context {
    regs: [u64; 18],
    flags: crate::flags::Flags,
    segs: [Segment; 6],
    cpl: u8,
}

impl Cpu {
    pub(super) fn context(&self) -> Context {
        Context { regs: self.regs, flags: self.flags, segs: self.segs, cpl: self.cpl }
    }

    pub(super) fn go_back(&mut self, context: Context) {
        let Context { regs, flags, segs, cpl } = context;
        (self.regs, self.flags, self.segs, self.cpl) = (regs, flags, segs, cpl);
        self.update_mode();
    }

    /// Does something that must happen whole or not at all.
    pub(super) fn whole<T>(&mut self, body: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        let context = self.context();
        let done = body(self);
        if done.is_err() {
            self.go_back(context);
        }
        done
    }

    /// Delivers an external interrupt or NMI.
    ///
    /// # Errors
    /// On a triple fault.
    pub fn interrupt(&mut self, vector: u8) -> Result<(), Shutdown> {
        let rip = self.rip();
        match self.enter(vector, None, Cause::Hardware, rip) {
            Ok(()) => Ok(()),
            Err(fault) => {
                self.set_rip(rip);
                self.deliver(fault, true)
            }
        }
    }

    /// Delivers an exception; RIP is where it is to be reported. `fault`: of class fault rather
    /// than trap. Faults on the way become #DF, and then shutdown (SDM 3A, 6.15, interrupt 8).
    ///
    /// # Errors
    /// On a triple fault.
    pub fn deliver(&mut self, first: Fault, fault: bool) -> Result<(), Shutdown> {
        let mut current = first;
        let rip = self.rip();
        if fault {
            self.flags.bits |= rflags::RF;
        }
        if first.vector() == 14 {
            self.control.cr2 = self.fault_address;
        }
        if first.vector() == 1 {
            // General detect is off while the handler runs.
            self.debug.dr7 &= !(1 << 13);
        }
        loop {
            tracing::trace!(
                vector = current.vector(),
                code = current.code(),
                rip,
                cr2 = self.control.cr2,
                "exception"
            );
            let Err(second) = self.enter(current.vector(), current.code(), Cause::Hardware, rip)
            else {
                return Ok(());
            };
            if second.vector() == 14 {
                // Also when it becomes a double fault.
                self.control.cr2 = self.fault_address;
            }
            let contributory = |v: u8| matches!(v, 0 | 10..=13);
            let (a, b) = (current.vector(), second.vector());
            current = if a == 8 {
                tracing::warn!(rip, second = b, "triple fault");
                return Err(Shutdown);
            } else if (contributory(a) && contributory(b))
                || (a == 14 && (contributory(b) || b == 14))
            {
                Fault::with_code(8, 0)
            } else {
                second
            };
        }
    }

    /// Goes to a vector's handler, to return to `rip`. Whole or not at all.
    pub(super) fn enter(&mut self, vector: u8, code: Option<u16>, cause: Cause, rip: u64) -> Done {
        let done = self.whole(|cpu| match cpu.mode {
            Mode::Real => cpu.enter_real(vector, rip),
            _ if cpu.long_active() => cpu.enter_long(vector, code, cause, rip),
            _ => cpu.enter_protected(vector, code, cause, rip),
        });
        match done {
            Ok(()) => {
                self.events.activity = Activity::Running;
                self.events.mov_ss_shadow = false;
                if std::mem::take(&mut self.events.interrupt_shadow) {
                    self.local.post(request::INTERRUPT);
                }
                // TF was cleared, and INT n is not followed by a trap (SDM 3B, 18.3.1.4).
                self.step_trap = false;
                Ok(())
            }
            // EXT: it happened while delivering an event from outside of the program (SDM 3A, 7.13).
            Err(fault) => Err(match fault.code() {
                Some(code) if cause == Cause::Hardware && matches!(fault.vector(), 10..=13) => {
                    Fault::with_code(fault.vector(), code | 1)
                }
                _ => fault,
            }),
        }
    }

    fn enter_real(&mut self, vector: u8, rip: u64) -> Done {
        let at = u64::from(vector) * 4;
        if at + 3 > u64::from(self.idtr.limit) {
            return Err(Fault::GP0);
        }
        let target = self.read::<u32>(seg::DS, self.idtr.base.wrapping_add(at) & 0xffff_ffff)?;
        let flags = self.flags.rflags();
        self.push::<u16>(flags as u16)?;
        self.push::<u16>(self.segs[1].selector)?;
        self.push::<u16>(rip as u16)?;
        self.set_rflags(0, rflags::IF | rflags::TF | rflags::AC | rflags::RF);
        let cs = (target >> 16) as u16;
        self.segs[1] = Segment { base: u64::from(cs) << 4, selector: cs, ..self.segs[1] };
        self.set_rip(u64::from(target & 0xffff));
        self.left = 0;
        Ok(())
    }

    /// The code segment an interrupt gate leads to, and the privilege level its handler runs at.
    fn gate_target(&mut self, selector: u16) -> Done<(Descriptor, u8)> {
        if selector & !3 == 0 {
            return Err(Fault::GP0);
        }
        let mut d = self.descriptor_or(selector, Fault::gp(selector))?;
        if !d.is_code() || d.dpl() > self.cpl {
            return Err(Fault::gp(selector));
        }
        if !d.present() {
            return Err(Fault::np(selector));
        }
        self.mark_accessed(&mut d)?;
        let cpl = if d.kind() & 4 != 0 { self.cpl } else { d.dpl() };
        Ok((d, cpl))
    }

    fn enter_long(&mut self, vector: u8, code: Option<u16>, cause: Cause, rip: u64) -> Done {
        let entry = u16::from(vector) * 8 + 2;
        let bad = Fault::with_code(13, entry);
        let at = u64::from(vector) * 16;
        if at + 15 > u64::from(self.idtr.limit) {
            return Err(bad);
        }
        let low = self.table_read(self.idtr.base.wrapping_add(at))?;
        let high = self.table_read(self.idtr.base.wrapping_add(at + 8))?;
        let kind = low >> 40 & 0x1f;
        let dpl = (low >> 45 & 3) as u8;
        if !matches!(kind, 14 | 15) || (cause == Cause::Software && dpl < self.cpl) {
            return Err(bad);
        }
        if low >> 47 & 1 == 0 {
            return Err(Fault::with_code(11, entry));
        }
        let selector = (low >> 16) as u16;
        let (d, cpl) = self.gate_target(selector)?;
        if !d.long() || d.big() {
            return Err(Fault::gp(selector));
        }
        let target = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        let ist = low >> 32 & 7;
        let old_sp = self.regs[gpr::RSP];
        let old_ss = self.segs[2].selector;
        let (old_cs, flags) = (self.segs[1].selector, self.flags.rflags());
        let stack = if ist != 0 {
            self.task_state_u64(28 + ist * 8)?
        } else if cpl < self.cpl {
            self.task_state_u64(4 + u64::from(cpl) * 8)?
        } else {
            old_sp
        };
        if !Self::canonical(stack) {
            return Err(Fault::SS0);
        }
        if cpl != self.cpl {
            self.segs[2] = Self::null_stack(u16::from(cpl));
        }
        self.cpl = cpl;
        self.segs[1] = Segment { selector: selector & !3 | u16::from(cpl), ..d.segment(selector) };
        self.update_mode();
        self.regs[gpr::RSP] = stack & !15;
        self.push::<u64>(u64::from(old_ss))?;
        self.push::<u64>(old_sp)?;
        self.push::<u64>(flags)?;
        self.push::<u64>(u64::from(old_cs))?;
        self.push::<u64>(rip)?;
        if let Some(code) = code {
            self.push::<u64>(u64::from(code))?;
        }
        if !Self::canonical(target) {
            return Err(Fault::GP0);
        }
        let interrupt_gate = if kind == 14 { rflags::IF } else { 0 };
        self.set_rflags(0, rflags::TF | rflags::NT | rflags::RF | rflags::VM | interrupt_gate);
        self.set_rip(target);
        self.left = 0;
        Ok(())
    }

    /// Eight bytes of the 64-bit task-state segment.
    fn task_state_u64(&mut self, offset: u64) -> Done<u64> {
        if offset + 7 > u64::from(self.tr.limit) {
            return Err(Fault::ts(self.tr.selector));
        }
        self.table_read(self.tr.base.wrapping_add(offset))
    }

    /// RSP for an inner level, from the 64-bit task-state segment.
    pub(super) fn inner_rsp(&mut self, cpl: u8) -> Done<u64> {
        let rsp = self.task_state_u64(4 + u64::from(cpl) * 8)?;
        if Self::canonical(rsp) { Ok(rsp) } else { Err(Fault::SS0) }
    }

    /// SS and ESP for an inner level, from the task-state segment.
    pub(super) fn task_stack(&mut self, cpl: u8) -> Done<(u16, u32)> {
        let wide = self.tr.kind() & 8 != 0;
        let (offset, size) =
            if wide { (4 + u64::from(cpl) * 8, 8) } else { (2 + u64::from(cpl) * 4, 4) };
        if offset + size - 1 > u64::from(self.tr.limit) {
            return Err(Fault::ts(self.tr.selector));
        }
        let at = self.tr.base.wrapping_add(offset);
        if wide {
            let esp = self.as_supervisor(|cpu| cpu.read::<u32>(seg::DS, at))?;
            let ss = self.as_supervisor(|cpu| cpu.read::<u16>(seg::DS, at.wrapping_add(4)))?;
            Ok((ss, esp))
        } else {
            let both = self.as_supervisor(|cpu| cpu.read::<u32>(seg::DS, at))?;
            Ok(((both >> 16) as u16, both & 0xffff))
        }
    }

    /// Pushes values of 4 bytes, or 2 in a 16-bit frame. `full` is the fault when there is no room
    /// on the stack.
    fn push_frame(&mut self, wide: bool, values: &[u64], full: Fault) -> Done {
        for &value in values {
            let pushed =
                if wide { self.push::<u32>(value as u32) } else { self.push::<u16>(value as u16) };
            pushed.map_err(|fault| if fault == Fault::SS0 { full } else { fault })?;
        }
        Ok(())
    }

    fn enter_protected(&mut self, vector: u8, code: Option<u16>, cause: Cause, rip: u64) -> Done {
        let entry = u16::from(vector) * 8 + 2;
        let bad = Fault::with_code(13, entry);
        let at = u64::from(vector) * 8;
        if at + 7 > u64::from(self.idtr.limit) {
            return Err(bad);
        }
        let gate = self.table_read(self.idtr.base.wrapping_add(at) & 0xffff_ffff)?;
        let kind = gate >> 40 & 0x1f;
        let dpl = (gate >> 45 & 3) as u8;
        // Task gates (type 5) are not provided: no kernel that Riad boots uses hardware tasks.
        if !matches!(kind, 6 | 7 | 14 | 15) || (cause == Cause::Software && dpl < self.cpl) {
            return Err(bad);
        }
        if gate >> 47 & 1 == 0 {
            return Err(Fault::with_code(11, entry));
        }
        let wide = kind & 8 != 0;
        let selector = (gate >> 16) as u16;
        let (d, cpl) = self.gate_target(selector)?;
        let from_v86 = self.v86();
        if from_v86 && cpl != 0 {
            return Err(Fault::gp(selector));
        }
        let target = if wide { gate & 0xffff | gate >> 32 & 0xffff_0000 } else { gate & 0xffff };
        let (old_cs, flags) = (self.segs[1].selector, self.flags.rflags());
        let mut full = Fault::SS0;
        if cpl < self.cpl {
            let (ss, esp) = self.task_stack(cpl)?;
            full = Fault::ss(ss);
            let (old_ss, old_sp) = (self.segs[2].selector, self.regs[gpr::RSP]);
            let data = DATA.map(|s| u64::from(self.segs[usize::from(s)].selector));
            if from_v86 {
                self.set_rflags(0, rflags::VM);
            }
            let stack = self.inner_stack(ss, cpl)?;
            self.cpl = cpl;
            self.segs[2] = stack;
            self.segs[1] =
                Segment { selector: selector & !3 | u16::from(cpl), ..d.segment(selector) };
            self.update_mode();
            self.regs[gpr::RSP] = u64::from(esp);
            if from_v86 {
                self.push_frame(wide, &data, full)?;
                for s in DATA {
                    self.segs[usize::from(s)] =
                        Segment { rights: Segment::UNUSABLE, ..Segment::default() };
                }
                self.update_mode();
            }
            self.push_frame(wide, &[u64::from(old_ss), old_sp], full)?;
        } else {
            self.segs[1] =
                Segment { selector: selector & !3 | u16::from(cpl), ..d.segment(selector) };
            self.update_mode();
        }
        self.push_frame(wide, &[flags, u64::from(old_cs), rip], full)?;
        if let Some(code) = code {
            self.push_frame(wide, &[u64::from(code)], full)?;
        }
        if target > u64::from(self.segs[1].limit) {
            return Err(Fault::GP0);
        }
        let interrupt_gate = if kind & 1 == 0 { rflags::IF } else { 0 };
        self.set_rflags(0, rflags::TF | rflags::NT | rflags::RF | rflags::VM | interrupt_gate);
        self.set_rip(target);
        self.left = 0;
        Ok(())
    }

    /// Checks the stack segment a task-state segment names for an inner level: #TS, or #SS when it
    /// is not present.
    pub(super) fn inner_stack(&mut self, selector: u16, cpl: u8) -> Done<Segment> {
        let bad = Fault::ts(selector);
        if selector & !3 == 0 {
            return Err(bad);
        }
        let mut d = self.descriptor_or(selector, bad)?;
        let writable = d.is_code_or_data() && !d.is_code() && d.kind() & 2 != 0;
        if (selector & 3) as u8 != cpl || d.dpl() != cpl || !writable {
            return Err(bad);
        }
        if !d.present() {
            return Err(Fault::ss(selector));
        }
        self.mark_accessed(&mut d)?;
        Ok(d.segment(selector))
    }
}

/// INT n: unlike INT3 and INTO, it is sensitive to IOPL in virtual-8086 mode (SDM 3B, 21.2.7).
pub(super) fn int_n(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.mode == Mode::V86 && cpu.iopl() < 3 {
        return Err(Fault::GP0);
    }
    let rip = cpu.rip();
    cpu.enter(op.imm as u8, None, Cause::Software, rip)
}

/// INT3.
pub(super) fn int3(cpu: &mut Cpu, _op: &Op) -> Done {
    let rip = cpu.rip();
    cpu.enter(3, None, Cause::Software, rip)
}

/// INT1 (ICEBP): a debug exception that no gate privilege stops.
pub(super) fn int1(cpu: &mut Cpu, _op: &Op) -> Done {
    let rip = cpu.rip();
    cpu.enter(1, None, Cause::Hardware, rip)
}

/// INTO.
pub(super) fn into(cpu: &mut Cpu, _op: &Op) -> Done {
    if !cpu.flags.of() {
        return Ok(());
    }
    let rip = cpu.rip();
    cpu.enter(4, None, Cause::Software, rip)
}

/// Flags IRET and POPF may change at CPL 0 without VM, VIF, VIP.
const ALL: u64 = rflags::STATUS
    | rflags::TF
    | rflags::IF
    | rflags::DF
    | rflags::IOPL
    | rflags::NT
    | rflags::RF
    | rflags::AC
    | rflags::ID;

/// Flags that software at this privilege may change.
fn changeable(cpu: &Cpu) -> u64 {
    let mut mask = ALL;
    if cpu.cpl > 0 {
        mask &= !rflags::IOPL;
    }
    if cpu.cpl > cpu.iopl() {
        mask &= !rflags::IF;
    }
    mask
}

/// IRET, IRETD, IRETQ: the operand size is in `size`.
pub(super) fn iret(cpu: &mut Cpu, op: &Op) -> Done {
    let done = cpu.whole(|cpu| match cpu.mode {
        Mode::Real => iret_real(cpu, op.size),
        Mode::V86 => {
            if cpu.iopl() < 3 {
                return Err(Fault::GP0);
            }
            iret_v86(cpu, op.size)
        }
        _ if cpu.flags.bits & rflags::NT != 0 => Err(Fault::GP0),
        _ => iret_protected(cpu, op.size),
    });
    // NMIs are unblocked even if it faults (SDM 3A, 7.7.1), and what waited may be delivered.
    cpu.events.nmi_blocked = false;
    if cpu.events.nmi_pending {
        cpu.local.post(request::NMI);
    }
    cpu.left = 0;
    done
}

fn pop_sized(cpu: &mut Cpu, size: u8) -> Done<u64> {
    Ok(match size {
        2 => u64::from(cpu.pop::<u16>()?),
        4 => u64::from(cpu.pop::<u32>()?),
        _ => cpu.pop::<u64>()?,
    })
}

fn width_mask(size: u8) -> u64 {
    if size == 2 { 0xffff } else { u64::MAX }
}

fn iret_real(cpu: &mut Cpu, size: u8) -> Done {
    let ip = pop_sized(cpu, size)?;
    let cs = pop_sized(cpu, size)? as u16;
    let flags = pop_sized(cpu, size)?;
    if ip > u64::from(cpu.segs[1].limit) {
        return Err(Fault::GP0);
    }
    cpu.segs[1] = Segment { base: u64::from(cs) << 4, selector: cs, ..cpu.segs[1] };
    cpu.set_rip(ip);
    cpu.set_rflags(flags, ALL & width_mask(size));
    Ok(())
}

fn iret_v86(cpu: &mut Cpu, size: u8) -> Done {
    let ip = pop_sized(cpu, size)?;
    let cs = pop_sized(cpu, size)? as u16;
    let flags = pop_sized(cpu, size)?;
    if ip > 0xffff {
        return Err(Fault::GP0);
    }
    cpu.segs[1] = Segment { rights: 0xfb, ..Segment::real(cs) };
    cpu.set_rip(ip);
    cpu.set_rflags(flags, ALL & !rflags::IOPL & width_mask(size));
    Ok(())
}

fn iret_protected(cpu: &mut Cpu, size: u8) -> Done {
    let ip = pop_sized(cpu, size)?;
    let cs = pop_sized(cpu, size)? as u16;
    let flags = pop_sized(cpu, size)?;
    let rpl = (cs & 3) as u8;
    let long = cpu.long_active();
    let virtual_flags = if cpu.cpl == 0 { rflags::VIF | rflags::VIP } else { 0 };
    let mask = (changeable(cpu) | virtual_flags) & width_mask(size);
    if !long && cpu.cpl == 0 && flags & rflags::VM != 0 && size == 4 {
        return iret_to_v86(cpu, ip, cs, flags);
    }
    if cs & !3 == 0 {
        return Err(Fault::GP0);
    }
    let mut d = cpu.descriptor_or(cs, Fault::gp(cs))?;
    let conforming = d.kind() & 4 != 0;
    let level_fits = if conforming { d.dpl() <= rpl } else { d.dpl() == rpl };
    if !d.is_code() || rpl < cpu.cpl || !level_fits || (long && d.long() && d.big()) {
        return Err(Fault::gp(cs));
    }
    if !d.present() {
        return Err(Fault::np(cs));
    }
    cpu.mark_accessed(&mut d)?;
    let segment = d.segment(cs);
    let to_long = long && d.long();
    if to_long && !Cpu::canonical(ip) {
        return Err(Fault::GP0);
    }
    let outer = rpl > cpu.cpl;
    if outer || cpu.mode == Mode::Long {
        let sp = pop_sized(cpu, size)?;
        let ss = pop_sized(cpu, size)? as u16;
        let stack = if ss & !3 == 0 {
            if !to_long || rpl == 3 || (ss & 3) as u8 != rpl {
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
        match cpu.stack_width() {
            8 => cpu.regs[gpr::RSP] = sp,
            4 => cpu.regs[gpr::RSP] = sp & 0xffff_ffff,
            _ => cpu.set::<u16>(gpr::RSP as u8, sp as u16),
        }
        if outer {
            cpu.drop_inner_segments();
        }
    } else {
        cpu.segs[1] = segment;
        cpu.update_mode();
    }
    if !to_long && ip > u64::from(segment.limit) {
        return Err(Fault::GP0);
    }
    cpu.set_rip(ip);
    cpu.set_rflags(flags, mask);
    cpu.update_mode();
    Ok(())
}

fn iret_to_v86(cpu: &mut Cpu, ip: u64, cs: u16, flags: u64) -> Done {
    let esp = cpu.pop::<u32>()?;
    let ss = cpu.pop::<u32>()? as u16;
    let mut data = [0u16; 4];
    for selector in &mut data {
        *selector = cpu.pop::<u32>()? as u16;
    }
    if ip > 0xffff {
        return Err(Fault::GP0);
    }
    let v86 = |selector| Segment { rights: 0xf3, ..Segment::real(selector) };
    let [es, ds, fs, gs] = data.map(v86);
    cpu.segs = [es, v86(cs), v86(ss), ds, fs, gs];
    cpu.regs[gpr::RSP] = u64::from(esp);
    cpu.set_rip(ip);
    cpu.cpl = 3;
    cpu.set_rflags(flags, ALL | rflags::VM | rflags::VIF | rflags::VIP);
    cpu.update_mode();
    Ok(())
}

/// PUSHF, PUSHFD, PUSHFQ: the operand size is in `size`.
pub(super) fn pushf(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.mode == Mode::V86 && cpu.iopl() < 3 {
        return Err(Fault::GP0);
    }
    let flags = cpu.flags.rflags() & !(rflags::VM | rflags::RF);
    match op.size {
        2 => cpu.push::<u16>(flags as u16),
        4 => cpu.push::<u32>(flags as u32),
        _ => cpu.push::<u64>(flags),
    }
}

/// POPF, POPFD, POPFQ: the operand size is in `size`.
pub(super) fn popf(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.mode == Mode::V86 && cpu.iopl() < 3 {
        return Err(Fault::GP0);
    }
    let mut mask = changeable(cpu) & width_mask(op.size);
    if cpu.mode == Mode::V86 {
        mask &= !rflags::IOPL;
    }
    let flags = pop_sized(cpu, op.size)?;
    // RF is cleared, whatever is popped.
    cpu.set_rflags(flags & !rflags::RF, mask);
    Ok(())
}

/// CLI.
pub(super) fn cli(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.protected() && (cpu.cpl > cpu.iopl() || (cpu.v86() && cpu.iopl() < 3)) {
        return Err(Fault::GP0);
    }
    cpu.flags.bits &= !rflags::IF;
    Ok(())
}

/// STI: interrupts stay held back for one more instruction.
pub(super) fn sti(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.protected() && (cpu.cpl > cpu.iopl() || (cpu.v86() && cpu.iopl() < 3)) {
        return Err(Fault::GP0);
    }
    if !cpu.flags.interrupts() {
        cpu.set_rflags(rflags::IF, rflags::IF);
        cpu.events.interrupt_shadow = true;
        cpu.left = 0;
    }
    Ok(())
}
