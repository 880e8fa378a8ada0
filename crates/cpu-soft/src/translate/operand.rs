//! Memory operands: from what an instruction names to a host address.

use std::mem::offset_of;

use iced_x86::{Mnemonic, OpKind};

use super::asm::host::{RAX, RCX};
use super::asm::{Mem, NO_BASE, alu, cc, frame};
use super::emit::{Cold, Emitter, Item, home, in_frame};
use super::frame::{BASE, KEPT, Site, Slot, SlotNumber, segment_base};
use super::stubs::{Look, Want, page_state, tlb_entry, tlb_tag};
use crate::mem::Entry;
use crate::op::{RIP, ZERO, gpr, seg};

/// A memory operand as its instruction has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand {
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
    /// It seldom stays in a page.
    scattered: bool,
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
            scattered: false,
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
            scattered: item.scattered || chases(item, op.base, op.index),
        })
    }

    /// The address, when it is a register at home and a displacement.
    fn direct(&self) -> Option<Mem> {
        let plain = !self.narrow && self.seg < seg::FS && self.base < 16 && self.index == ZERO;
        home(self.base).filter(|_| plain).map(|base| Mem::at(base, self.disp))
    }

    /// Whether [`Emitter::probe`] knows operands like this.
    fn can_be_probed(&self) -> bool {
        !self.narrow
            && self.seg < seg::FS
            && !self.aligned
            && self.base != RIP
            && self.disp < i32::MAX - 16
    }

    /// The slot for it, in code of a page.
    fn slot(&self, user: bool, page: usize) -> SlotNumber {
        let far = (self.disp >> 12) as u64;
        match self.seg {
            seg::FS | seg::GS => SlotNumber::of_segment(user, self.seg),
            // Code of a page finds its tables and variables in a few others.
            _ if self.base == RIP => {
                let place = (page as u64 ^ far << 32).wrapping_mul(SPREAD) >> 56;
                SlotNumber::of_rip(user, place as u32)
            }
            _ if self.base != ZERO => SlotNumber::of_base(user, self.base),
            _ if self.index != ZERO => SlotNumber::of_base(user, self.index),
            _ => SlotNumber::of_rip(user, far as u32),
        }
    }
}

/// What spreads numbers.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Operands of 16 bytes that may lie anywhere.
fn may_be_unaligned(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(mnemonic, M::Movups | M::Movupd | M::Movdqu | M::Lddqu)
}

