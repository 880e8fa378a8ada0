//! Which states a processor can be in: those that instructions and events lead to from RESET. Engines
//! refuse the others, which can only come from a damaged or forged snapshot.

use super::model::{CR0_SUPPORTED, CR4_SUPPORTED, EFER_SUPPORTED, PHYSICAL_BITS, XCR0_SUPPORTED};
use super::{VcpuState, cr0, cr4, efer, rflags};
use crate::Error;

/// Flags that exist.
const RFLAGS: u64 = rflags::STATUS
    | rflags::ONE
    | rflags::TF
    | rflags::IF
    | rflags::DF
    | rflags::IOPL
    | rflags::NT
    | rflags::RF
    | rflags::VM
    | rflags::AC
    | rflags::VIF
    | rflags::VIP
    | rflags::ID;

/// DR6 bits that a debug trap may have as its cause: B0 to B3, BS.
const DEBUG_CAUSES: u64 = 0x400f;

fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

impl VcpuState {
    /// Whether a processor can be in this state.
    ///
    /// # Errors
    /// [`Error::BadState`] with the first thing that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let problems =
            [self.check_control(), self.check_mode(), self.check_addresses(), self.check_rest()];
        match problems.into_iter().flatten().next() {
            Some(problem) => Err(Error::BadState(problem.to_owned())),
            None => Ok(()),
        }
    }

    /// Control registers (SDM 3A, 2.5 and 4.1).
    fn check_control(&self) -> Option<&'static str> {
        let c = &self.control;
        let paging = c.cr0 & cr0::PG != 0;
        let long = c.efer & efer::LMA != 0;
        if c.cr0 & !CR0_SUPPORTED != 0 || c.cr4 & !CR4_SUPPORTED != 0 {
            return Some("CR0 or CR4 has a bit this processor model does not have");
        }
        if c.efer & !EFER_SUPPORTED != 0 || c.xcr0 & !XCR0_SUPPORTED != 0 || c.xcr0 & 1 == 0 {
            return Some("EFER or XCR0 has a bit this processor model does not have");
        }
        if paging && c.cr0 & cr0::PE == 0 {
            return Some("paging is on in real mode");
        }
        if c.cr0 & cr0::NW != 0 && c.cr0 & cr0::CD == 0 {
            return Some("CR0.NW is set without CR0.CD");
        }
        if long != (paging && c.efer & efer::LME != 0) {
            return Some("EFER.LMA does not agree with CR0.PG and EFER.LME");
        }
        if long && c.cr4 & cr4::PAE == 0 {
            return Some("long mode is active without CR4.PAE");
        }
        if !long && c.cr4 & cr4::PCIDE != 0 {
            return Some("CR4.PCIDE is set outside of long mode");
        }
        if c.cr3 >> if long { PHYSICAL_BITS } else { 32 } != 0 {
            return Some("CR3 is beyond the processor's physical addresses");
        }
        None
    }

    /// What flags, segments and control registers say of the mode (SDM 3A, 2.2; 3C, 27.3.1.2).
    fn check_mode(&self) -> Option<&'static str> {
        let protected = self.control.cr0 & cr0::PE != 0;
        let long = self.control.efer & efer::LMA != 0;
        let v86 = self.rflags & rflags::VM != 0;
        let (cs, ss) = (&self.segments.cs, &self.segments.ss);
        if self.rflags & !RFLAGS != 0 {
            return Some("RFLAGS has a reserved bit");
        }
        if v86 && (!protected || long) {
            return Some("EFLAGS.VM is set outside of protected mode");
        }
        if v86 && ss.dpl() != 3 {
            return Some("the privilege level is not 3 in virtual-8086 mode");
        }
        if !protected && ss.dpl() != 0 {
            return Some("the privilege level is not 0 in real mode");
        }
        if long && cs.long() && cs.big() {
            return Some("the code segment is 64-bit and 32-bit at once");
        }
        if cs.unusable() || !cs.present() {
            return Some("there is no code segment");
        }
        None
    }

    /// Addresses that are canonical however they got where they are.
    fn check_addresses(&self) -> Option<&'static str> {
        let s = &self.segments;
        let m = &self.msrs;
        let bases = [s.fs.base, s.gs.base, s.ldtr.base, s.tr.base, self.gdtr.base, self.idtr.base];
        let flat = [s.es.base, s.cs.base, s.ss.base, s.ds.base];
        if !bases.into_iter().all(canonical) || flat.into_iter().any(|base| base >> 32 != 0) {
            return Some("a segment's or table's base is not an address");
        }
        let targets = [m.lstar, m.cstar, m.kernel_gs_base, m.sysenter_esp, m.sysenter_eip];
        if !targets.into_iter().all(canonical) {
            return Some("a model-specific register does not hold an address");
        }
        None
    }

    fn check_rest(&self) -> Option<&'static str> {
        if self.debug.dr6 >> 32 != 0 || self.debug.dr7 >> 32 != 0 {
            return Some("DR6 or DR7 has a reserved bit");
        }
        if self.events.pending_debug & !DEBUG_CAUSES != 0 {
            return Some("a debug trap is pending for no reason there is");
        }
        if self.fpu.mxcsr >> 16 != 0 {
            return Some("MXCSR has a reserved bit");
        }
        None
    }
}

#[cfg(test)]
#[path = "check_test.rs"]
mod tests;
