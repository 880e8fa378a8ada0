//! Control and debug registers, TLB maintenance, INIT and start-up (Intel SDM 3A, chapters 2, 4, 9
//! and 17).

use riad_cpu::x86::{Activity, VcpuState, cr0, cr4, efer, model, rflags};

use crate::apic::request;
use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::op::{Op, seg};

/// The bits of CR3 that name a process context.
const PCID: u64 = 0xfff;

fn supervisor(cpu: &Cpu) -> Done {
    if cpu.cpl == 0 { Ok(()) } else { Err(Fault::GP0) }
}

impl Cpu {
    /// The TLB's name of the current address space.
    fn space(&self) -> u64 {
        if self.control.cr4 & cr4::PCIDE != 0 { self.control.cr3 & PCID } else { 0 }
    }

    /// Whether PAE paging is in use with this CR4 (SDM 3A, 4.1.1).
    fn pae_paging(&self, cr4: u64) -> bool {
        self.control.cr0 & cr0::PG != 0 && cr4 & cr4::PAE != 0 && !self.long_active()
    }

    /// Writes CR0.
    ///
    /// # Errors
    /// #GP(0) for combinations the processor refuses.
    pub fn write_cr0(&mut self, value: u64) -> Done {
        if value >> 32 != 0 {
            return Err(Fault::GP0);
        }
        let new = value & model::CR0_SUPPORTED | cr0::ET;
        let old = self.control.cr0;
        let pg_without_pe = new & cr0::PG != 0 && new & cr0::PE == 0;
        let nw_without_cd = new & cr0::NW != 0 && new & cr0::CD == 0;
        if pg_without_pe || nw_without_cd {
            return Err(Fault::GP0);
        }
        let legacy_pae = self.control.cr4 & cr4::PAE != 0 && self.control.efer & efer::LME == 0;
        let reloaded = (old ^ new) & (cr0::PG | cr0::CD | cr0::NW) != 0 && new & cr0::PG != 0;
        if legacy_pae && reloaded && !self.pointers_are_good(self.control.cr3) {
            return Err(Fault::GP0);
        }
        let turned_on = !old & new & cr0::PG != 0;
        let turned_off = old & !new & cr0::PG != 0;
        if turned_on && self.control.efer & efer::LME != 0 {
            if self.control.cr4 & cr4::PAE == 0 || self.segs[1].long() {
                return Err(Fault::GP0);
            }
            self.control.efer |= efer::LMA;
        }
        if turned_off {
            if self.mode == Mode::Long || self.control.cr4 & cr4::PCIDE != 0 {
                return Err(Fault::GP0);
            }
            self.control.efer &= !efer::LMA;
        }
        self.control.cr0 = new;
        if (old ^ new) & (cr0::PG | cr0::WP | cr0::PE) != 0 {
            self.tlb.flush_all();
        }
        if (old ^ new) & cr0::PE != 0 && new & cr0::PE == 0 {
            self.cpl = 0;
        }
        self.update_mode();
        Ok(())
    }

    /// Writes CR3.
    ///
    /// # Errors
    /// #GP(0) for reserved bits.
    pub fn write_cr3(&mut self, value: u64) -> Done {
        let pcide = self.control.cr4 & cr4::PCIDE != 0;
        let keep = pcide && value >> 63 != 0;
        let value = if pcide { value & !(1 << 63) } else { value };
        if self.long_active() && value >> model::PHYSICAL_BITS != 0 {
            return Err(Fault::GP0);
        }
        if self.pae_paging(self.control.cr4) && !self.pointers_are_good(value) {
            return Err(Fault::GP0);
        }
        self.control.cr3 = if self.long_active() { value } else { value & 0xffff_ffff };
        let space = self.space();
        if keep {
            self.tlb.switch_space(space);
        } else {
            self.tlb.flush_space(space);
        }
        self.left = 0;
        Ok(())
    }

