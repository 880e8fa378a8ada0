//! One instruction at a time: operands, memory, and what each class needs.

use std::mem::offset_of;

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::asm::host::{R15, RAX, RBX, RCX, RDX, RSP};
use super::asm::{Mem, NO_BASE, alu, cc, frame};
use super::class::{Class, general_form};
use super::emit::{Cold, Emitter, Item, home, in_frame};
use super::flags::{self, counts_in_cl};
use super::frame::{
    BASE, GENERATION, HOME, KEPT, SLOT_FS, SLOT_RIP, Site, Slot, TABLE, reason, segment_base, slot,
};
use super::stubs::{Look, Want};
use crate::mem::{ENTRIES, Entry};
use crate::op::{RIP, ZERO, gpr, seg};

/// A memory operand as its instruction has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    base: u8,
    index: u8,
    scale: u8,
    disp: i32,
    seg: u8,
    /// The address has 32 bits.
    narrow: bool,
    size: u32,
    /// It must lie at a multiple of its size, which is 16.
    aligned: bool,
}

impl Operand {
    /// Something on the stack.
    pub(super) fn stack(disp: i32, size: u32) -> Self {
        let base = gpr::RSP as u8;
        Self { base, index: ZERO, scale: 0, disp, seg: seg::SS, narrow: false, size, aligned: false }
    }

