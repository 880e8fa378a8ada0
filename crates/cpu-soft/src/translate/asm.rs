//! A small assembler for the host instructions that stand around re-encoded guest instructions.
//!
//! It writes into a buffer whose place in the code cache is known, so that distances to other code
//! are known too. Intel SDM volume 2, chapter 2, says how instructions are encoded.

/// Numbers of host registers, as encoded.
pub(crate) mod host {
    pub(crate) const RAX: u8 = 0;
    pub(crate) const RCX: u8 = 1;
    pub(crate) const RDX: u8 = 2;
    pub(crate) const RBX: u8 = 3;
    pub(crate) const RSP: u8 = 4;
    pub(crate) const RBP: u8 = 5;
    pub(crate) const RSI: u8 = 6;
    pub(crate) const RDI: u8 = 7;
    pub(crate) const R8: u8 = 8;
    pub(crate) const R9: u8 = 9;
    pub(crate) const R10: u8 = 10;
    pub(crate) const R11: u8 = 11;
    pub(crate) const R12: u8 = 12;
    pub(crate) const R13: u8 = 13;
    pub(crate) const R14: u8 = 14;
    pub(crate) const R15: u8 = 15;
}
use host::RSP;

/// Condition codes, as encoded in Jcc and SETcc.
pub(crate) mod cc {
    pub(crate) const AE: u8 = 3;
    pub(crate) const E: u8 = 4;
    pub(crate) const NE: u8 = 5;
    pub(crate) const BE: u8 = 6;
    pub(crate) const A: u8 = 7;
    pub(crate) const S: u8 = 8;
}

/// Opcodes of two-operand arithmetic with a register and `r/m`: register is the destination.
pub(crate) mod alu {
    pub(crate) const ADD: u8 = 0x03;
    pub(crate) const SUB: u8 = 0x2b;
    pub(crate) const XOR: u8 = 0x33;
    pub(crate) const OR: u8 = 0x0b;
    pub(crate) const AND: u8 = 0x23;
    pub(crate) const CMP: u8 = 0x3b;
}

/// No base register.
pub(crate) const NO_BASE: u8 = 0xff;

/// A memory operand: base, index and log2 of its scale, displacement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mem {
    /// Base register, or [`NO_BASE`].
    pub(crate) base: u8,
    /// Index register (not RSP) and log2 of its scale.
    pub(crate) index: Option<(u8, u8)>,
    /// Displacement.
    pub(crate) disp: i32,
}

impl Mem {
    /// `[base + disp]`.
    #[must_use]
    pub(crate) fn at(base: u8, disp: i32) -> Self {
        Self { base, index: None, disp }
    }
}

/// A field of the frame: `[rsp + offset]`.
#[must_use]
pub(crate) fn frame(offset: usize) -> Mem {
    Mem::at(RSP, offset as i32)
}

/// Code under construction.
#[derive(Debug, Default)]
pub(crate) struct Asm {
    /// The bytes so far.
    pub(crate) code: Vec<u8>,
    /// Offset of the first byte in the code cache.
    pub(crate) origin: u32,
    /// How many bytes lie there: the rest lies at [`apart`](Self::apart).
    first: Option<usize>,
    /// Offset in the code cache of what is written after [`go_apart`](Self::go_apart).
    apart: u32,
}

/// Where a 32-bit distance stands that is still to be filled in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hole(usize);

impl Asm {
    /// Begins anew at offset `origin` of the code cache.
    pub(crate) fn start(&mut self, origin: u32) {
        self.code.clear();
        self.origin = origin;
        self.first = None;
    }

    /// What is written from here on lies at offset `apart` of the code cache.
    pub(crate) fn go_apart(&mut self, apart: u32) {
        self.first = Some(self.code.len());
        self.apart = apart;
    }