    /// Writes CR4.
    ///
    /// # Errors
    /// #GP(0) for bits this processor does not have, or combinations it refuses.
    pub fn write_cr4(&mut self, value: u64) -> Done {
        let old = self.control.cr4;
        let pcid_on = !old & value & cr4::PCIDE != 0;
        let bad = value & !model::CR4_SUPPORTED != 0
            || (self.long_active() && value & cr4::PAE == 0)
            || (pcid_on && (!self.long_active() || self.control.cr3 & PCID != 0));
        const POINTERS: u64 = cr4::PGE | cr4::PSE | cr4::PAE | cr4::SMEP;
        let reloaded = self.pae_paging(value) && (old ^ value) & POINTERS != 0;
        if bad || (reloaded && !self.pointers_are_good(self.control.cr3)) {
            return Err(Fault::GP0);
        }
        self.control.cr4 = value;
        const TRANSLATION: u64 =
            cr4::PSE | cr4::PAE | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::SMAP;
        if (old ^ value) & TRANSLATION != 0 {
            self.tlb.flush_all();
        }
        self.update_mode();
        Ok(())
    }

    /// Writes IA32_EFER.
    ///
    /// # Errors
    /// #GP(0) for reserved bits, and for changing LME while paging is on.
    pub fn write_efer(&mut self, value: u64) -> Done {
        let old = self.control.efer;
        let paging = self.control.cr0 & cr0::PG != 0;
        if value & !model::EFER_SUPPORTED != 0 || (paging && (old ^ value) & efer::LME != 0) {
            return Err(Fault::GP0);
        }
        self.control.efer = value & !efer::LMA | old & efer::LMA;
        if (old ^ value) & efer::NXE != 0 {
            self.tlb.flush_all();
        }
        self.update_mode();
        Ok(())
    }

    /// INIT (SDM 3A, table 10-1): as RESET, but x87, SSE, most MSRs, the time stamp counter and
    /// the caches' setting stay. The bootstrap processor starts over, others wait.
    pub(crate) fn init(&mut self) {
        let id = self.local.id();
        let reset = VcpuState::reset(id);
        self.regs[..16].copy_from_slice(&reset.gpr);
        self.set_rip(reset.rip);
        self.flags = crate::flags::Flags::from_rflags(rflags::ONE);
        let s = reset.segments;
        self.segs = [s.es, s.cs, s.ss, s.ds, s.fs, s.gs];
        (self.ldtr, self.tr) = (s.ldtr, s.tr);
        (self.gdtr, self.idtr) = (reset.gdtr, reset.idtr);
        let caches = self.control.cr0 & (cr0::CD | cr0::NW);
        self.control.cr0 = caches | cr0::ET;
        (self.control.cr2, self.control.cr3, self.control.cr4, self.control.efer) = (0, 0, 0, 0);
        self.debug = reset.debug;
        self.cpl = 0;
        self.events = reset.events;
        self.local.apic().init();
        self.tlb.flush_all();
        self.update_mode();
    }

    /// A start-up IPI: real mode at page `vector`.
    pub(crate) fn start_up(&mut self, vector: u8) {
        let cs = u16::from(vector) << 8;
        self.segs[1].selector = cs;
        self.segs[1].base = u64::from(cs) << 4;
        self.set_rip(0);
        self.events.activity = Activity::Running;
        self.local.post(request::INTERRUPT);
        self.update_mode();
    }

    /// Whether an enabled instruction breakpoint is at the next instruction; notes it in DR6.
    pub(crate) fn instruction_breakpoint(&mut self) -> bool {
        let linear = match self.mode {
            Mode::Long => self.rip(),
            _ => self.segs[1].base.wrapping_add(self.rip()) & 0xffff_ffff,
        };
        let mut hit = 0;
        for n in 0..4 {
            let enabled = self.debug.dr7 >> (n * 2) & 3 != 0;
            let kind = self.debug.dr7 >> (16 + n * 4) & 15;
            if enabled && kind == 0 && self.debug.address[n] == linear {
                hit |= 1 << n;
            }
        }
        if hit != 0 {
            self.debug.dr6 = self.debug.dr6 & !15 | hit;
        }
        hit != 0
    }

    /// Notes data breakpoints that an access hits; the trap comes after the instruction.
    pub(crate) fn data_breakpoint(&mut self, address: u64, len: usize, write: bool) {
        self.access_breakpoint(address, len, |kind| matches!((kind, write), (1, true) | (3, _)));
    }

