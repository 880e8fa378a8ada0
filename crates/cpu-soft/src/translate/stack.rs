//! Runs of pushes and of pops, which begin and end most functions: looked up once, not one by one.

use iced_x86::OpKind;

use super::asm::host::{R15, RAX, RCX};
use super::asm::{Mem, alu, cc, frame};
use super::class::Class;
use super::emit::{Cold, Emitter, Item};
use super::frame::{Site, Slot, SlotNumber};
use super::operand::Found;
use super::stubs::{Look, Want};
use crate::op::gpr;

/// Most instructions in a run.
const LONGEST: usize = 8;

/// Whether an instruction pushes or pops a register other than RSP, or pushes a number.
fn is_simple(item: &Item, class: Class) -> bool {
    item.class == class
        && match item.i.op0_kind() {
            OpKind::Register => item.i.op0_register().number() != gpr::RSP,
            OpKind::Memory => false,
            _ => true,
        }
}

impl Emitter<'_> {
    /// Writes the run that `items` begin with. Returns its length, 0 when there is none.
    pub(super) fn stack_run(&mut self, items: &[Item], site: Site) -> usize {
        for class in [Class::Push, Class::Pop] {
            let run = items.iter().take(LONGEST).take_while(|item| is_simple(item, class)).count();
            if run >= 2 {
                match class {
                    Class::Push => self.pushes(&items[..run], site),
                    _ => self.pops(&items[..run], site),
                }
                return run;
            }
        }
        0
    }

    /// Finds `bytes` of stack from `low` bytes above the stack pointer on: the addend is in RAX then.
    fn find_run(&mut self, want: Want, low: i32, bytes: i32, site: Site) {
        let (tag, addend) = want.fields();
        let stack = SlotNumber::of_stack(self.kind.user);
        let retry = self.asm.here();
        self.asm.lea(RCX, Mem::at(R15, low));
        self.asm.alu_mem(alu::XOR, RCX, frame(stack.field(tag)));
        self.asm.alu_imm(true, alu::CMP, RCX, 4096 - bytes);
        let at = self.asm.jcc(cc::A);
        let look = Look { want, size: 8, aligned: false, direct: true };
        self.cold.push(Cold::Run { at, retry, look, low, bytes, site });
        self.asm.load(RAX, frame(stack.field(addend)));
    }

    fn pushes(&mut self, items: &[Item], site: Site) {
        let Some(last) = items.last() else { return };
        let bytes = 8 * items.len() as i32;
        self.clobber(last.live_out != 0);
        self.find_run(Want::Write, -bytes, bytes, site);
        // What the run itself overwrites would have to be noticed in its middle: leave that to the
        // interpreter.
        let stack = SlotNumber::of_stack(self.kind.user);
        let state = frame(stack.field(std::mem::offset_of!(Slot, state)));
        self.asm.load(RCX, state);
        self.asm.cmp_byte(RCX, riad_memory::PageState::DIRTY);
        self.interpret_if(cc::NE, site);
        for (n, item) in (1i32..).zip(items) {
            let place = Mem { base: RAX, index: Some((R15, 0)), disp: -8 * n };
            if item.i.op0_kind() == OpKind::Register {
                self.store_guest(place, item.i.op0_register().number() as u8);
            } else {
                self.asm.store_imm(place, item.op.imm as i32);
            }
        }
        self.add_to_stack(-bytes);
        let next = Site::new(last.next, site.before() + items.len() as u32, self.count);
        let found = Found { mem: Mem::at(RAX, 0), slot: stack };
        self.wrote(found, last.live_out != 0, next);
    }

    fn pops(&mut self, items: &[Item], site: Site) {
        let Some(last) = items.last() else { return };
        let bytes = 8 * items.len() as i32;
        self.clobber(last.live_out != 0);
        self.find_run(Want::Read, 0, bytes, site);
        for (n, item) in (0i32..).zip(items) {
            let place = Mem { base: RAX, index: Some((R15, 0)), disp: 8 * n };
            self.load_guest(item.i.op0_register().number() as u8, place);
        }
        self.add_to_stack(bytes);
    }
}
