//! From guest instructions to host code, one block at a time.
//!
//! A block begins anywhere, goes on over conditional branches that are not taken, and ends at any
//! other transfer of control, at the page's end, or after [`LONGEST`] instructions. It can be entered
//! in two ways, see [`Entries`].

use iced_x86::{Encoder, FlowControl, Instruction};

use super::asm::host::{R15, RAX, RCX};
use super::asm::{Asm, Hole, Mem, alu, cc, frame};
use super::calls;
use super::class::{Class, class};
use super::flags;
use super::frame::{
    ATTENTION, BASE, BUDGET, FLAGS, HOME, IN_FRAME, Site, SlotNumber, reason, register,
};
use super::operand::Operand;
use super::stubs::{self, Look, Stubs};
use crate::cpu::Mode;
use crate::decode;
use crate::lower::operands;
use crate::op::Op;
use crate::run::ACROSS;

/// Most instructions in a block.
pub(crate) const LONGEST: usize = 64;

/// What a block is made for, besides where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// XMM registers can be used, and no floating-point exception is unmasked.
    pub(crate) vector: bool,
    /// Instructions are counted.
    pub(crate) counted: bool,
    /// The page lies in a large page: branches within that are within one mapping.
    pub(crate) large: bool,
    /// Nothing is called in the middle of the block: it does the same when it is run again.
    pub(crate) pure: bool,
    /// It is run in the upper half of the address space.
    pub(crate) upper: bool,
    /// It is run at CPL 3.
    pub(crate) user: bool,
}

impl Kind {
    /// Which bits [`large`](Self::large) and [`user`](Self::user) are.
    pub(crate) const LARGE: u8 = 2;
    pub(crate) const USER: u8 = 5;

    /// As a number from 0 to 63.
    pub(crate) fn bits(self) -> u64 {
        u64::from(self.vector)
            | u64::from(self.counted) << 1
            | u64::from(self.large) << Self::LARGE
            | u64::from(self.pure) << 3
            | u64::from(self.upper) << 4
            | u64::from(self.user) << Self::USER
    }
}

/// One guest instruction of a block.
pub(crate) struct Item {
    pub(crate) i: Instruction,
    /// Its operands; without the handler, which few need.
    pub(crate) op: Op,
    pub(crate) class: Class,
    /// Offset in the page, and of the next instruction.
    pub(crate) offset: u32,
    pub(crate) next: u32,
    /// Status flags needed by this instruction or later, and by later ones.
    pub(crate) live_in: u32,
    pub(crate) live_out: u32,
    /// Its memory operand seldom stays in a page.
    pub(crate) scattered: bool,
}

impl Item {
    /// What the interpreter runs for it.
    pub(crate) fn for_interpreter(&self) -> Op {
        match self.class {
            Class::Across => ACROSS,
            _ => decode::op(&self.i, Mode::Long),
        }
    }
}

/// Where a block's code begins, as offsets in the code cache.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entries {
    /// The status flags are the host's.
    pub(crate) host: u32,
    /// The status flags are in the frame.
    pub(crate) saved: u32,
    /// Where a block that must not be run any more goes, from five bytes at [`patch`](Self::patch)
    /// that are then a jump.
    pub(crate) stale: u32,
    pub(crate) patch: u32,
}

/// Something that is written behind the block's main line.
pub(crate) enum Cold {
    /// The page of an operand is not in its slot.
    Miss { at: Hole, back: u32, look: Look, slot: SlotNumber, site: Site },
    /// Leave for a reason.
    Leave { at: Hole, site: Site, reason: u32 },
    /// A branch's target is not known. `pop` is by how much a return moves the stack pointer.
    Unknown { at: Hole, site: Site, reason: u32, pop: u32 },
    /// A page was written that someone must be told of.
    Wrote { at: Hole, back: u32, slot: SlotNumber, site: Site, host_flags: bool },
    /// A branch to a block that is not linked yet.
    Link { at: Hole, target: u32, page: usize, saved: bool },
    /// The page of an operand that is probed is not in the TLB.
    Probe { at: Hole, back: u32, operand: Operand, look: Look, site: Site },
    /// A run of pushes or pops does not lie in the slot's page.
    Run { at: Hole, retry: u32, look: Look, low: i32, bytes: i32, site: Site },
    /// A conditional branch out of the page.
    Far { at: Hole, target: i64, site: Site, host: bool, saved: bool },
    /// Nothing: it has been written.
    Written,
    /// The budget does not cover the block.
    Budget { at: Hole, site: Site, count: i32 },
}

