//! Memory operands: from what an instruction names to a host address.

use std::mem::offset_of;

use iced_x86::{Mnemonic, OpKind};

use super::asm::host::{RAX, RCX, RSP};
use super::asm::{Mem, NO_BASE, alu, cc, frame};
use super::emit::{Cold, Emitter, Item, home, in_frame};
use super::frame::{
    BASE, GENERATION, KEPT, SLOT_FS, SLOT_RIP, Site, Slot, TABLE, segment_base, slot,
};
use super::stubs::{Look, Want};
use crate::mem::{ENTRIES, Entry};
use crate::op::{RIP, ZERO, gpr, seg};

/// A memory operand as its instruction has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    pub(super) base: u8,
    index: u8,
    scale: u8,
    disp: i32,
    pub(super) seg: u8,
    /// The address has 32 bits.
    pub(super) narrow: bool,
    pub(super) size: u32,
    /// It must lie at a multiple of its size, which is 16.
    aligned: bool,
}

impl Operand {
    /// Something on the stack.
    pub(super) fn stack(disp: i32, size: u32) -> Self {
        let base = gpr::RSP as u8;
        Self {
            base,
            index: ZERO,
            scale: 0,
            disp,
            seg: seg::SS,
            narrow: false,
            size,
            aligned: false,
        }
    }

    /// The memory operand of an instruction; `None` when its displacement is too long.
    pub(super) fn of(item: &Item) -> Option<Self> {
        let op = &item.op;
        // RIP is what follows the instruction; here it is the start of its page.
        let next = if op.base == RIP { u64::from(item.next) } else { 0 };
        let disp = i32::try_from(op.disp.wrapping_add(next) as i64).ok()?;
        let size = u32::from(op.size);
        if !matches!(size, 1 | 2 | 4 | 8 | 16) && item.i.mnemonic() != Mnemonic::Lea {
            return None;
        }
        let aligned = size == 16 && !may_be_unaligned(item.i.mnemonic());
        Some(Self {
            base: op.base,
            index: op.index,
            scale: op.scale,
            disp,
            seg: op.seg,
            narrow: op.address == 4,
            size,
            aligned,
        })
    }

    fn slot(&self) -> usize {
        match self.seg {
            seg::FS => SLOT_FS,
            seg::GS => SLOT_FS + 1,
            _ if self.base == RIP => SLOT_RIP,
            _ if self.base != ZERO => usize::from(self.base),
            _ if self.index != ZERO => usize::from(self.index),
            _ => SLOT_RIP,
        }
    }
}

/// Operands of 16 bytes that may lie anywhere.
fn may_be_unaligned(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(mnemonic, M::Movups | M::Movupd | M::Movdqu | M::Lddqu)
}

/// Where a memory operand is found: its host address, and its slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) mem: Mem,
    pub(super) slot: usize,
}