/// Where a memory operand is found: its host address, and its slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) mem: Mem,
    pub(super) slot: SlotNumber,
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
        let index = (operand.index != ZERO).then(|| self.index_of(operand));
        Mem { base, index, disp: operand.disp }
    }

    /// The register of an operand's index, and log2 of its scale. May load RCX.
    fn index_of(&mut self, operand: &Operand) -> (u8, u8) {
        let index = home(operand.index).unwrap_or_else(|| {
            self.asm.load(RCX, in_frame(operand.index));
            RCX
        });
        (index, operand.scale)
    }

    /// Finds the host address of an operand. Changes RAX and RCX, and the host's flags: `live` says
    /// whether the guest's are needed. The result may use RAX.
    pub(super) fn find(&mut self, operand: &Operand, want: Want, live: bool, site: Site) -> Found {
        if operand.scattered && operand.can_be_probed() {
            return self.probe(operand, want, live, site);
        }
        self.clobber(live);
        let number = operand.slot(self.kind.user, self.page);
        let direct = operand.direct();
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
        self.asm.alu_mem(alu::XOR, RCX, frame(number.field(tag)));
        let mut most = 4096 - operand.size as i32;
        if operand.aligned {
            // ror rcx, 4: what is not aligned becomes huge.
            self.asm.bytes(&[0x48, 0xc1, 0xc9, 4]);
            most >>= 4;
        }
        self.asm.alu_imm(true, alu::CMP, RCX, most);
        let at = self.asm.jcc(cc::A);
        let addend = frame(number.field(addend));
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
        let (size, aligned) = (operand.size, operand.aligned);
        let look = Look { want, size, aligned, direct: direct.is_some() };
        self.cold.push(Cold::Miss { at, back: self.asm.here(), look, slot: number, site });
        Found { mem, slot: number }
    }

    /// Finds an operand that seldom stays in a page, as those of code that follows pointers: the TLB
    /// is asked here and now, which takes longer than a look at a slot but does not have to be
    /// guessed.
    fn probe(&mut self, operand: &Operand, want: Want, live: bool, site: Site) -> Found {
        self.clobber(live);
        let slot = SlotNumber::of_scattered(self.kind.user);
        let address = self.registers_of(operand);
        self.asm.lea(RCX, address);
        tlb_entry(self.asm, RCX, 0);
        // An index that lives in the frame is brought to RCX too.
        let both = operand.index != ZERO && home(operand.index).is_none();
        if both {
            self.asm.store(frame(KEPT), RCX);
        }
        // The tag of the last byte's page: an operand across two pages is not found. Nor is one in
        // the other half than code of its kind is in, whose generation is another.
        let first = self.registers_of(operand);
        let disp = first.disp.wrapping_add(operand.size as i32 - 1);
        self.asm.lea(RAX, Mem { disp, ..first });
        if both {
            self.asm.load(RCX, frame(KEPT));
        }
        tlb_tag(self.asm, RAX, self.kind.upper, 0);
        self.asm.alu_mem(alu::CMP, RAX, Mem::at(RCX, want.tag() as i32));
        let at = self.asm.jcc(cc::NE);
        self.asm.load(RAX, Mem::at(RCX, offset_of!(Entry, addend) as i32));
        let direct = operand.direct();
        let mem = match direct {
            Some(address) => Mem { base: RAX, index: Some((address.base, 0)), disp: address.disp },
            None => {
                match home(operand.base) {
                    _ if operand.base == ZERO => {}
                    Some(base) => self.asm.alu(alu::ADD, RAX, base),
                    None => self.asm.alu_mem(alu::ADD, RAX, in_frame(operand.base)),
                }
                let index = (operand.index != ZERO).then(|| self.index_of(operand));
                self.asm.lea(RAX, Mem { base: RAX, index, disp: operand.disp });
                Mem::at(RAX, 0)
            }
        };
        if want == Want::Write {
            self.asm.lea(RCX, mem);
            page_state(self.asm, RCX, 0);
            self.asm.store(frame(slot.field(offset_of!(Slot, state))), RCX);
        }
        let look = Look { want, size: operand.size, aligned: false, direct: false };
        self.cold.push(Cold::Probe { at, back: self.asm.here(), operand: *operand, look, site });
        Found { mem, slot }
    }

    /// What [`probe`](Self::probe) does when the TLB does not know the page.
    pub(super) fn probe_slowly(&mut self, operand: &Operand, look: Look, site: Site, back: u32) {
        let address = self.registers_of(operand);
        self.asm.lea(RAX, address);
        self.look(look, SlotNumber::of_scattered(self.kind.user), site);
        if let Some(direct) = operand.direct() {
            self.asm.alu(alu::SUB, RAX, direct.base);
            self.asm.lea(RAX, Mem::at(RAX, direct.disp.wrapping_neg()));
        }
        self.asm.jmp_to(back);
    }

    /// After an instruction's write, as its last act: somebody may have to be told.
    pub(super) fn wrote_last(&mut self, found: Found, item: &Item, site: Site) {
        let next = Site::new(item.next, site.before() + 1, self.count);
        self.wrote(found, item.live_out != 0, next);
    }

    /// After a write: somebody may have to be told. `next` is where to go on.
    pub(super) fn wrote(&mut self, found: Found, live: bool, next: Site) {
        let state = frame(found.slot.field(offset_of!(Slot, state)));
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

/// Whether an instruction is a load that replaces its own base register by what that points to.
fn chases(item: &Item, base: u8, index: u8) -> bool {
    let i = &item.i;
    i.mnemonic() == Mnemonic::Mov
        && i.op0_kind() == OpKind::Register
        && i.op0_register().size() == 8
        && index == ZERO
        && i.op0_register().number() == usize::from(base)
}