    /// The memory operand of an instruction; `None` when its displacement is too long.
    fn of(item: &Item) -> Option<Self> {
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
    /// Translates one instruction. Returns whether the block goes on after it.
    pub(super) fn item(&mut self, item: &Item, site: Site) -> bool {
        let done = match item.class {
            Class::Nothing => Some(()),
            Class::Same | Class::Vector => self.same(item, site),
            Class::Address => self.address(item),
            Class::SignExtend => self.sign_extend(item),
            Class::Multiply => self.multiply(item, site),
            Class::Divide => self.divide(item, site),
            Class::CompareExchange => self.compare_exchange(item, site),
            Class::HighByte => self.high_byte(item),
            Class::High => self.high(item, site),
            Class::Interrupts => self.interrupts(item, site),
            Class::Direction => self.direction(item),
            Class::SwapGs => self.swap_gs(item, site),
            Class::PushFlags => self.push_flags(item, site),
            Class::Push => self.push(item, site),
            Class::Pop => self.pop(item, site),
            Class::Leave => self.leave_frame(item, site),
            Class::Branch => {
                let condition = item.i.condition_code() as u8;
                self.branch(encoded(condition), item.i.near_branch64() as i64, site);
                return true;
            }
            Class::Jump => {
                self.go_to(item.i.near_branch64() as i64, site, false);
                return false;
            }
            Class::Call => {
                self.call(item, site);
                return false;
            }
            Class::JumpIndirect | Class::CallIndirect | Class::Return => {
                self.save();
                let done = match item.class {
                    Class::JumpIndirect => self.jump_register(item, site),
                    Class::CallIndirect => self.call_register(item, site),
                    _ => self.ret(item, site),
                };
                if done.is_none() {
                    self.interpret(item, site);
                }
                return false;
            }
            Class::Interpret => None,
        };
        match done {
            Some(()) => true,
            None => self.interpret(item, site),
        }
    }

    // --- memory ---

    /// An address made of registers at home, 64 bits. May load RAX (for a base) and RCX (for an
    /// index).
    fn registers_of(&mut self, operand: &Operand) -> Mem {
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
        let (tag, addend) = match want {
            Want::Read => (
                offset_of!(Slot, read_tag),
                offset_of!(Slot, read_addend),
            ),
            Want::Write => (
                offset_of!(Slot, write_tag),
                offset_of!(Slot, write_addend),
            ),
        };
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
    fn follow(&mut self, operand: &Operand, base: u8, live: bool, site: Site) -> Found {
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

    // --- the same instruction ---

    fn encode(&mut self, i: &Instruction) -> Option<()> {
        self.encoder.encode(i, 0).ok()?;
        let buffer = self.encoder.take_buffer();
        self.asm.bytes(&buffer);
        let mut buffer = buffer;
        buffer.clear();
        self.encoder.set_buffer(buffer);
        Some(())
    }

    /// The instruction itself, on the registers' homes and the operand's host address.
    fn same(&mut self, item: &Item, site: Site) -> Option<()> {
        let mut i = item.i;
        let (read, _) = flags::effect(&i);
        let touches = read | i.rflags_modified() & flags::ALL != 0;
        let code = general_form(i.code());
        if code != i.code() {
            i.set_code(code);
        }
        i.set_has_rep_prefix(false);
        i.set_has_repne_prefix(false);
        i.set_segment_prefix(Register::None);
        let memory = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory);
        let by_cl = counts_in_cl(code);
        let need = touches && item.live_in != 0;
        // Registers that live in the frame, and who stands in for them.
        let mut guests: [Option<u8>; 2] = [None; 2];
        for n in 0..i.op_count() {
            if i.op_kind(n) != OpKind::Register || !i.op_register(n).is_gpr() {
                continue;
            }
            let guest = i.op_register(n).full_register().number() as u8;
            if home(guest).is_none() && !guests.contains(&Some(guest)) {
                *guests.iter_mut().find(|place| place.is_none())? = Some(guest);
            }
        }
        let used = guests.iter().flatten().count();
        let free = match (memory.is_some(), by_cl, need) {
            // RAX is the address's, RCX the count's; flags come back by way of RAX.
            (true, true, need) => {
                if need {
                    return None;
                }
                0
            }
            (true, false, true) => 0,
            (true, false, false) | (false, true, _) => 1,
            (false, false, _) => 2,
        };
        if used > free {
            return None;
        }
        let order = if memory.is_some() || !by_cl { [RCX, RAX] } else { [RAX, RAX] };
        let operand = match memory {
            Some(_) => Some(Operand::of(item)?),
            None => None,
        };
        for n in 0..i.op_count() {
            if i.op_kind(n) != OpKind::Register || !i.op_register(n).is_gpr() {
                continue;
            }
            if by_cl && n + 1 == i.op_count() {
                continue;
            }
            let register = i.op_register(n);
            let guest = register.full_register().number() as u8;
            let host = home(guest).unwrap_or_else(|| {
                order[guests.iter().position(|&g| g == Some(guest)).unwrap_or(0)]
            });
            i.set_op_register(n, sized(host, register.size()));
        }
        // From here on code is written.
        let mut found = None;
        if let (Some(n), Some(operand)) = (memory, operand) {
            let want = if n == 0 && writes_first(i.mnemonic()) { Want::Write } else { Want::Read };
            let mut place = match chased(item, &operand) {
                Some(base) => self.follow(&operand, base, item.live_in != 0, site),
                None => self.find(&operand, want, item.live_in != 0, site),
            };
            if need {
                self.asm.mov(RCX, RAX);
                place.mem.base = RCX;
            }
            set_memory(&mut i, place.mem);
            found = (want == Want::Write).then_some(place);
        }
        if need {
            self.need_host();
        }
        if by_cl {
            self.asm.mov32(RCX, HOME[gpr::RCX]);
        }
        for (guest, host) in guests.iter().zip(order) {
            if let Some(guest) = guest {
                self.asm.load(host, in_frame(*guest));
            }
        }
        if self.encode(&i).is_none() {
            self.leave(site, reason::INTERPRET);
        }
        let swaps = matches!(i.mnemonic(), Mnemonic::Xchg | Mnemonic::Xadd);
        for (guest, host) in guests.iter().zip(order) {
            let Some(guest) = guest else { continue };
            let first = item.i.op0_kind() == OpKind::Register
                && item.i.op0_register().full_register().number() as u8 == *guest;
            if swaps || first && writes_first(i.mnemonic()) {
                self.asm.store(in_frame(*guest), host);
            }
        }
        if i.rflags_modified() & flags::ALL != 0 {
            self.produced();
        }
        if let Some(found) = found {
            let next = Site::new(item.next, site.before() + 1, self.count);
            self.wrote(found, item.live_out != 0, next);
        }
        Some(())
    }

    // --- integer instructions with registers of their own ---

    fn address(&mut self, item: &Item) -> Option<()> {
        let register = item.i.op0_register();
        if register.size() == 2 {
            return None;
        }
        let mut operand = Operand::of(item)?;
        operand.seg = seg::DS;
        let guest = register.full_register().number() as u8;
        let to = home(guest).unwrap_or(RAX);
        let address = self.registers_of(&operand);
        if register.size() == 8 && !operand.narrow {
            self.asm.lea(to, address);
        } else {
            self.asm.lea32(to, address);
        }
        if home(guest).is_none() {
            self.asm.store(in_frame(guest), RAX);
        }
        Some(())
    }

    fn sign_extend(&mut self, item: &Item) -> Option<()> {
        match item.i.mnemonic() {
            // movsx bx, bl; movsx ebx, bx; movsxd rbx, ebx
            Mnemonic::Cbw => self.asm.bytes(&[0x66, 0x0f, 0xbe, 0xdb]),
            Mnemonic::Cwde => self.asm.bytes(&[0x0f, 0xbf, 0xdb]),
            Mnemonic::Cdqe => self.asm.bytes(&[0x48, 0x63, 0xdb]),
            other => {
                self.asm.mov(RAX, RBX);
                match other {
                    Mnemonic::Cwd => self.asm.bytes(&[0x66, 0x99]),
                    Mnemonic::Cdq => self.asm.bytes(&[0x99]),
                    _ => self.asm.bytes(&[0x48, 0x99]),
                }
            }
        }
        Some(())
    }

    /// Brings the operand of MUL or DIV to RCX.
    fn value_to_rcx(&mut self, item: &Item, site: Site) -> Option<bool> {
        let wide;
        if item.i.op0_kind() == OpKind::Memory {
            let operand = Operand::of(item)?;
            wide = operand.size == 8;
            let found = self.find(&operand, Want::Read, item.live_in != 0, site);
            self.asm.rm(wide, &[0x8b], RCX, found.mem);
        } else {
            let register = item.i.op0_register();
            wide = register.size() == 8;
            self.register_to(RCX, register.full_register().number() as u8);
        }
        Some(wide)
    }

    /// Copies a guest register to RAX or RCX.
    fn register_to(&mut self, to: u8, guest: u8) {
        match home(guest) {
            Some(home) => self.asm.mov(to, home),
            None => self.asm.load(to, in_frame(guest)),
        }
    }

    fn multiply(&mut self, item: &Item, site: Site) -> Option<()> {
        let wide = self.value_to_rcx(item, site)?;
        self.asm.mov(RAX, RBX);
        let digit = if item.i.mnemonic() == Mnemonic::Mul { 4 } else { 5 };
        self.asm.rr(wide, &[0xf7], digit, RCX);
        self.asm.mov(RBX, RAX);
        self.produced();
        Some(())
    }

    /// What would raise #DE is left to the interpreter, and also dividends of IDIV that do not fit
    /// the lower half.
    fn divide(&mut self, item: &Item, site: Site) -> Option<()> {
        let wide = self.value_to_rcx(item, site)?;
        self.clobber(item.live_in != 0);
        let signed = item.i.mnemonic() == Mnemonic::Idiv;
        if signed {
            self.asm.mov(RAX, RBX);
            self.asm.shift(wide, 7, RAX, if wide { 63 } else { 31 });
            self.asm.rr(wide, &[alu::CMP], RAX, RDX);
            self.interpret_if(cc::NE, site);
            if wide {
                self.asm.lea(RAX, Mem::at(RCX, 1));
            } else {
                self.asm.lea32(RAX, Mem::at(RCX, 1));
            }
            self.asm.alu_imm(wide, alu::CMP, RAX, 1);
            self.interpret_if(cc::BE, site);
        } else {
            self.asm.rr(wide, &[alu::CMP], RDX, RCX);
            self.interpret_if(cc::AE, site);
        }
        self.asm.mov(RAX, RBX);
        self.asm.rr(wide, &[0xf7], if signed { 7 } else { 6 }, RCX);
        self.asm.mov(RBX, RAX);
        self.produced();
        Some(())
    }

    fn compare_exchange(&mut self, item: &Item, site: Site) -> Option<()> {
        let mut i = item.i;
        let second = i.op1_register();
        let guest = second.full_register().number() as u8;
        let source = home(guest)?;
        i.set_op_register(1, sized(source, second.size()));
        i.set_segment_prefix(Register::None);
        let mut found = None;
        if i.op0_kind() == OpKind::Memory {
            let operand = Operand::of(item)?;
            let place = self.find(&operand, Want::Write, item.live_in != 0, site);
            self.asm.lea(RCX, place.mem);
            set_memory(&mut i, Mem::at(RCX, 0));
            found = Some(place);
        } else {
            let first = i.op0_register();
            let guest = first.full_register().number() as u8;
            if guest == gpr::RAX as u8 {
                return None;
            }
            i.set_op_register(0, sized(home(guest)?, first.size()));
        }
        self.asm.mov(RAX, RBX);
        if self.encode(&i).is_none() {
            self.leave(site, reason::INTERPRET);
        }
        self.asm.mov(RBX, RAX);
        self.produced();
        if let Some(found) = found {
            let next = Site::new(item.next, site.before() + 1, self.count);
            self.wrote(found, item.live_out != 0, next);
        }
        Some(())
    }

    /// MOVZX and MOVSX from bits 8 to 15 of a register.
    fn high_byte(&mut self, item: &Item) -> Option<()> {
        let to = item.i.op0_register();
        if to.size() < 4 || item.i.op1_kind() != OpKind::Register {
            return None;
        }
        let from = HOME[usize::from(item.op.reg[1] & 3)];
        self.asm.mov32(RCX, from);
        let signed = item.i.mnemonic() == Mnemonic::Movsx;
        // movzx ecx, ch or movsx ecx, ch
        self.asm.bytes(&[0x0f, if signed { 0xbe } else { 0xb6 }, 0xcd]);
        if signed && to.size() == 8 {
            // movsxd rcx, ecx
            self.asm.bytes(&[0x48, 0x63, 0xc9]);
        }
        let guest = to.full_register().number() as u8;
        match home(guest) {
            Some(home) => self.asm.mov(home, RCX),
            None => self.asm.store(in_frame(guest), RCX),
        }
        Some(())
    }

    /// An instruction on AH, CH, DH or BH: they are CH and AH here, as no REX prefix may stand before
    /// it.
    fn high(&mut self, item: &Item, site: Site) -> Option<()> {
        let mut i = item.i;
        let need = i.rflags_modified() & flags::ALL != 0 && item.live_in != 0
            || i.rflags_read() & flags::ALL != 0;
        let memory = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory);
        if i.op_count() > 2 || counts_in_cl(i.code()) || need && memory.is_some() {
            return None;
        }
        let operand = match memory {
            Some(_) => Some(Operand::of(item)?),
            None => None,
        };
        // Which guest register is in RCX and in RAX.
        let (mut first, mut second) = (None, None);
        for n in 0..i.op_count() {
            if i.op_kind(n) != OpKind::Register {
                continue;
            }
            let register = i.op_register(n);
            let high = item.op.reg[n as usize] & crate::op::HIGH != 0;
            let guest = register.full_register().number() as u8;
            if register.size() != 1 {
                return None;
            }
            let host = if high && first.is_none() {
                if second.is_some_and(|(_, other)| other == guest) {
                    return None;
                }
                first = Some((n, guest));
                Register::CH
            } else if second.is_none() && memory.is_none() {
                if first.is_some_and(|(_, other)| other == guest) {
                    // Both halves of one register.
                    return None;
                }
                second = Some((n, guest));
                if high { Register::AH } else { Register::AL }
            } else {
                return None;
            };
            i.set_op_register(n, host);
        }
        let code = general_form(i.code());
        if code != i.code() {
            i.set_code(code);
        }
        i.set_segment_prefix(Register::None);
        let mut found = None;
        if let (Some(n), Some(operand)) = (memory, operand) {
            let want = if n == 0 && writes_first(i.mnemonic()) { Want::Write } else { Want::Read };
            let place = self.find(&operand, want, item.live_in != 0, site);
            self.asm.lea(RAX, place.mem);
            set_memory(&mut i, Mem::at(RAX, 0));
            found = (want == Want::Write).then_some(place);
        }
        if need {
            self.need_host();
        }
        for (register, host) in [(first, RCX), (second, RAX)] {
            if let Some((_, guest)) = register {
                self.register_to(host, guest);
            }
        }
        if self.encode(&i).is_none() {
            self.leave(site, reason::INTERPRET);
        }
        let swaps = matches!(i.mnemonic(), Mnemonic::Xchg | Mnemonic::Xadd);
        for (register, host) in [(first, RCX), (second, RAX)] {
            let Some((n, guest)) = register else { continue };
            if swaps || n == 0 && writes_first(i.mnemonic()) {
                match home(guest) {
                    Some(home) => self.asm.mov(home, host),
                    None => self.asm.store(in_frame(guest), host),
                }
            }
        }
        if i.rflags_modified() & flags::ALL != 0 {
            self.produced();
        }
        if let Some(found) = found {
            let next = Site::new(item.next, site.before() + 1, self.count);
            self.wrote(found, item.live_out != 0, next);
        }
        Some(())
    }

    // --- the stack ---

    pub(super) fn add_to_stack(&mut self, bytes: i32) {
        self.asm.lea(R15, Mem::at(R15, bytes));
    }

    fn push(&mut self, item: &Item, site: Site) -> Option<()> {
        let live = item.live_in != 0;
        let from_memory = item.i.op0_kind() == OpKind::Memory;
        if from_memory {
            let operand = Operand::of(item)?;
            let found = self.find(&operand, Want::Read, live, site);
            self.asm.load(RCX, found.mem);
            self.asm.store(frame(KEPT), RCX);
        }
        let found = self.find(&Operand::stack(-8, 8), Want::Write, live, site);
        match item.i.op0_kind() {
            OpKind::Memory => {
                self.asm.load(RCX, frame(KEPT));
                self.asm.store(found.mem, RCX);
            }
            OpKind::Register => {
                let guest = item.i.op0_register().number() as u8;
                let from = home(guest).unwrap_or(RCX);
                if from == RCX {
                    self.asm.load(RCX, in_frame(guest));
                }
                self.asm.store(found.mem, from);
            }
            _ => self.asm.store_imm(found.mem, item.op.imm as i32),
        }
        self.add_to_stack(-8);
        let next = Site::new(item.next, site.before() + 1, self.count);
        self.wrote(found, item.live_out != 0, next);
        Some(())
    }

    fn pop(&mut self, item: &Item, site: Site) -> Option<()> {
        let found = self.find(&Operand::stack(0, 8), Want::Read, item.live_in != 0, site);
        let guest = item.i.op0_register().number() as u8;
        match home(guest) {
            Some(R15) => self.asm.load(R15, found.mem),
            Some(home) => {
                self.asm.load(home, found.mem);
                self.add_to_stack(8);
            }
            None => {
                self.asm.load(RCX, found.mem);
                self.asm.store(in_frame(guest), RCX);
                self.add_to_stack(8);
            }
        }
        Some(())
    }

    fn leave_frame(&mut self, item: &Item, site: Site) -> Option<()> {
        let mut operand = Operand::stack(0, 8);
        operand.base = gpr::RBP as u8;
        let found = self.find(&operand, Want::Read, item.live_in != 0, site);
        let rbp = HOME[gpr::RBP];
        self.asm.load(RCX, found.mem);
        self.asm.lea(R15, Mem::at(rbp, 8));
        self.asm.mov(rbp, RCX);
        Some(())
    }

    /// Stores the address of the next instruction below the stack pointer, and moves that.
    pub(super) fn push_return(&mut self, item: &Item, site: Site) {
        let found = self.find(&Operand::stack(-8, 8), Want::Write, true, site);
        self.asm.load(RCX, frame(BASE));
        self.asm.lea(RCX, Mem::at(RCX, item.next as i32));
        self.asm.store(found.mem, RCX);
        self.add_to_stack(-8);
        // The callee is looked up, or its entry has been patched: no need to leave from here.
        self.wrote(found, true, Site::STAY);
    }

    fn call(&mut self, item: &Item, site: Site) {
        self.save();
        let target = item.i.near_branch64() as i64;
        let near = (0..4096).contains(&target)
            || self.kind.large && (0..0x20_0000).contains(&(self.within_large + target));
        if near {
            self.push_return(item, site);
            self.go_to(target, site, false);
            return;
        }
        self.push_return(item, site);
        self.asm.load(RAX, frame(BASE));
        self.asm.lea(RAX, Mem::at(RAX, target as i32));
        self.called(site);
    }

    /// Goes to the linear address in RAX, after the return address was pushed.
    fn called(&mut self, site: Site) {
        let at = self.find_target();
        self.cold.push(Cold::Unknown { at, site, reason: reason::CALL, pop: 0 });
        self.jump_to_found();
    }

    /// Brings the target of an indirect branch to RAX.
    fn target_to_rax(&mut self, item: &Item, site: Site) -> Option<()> {
        if item.i.op0_kind() == OpKind::Memory {
            let operand = Operand::of(item)?;
            let found = self.find(&operand, Want::Read, true, site);
            self.asm.load(RAX, found.mem);
        } else {
            self.register_to(RAX, item.i.op0_register().number() as u8);
        }
        Some(())
    }

    fn jump_register(&mut self, item: &Item, site: Site) -> Option<()> {
        self.target_to_rax(item, site)?;
        self.jump_indirect(site);
        Some(())
    }

    fn call_register(&mut self, item: &Item, site: Site) -> Option<()> {
        self.target_to_rax(item, site)?;
        // What is not canonical faults before anything is pushed.
        self.asm.mov(RCX, RAX);
        self.asm.shift(true, 7, RCX, 47);
        self.asm.alu_imm(true, alu::ADD, RCX, 1);
        self.asm.alu_imm(true, alu::CMP, RCX, 1);
        self.interpret_if(cc::A, site);
        self.asm.store(frame(KEPT), RAX);
        self.push_return(item, site);
        self.asm.load(RAX, frame(KEPT));
        self.called(site);
        Some(())
    }

    fn ret(&mut self, item: &Item, site: Site) -> Option<()> {
        let more = if item.i.op_count() == 0 { 0 } else { i32::from(item.i.immediate16()) };
        let found = self.find(&Operand::stack(0, 8), Want::Read, true, site);
        self.asm.load(RAX, found.mem);
        let at = self.find_target();
        let pop = 8 + more as u32;
        self.cold.push(Cold::Unknown { at, site, reason: reason::RETURN, pop });
        self.add_to_stack(8 + more);
        self.jump_to_found();
        Some(())
    }
}

/// The home of the base register that a load replaces by what it points to.
fn chased(item: &Item, operand: &Operand) -> Option<u8> {
    let i = &item.i;
    let plain = operand.index == ZERO && operand.base < 16 && !operand.narrow
        && operand.disp < i32::MAX - 8;
    let replaced = i.mnemonic() == Mnemonic::Mov
        && i.op0_kind() == OpKind::Register
        && i.op0_register().size() == 8
        && i.op0_register().number() == usize::from(operand.base);
    if plain && replaced && operand.seg < seg::FS { home(operand.base) } else { None }
}

/// `iced-x86`'s condition code as it is encoded.
fn encoded(condition: u8) -> u8 {
    // None is 0; then in the order of encoding.
    condition.wrapping_sub(1) & 15
}

/// Whether an instruction writes its first operand.
fn writes_first(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    !matches!(
        mnemonic,
        M::Cmp | M::Test | M::Bt | M::Comiss | M::Comisd | M::Ucomiss | M::Ucomisd | M::Ptest
    )
}

/// A host register of a size in bytes.
fn sized(number: u8, size: usize) -> Register {
    let n = u32::from(number);
    match size {
        // AH, CH, DH and BH stand between BL and SPL.
        1 if n < 4 => Register::AL + n,
        1 => Register::SPL + (n - 4),
        2 => Register::AX + n,
        4 => Register::EAX + n,
        _ => Register::RAX + n,
    }
}

/// Makes a host address the memory operand.
fn set_memory(i: &mut Instruction, mem: Mem) {
    i.set_memory_base(sized(mem.base, 8));
    match mem.index {
        Some((index, scale)) => {
            i.set_memory_index(sized(index, 8));
            i.set_memory_index_scale(1 << scale);
        }
        None => {
            i.set_memory_index(Register::None);
            i.set_memory_index_scale(1);
        }
    }
    i.set_memory_displacement64(i64::from(mem.disp) as u64);
    i.set_memory_displ_size(match mem.disp {
        0 => 0,
        -128..=127 => 1,
        _ => 8,
    });
}
