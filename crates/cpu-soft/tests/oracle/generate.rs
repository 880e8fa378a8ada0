//! Random instructions and the random states they run from.

use std::fmt;

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Instruction, MemorySize, Mnemonic, OpCodeOperandKind,
    OpKind, Register,
};

use crate::random::Random;
use crate::state::{CODE, FLAGS, Fx, GS_BASE, NAMES, Registers, WINDOW, WINDOW_LEN, flag_names};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// An instruction, and what it runs from.
pub(crate) struct Case {
    /// As decoded from `bytes`.
    pub(crate) instruction: Instruction,
    /// Its encoding.
    pub(crate) bytes: Vec<u8>,
    /// Where it lies.
    pub(crate) rip: u64,
    /// Linear address of its memory operand, if that is an ordinary one.
    pub(crate) target: u64,
    /// Registers before.
    pub(crate) registers: Registers,
    /// The window before.
    pub(crate) memory: Box<[u8; WINDOW_LEN]>,
    /// Whether the interpreter starts with an empty TLB.
    pub(crate) flush: bool,
}

impl Case {
    /// A random case of this instruction, with this in the window but for its operands; `None`
    /// when the dice make one that cannot be encoded.
    pub(crate) fn generate(
        code: Code,
        random: &mut Random,
        window: &[u8; WINDOW_LEN],
    ) -> Option<Self> {
        let rip = CODE + 0x200 + random.below(0xa00);
        let target = target(random, size_of_memory(code));
        let (instruction, bytes) = encode(code, random, rip, target)?;
        let next = rip + bytes.len() as u64;
        if branches_into(&instruction, rip, next) {
            return None;
        }
        let mut case = Self {
            instruction,
            bytes,
            rip,
            target,
            registers: registers(random),
            memory: Box::new(*window),
            flush: random.once_in(16),
        };
        case.aim(random);
        case.adapt(random);
        Some(case)
    }

    /// Points the memory operand's registers at the target, and puts data there.
    fn aim(&mut self, random: &mut Random) {
        let i = self.instruction;
        let gpr = &mut self.registers.gpr;
        let kind = |kinds: &[OpKind]| (0..i.op_count()).any(|n| kinds.contains(&i.op_kind(n)));
        if kind(&[OpKind::MemorySegRSI, OpKind::MemorySegESI]) {
            gpr[RSI] = target(random, 16);
            if i.memory_segment() == Register::GS {
                gpr[RSI] = gpr[RSI].wrapping_sub(GS_BASE);
            }
        }
        if kind(&[
            OpKind::MemoryESRDI,
            OpKind::MemoryESEDI,
            OpKind::MemorySegRDI,
            OpKind::MemorySegEDI,
        ]) {
            gpr[RDI] = self.target;
        }
        if i.is_string_instruction() {
            gpr[RCX] = match random.below(8) {
                0 => random.integer(),
                1 => 0,
                2 => random.below(3000),
                _ => random.below(40),
            };
            if random.once_in(4) && kind(&[OpKind::MemorySegRSI, OpKind::MemorySegESI]) {
                // Overlapping.
                gpr[RSI] = gpr[RDI].wrapping_add(random.below(64)).wrapping_sub(32);
            }
            if kind(&[OpKind::MemorySegESI, OpKind::MemoryESEDI]) {
                for reg in [RCX, RSI, RDI] {
                    gpr[reg] = gpr[reg] & 0xffff_ffff | random.bits() << 32;
                }
            }
            // Runs of equal elements, or comparisons end at once.
            if random.once_in(2) {
                let byte = random.bits() as u8;
                let from = random.below(WINDOW_LEN as u64) as usize;
                self.memory[from..].fill(byte);
                gpr[RAX] = u64::from(byte) * 0x0101_0101_0101_0101;
            }
        }
        if kind(&[OpKind::Memory]) {
            self.aim_memory(random);
        }
    }

