//! Random instructions whose registers and memory operands suit a program.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpCodeOperandKind, OpKind, Register};

use crate::layout::{CODE, DATA, FS, GS};
use crate::program::encode;
use crate::random::Random;

/// Registers that hold addresses, mostly.
pub(crate) const POINTERS: [Register; 6] =
    [Register::RBX, Register::RBP, Register::RSI, Register::RDI, Register::R12, Register::R13];
/// Holds a small number, mostly.
pub(crate) const INDEX: Register = Register::R14;
/// Counts rounds of the whole program, mostly.
pub(crate) const ROUNDS: Register = Register::R15;
/// Registers for anything.
const DATA_REGISTERS: [u32; 7] = [0, 1, 2, 8, 9, 10, 11];

/// Makes instructions.
pub(crate) struct Maker<'a> {
    pub(crate) random: &'a mut Random,
    /// Whether pointers may be spoilt, and operands lie where they fault.
    pub(crate) wild: bool,
}

impl Maker<'_> {
    /// A random instruction with this opcode; `None` when the dice make one that does not exist.
    pub(crate) fn instruction(&mut self, code: Code) -> Option<Instruction> {
        let info = code.op_code();
        let mut i = Instruction::default();
        i.set_code(code);
        for n in 0..info.op_count() {
            self.operand(&mut i, n, info.op_kind(n))?;
        }
        if info.can_use_lock_prefix() && i.op0_kind() == OpKind::Memory && self.random.once_in(4) {
            i.set_has_lock_prefix(true);
        }
        if i.is_string_instruction() {
            match self.random.below(4) {
                0 | 1 if info.can_use_rep_prefix() => i.set_has_rep_prefix(true),
                2 if info.can_use_repne_prefix() => i.set_has_repne_prefix(true),
                _ => {}
            }
        }
        let bytes = encode(&i, CODE)?;
        let decoded = Decoder::with_ip(64, &bytes, CODE, DecoderOptions::NONE).decode();
        (decoded.code() == code && decoded.len() == bytes.len()).then_some(i)
    }

    /// A general register's number: one to write to when it is the first operand.
    fn number(&mut self, n: u32) -> u32 {
        let any =
            if n == 0 { self.wild && self.random.once_in(24) } else { self.random.once_in(3) };
        if any { self.random.below(16) as u32 } else { self.random.pick(&DATA_REGISTERS) }
    }

    fn operand(&mut self, i: &mut Instruction, n: u32, kind: OpCodeOperandKind) -> Option<()> {
        use OpCodeOperandKind as K;
        match kind {
            K::mem | K::mem_mpx | K::mem_mib => self.memory(i, n),
            K::mem_offs => {
                let target = self.target();
                i.set_op_kind(n, OpKind::Memory);
                i.set_memory_displ_size(8);
                i.set_memory_displacement64(target);
            }
            K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::mm_or_mem
            | K::xmm_or_mem
                if self.random.once_in(2) =>
            {
                self.memory(i, n);
            }
            K::r8_or_mem | K::r8_reg | K::r8_opcode => {
                let number = self.number(n);
                // AH, CH, DH, BH.
                let high = number < 4 && self.random.once_in(3);
                // AL to R15L lie around the four high bytes.
                let byte = if high { number + 4 } else { number + if number > 3 { 4 } else { 0 } };
                register(i, n, Register::AL + byte);
            }
            K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => {
                let number = self.number(n);
                register(i, n, Register::AX + number);
            }
            K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode => {
                let number = self.number(n);
                register(i, n, Register::EAX + number);
            }
            K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode => {
                let number = self.number(n);
                register(i, n, Register::RAX + number);
            }
            K::mm_or_mem | K::mm_reg | K::mm_rm => {
                register(i, n, Register::MM0 + self.random.below(8) as u32);
            }
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm => {
                register(i, n, Register::XMM0 + self.random.below(16) as u32);
            }
            K::al => register(i, n, Register::AL),
            K::cl => register(i, n, Register::CL),
            K::ax => register(i, n, Register::AX),
            K::dx => register(i, n, Register::DX),
            K::eax => register(i, n, Register::EAX),
            K::rax => register(i, n, Register::RAX),
            K::st0 => register(i, n, Register::ST0),
            K::sti_opcode => register(i, n, Register::ST0 + self.random.below(8) as u32),
            K::imm8 => self.immediate(i, n, OpKind::Immediate8)?,
            K::imm8_const_1 => {
                i.set_op_kind(n, OpKind::Immediate8);
                i.try_set_immediate_u64(n, 1).ok()?;
            }
            K::imm8sex16 => self.immediate(i, n, OpKind::Immediate8to16)?,
            K::imm8sex32 => self.immediate(i, n, OpKind::Immediate8to32)?,
            K::imm8sex64 => self.immediate(i, n, OpKind::Immediate8to64)?,
            K::imm16 => self.immediate(i, n, OpKind::Immediate16)?,
            K::imm32 => self.immediate(i, n, OpKind::Immediate32)?,
            K::imm32sex64 => self.immediate(i, n, OpKind::Immediate32to64)?,
            K::imm64 => self.immediate(i, n, OpKind::Immediate64)?,
            K::seg_rSI => i.set_op_kind(n, OpKind::MemorySegRSI),
            K::es_rDI => i.set_op_kind(n, OpKind::MemoryESRDI),
            K::seg_rDI => i.set_op_kind(n, OpKind::MemorySegRDI),
            // XLAT. Branches are the program's.
            K::seg_rBX_al => {
                i.set_op_kind(n, OpKind::Memory);
                i.set_memory_base(Register::RBX);
                i.set_memory_index(Register::AL);
            }
            _ => return None,
        }
        Some(())
    }

    fn immediate(&mut self, i: &mut Instruction, n: u32, kind: OpKind) -> Option<()> {
        // ENTER's second immediate has a kind of its own.
        let kind = match (kind, n, i.op0_kind()) {
            (OpKind::Immediate8, 1, OpKind::Immediate16) => OpKind::Immediate8_2nd,
            _ => kind,
        };
        i.set_op_kind(n, kind);
        let value = self.random.integer();
        match kind {
            OpKind::Immediate8to16 => i.set_immediate8to16(i16::from(value as i8)),
            OpKind::Immediate8to32 => i.set_immediate8to32(i32::from(value as i8)),
            OpKind::Immediate8to64 => i.set_immediate8to64(i64::from(value as i8)),
            OpKind::Immediate32to64 => i.set_immediate32to64(i64::from(value as i32)),
            OpKind::Immediate8_2nd => i.set_immediate8_2nd(value as u8 % 4),
            OpKind::Immediate8 => i.set_immediate8(value as u8),
            // Of ENTER and RET too.
            OpKind::Immediate16 if i.op_count() != 2 || n == 0 => {
                i.set_immediate16(value as u16 & 0x78)
            }
            OpKind::Immediate16 => i.set_immediate16(value as u16),
            OpKind::Immediate32 => i.set_immediate32(value as u32),
            _ => i.try_set_immediate_u64(n, value).ok()?,
        }
        Some(())
    }

    /// A memory operand: by a pointer, mostly.
    fn memory(&mut self, i: &mut Instruction, n: u32) {
        i.set_op_kind(n, OpKind::Memory);
        let form = self.random.below(24);
        match form {
            0 | 1 => {
                i.set_memory_base(Register::RIP);
                i.set_memory_displ_size(8);
                // Data, and now and then the program itself.
                let code = self.random.once_in(6);
                let near = CODE + 0x1000 - 256 + self.random.below(1024);
                let target = if code { near } else { self.target() };
                i.set_memory_displacement64(target);
            }
            2 => {
                i.set_memory_displ_size(8);
                i.set_memory_displacement64(self.target() & 0x7fff_ffff);
            }
            3 | 4 => {
                let (segment, base) = self.random.pick(&[(Register::FS, FS), (Register::GS, GS)]);
                i.set_segment_prefix(segment);
                i.set_memory_displ_size(8);
                let offset = self.target().wrapping_sub(base);
                i.set_memory_displacement64(offset as i32 as i64 as u64);
            }
            5 => {
                i.set_memory_base(Register::RSP);
                i.set_memory_displ_size(1);
                i.set_memory_displacement64((self.random.below(16) * 8).wrapping_sub(64));
            }
            _ => {
                // With 32-bit addresses now and then.
                let narrow = form == 6;
                let part =
                    |register: Register| if narrow { register.full_register32() } else { register };
                let base = self.random.pick(&POINTERS);
                i.set_memory_base(part(base));
                if form < 11 {
                    i.set_memory_index(part(INDEX));
                    i.set_memory_index_scale(1 << self.random.below(4));
                }
                if self.wild && self.random.once_in(40) {
                    i.set_memory_index(part(Register::RDX));
                }
                match self.random.below(4) {
                    0 if base.number() & 7 != 5 => {}
                    0..3 => {
                        i.set_memory_displ_size(1);
                        i.set_memory_displacement64(i64::from(self.random.bits() as i8) as u64);
                    }
                    _ => {
                        i.set_memory_displ_size(if narrow { 4 } else { 8 });
                        i.set_memory_displacement64(self.random.below(0x200));
                    }
                }
            }
        }
    }

    /// A linear address of data: mostly all right, in wild programs now and then not.
    pub(crate) fn target(&mut self) -> u64 {
        let random = &mut *self.random;
        match random.below(if self.wild { 40 } else { 28 }) {
            0..16 => DATA + 0x400 + random.below(0x60) * 16,
            16..22 => DATA + 0x400 + random.below(0x600),
            22..25 => DATA + 0x1000 - random.below(17),
            25..28 => DATA + 0x1400 + random.below(0x800),
            28 | 29 => DATA + 0x2400 + random.below(0x800),
            30 => DATA + 0x2000 - random.below(17),
            31 => DATA + 0x3000 - random.below(17),
            32 => DATA - random.below(17),
            33 => DATA + 0x4100 + random.below(64),
            34 | 35 => DATA + 0x5100 + random.below(64),
            36 => random.integer(),
            _ => DATA + 0x400 + random.below(0x60) * 16,
        }
    }
}

fn register(i: &mut Instruction, n: u32, register: Register) {
    i.set_op_kind(n, OpKind::Register);
    i.set_op_register(n, register);
}