/// How code comes to another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It follows on the block.
    Onward,
    /// The instruction at the site branches there; the reason to leave for when it is not known.
    Branch(Site, u32),
}

/// Where the status flags are; neither when nobody needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: bool,
    pub(super) saved: bool,
}

/// Writes one block.
pub(crate) struct Emitter<'a> {
    pub(super) asm: &'a mut Asm,
    pub(super) encoder: &'a mut Encoder,
    pub(super) stubs: &'a Stubs,
    pub(super) kind: Kind,
    /// The page of RAM that the block lies in.
    pub(super) page: usize,
    /// Offset of the page in its large page.
    pub(super) within_large: i64,
    /// Where in the code cache goes what is seldom run.
    pub(super) apart: u32,
    pub(super) flags: Place,
    pub(crate) cold: Vec<Cold>,
    /// Ops that the interpreter is called with; code has their addresses.
    #[expect(clippy::vec_box, reason = "code has their addresses")]
    pub(crate) ops: Vec<Box<Op>>,
    pub(super) count: u32,
}

/// Decodes a block that begins at `offset` of a page into `items`; `bytes` are those up to the page's
/// end. An instruction that goes on in the next page is the last, and the interpreter's
/// ([`ACROSS`]).
pub(crate) fn items(bytes: &[u8], offset: u32, kind: Kind, items: &mut Vec<Item>) {
    items.clear();
    // Where branches of this block lead: code there is shared, and not written down twice.
    let mut joins: Vec<u64> = Vec::new();
    let across = decode::each(bytes, u64::from(offset), |i| {
        let class = class(i, kind.vector, kind.pure);
        if kind.pure && class == Class::Interpret && !items.is_empty() {
            return false;
        }
        if joins.contains(&i.ip()) {
            return false;
        }
        if class == Class::Branch {
            joins.push(i.near_branch64());
        }
        let next = i.next_ip() as u32;
        let offset = i.ip() as u32;
        let (live_in, live_out, scattered) = (0, 0, false);
        let op = operands(i);
        items.push(Item { i: *i, op, class, offset, next, live_in, live_out, scattered });
        let goes_on =
            i.flow_control() == FlowControl::Next || class == Class::Branch && !kind.counted;
        goes_on && !i.is_invalid() && items.len() < LONGEST
    });
    // The bytes may end before the page does.
    let in_two_pages = offset as usize + bytes.len() == 4096;
    if let Some(at) = across.filter(|_| in_two_pages && !kind.pure) {
        // It ends the block wherever it leads.
        let i = Instruction::default();
        let (class, offset, next) = (Class::Across, at as u32, 4096);
        let (live_in, live_out, scattered) = (0, 0, false);
        items.push(Item { i, op: ACROSS, class, offset, next, live_in, live_out, scattered });
    }
    liveness(items);
}

/// Works out which flags are needed where. All are at every way out.
fn liveness(items: &mut [Item]) {
    let mut live = flags::ALL;
    for item in items.iter_mut().rev() {
        item.live_out = live;
        let (read, set) = match item.class {
            Class::Nothing | Class::Push | Class::Pop | Class::Leave => (0, 0),
            Class::Address | Class::SignExtend | Class::HighByte => (0, 0),
            Class::Interrupts | Class::Direction | Class::SwapGs => (0, 0),
            Class::Same | Class::High | Class::Vector | Class::CompareExchange => {
                flags::effect(&item.i)
            }
            Class::Multiply => (0, flags::ALL),
            // It may raise #DE, and who handles that may go on behind it.
            Class::Divide => (flags::ALL, flags::ALL),
            _ => (flags::ALL, 0),
        };
        live = live & !set | read;
        item.live_in = live;
    }
}