    fn aim_memory(&mut self, random: &mut Random) {
        let i = self.instruction;
        let gpr = &mut self.registers.gpr;
        let (base, index) = (i.memory_base(), i.memory_index());
        let wide = base.is_gpr64() || index.is_gpr64();
        let segment = if i.memory_segment() == Register::GS { GS_BASE } else { 0 };
        let offset = self.target.wrapping_sub(segment).wrapping_sub(i.memory_displacement64());
        let scale = u64::from(i.memory_index_scale()).trailing_zeros();
        let upper = if wide { 0 } else { random.bits() << 32 };
        let narrow = |value: u64| if wide { value } else { value & 0xffff_ffff | upper };
        if base.is_gpr() && index == Register::AL {
            gpr[base.number()] = narrow(offset.wrapping_sub(gpr[RAX] & 0xff));
        } else if base.is_gpr() && index.is_gpr() && base.number() != index.number() {
            if random.once_in(2) {
                gpr[index.number()] = random.below(64);
            }
            let part = gpr[index.number()] << scale;
            gpr[base.number()] = narrow(offset.wrapping_sub(part));
        } else if base.is_gpr() && !index.is_gpr() {
            gpr[base.number()] = narrow(offset);
        } else if index.is_gpr() && !base.is_gpr() {
            gpr[index.number()] = narrow(offset >> scale);
        }
        let mut data = [0u8; 128];
        match i.memory_size() {
            MemorySize::Float80 => {
                let (sign_exponent, significand) = random.extended();
                data[..8].copy_from_slice(&significand.to_le_bytes());
                data[8..10].copy_from_slice(&sign_exponent.to_le_bytes());
            }
            MemorySize::Float64 => data[..8].copy_from_slice(&random.float(11, 52).to_le_bytes()),
            MemorySize::Float32 => {
                data[..4].copy_from_slice(&(random.float(8, 23) as u32).to_le_bytes());
            }
            MemorySize::Bcd => {
                for byte in &mut data[..10] {
                    *byte = (random.below(10) << 4 | random.below(10)) as u8;
                }
            }
            _ => {
                for cell in data.chunks_mut(8) {
                    cell.copy_from_slice(&random.data().to_le_bytes());
                }
            }
        }
        let size = i.memory_size().size().clamp(1, 128);
        let from = self.target.wrapping_sub(WINDOW);
        for (n, byte) in data[..size].iter().enumerate() {
            if let Some(cell) = self.memory.get_mut(from.wrapping_add(n as u64) as usize) {
                *cell = *byte;
            }
        }
    }