    /// Notes I/O breakpoints, which CR4.DE makes of a kind that is reserved otherwise.
    pub(crate) fn port_breakpoint(&mut self, port: u16, len: usize) {
        if self.debug.dr7 & 0xff != 0 && self.control.cr4 & cr4::DE != 0 {
            self.access_breakpoint(u64::from(port), len, |kind| kind == 2);
        }
    }

    fn access_breakpoint(&mut self, address: u64, len: usize, matches: impl Fn(u64) -> bool) {
        for n in 0..4 {
            let enabled = self.debug.dr7 >> (n * 2) & 3 != 0;
            if !enabled || !matches(self.debug.dr7 >> (16 + n * 4) & 3) {
                continue;
            }
            let size = [1u64, 2, 8, 4][(self.debug.dr7 >> (18 + n * 4) & 3) as usize];
            let start = self.debug.address[n] & !(size - 1);
            if address < start.wrapping_add(size) && start < address.wrapping_add(len as u64) {
                self.events.pending_debug |= 1 << n;
                self.left = 0;
            }
        }
    }
}

fn control_exists(number: u8) -> Done {
    if matches!(number, 0 | 2 | 3 | 4 | 8) { Ok(()) } else { Err(Fault::UD) }
}

/// MOV CRn, r.
pub(super) fn mov_to_control(cpu: &mut Cpu, op: &Op) -> Done {
    control_exists(op.reg[0])?;
    supervisor(cpu)?;
    let value =
        if cpu.long() { cpu.get::<u64>(op.reg[1]) } else { u64::from(cpu.get::<u32>(op.reg[1])) };
    match op.reg[0] {
        0 => cpu.write_cr0(value),
        2 => {
            cpu.control.cr2 = value;
            Ok(())
        }
        3 => cpu.write_cr3(value),
        4 => cpu.write_cr4(value),
        8 => {
            if value > 15 {
                return Err(Fault::GP0);
            }
            cpu.local.apic().set_tpr((value as u8) << 4);
            cpu.local.post(request::INTERRUPT);
            cpu.left = 0;
            Ok(())
        }
        _ => Err(Fault::UD),
    }
}

/// MOV r, CRn.
pub(super) fn mov_from_control(cpu: &mut Cpu, op: &Op) -> Done {
    control_exists(op.reg[1])?;
    supervisor(cpu)?;
    let value = match op.reg[1] {
        0 => cpu.control.cr0,
        2 => cpu.control.cr2,
        3 => cpu.control.cr3,
        4 => cpu.control.cr4,
        8 => u64::from(cpu.local.apic().tpr() >> 4),
        _ => return Err(Fault::UD),
    };
    set_native(cpu, op.reg[0], value);
    Ok(())
}

/// Writes a register that is 64 bits wide in 64-bit mode and 32 otherwise.
fn set_native(cpu: &mut Cpu, reg: u8, value: u64) {
    if cpu.long() {
        cpu.set::<u64>(reg, value);
    } else {
        cpu.set::<u32>(reg, value as u32);
    }
}

/// DR4 and DR5 are DR6 and DR7, unless CR4.DE says they do not exist.
fn debug_number(cpu: &mut Cpu, n: u8) -> Done<u8> {
    supervisor(cpu)?;
    let n = match n {
        4 | 5 if cpu.control.cr4 & cr4::DE == 0 => n + 2,
        0..=3 | 6 | 7 => n,
        _ => return Err(Fault::UD),
    };
    if cpu.debug.dr7 & 1 << 13 != 0 {
        cpu.debug.dr6 |= 1 << 13;
        return Err(Fault::DB);
    }
    Ok(n)
}

/// MOV DRn, r.
pub(super) fn mov_to_debug(cpu: &mut Cpu, op: &Op) -> Done {
    let n = debug_number(cpu, op.reg[0])?;
    let value =
        if cpu.long() { cpu.get::<u64>(op.reg[1]) } else { u64::from(cpu.get::<u32>(op.reg[1])) };
    if n >= 6 && value >> 32 != 0 {
        return Err(Fault::GP0);
    }
    match n {
        6 => cpu.debug.dr6 = value & 0xe00f | 0xffff_0ff0,
        7 => cpu.debug.dr7 = value & 0xffff_23ff | 0x400,
        _ => cpu.debug.address[usize::from(n)] = value,
    }
    // Watched pages are kept out of the TLB.
    cpu.tlb.flush_all();
    cpu.left = 0;
    Ok(())
}