impl Emitter<'_> {
    /// Writes the block and returns where it can be entered.
    pub(crate) fn block(&mut self, items: &[Item]) -> Option<Entries> {
        let first = items.first()?;
        self.count = items.len() as u32;
        let live = first.live_in != 0;
        let mut entries = Entries::default();
        // What may be patched lies in eight bytes that are written at once. When the block is
        // overwritten nothing is linked to it any more, but its first entry is known.
        if live {
            self.asm.align(8, 7);
            entries.saved = self.asm.here();
            self.restore_now();
            entries.patch = self.asm.here();
        } else {
            self.asm.align(8, 5);
            entries.saved = self.asm.here();
            self.asm.nop(5);
            entries.patch = entries.saved;
        }
        entries.host = self.asm.here();
        self.flags = Place { host: true, saved: false };
        let vector = items.iter().any(|item| item.class == Class::Vector);
        let poll = if live {
            // Seven or eight bytes, of which five may be patched: mov rcx, [rsp + ATTENTION]
            self.asm.bytes(if vector { &[0x48, 0x8b, 0x8c, 0x24] } else { &[0x8b, 0x8c, 0x24] });
            self.asm.bytes(&(ATTENTION as u32).to_le_bytes());
            self.asm.jmp_unless_rcx_zero()
        } else {
            if vector {
                self.asm.bytes(&[0x48]);
            }
            self.asm.poll(ATTENTION);
            self.flags.host = false;
            self.asm.jcc(cc::NE)
        };
        let body = self.asm.here();
        if self.kind.counted {
            self.clobber(live);
            self.asm.rm(true, &[0x81], 5, frame(BUDGET));
            self.asm.bytes(&self.count.to_le_bytes());
            let at = self.asm.jcc(cc::S);
            let site = Site::new(first.offset, 0, 0);
            self.cold.push(Cold::Budget { at, site, count: self.count as i32 });
        }
        let mut open = true;
        let mut at = 0;
        while let Some(item) = items.get(at) {
            let site = Site::new(item.offset, at as u32, self.count);
            let run = self.stack_run(&items[at..], site);
            if run > 0 {
                at += run;
                continue;
            }
            open = self.item(item, site);
            if !open {
                break;
            }
            at += 1;
        }
        if open && let Some(last) = items.last() {
            self.go_to(i64::from(last.next), Way::Onward);
        }
        // What is seldom run lies elsewhere, so that it takes no room in the host's caches between
        // what often is.
        self.asm.go_apart(self.apart);
        // Called out, or the XMM registers are to be loaded.
        self.asm.land(poll);
        if vector {
            self.save_now();
            self.asm.poll(ATTENTION);
            let called = self.asm.jcc(cc::NE);
            self.asm.call_to(self.stubs.load_xmm);
            if live {
                self.restore_now();
            }
            self.asm.jmp_to(body);
            self.asm.land(called);
            self.leave(Site::new(first.offset, 0, 0), reason::ATTENTION);
        }
        entries.stale = self.asm.here();
        let stale = if live { self.stubs.stale } else { self.stubs.leave(reason::ATTENTION) };
        self.asm.call_to(stale);
        self.asm.bytes(&Site::new(first.offset, 0, 0).0.to_le_bytes());
        self.write_cold();
        Some(entries)
    }

    // --- flags ---

    fn save_now(&mut self) {
        self.asm.flags_to_ax();
        self.asm.store32(frame(FLAGS), RAX);
    }

    fn restore_now(&mut self) {
        self.asm.load32(RAX, frame(FLAGS));
        self.asm.flags_from_ax();
    }

    /// Keeps the flags in the frame, when they are the host's only.
    pub(super) fn save(&mut self) {
        if self.flags.host && !self.flags.saved {
            self.save_now();
            self.flags.saved = true;
        }
    }

    /// The host's flags will be changed; `live` says whether somebody needs the guest's.
    pub(super) fn clobber(&mut self, live: bool) {
        if live {
            self.save();
        }
        self.flags.host = false;
    }

    /// Makes the host's flags the guest's. Changes RAX.
    pub(super) fn need_host(&mut self) {
        if !self.flags.host {
            if self.flags.saved {
                self.restore_now();
            }
            self.flags.host = true;
        }
    }

    /// The host's flags are the guest's now, and nothing else is.
    pub(super) fn produced(&mut self) {
        self.flags = Place { host: true, saved: false };
    }

    // --- ways out ---

    pub(super) fn leave(&mut self, site: Site, why: u32) {
        self.asm.call_to(self.stubs.leave(why));
        self.asm.bytes(&site.0.to_le_bytes());
    }

    /// On `condition`, leave to have the instruction interpreted.
    pub(super) fn interpret_if(&mut self, condition: u8, site: Site) {
        let at = self.asm.jcc(condition);
        self.cold.push(Cold::Leave { at, site, reason: reason::INTERPRET });
    }

    /// Has the instruction interpreted, in the middle of the block or as its end. Returns whether
    /// the block goes on.
    pub(super) fn interpret(&mut self, item: &Item, site: Site) -> bool {
        self.save();
        if self.kind.pure {
            self.leave(site, reason::INTERPRET);
            return false;
        }
        let op = Box::new(item.for_interpreter());
        let address = std::ptr::from_ref::<Op>(&op).expose_provenance() as u64;
        self.ops.push(op);
        self.asm.mov_imm32(RCX, site.0);
        self.asm.mov_imm64(RAX, address);
        self.asm.call_to(self.stubs.interpret);
        self.flags = Place { host: false, saved: true };
        // What moves control comes out of the call; should it not, the next block is looked up.
        item.i.flow_control() == FlowControl::Next || {
            self.leave(Site::new(item.next, self.count, self.count), reason::DONE);
            false
        }
    }

    /// A patchable jump to the block at `target` of this page.
    fn link(&mut self, target: u32, page: usize) {
        self.asm.within_eight(1, 4);
        let at = self.asm.jmp();
        self.cold.push(Cold::Link { at, target, page, saved: !self.flags.host });
    }

    /// Whether `target`, an offset from the start of this page, is known to be in the same mapping.
    pub(super) fn is_near(&self, target: i64) -> bool {
        (0..4096).contains(&target)
            || self.kind.large && (0..0x20_0000).contains(&(self.within_large + target))
    }

    /// Goes to `target`, an offset from the start of this page.
    pub(super) fn go_to(&mut self, target: i64, way: Way) {
        if (0..4096).contains(&target) {
            self.link(target as u32, self.page);
            return;
        }
        if self.is_near(target) {
            self.asm.load(RAX, frame(BASE));
            self.asm.lea(RAX, Mem::at(RAX, (target & !0xfff) as i32));
            self.asm.store(frame(BASE), RAX);
            let page = self.page.wrapping_add_signed((target >> 12) as isize);
            self.link((target & 0xfff) as u32, page);
            return;
        }
        self.save();
        self.asm.load(RAX, frame(BASE));
        self.asm.lea(RAX, Mem::at(RAX, target as i32));
        match way {
            Way::Branch(site, why) => self.jump_indirect(site, why),
            Way::Onward => {
                let at = self.find_target();
                calls::jump_to_found(self.asm, self.kind.upper);
                self.asm.land(at);
                self.asm.load(RAX, frame(BASE));
                self.asm.lea(RAX, Mem::at(RAX, 4096));
                self.asm.store(frame(BASE), RAX);
                self.leave(Site::new(0, 0, 0), reason::DONE);
            }
        }
    }

    /// Looks RAX up among the targets of indirect jumps; see [`calls::find_target`]. The flags must be
    /// in the frame.
    pub(super) fn find_target(&mut self) -> Hole {
        self.flags.host = false;
        calls::find_target(self.asm, self.kind.upper)
    }

    /// Jumps to the linear address in RAX; leaves with it for this reason, of the instruction at
    /// `site`, when it is not known.
    pub(super) fn jump_indirect(&mut self, site: Site, reason: u32) {
        let at = self.find_target();
        self.cold.push(Cold::Unknown { at, site, reason, pop: 0 });
        calls::jump_to_found(self.asm, self.kind.upper);
    }

    /// A conditional branch to `target`, an offset from the start of this page.
    pub(super) fn branch(&mut self, condition: u8, target: i64, site: Site) {
        self.need_host();
        if (0..4096).contains(&target) {
            self.asm.within_eight(2, 4);
            let at = self.asm.jcc(condition);
            let (target, page) = (target as u32, self.page);
            self.cold.push(Cold::Link { at, target, page, saved: false });
        } else {
            let at = self.asm.jcc(condition);
            let Place { host, saved } = self.flags;
            self.cold.push(Cold::Far { at, target, site, host, saved });
        }
    }

    // --- what stands behind ---

    fn write_cold(&mut self) {
        // Ways out of the page come with holes of their own.
        let mut number = 0;
        while number < self.cold.len() {
            let cold = std::mem::replace(&mut self.cold[number], Cold::Written);
            self.one_cold(cold);
            number += 1;
        }
        self.cold.clear();
    }

    /// Has a slot filled, and goes on here.
    pub(super) fn look(&mut self, look: Look, slot: SlotNumber, site: Site) {
        stubs::look(self.asm, self.stubs, look, self.kind.upper, slot, site);
    }

    fn one_cold(&mut self, cold: Cold) {
        match cold {
            Cold::Miss { at, back, look, slot, site } => {
                self.asm.land(at);
                stubs::call_look(self.asm, self.stubs, look, self.kind.upper, slot);
                self.asm.jmp_to(back);
                stubs::look_data(self.asm, site);
            }
            Cold::Leave { at, site, reason } => {
                self.asm.land(at);
                self.leave(site, reason);
            }
            Cold::Unknown { at, site, reason, pop } => {
                self.asm.land(at);
                calls::resolve(self.asm, self.stubs, self.kind.upper, site, reason, pop);
            }
            Cold::Wrote { at, back, slot, site, host_flags } => {
                self.asm.land(at);
                if host_flags {
                    self.save_now();
                }
                self.asm.mov_imm32(RCX, site.0);
                self.asm.mov_imm32(RAX, slot.field(0) as u32);
                self.asm.call_to(self.stubs.wrote);
                if host_flags {
                    self.restore_now();
                }
                self.asm.jmp_to(back);
            }
            Cold::Link { at, target, page, saved } => {
                self.asm.land(at);
                let stub = if saved { self.stubs.link } else { self.stubs.link_host };
                self.asm.call_to(stub);
                let place = self.asm.here() - self.asm.place(at);
                for word in [target, page as u32, place << 1 | u32::from(saved)] {
                    self.asm.bytes(&word.to_le_bytes());
                }
            }
            Cold::Far { at, target, site, host, saved } => {
                self.asm.land(at);
                self.flags = Place { host, saved };
                self.go_to(target, Way::Branch(site, reason::JUMP));
            }
            Cold::Run { at, retry, look, low, bytes, site } => {
                self.asm.land(at);
                self.look(look, SlotNumber::of_stack(self.kind.user), site);
                // The first part is known now. Is the rest in the same page?
                self.asm.lea32(RCX, Mem::at(R15, low));
                self.asm.alu_imm(false, alu::AND, RCX, 0xfff);
                self.asm.alu_imm(false, alu::CMP, RCX, 4096 - bytes);
                self.interpret_if(cc::A, site);
                self.asm.jmp_to(retry);
            }
            Cold::Probe { at, back, operand, look, site } => {
                self.asm.land(at);
                self.probe_slowly(&operand, look, site, back);
            }
            Cold::Written => {}
            Cold::Budget { at, site, count } => {
                self.asm.land(at);
                self.asm.rm(true, &[0x81], 0, frame(BUDGET));
                self.asm.bytes(&count.to_le_bytes());
                self.leave(site, reason::BUDGET);
            }
        }
    }
}

/// Home of a guest register; `None` when it lives in the frame.
pub(super) fn home(guest: u8) -> Option<u8> {
    match HOME[usize::from(guest & 15)] {
        IN_FRAME => None,
        home => Some(home),
    }
}

/// The frame's place for a guest register that has no home.
pub(super) fn in_frame(guest: u8) -> Mem {
    frame(register(guest))
}