    /// Makes the interesting outcomes of some instructions likely.
    fn adapt(&mut self, random: &mut Random) {
        use Mnemonic as M;
        let i = self.instruction;
        let often = !random.once_in(3);
        match i.mnemonic() {
            M::Div | M::Idiv if often => {
                let wide = self.registers.gpr[RAX] as i64 >> 63;
                self.registers.gpr[RDX] = if random.once_in(2) { 0 } else { wide as u64 };
                if i.memory_size().size() == 1 || i.op0_register().size() == 1 {
                    self.registers.gpr[RAX] &= random.pick(&[0xff, 0x7f, 0x1ff, 0xfff]);
                }
            }
            M::Cmpxchg if often => {
                let value = match i.op0_kind() {
                    OpKind::Memory => self.word(self.target),
                    _ => {
                        let register = i.op0_register();
                        let shift = if high_byte(register) { 8 } else { 0 };
                        self.registers.gpr[number(register)] >> shift
                    }
                };
                self.registers.gpr[RAX] = value;
            }
            M::Cmpxchg8b if often => {
                let value = self.word(self.target);
                self.registers.gpr[RAX] = value & 0xffff_ffff | random.bits() << 32;
                self.registers.gpr[RDX] = value >> 32 | random.bits() << 32;
            }
            M::Cmpxchg16b if often => {
                self.registers.gpr[RAX] = self.word(self.target);
                self.registers.gpr[RDX] = self.word(self.target.wrapping_add(8));
            }
            M::Bt | M::Bts | M::Btr | M::Btc
                if often && i.op0_kind() == OpKind::Memory && i.op1_kind() == OpKind::Register =>
            {
                let register = number(i.op1_register());
                let (base, index) = (i.memory_base(), i.memory_index());
                if [base, index].iter().all(|r| !r.is_gpr() || r.number() != register) {
                    let near = random.below(0x4000).wrapping_sub(0x2000);
                    self.registers.gpr[register] = near;
                }
            }
            M::Ret => self.set_word(self.registers.gpr[RSP], code_address(random)),
            M::Jmp | M::Call => match i.op0_kind() {
                OpKind::Memory => self.set_word(self.target, code_address(random)),
                // Not RSP: a call would push into the code.
                OpKind::Register if number(i.op0_register()) != RSP => {
                    self.registers.gpr[number(i.op0_register())] = code_address(random);
                }
                _ => {}
            },
            M::Shl
            | M::Sal
            | M::Shr
            | M::Sar
            | M::Rol
            | M::Ror
            | M::Rcl
            | M::Rcr
            | M::Shld
            | M::Shrd
                if often =>
            {
                let count = &mut self.registers.gpr[RCX];
                *count = *count & !0xff | random.below(70);
            }
            M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz if often => {
                let count = &mut self.registers.gpr[RCX];
                let keep = 0xffff_ffff_0000_0000 * random.below(2);
                *count = (*count & keep) | random.below(3);
            }
            // Whether bytes that are masked off can fault is up to the processor.
            M::Maskmovq | M::Maskmovdqu => {
                let base = if i.memory_segment() == Register::GS { GS_BASE } else { 0 };
                self.registers.gpr[RDI] = WINDOW + random.below(8192 - 16) - base;
            }
            M::Leave | M::Enter if often => self.registers.gpr[RBP] = target(random, 8),
            _ => {}
        }
    }

    /// Eight bytes of the window; what is outside of it is zero.
    fn word(&self, at: u64) -> u64 {
        (0..8).rev().fold(0, |word, n| {
            let at = at.wrapping_sub(WINDOW).wrapping_add(n) as usize;
            word << 8 | u64::from(self.memory.get(at).copied().unwrap_or(0))
        })
    }