/// MOV r, DRn.
pub(super) fn mov_from_debug(cpu: &mut Cpu, op: &Op) -> Done {
    let n = debug_number(cpu, op.reg[1])?;
    let value = match n {
        6 => cpu.debug.dr6,
        7 => cpu.debug.dr7,
        _ => cpu.debug.address[usize::from(n)],
    };
    set_native(cpu, op.reg[0], value);
    Ok(())
}

/// CLTS.
pub(super) fn clts(cpu: &mut Cpu, _op: &Op) -> Done {
    supervisor(cpu)?;
    cpu.control.cr0 &= !cr0::TS;
    Ok(())
}

/// LMSW: sets PE, MP, EM and TS; cannot clear PE.
pub(super) fn lmsw(cpu: &mut Cpu, op: &Op) -> Done {
    supervisor(cpu)?;
    let value = if op.has_memory() { cpu.load::<u16>(op)? } else { cpu.get::<u16>(op.reg[0]) };
    let keep = cpu.control.cr0 & (!0xf | cr0::PE);
    cpu.write_cr0(keep | u64::from(value & 0xf))
}

/// SMSW.
pub(super) fn smsw(cpu: &mut Cpu, op: &Op) -> Done {
    super::user_mode_prevention(cpu)?;
    let value = cpu.control.cr0;
    if op.has_memory() {
        return cpu.store::<u16>(op, value as u16);
    }
    match op.size {
        2 => cpu.set::<u16>(op.reg[0], value as u16),
        4 => cpu.set::<u32>(op.reg[0], value as u32),
        _ => cpu.set::<u64>(op.reg[0], value),
    }
    Ok(())
}

/// INVLPG. A non-canonical address does nothing.
pub(super) fn invlpg(cpu: &mut Cpu, op: &Op) -> Done {
    supervisor(cpu)?;
    let base =
        if op.seg >= seg::FS || !cpu.long() { cpu.segs[usize::from(op.seg)].base } else { 0 };
    let address = cpu.effective(op).wrapping_add(base);
    cpu.tlb.flush_page(if cpu.long() { address } else { address & 0xffff_ffff });
    cpu.left = 0;
    Ok(())
}

/// INVPCID.
pub(super) fn invpcid(cpu: &mut Cpu, op: &Op) -> Done {
    supervisor(cpu)?;
    let kind =
        if cpu.long() { cpu.get::<u64>(op.reg[0]) } else { u64::from(cpu.get::<u32>(op.reg[0])) };
    let descriptor = cpu.load::<u128>(op)?;
    let (pcid, address) = (descriptor as u64, (descriptor >> 64) as u64);
    let pcid_off = cpu.control.cr4 & cr4::PCIDE == 0;
    if kind > 3 || pcid > PCID || (kind < 2 && pcid_off && pcid != 0) {
        return Err(Fault::GP0);
    }
    match kind {
        0 if !Cpu::canonical(address) => return Err(Fault::GP0),
        0 => cpu.tlb.flush_page(address),
        1 if pcid == cpu.space() => cpu.tlb.flush_space(pcid),
        1 => cpu.tlb.forget_space(pcid),
        _ => cpu.tlb.flush_all(),
    }
    cpu.left = 0;
    Ok(())
}

/// INVD, WBINVD: there are no caches to see.
pub(super) fn supervisor_nop(cpu: &mut Cpu, _op: &Op) -> Done {
    supervisor(cpu)
}

/// HLT.
pub(super) fn hlt(cpu: &mut Cpu, _op: &Op) -> Done {
    supervisor(cpu)?;
    cpu.events.activity = Activity::Halted;
    cpu.left = 0;
    Ok(())
}

/// CLAC and STAC; `imm` is 1 for STAC.
pub(super) fn access_override(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.cpl != 0 || !cpu.protected() {
        return Err(Fault::UD);
    }
    cpu.flags.put(rflags::AC, op.imm == 1);
    cpu.update_tlb_view();
    Ok(())
}
