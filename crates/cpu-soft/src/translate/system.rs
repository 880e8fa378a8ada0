//! The few system instructions that kernels run all the time: interrupt flag, direction flag, SWAPGS,
//! PUSHF.

use iced_x86::Mnemonic;
use riad_cpu::x86::rflags;

use super::asm::host::{RAX, RCX};
use super::asm::{Mem, alu, cc, frame};
use super::emit::{Emitter, Item};
use super::frame::{
    CPU, CPU_CPL, CPU_FLAGS, CPU_GS_BASE, CPU_HELD, CPU_KERNEL_GS_BASE, FLAGS, KEPT, Site,
    segment_base,
};
use super::operand::Operand;
use super::stubs::Want;
use crate::op::seg;

/// `and` and `or` of memory with an immediate (opcode 81), by their digit.
const AND: u8 = 4;
const OR: u8 = 1;

impl Emitter<'_> {
    /// Brings the processor to RAX, and leaves what is not for users to the interpreter when they
    /// try.
    fn privileged(&mut self, item: &Item, site: Site) {
        self.clobber(item.live_in != 0);
        self.asm.load(RAX, frame(CPU));
        self.asm.cmp_byte_at(Mem::at(RAX, CPU_CPL as i32), 0);
        self.interpret_if(cc::NE, site);
    }

    fn change_flag(&mut self, digit: u8, bits: u64) {
        self.asm.rm(false, &[0x81], digit, Mem::at(RAX, CPU_FLAGS as i32));
        self.asm.bytes(&(bits as u32).to_le_bytes());
    }

    /// CLI and STI. An interrupt that was held back is the interpreter's to see. After STI the block
    /// goes on for one more instruction at least, as it must: interrupts are taken between blocks.
    pub(super) fn interrupts(&mut self, item: &Item, site: Site) -> Option<()> {
        let set = item.i.mnemonic() == Mnemonic::Sti;
        if set && site.before() + 1 >= self.count {
            return None;
        }
        self.privileged(item, site);
        if set {
            self.asm.cmp_byte_at(Mem::at(RAX, CPU_HELD as i32), 0);
            self.interpret_if(cc::NE, site);
            self.change_flag(OR, rflags::IF);
        } else {
            self.change_flag(AND, !rflags::IF);
        }
        Some(())
    }

    /// CLD and STD.
    pub(super) fn direction(&mut self, item: &Item) -> Option<()> {
        self.clobber(item.live_in != 0);
        self.asm.load(RAX, frame(CPU));
        if item.i.mnemonic() == Mnemonic::Std {
            self.change_flag(OR, rflags::DF);
        } else {
            self.change_flag(AND, !rflags::DF);
        }
        Some(())
    }

    pub(super) fn swap_gs(&mut self, item: &Item, site: Site) -> Option<()> {
        self.privileged(item, site);
        let (user, kernel) =
            (Mem::at(RAX, CPU_GS_BASE as i32), Mem::at(RAX, CPU_KERNEL_GS_BASE as i32));
        self.asm.load(RCX, kernel);
        self.asm.store(frame(KEPT), RCX);
        self.asm.load(RCX, user);
        self.asm.store(kernel, RCX);
        self.asm.load(RCX, frame(KEPT));
        self.asm.store(user, RCX);
        self.asm.store(frame(segment_base(seg::GS)), RCX);
        Some(())
    }

    /// PUSHF: the status flags from the frame, the others from the processor.
    pub(super) fn push_flags(&mut self, item: &Item, site: Site) -> Option<()> {
        self.save();
        self.flags.host = false;
        self.asm.load32(RAX, frame(FLAGS));
        // movzx ecx, ah
        self.asm.bytes(&[0x0f, 0xb6, 0xcc]);
        self.asm.alu_imm(false, alu::AND, RCX, 0xd5);
        self.asm.alu_imm(false, alu::AND, RAX, 1);
        self.asm.shift(false, 4, RAX, 11);
        self.asm.rr(false, &[alu::OR], RCX, RAX);
        self.asm.load(RAX, frame(CPU));
        self.asm.load32(RAX, Mem::at(RAX, CPU_FLAGS as i32));
        let others = !(rflags::STATUS | rflags::VM | rflags::RF) as u32;
        self.asm.alu_imm(false, alu::AND, RAX, others as i32);
        self.asm.rr(false, &[alu::OR], RCX, RAX);
        self.asm.store(frame(KEPT), RCX);
        let found = self.find(&Operand::stack(-8, 8), Want::Write, true, site);
        self.asm.load(RCX, frame(KEPT));
        self.asm.store(found.mem, RCX);
        self.add_to_stack(-8);
        self.wrote_last(found, item, site);
        Some(())
    }
}
