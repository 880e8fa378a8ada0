//! The register stack, and the fields of the status word.
//!
//! Intel SDM volume 1, sections 8.1.2 (register stack) and 8.1.3 (status word). Registers are kept
//! by their physical number, as XSAVE's tags are; ST(i) is physical register (TOP + i) mod 8.

use riad_cpu::x86::Fpu;

use crate::softfloat::F80;

/// A stack overflow or underflow, with IE.
pub(super) const STACK_FAULT: u16 = 1 << 6;
/// ES: an unmasked exception is pending.
pub(super) const SUMMARY: u16 = 1 << 7;
/// B, which mirrors ES.
pub(super) const BUSY: u16 = 1 << 15;
/// Condition code C0.
pub(super) const C0: u16 = 1 << 8;
/// Condition code C1.
pub(super) const C1: u16 = 1 << 9;
/// Condition code C2.
pub(super) const C2: u16 = 1 << 10;
/// Condition code C3.
pub(super) const C3: u16 = 1 << 14;
/// The TOP field.
pub(super) const TOP: u16 = 7 << 11;

/// The bits of the control word that can be set.
pub(crate) const CONTROL_MASK: u16 = 0x1f3f;
/// The bit of the control word that reads as one.
const CONTROL_ONE: u16 = 0x40;

/// The x87's view of its registers.
pub(super) trait Stack {
    /// The physical register that is ST0.
    fn top(&self) -> u8;
    /// Moves the top by this much.
    fn rotate(&mut self, by: i8);
    /// Whether ST(`i`) is empty.
    fn is_empty(&self, i: u8) -> bool;
    /// ST(`i`), or `None` if it is empty.
    fn st(&self, i: u8) -> Option<F80>;
    /// What ST(`i`) holds, empty or not.
    fn raw(&self, i: u8) -> F80;
    /// Fills ST(`i`).
    fn put(&mut self, i: u8, value: F80);
    /// Empties ST(`i`).
    fn free(&mut self, i: u8);
    /// Pushes; whether there is room is the caller's matter.
    fn push(&mut self, value: F80);
    /// Empties ST0 and moves the top.
    fn pop(&mut self);
    /// Replaces condition codes C0, C2 and C3.
    fn set_conditions(&mut self, conditions: u16);
}

fn physical(fpu: &Fpu, i: u8) -> usize {
    (usize::from(fpu.fsw >> 11) + usize::from(i)) & 7
}

impl Stack for Fpu {
    #[inline]
    fn top(&self) -> u8 {
        (self.fsw >> 11) as u8 & 7
    }

    #[inline]
    fn rotate(&mut self, by: i8) {
        let top = self.top().wrapping_add_signed(by) & 7;
        self.fsw = self.fsw & !TOP | u16::from(top) << 11;
    }

    #[inline]
    fn is_empty(&self, i: u8) -> bool {
        self.ftw >> physical(self, i) & 1 == 0
    }

    #[inline]
    fn st(&self, i: u8) -> Option<F80> {
        if self.is_empty(i) { None } else { Some(self.raw(i)) }
    }

    #[inline]
    fn raw(&self, i: u8) -> F80 {
        let register = self.registers[physical(self, i)];
        F80 { significand: register.significand, sign_exponent: register.sign_exponent }
    }

    #[inline]
    fn put(&mut self, i: u8, value: F80) {
        let number = physical(self, i);
        let F80 { significand, sign_exponent } = value;
        self.registers[number] = riad_cpu::x86::F80 { significand, sign_exponent };
        self.ftw |= 1 << number;
    }

    #[inline]
    fn free(&mut self, i: u8) {
        self.ftw &= !(1 << physical(self, i));
    }

    #[inline]
    fn push(&mut self, value: F80) {
        self.rotate(-1);
        self.put(0, value);
    }

    #[inline]
    fn pop(&mut self) {
        self.free(0);
        self.rotate(1);
    }

    #[inline]
    fn set_conditions(&mut self, conditions: u16) {
        self.fsw = self.fsw & !(C0 | C2 | C3) | conditions;
    }
}

/// Loads the control word, and lets ES and B follow.
pub(super) fn set_control(fpu: &mut Fpu, value: u16) {
    fpu.fcw = value & CONTROL_MASK | CONTROL_ONE;
    refresh_summary(fpu);
}

/// Recomputes ES and B after the control word or the status word was loaded.
pub(crate) fn refresh_summary(fpu: &mut Fpu) {
    let pending = fpu.fsw & !fpu.fcw & 0x3f != 0;
    fpu.fsw = fpu.fsw & !(SUMMARY | BUSY) | if pending { SUMMARY | BUSY } else { 0 };
}

/// FNINIT: everything but the registers' contents (SDM volume 2, FINIT).
pub(super) fn initialize(fpu: &mut Fpu) {
    fpu.fcw = 0x37f;
    fpu.fsw = 0;
    fpu.ftw = 0;
    fpu.fop = 0;
    fpu.fip = 0;
    fpu.fcs = 0;
    fpu.fdp = 0;
    fpu.fds = 0;
}