    fn set_word(&mut self, at: u64, value: u64) {
        for (n, byte) in value.to_le_bytes().into_iter().enumerate() {
            let at = at.wrapping_sub(WINDOW).wrapping_add(n as u64) as usize;
            if let Some(cell) = self.memory.get_mut(at) {
                *cell = byte;
            }
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = &self.instruction;
        writeln!(f, "{:?} {:02x?} at {:#x}", i.code(), self.bytes, self.rip)?;
        if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
            let (base, index, scale) = (i.memory_base(), i.memory_index(), i.memory_index_scale());
            let displacement = i.memory_displacement64();
            write!(f, "  [{base:?} + {index:?}*{scale} + {displacement:#x}] = ")?;
            writeln!(
                f,
                "{:#x} -> {:#018x} {:#018x}",
                self.target,
                self.word(self.target + 8),
                self.word(self.target)
            )?;
        }
        let r = &self.registers;
        for (n, (name, value)) in NAMES.iter().zip(r.gpr).enumerate() {
            write!(f, "  {name}={value:016x}{}", if n % 4 == 3 { "\n" } else { "" })?;
        }
        let (fcw, fsw, ftw) = r.fx.control();
        writeln!(
            f,
            "  flags={} mxcsr={:x} fcw={fcw:x} fsw={fsw:x} ftw={ftw:02x}",
            flag_names(r.rflags),
            r.fx.mxcsr()
        )?;
        for n in 0..8 {
            let (sign_exponent, significand) = r.fx.st(n);
            write!(
                f,
                "  st{n}={sign_exponent:04x}:{significand:016x}{}",
                if n % 4 == 3 { "\n" } else { "" }
            )?;
        }
        for n in 0..16 {
            write!(f, "  xmm{n}={:032x}{}", r.fx.xmm(n), if n % 4 == 3 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// The number of the 64-bit register that a general register is part of.
fn number(register: Register) -> usize {
    if high_byte(register) { register.number() - 4 } else { register.full_register().number() }
}

fn high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

fn size_of_memory(code: Code) -> u64 {
    (code.op_code().memory_size().size() as u64).clamp(1, 512)
}

/// A linear address for `size` bytes: mostly all right, now and then not.
fn target(random: &mut Random, size: u64) -> u64 {
    const END: u64 = WINDOW + WINDOW_LEN as u64;
    let into = random.below(size) + 1;
    match random.below(40) {
        0..20 => WINDOW + 512 + random.below(440) * 16,
        20..26 => WINDOW + 512 + random.below(7000),
        26..30 => WINDOW + 4096 - into,
        30..32 => WINDOW + 8192 + random.below(4096 - size),
        32 | 33 => WINDOW + 8192 - into,
        34 => END - into,
        35 => WINDOW - into,
        36 => END - size,
        37 => END + random.below(4096),
        38 => WINDOW + 8192 - size,
        _ => random.bits() & 0x3fff_ffff_ffff_ffff | 1 << 62,
    }
}

/// Somewhere to jump to: an INT3, pages that are not code, addresses that are none.
fn code_address(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => WINDOW + random.below(4096),
        1 => 0x3000_0000 + random.below(4096),
        2 => random.bits() | 1 << 62,
        _ => CODE + random.below(0x200),
    }
}

/// Whether it branches to its own bytes, or those of the jump that follows it.
fn branches_into(i: &Instruction, rip: u64, next: u64) -> bool {
    if i.op0_kind() != OpKind::NearBranch64 {
        return false;
    }
    let to = i.near_branch64();
    (rip..next + 8).contains(&to) && to != next
}

fn registers(random: &mut Random) -> Registers {
    let mut gpr = [0; 16];
    for value in &mut gpr {
        *value = random.integer();
    }
    gpr[RSP] =
        if random.once_in(16) { target(random, 8) } else { WINDOW + 1024 + random.below(800) * 8 };
    if random.once_in(4) {
        gpr[RBX] = gpr[RAX];
    }
    let mut rflags = random.bits() & FLAGS | 0x202;
    if !random.once_in(4) {
        rflags &= !0x400;
    }
    let mut fx = Fx([0; 512]);
    for n in 0..16 {
        fx.set_xmm(n, random.vector());
    }
    let mmx = random.once_in(2);
    for n in 0..8 {
        let value = if mmx { (0xffff, random.data()) } else { random.extended() };
        fx.set_st(n, value);
    }
    let ftw = match random.below(4) {
        0 => random.bits() as u8,
        _ => 0xff,
    };
    let masks = if random.once_in(8) { random.below(64) as u16 } else { 0x3f };
    let fcw = 0x40 | masks | (random.below(4) as u16) << 10 | random.pick(&[0, 2, 3]) << 8;
    let raised = if random.once_in(4) { random.below(64) as u16 } else { 0 };
    let raised = if random.once_in(8) { raised } else { raised & masks };
    let stack_fault = if raised & 1 != 0 { (random.below(2) as u16) << 6 } else { 0 };
    let summary = if raised & !masks != 0 { 0x8080 } else { 0 };
    let fsw = raised | stack_fault | summary | (random.bits() as u16 & 0x7f00);
    let simd_masks = if random.once_in(8) { random.below(64) as u32 } else { 0x3f };
    let modes = if random.once_in(4) { random.pick(&[0x40, 0x8000, 0x8040]) } else { 0 };
    let flags = if random.once_in(4) { random.below(64) as u32 } else { 0 };
    let mxcsr = simd_masks << 7 | modes | flags | (random.below(4) as u32) << 13;
    fx.set_control(fcw, fsw, ftw, mxcsr);
    Registers { gpr, rflags, fx }
}

/// A random instruction with this opcode.
fn encode(
    code: Code,
    random: &mut Random,
    rip: u64,
    target: u64,
) -> Option<(Instruction, Vec<u8>)> {
    let info = code.op_code();
    let mut i = Instruction::default();
    i.set_code(code);
    let narrow = random.once_in(8);
    for n in 0..info.op_count() {
        operand(&mut i, n, info.op_kind(n), random, rip, target, narrow)?;
    }
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    if info.can_use_lock_prefix() && i.op0_kind() == OpKind::Memory && random.once_in(4) {
        i.set_has_lock_prefix(true);
    }
    if i.is_string_instruction() {
        match random.below(4) {
            0 | 1 if info.can_use_rep_prefix() => i.set_has_rep_prefix(true),
            2 if info.can_use_repne_prefix() => i.set_has_repne_prefix(true),
            _ => {}
        }
    }
    if (memory || i.is_string_instruction()) && random.once_in(10) {
        i.set_segment_prefix(random.pick(&[Register::GS, Register::GS, Register::DS]));
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&i, rip).ok()?;
    let bytes = encoder.take_buffer();
    let mut decoder = Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE);
    let decoded = decoder.decode();
    (decoded.code() == code && decoded.len() == bytes.len()).then_some((decoded, bytes))
}

fn operand(
    i: &mut Instruction,
    n: u32,
    kind: OpCodeOperandKind,
    random: &mut Random,
    rip: u64,
    target: u64,
    narrow: bool,
) -> Option<()> {
    use OpCodeOperandKind as K;
    match kind {
        K::mem | K::mem_mpx | K::mem_mib => memory(i, n, random, target, narrow),
        K::mem_offs => {
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
            if random.once_in(2) =>
        {
            memory(i, n, random, target, narrow);
        }
        K::r8_or_mem | K::r8_reg | K::r8_opcode => {
            // AL to R15L lie after the four high bytes.
            register(i, n, Register::AL + random.below(20) as u32);
        }
        K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => {
            register(i, n, Register::AX + random.below(16) as u32)
        }
        K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode => {
            register(i, n, Register::EAX + random.below(16) as u32)
        }
        K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode => {
            register(i, n, Register::RAX + random.below(16) as u32)
        }
        K::mm_or_mem | K::mm_reg | K::mm_rm => {
            register(i, n, Register::MM0 + random.below(8) as u32)
        }
        K::xmm_or_mem | K::xmm_reg | K::xmm_rm => {
            register(i, n, Register::XMM0 + random.below(16) as u32)
        }
        K::al => register(i, n, Register::AL),
        K::cl => register(i, n, Register::CL),
        K::ax => register(i, n, Register::AX),
        K::dx => register(i, n, Register::DX),
        K::eax => register(i, n, Register::EAX),
        K::rax => register(i, n, Register::RAX),
        K::st0 => register(i, n, Register::ST0),
        K::sti_opcode => register(i, n, Register::ST0 + random.below(8) as u32),
        K::imm8 => immediate(i, n, OpKind::Immediate8, random)?,
        K::imm8_const_1 => {
            i.set_op_kind(n, OpKind::Immediate8);
            i.try_set_immediate_u64(n, 1).ok()?;
        }
        K::imm8sex16 => immediate(i, n, OpKind::Immediate8to16, random)?,
        K::imm8sex32 => immediate(i, n, OpKind::Immediate8to32, random)?,
        K::imm8sex64 => immediate(i, n, OpKind::Immediate8to64, random)?,
        K::imm16 => immediate(i, n, OpKind::Immediate16, random)?,
        K::imm32 => immediate(i, n, OpKind::Immediate32, random)?,
        K::imm32sex64 => immediate(i, n, OpKind::Immediate32to64, random)?,
        K::imm64 => immediate(i, n, OpKind::Immediate64, random)?,
        K::seg_rSI => {
            i.set_op_kind(n, if narrow { OpKind::MemorySegESI } else { OpKind::MemorySegRSI });
        }
        K::es_rDI => {
            i.set_op_kind(n, if narrow { OpKind::MemoryESEDI } else { OpKind::MemoryESRDI });
        }
        K::seg_rDI => {
            i.set_op_kind(n, if narrow { OpKind::MemorySegEDI } else { OpKind::MemorySegRDI });
        }
        K::seg_rBX_al => {
            i.set_op_kind(n, OpKind::Memory);
            i.set_memory_base(if narrow { Register::EBX } else { Register::RBX });
            i.set_memory_index(Register::AL);
        }
        K::br64_1 => {
            i.set_op_kind(n, OpKind::NearBranch64);
            i.set_near_branch64(rip + random.below(200) - 80);
        }
        K::br64_4 => {
            i.set_op_kind(n, OpKind::NearBranch64);
            i.set_near_branch64(CODE + random.below(4096));
        }
        _ => return None,
    }
    Some(())
}

fn register(i: &mut Instruction, n: u32, register: Register) {
    i.set_op_kind(n, OpKind::Register);
    i.set_op_register(n, register);
}

fn immediate(i: &mut Instruction, n: u32, kind: OpKind, random: &mut Random) -> Option<()> {
    // ENTER's second immediate has a kind of its own.
    let kind = match (kind, n, i.op0_kind()) {
        (OpKind::Immediate8, 1, OpKind::Immediate16) => OpKind::Immediate8_2nd,
        _ => kind,
    };
    i.set_op_kind(n, kind);
    let value = random.integer();
    let value = match kind {
        OpKind::Immediate8 | OpKind::Immediate8_2nd => value & 0xff,
        OpKind::Immediate16 => value & 0xffff,
        OpKind::Immediate32 => value & 0xffff_ffff,
        OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 => {
            value as i8 as u64
        }
        OpKind::Immediate32to64 => value as i32 as u64,
        _ => value,
    };
    match kind {
        OpKind::Immediate8to16 => i.set_immediate8to16(value as i16),
        OpKind::Immediate8to32 => i.set_immediate8to32(value as i32),
        OpKind::Immediate8to64 => i.set_immediate8to64(value as i64),
        OpKind::Immediate8_2nd => i.set_immediate8_2nd(value as u8 % 40),
        OpKind::Immediate16 if i.code().mnemonic() == Mnemonic::Enter => {
            i.set_immediate16(value as u16 & 0x3ff);
        }
        _ => i.try_set_immediate_u64(n, value).ok()?,
    }
    Some(())
}

/// A memory operand of a random form; registers get their values later.
fn memory(i: &mut Instruction, n: u32, random: &mut Random, target: u64, narrow: bool) {
    i.set_op_kind(n, OpKind::Memory);
    let first = if narrow { Register::EAX } else { Register::RAX };
    let full = if narrow { 4 } else { 8 };
    let base = random.below(16) as u32;
    let index = loop {
        // Number 4 means "none" there.
        let index = random.below(16) as u32;
        if index != 4 && index != base {
            break index;
        }
    };
    let form = random.below(16);
    if form == 0 {
        // Absolute: reaches the window alone.
        i.set_memory_displ_size(full);
        i.set_memory_displacement64(target & 0x7fff_ffff);
        return;
    }
    if form == 1 && !narrow && target >> 32 == 0 {
        i.set_memory_base(Register::RIP);
        i.set_memory_displ_size(8);
        i.set_memory_displacement64(target);
        return;
    }
    if form != 2 {
        i.set_memory_base(first + base);
    }
    if form < 8 {
        i.set_memory_index(first + index);
        i.set_memory_index_scale(1 << random.below(4));
    }
    match random.below(3) {
        0 if form != 2 => {}
        1 if form != 2 => {
            i.set_memory_displ_size(1);
            i.set_memory_displacement64(random.bits() as i8 as u64);
        }
        _ => {
            i.set_memory_displ_size(full);
            let displacement = random.bits() as i32 as i64 as u64;
            let displacement = if narrow { displacement & 0xffff_ffff } else { displacement };
            i.set_memory_displacement64(displacement);
        }
    }
}