impl Emitter<'_> {
    /// An address made of registers at home, 64 bits. May load RAX (for a base) and RCX (for an
    /// index).
    pub(super) fn registers_of(&mut self, operand: &Operand) -> Mem {
        let base = match operand.base {
            ZERO => NO_BASE,
            RIP => {
                self.asm.load(RAX, frame(BASE));
                RAX
            }
            base => home(base).unwrap_or_else(|| {
                self.asm.load(RAX, in_frame(base));
                RAX
            }),
        };
        let index = (operand.index != ZERO).then(|| {
            let index = home(operand.index).unwrap_or_else(|| {
                self.asm.load(RCX, in_frame(operand.index));
                RCX
            });
            (index, operand.scale)
        });
        Mem { base, index, disp: operand.disp }
    }

    /// Finds the host address of an operand. Changes RAX and RCX, and the host's flags: `live` says
    /// whether the guest's are needed. The result may use RAX.
    pub(super) fn find(&mut self, operand: &Operand, want: Want, live: bool, site: Site) -> Found {
        self.clobber(live);
        let number = operand.slot();
        let plain = !operand.narrow && operand.seg < seg::FS;
        let direct = match home(operand.base) {
            Some(base) if plain && operand.base < 16 && operand.index == ZERO => {
                Some(Mem::at(base, operand.disp))
            }
            _ => None,
        };
        if let Some(address) = direct {
            self.asm.lea(RCX, address);
        } else {
            let address = self.registers_of(operand);
            if operand.narrow {
                self.asm.lea32(RAX, address);
            } else {
                self.asm.lea(RAX, address);
            }
            if operand.seg >= seg::FS {
                self.asm.alu_mem(alu::ADD, RAX, frame(segment_base(operand.seg)));
            }
            self.asm.mov(RCX, RAX);
        }
        let (tag, addend) = want.fields();
        self.asm.alu_mem(alu::XOR, RCX, frame(slot(number, tag)));
        let mut most = 4096 - operand.size as i32;
        if operand.aligned {
            // ror rcx, 4: what is not aligned becomes huge.
            self.asm.bytes(&[0x48, 0xc1, 0xc9, 4]);
            most >>= 4;
        }
        self.asm.alu_imm(true, alu::CMP, RCX, most);
        let at = self.asm.jcc(cc::A);
        let addend = frame(slot(number, addend));
        let mem = match direct {
            Some(address) => {
                self.asm.load(RAX, addend);
                Mem { base: RAX, index: Some((address.base, 0)), disp: address.disp }
            }
            None => {
                self.asm.alu_mem(alu::ADD, RAX, addend);
                Mem::at(RAX, 0)
            }
        };
        let (size, aligned, slot) = (operand.size, operand.aligned, number);
        let look = Look { want, size, aligned, direct: direct.is_some(), slot };
        self.cold.push(Cold::Miss { at, back: self.asm.here(), look, site });
        Found { mem, slot: number }
    }

    /// Finds the operand of a load that replaces its own base register. Who follows pointers seldom
    /// stays in a page, and waits for each address: the TLB is asked here and now, and the slot left
    /// alone.
    pub(super) fn follow(&mut self, operand: &Operand, base: u8, live: bool, site: Site) -> Found {
        self.clobber(live);
        let number = operand.slot();
        let retry = self.asm.here();
        self.asm.lea(RCX, Mem::at(base, operand.disp));
        self.asm.mov(RAX, RCX);
        let entry = size_of::<Entry>().trailing_zeros() as u8;
        self.asm.shift(true, 5, RCX, 12 - entry);
        self.asm.alu_imm(false, alu::AND, RCX, ((ENTRIES - 1) << entry) as i32);
        self.asm.alu_mem(alu::ADD, RCX, frame(TABLE));
        self.asm.shift(true, 5, RAX, 63);
        self.asm.load(RAX, Mem { base: RSP, index: Some((RAX, 3)), disp: GENERATION as i32 });
        self.asm.store(frame(KEPT), RAX);
        // The tag of the last byte's page: an operand across two pages is not found.
        self.asm.lea(RAX, Mem::at(base, operand.disp.wrapping_add(operand.size as i32 - 1)));
        self.asm.alu_imm(true, alu::AND, RAX, -4096);
        self.asm.alu_mem(alu::OR, RAX, frame(KEPT));
        self.asm.alu_mem(alu::CMP, RAX, Mem::at(RCX, offset_of!(Entry, read) as i32));
        let at = self.asm.jcc(cc::NE);
        let (want, size) = (Want::Read, operand.size);
        let look = Look { want, size, aligned: false, direct: false, slot: number };
        let address = Mem::at(base, operand.disp);
        self.cold.push(Cold::Follow { at, retry, address, look, site });
        self.asm.load(RAX, Mem::at(RCX, offset_of!(Entry, addend) as i32));
        let mem = Mem { base: RAX, index: Some((base, 0)), disp: operand.disp };
        Found { mem, slot: number }
    }

    /// After an instruction's write, as its last act: somebody may have to be told.
    pub(super) fn wrote_last(&mut self, found: Found, item: &Item, site: Site) {
        let next = Site::new(item.next, site.before() + 1, self.count);
        self.wrote(found, item.live_out != 0, next);
    }

    /// After a write: somebody may have to be told. `next` is where to go on.
    pub(super) fn wrote(&mut self, found: Found, live: bool, next: Site) {
        let state = frame(slot(found.slot, offset_of!(Slot, state)));
        let plain = riad_memory::PageState::DIRTY;
        self.asm.load(RCX, state);
        let keep = live && self.flags.host && !self.flags.saved;
        let at = if keep {
            // movzx ecx, byte [rcx]; lea rcx, [rcx - DIRTY]
            self.asm.rm(false, &[0x0f, 0xb6], RCX, Mem::at(RCX, 0));
            self.asm.lea(RCX, Mem::at(RCX, -i32::from(plain)));
            self.asm.jmp_unless_rcx_zero()
        } else {
            self.asm.cmp_byte(RCX, plain);
            self.flags.host = false;
            self.asm.jcc(cc::NE)
        };
        let back = self.asm.here();
        self.cold.push(Cold::Wrote { at, back, slot: found.slot, site: next, host_flags: keep });
    }
}

/// The home of the base register that a load replaces by what it points to.
pub(super) fn chased(item: &Item, operand: &Operand) -> Option<u8> {
    let i = &item.i;
    let plain = operand.index == ZERO
        && operand.base < 16
        && !operand.narrow
        && operand.disp < i32::MAX - 8;
    let replaced = i.mnemonic() == Mnemonic::Mov
        && i.op0_kind() == OpKind::Register
        && i.op0_register().size() == 8
        && i.op0_register().number() == usize::from(operand.base);
    if plain && replaced && operand.seg < seg::FS { home(operand.base) } else { None }
}
