//! One instruction at a time: what each class needs.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::asm::host::{R15, RAX, RBX, RCX, RDX};
use super::asm::{Mem, alu, cc, frame};
use super::calls;
use super::class::{Class, general_form};
use super::emit::{Cold, Emitter, Item, Way, home, in_frame};
use super::flags::{self, counts_in_cl};
use super::frame::{HOME, KEPT, Site, reason};
use super::operand::Operand;
use super::stubs::Want;
use crate::op::{gpr, seg};

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
                self.go_to(item.i.near_branch64() as i64, Way::Branch(site, reason::JUMP));
                return false;
            }
            Class::Call => {
                self.call(item, site);
                return false;
            }
            Class::Return if item.i.op_count() == 0 => {
                let stubs = self.stubs.calls(self.kind);
                self.asm.mov_imm32(RCX, site.0);
                self.asm.jmp_to(if self.flags.saved { stubs.ret } else { stubs.ret_host });
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
            Class::Interpret | Class::Across => None,
        };
        match done {
            Some(()) => true,
            None => self.interpret(item, site),
        }
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
        let need = needs_flags(item);
        let code = general_form(i.code());
        i.set_code(code);
        i.set_has_rep_prefix(false);
        i.set_has_repne_prefix(false);
        i.set_segment_prefix(Register::None);
        let memory = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory);
        let by_cl = counts_in_cl(code);
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
            let want = wanted(&i, n);
            let mut place = self.find(&operand, want, item.live_in != 0, site);
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
            self.wrote_last(found, item, site);
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

    /// Copies RAX or RCX to a guest register.
    fn register_from(&mut self, guest: u8, from: u8) {
        match home(guest) {
            Some(home) => self.asm.mov(home, from),
            None => self.asm.store(in_frame(guest), from),
        }
    }

    /// Stores a guest register. May change RCX.
    pub(super) fn store_guest(&mut self, to: Mem, guest: u8) {
        let from = home(guest).unwrap_or_else(|| {
            self.asm.load(RCX, in_frame(guest));
            RCX
        });
        self.asm.store(to, from);
    }

    /// Loads a guest register. May change RCX.
    pub(super) fn load_guest(&mut self, guest: u8, from: Mem) {
        match home(guest) {
            Some(home) => self.asm.load(home, from),
            None => {
                self.asm.load(RCX, from);
                self.asm.store(in_frame(guest), RCX);
            }
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
        // Undefined: what they were before, as in the interpreter.
        self.flags.host = false;
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
            self.wrote_last(found, item, site);
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
        self.register_from(to.full_register().number() as u8, RCX);
        Some(())
    }

    /// An instruction on AH, CH, DH or BH: they are CH and AH here, as no REX prefix may stand before
    /// it.
    fn high(&mut self, item: &Item, site: Site) -> Option<()> {
        let mut i = item.i;
        let need = needs_flags(item);
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
        i.set_code(general_form(i.code()));
        i.set_segment_prefix(Register::None);
        let mut found = None;
        if let (Some(n), Some(operand)) = (memory, operand) {
            let want = wanted(&i, n);
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
                self.register_from(guest, host);
            }
        }
        if i.rflags_modified() & flags::ALL != 0 {
            self.produced();
        }
        if let Some(found) = found {
            self.wrote_last(found, item, site);
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
                self.store_guest(found.mem, item.i.op0_register().number() as u8);
            }
            _ => self.asm.store_imm(found.mem, item.op.imm as i32),
        }
        self.add_to_stack(-8);
        self.wrote_last(found, item, site);
        Some(())
    }

    fn pop(&mut self, item: &Item, site: Site) -> Option<()> {
        let found = self.find(&Operand::stack(0, 8), Want::Read, item.live_in != 0, site);
        let guest = item.i.op0_register().number() as u8;
        self.load_guest(guest, found.mem);
        if usize::from(guest) != gpr::RSP {
            self.add_to_stack(8);
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

    /// What a call's shared routines want in RCX.
    fn call_site(&mut self, item: &Item, site: Site) {
        self.asm.mov_imm64(RCX, u64::from(item.next) << 32 | u64::from(site.0));
    }

    /// Stores the address of the next instruction below the stack pointer, and moves that. The flags
    /// must be in the frame.
    fn push_return(&mut self, item: &Item, site: Site) {
        self.call_site(item, site);
        self.asm.call_to(self.stubs.calls(self.kind).push_return);
        self.flags.host = false;
    }

    fn call(&mut self, item: &Item, site: Site) {
        self.save();
        let target = item.i.near_branch64() as i64;
        if self.is_near(target) {
            self.push_return(item, site);
            self.go_to(target, Way::Branch(site, reason::CALL));
        } else {
            self.call_site(item, site);
            self.asm.mov_imm32(RAX, target as u32);
            self.asm.jmp_to(self.stubs.calls(self.kind).call);
        }
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
        self.jump_indirect(site, reason::JUMP);
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
        self.asm.store(frame(KEPT + 8), RAX);
        self.push_return(item, site);
        self.asm.load(RAX, frame(KEPT + 8));
        self.jump_indirect(site, reason::CALL);
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
        calls::jump_to_found(self.asm, self.kind.upper);
        Some(())
    }
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

/// Whether the host's flags must be the guest's when the instruction itself is run: it reads some, or
/// leaves some alone that are needed later.
fn needs_flags(item: &Item) -> bool {
    let touches = (item.i.rflags_read() | item.i.rflags_modified()) & flags::ALL != 0;
    touches && item.live_in != 0
}

/// What an instruction wants of its operand `n`, which is in memory.
fn wanted(i: &Instruction, n: u32) -> Want {
    if n == 0 && writes_first(i.mnemonic()) { Want::Write } else { Want::Read }
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