    /// The two parts of the code.
    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        self.code.split_at(self.first.unwrap_or(self.code.len()))
    }

    /// Offset in the code cache of the byte `at` of the code.
    fn offset(&self, at: usize) -> u32 {
        match self.first {
            Some(first) if at >= first => self.apart + (at - first) as u32,
            _ => self.origin + at as u32,
        }
    }

    /// Offset in the code cache of the next byte.
    #[must_use]
    pub(crate) fn here(&self) -> u32 {
        self.offset(self.code.len())
    }

    /// Appends bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    fn dword(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// An instruction with a ModRM byte that names two registers.
    pub(crate) fn rr(&mut self, wide: bool, opcode: &[u8], reg: u8, rm: u8) {
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | rm >> 3;
        if rex != 0x40 {
            self.code.push(rex);
        }
        self.bytes(opcode);
        self.code.push(0xc0 | (reg & 7) << 3 | rm & 7);
    }

    /// An instruction with a ModRM byte that names a register (or an opcode's digit) and memory.
    pub(crate) fn rm(&mut self, wide: bool, opcode: &[u8], reg: u8, mem: Mem) {
        let index = mem.index.map_or(0, |(index, _)| index);
        let base = if mem.base == NO_BASE { 0 } else { mem.base };
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;
        if rex != 0x40 {
            self.code.push(rex);
        }
        self.bytes(opcode);
        self.mem(reg, mem, false);
    }

    /// ModRM, SIB and displacement; `fixed` asks for a displacement byte that could be left out.
    fn mem(&mut self, reg: u8, mem: Mem, fixed: bool) {
        if mem.base == NO_BASE {
            let (index, scale) = mem.index.unwrap_or((RSP, 0));
            self.bytes(&[(reg & 7) << 3 | 4, scale << 6 | (index & 7) << 3 | 5]);
            self.dword(mem.disp as u32);
            return;
        }
        let base = mem.base & 7;
        let mode = match mem.disp {
            0 if base != 5 && !fixed => 0,
            -128..=127 => 0x40,
            _ => 0x80,
        };
        let reg = (reg & 7) << 3;
        match mem.index {
            None if base != 4 => self.code.push(mode | reg | base),
            None => self.bytes(&[mode | reg | 4, 0x24]),
            Some((index, scale)) => {
                self.bytes(&[mode | reg | 4, scale << 6 | (index & 7) << 3 | base]);
            }
        }
        match mode {
            0 => {}
            0x40 => self.code.push(mem.disp as u8),
            _ => self.dword(mem.disp as u32),
        }
    }

    /// `mov to, from`, 64 bits.
    pub(crate) fn mov(&mut self, to: u8, from: u8) {
        self.rr(true, &[0x8b], to, from);
    }

    /// `mov to, from`, 32 bits: clears the upper half.
    pub(crate) fn mov32(&mut self, to: u8, from: u8) {
        self.rr(false, &[0x8b], to, from);
    }

    /// `mov to, [mem]`, 64 bits.
    pub(crate) fn load(&mut self, to: u8, mem: Mem) {
        self.rm(true, &[0x8b], to, mem);
    }

    /// `mov to, [mem]`, 32 bits.
    pub(crate) fn load32(&mut self, to: u8, mem: Mem) {
        self.rm(false, &[0x8b], to, mem);
    }

    /// `mov [mem], from`, 64 bits.
    pub(crate) fn store(&mut self, mem: Mem, from: u8) {
        self.rm(true, &[0x89], from, mem);
    }

    /// `mov [mem], from`, 32 bits.
    pub(crate) fn store32(&mut self, mem: Mem, from: u8) {
        self.rm(false, &[0x89], from, mem);
    }

    /// `mov dword [mem], value`.
    pub(crate) fn store32_imm(&mut self, mem: Mem, value: u32) {
        self.rm(false, &[0xc7], 0, mem);
        self.dword(value);
    }

    /// `mov qword [mem], value`, sign-extended.
    pub(crate) fn store_imm(&mut self, mem: Mem, value: i32) {
        self.rm(true, &[0xc7], 0, mem);
        self.dword(value as u32);
    }

    /// `mov to, value`, 32 bits.
    pub(crate) fn mov_imm32(&mut self, to: u8, value: u32) {
        if to >= 8 {
            self.code.push(0x41);
        }
        self.code.push(0xb8 | to & 7);
        self.dword(value);
    }

    /// `mov to, value`, 64 bits.
    pub(crate) fn mov_imm64(&mut self, to: u8, value: u64) {
        self.bytes(&[0x48 | to >> 3, 0xb8 | to & 7]);
        self.bytes(&value.to_le_bytes());
    }

    /// `lea to, [mem]`, 64 bits.
    pub(crate) fn lea(&mut self, to: u8, mem: Mem) {
        self.rm(true, &[0x8d], to, mem);
    }

    /// `lea to, [mem]`, 32 bits.
    pub(crate) fn lea32(&mut self, to: u8, mem: Mem) {
        self.rm(false, &[0x8d], to, mem);
    }

    /// Arithmetic (see [`alu`]) with memory as the source, 64 bits.
    pub(crate) fn alu_mem(&mut self, opcode: u8, to: u8, mem: Mem) {
        self.rm(true, &[opcode], to, mem);
    }

    /// Arithmetic (see [`alu`]) between registers, 64 bits.
    pub(crate) fn alu(&mut self, opcode: u8, to: u8, from: u8) {
        self.rr(true, &[opcode], to, from);
    }

    /// Arithmetic (see [`alu`]) with an immediate.
    pub(crate) fn alu_imm(&mut self, wide: bool, opcode: u8, to: u8, value: i32) {
        let digit = opcode >> 3;
        if let Ok(value) = i8::try_from(value) {
            self.rr(wide, &[0x83], digit, to);
            self.code.push(value as u8);
        } else {
            self.rr(wide, &[0x81], digit, to);
            self.dword(value as u32);
        }
    }

    /// `shr to, count` (digit 5) or `shl` (digit 4), `sar` (digit 7).
    pub(crate) fn shift(&mut self, wide: bool, digit: u8, to: u8, count: u8) {
        self.rr(wide, &[0xc1], digit, to);
        self.code.push(count);
    }

    /// `cmp dword [rsp + offset], 0` as one instruction of five bytes, or more.
    pub(crate) fn poll(&mut self, offset: usize) {
        self.code.push(0x83);
        self.mem(7, frame(offset), true);
        self.code.push(0);
    }

    /// `mov byte [mem], value`.
    pub(crate) fn store8_imm(&mut self, mem: Mem, value: u8) {
        self.rm(false, &[0xc6], 0, mem);
        self.code.push(value);
    }

    /// `cmp byte [base], value`.
    pub(crate) fn cmp_byte(&mut self, base: u8, value: u8) {
        self.rm(false, &[0x80], 7, Mem::at(base, 0));
        self.code.push(value);
    }

    /// `cmp byte [mem], value`.
    pub(crate) fn cmp_byte_at(&mut self, mem: Mem, value: u8) {
        self.rm(false, &[0x80], 7, mem);
        self.code.push(value);
    }

    /// `jcc` over a distance that is filled in later.
    pub(crate) fn jcc(&mut self, condition: u8) -> Hole {
        self.bytes(&[0x0f, 0x80 | condition, 0, 0, 0, 0]);
        Hole(self.code.len() - 4)
    }

    /// `jmp` over a distance that is filled in later.
    pub(crate) fn jmp(&mut self) -> Hole {
        self.bytes(&[0xe9, 0, 0, 0, 0]);
        Hole(self.code.len() - 4)
    }

    /// `call` to a place in the code cache.
    pub(crate) fn call_to(&mut self, target: u32) {
        self.bytes(&[0xe8, 0, 0, 0, 0]);
        let hole = Hole(self.code.len() - 4);
        self.fill(hole, target);
    }

    /// `jmp` to a place in the code cache.
    pub(crate) fn jmp_to(&mut self, target: u32) {
        let hole = self.jmp();
        self.fill(hole, target);
    }

    /// Lets the distance in `hole` lead to a place in the code cache.
    pub(crate) fn fill(&mut self, hole: Hole, target: u32) {
        let after = self.offset(hole.0) + 4;
        self.code[hole.0..hole.0 + 4].copy_from_slice(&target.wrapping_sub(after).to_le_bytes());
    }

    /// Lets the distance in `hole` lead here.
    pub(crate) fn land(&mut self, hole: Hole) {
        self.fill(hole, self.here());
    }

    /// Offset in the code cache of a hole's four bytes.
    #[must_use]
    pub(crate) fn place(&self, hole: Hole) -> u32 {
        self.offset(hole.0)
    }

    /// Fills up with NOPs until `(here + ahead)` is a multiple of `unit`, a power of two up to 16.
    pub(crate) fn align(&mut self, unit: u32, ahead: u32) {
        let mut missing = ((self.here() + ahead).wrapping_neg() & (unit - 1)) as usize;
        while missing > 0 {
            let part = missing.min(8);
            self.nop(part);
            missing -= part;
        }
    }

    /// Fills up with NOPs, if need be, so that the `count` bytes that come after `ahead` others lie in
    /// one aligned cell of eight.
    pub(crate) fn within_eight(&mut self, ahead: u32, count: u32) {
        if (self.here() + ahead) % 8 + count > 8 {
            self.align(8, ahead);
        }
    }

    /// One instruction of so many bytes, at most 8, that does nothing.
    pub(crate) fn nop(&mut self, bytes: usize) {
        /// The recommended multi-byte NOPs (SDM 2B, NOP).
        const NOPS: [&[u8]; 9] = [
            &[],
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
            &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        ];
        self.bytes(NOPS[bytes]);
    }

    /// `jrcxz` over the next five bytes, then a `jmp`: a jump that is taken when RCX is not zero and
    /// leaves the flags alone.
    pub(crate) fn jmp_unless_rcx_zero(&mut self) -> Hole {
        self.bytes(&[0xe3, 5]);
        self.jmp()
    }

    /// Keeps the status flags in AX: OF in AL, the rest in AH.
    pub(crate) fn flags_to_ax(&mut self) {
        self.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
    }

    /// Brings the status flags back from AX.
    pub(crate) fn flags_from_ax(&mut self) {
        self.bytes(&[0x04, 0x7f, 0x9e]);
    }
}
