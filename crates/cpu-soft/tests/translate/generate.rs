//! Random programs: loops, calls, jumps of every kind, stores into their own code, flags that are
//! made here and used there, and instructions of all kinds between them.

use std::sync::LazyLock;

use iced_x86::{
    Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register, RflagsBits,
};
use riad_cpu::x86::{cr0, rflags};

use crate::instruction::{INDEX, Maker, POINTERS, ROUNDS};
use crate::kinds::{ALL, COMMON};
use crate::layout::{ALIAS, CODE, DATA, DATA_AT, Image, STACK_AT, state};
use crate::program::{Item, Program};
use crate::random::Random;
use crate::side::Start;

/// A program, and what it runs from. The code is not yet in memory.
pub(crate) struct Case {
    pub(crate) program: Program,
    pub(crate) start: Start,
}

impl Case {
    /// The start, with this program in memory.
    pub(crate) fn with(&self, program: &Program) -> Start {
        let mut image = Image(self.start.memory.clone());
        image.code(&program.assemble());
        Start { state: self.start.state.clone(), memory: image.0 }
    }
}

/// Jcc, with one byte of distance and with four.
const CONDITIONS: [(Code, Code); 16] = [
    (Code::Jo_rel8_64, Code::Jo_rel32_64),
    (Code::Jno_rel8_64, Code::Jno_rel32_64),
    (Code::Jb_rel8_64, Code::Jb_rel32_64),
    (Code::Jae_rel8_64, Code::Jae_rel32_64),
    (Code::Je_rel8_64, Code::Je_rel32_64),
    (Code::Jne_rel8_64, Code::Jne_rel32_64),
    (Code::Jbe_rel8_64, Code::Jbe_rel32_64),
    (Code::Ja_rel8_64, Code::Ja_rel32_64),
    (Code::Js_rel8_64, Code::Js_rel32_64),
    (Code::Jns_rel8_64, Code::Jns_rel32_64),
    (Code::Jp_rel8_64, Code::Jp_rel32_64),
    (Code::Jnp_rel8_64, Code::Jnp_rel32_64),
    (Code::Jl_rel8_64, Code::Jl_rel32_64),
    (Code::Jge_rel8_64, Code::Jge_rel32_64),
    (Code::Jle_rel8_64, Code::Jle_rel32_64),
    (Code::Jg_rel8_64, Code::Jg_rel32_64),
];

/// Whether the host's undefined flags are those that the interpreter gives, where an instruction
/// runs as it is.
static SAME_UNDEFINED: LazyLock<bool> = LazyLock::new(|| {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("GenuineIntel"))
});

/// One instruction, from its bytes.
pub(crate) fn raw(bytes: &[u8]) -> Item {
    Item::Plain(Decoder::with_ip(64, bytes, CODE, DecoderOptions::NONE).decode())
}

const JUMP: (Code, Option<Code>) = (Code::Jmp_rel8_64, Some(Code::Jmp_rel32_64));

struct Writer<'a> {
    maker: Maker<'a>,
    items: Vec<Item>,
    user: bool,
    changing: bool,
    /// Items that something else should lead to once they are known.
    forward: Vec<usize>,
}

/// A random program and its state.
pub(crate) fn case(random: &mut Random) -> Case {
    let wild = random.once_in(3);
    let changing = random.once_in(5);
    // Code that changes may become HLT, from which nobody would wake level 0.
    let user = changing || !random.once_in(4);
    let mut start = start(random, wild, user, changing);
    let pieces = 3 + random.below(random.clone().pick(&[6, 20, 60]));
    let place = match random.below(4) {
        0 => 0x1000 - random.below(40),
        1 => 0x1000 - random.below(300),
        2 => 0x1000 + random.below(64),
        _ => random.below(0x1000),
    };
    let mut writer = Writer {
        maker: Maker { random, wild },
        items: Vec::new(),
        user,
        changing,
        forward: Vec::new(),
    };
    for _ in 0..pieces {
        writer.piece();
    }
    writer.finish();
    let program = Program { start: CODE + place, items: writer.items };
    start.state.rip = program.start;
    Case { program, start }
}

impl Writer<'_> {
    fn branch(&mut self, (short, near): (Code, Option<Code>), target: usize) {
        self.items.push(Item::Branch(short, near, target));
    }

    /// A branch to somewhere behind, decided at the end.
    fn branch_forward(&mut self, codes: (Code, Option<Code>)) {
        self.forward.push(self.items.len());
        self.branch(codes, 0);
    }

    fn condition(&mut self) -> (Code, Option<Code>) {
        let (short, near) = self.maker.random.pick(&CONDITIONS);
        (short, Some(near))
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.items.push(raw(bytes));
    }

    fn piece(&mut self) {
        match self.maker.random.below(32) {
            0..14 => self.common(),
            14..20 => self.any(),
            20 | 21 => {
                let codes = self.condition();
                self.branch_forward(codes);
            }
            22 => {
                let codes = self.condition();
                let back = self.maker.random.below(self.items.len() as u64 + 1) as usize;
                self.branch(codes, back);
            }
            23 => self.counted(),
            24 | 25 => self.call(),
            26 => self.indirect(),
            27 => {
                if self.maker.random.once_in(4) {
                    let gap = self.maker.random.below(600) as u16;
                    self.items.push(Item::Gap(gap));
                } else {
                    self.branch_forward(JUMP);
                }
            }
            28 => self.divide(),
            29 => self.string(),
            30 if self.changing => self.change(),
            _ => self.system(),
        }
    }

    fn plain(&mut self, from: &[Code]) {
        let code = self.maker.random.pick(from);
        let Some(i) = self.maker.instruction(code) else { return };
        if i.is_string_instruction() {
            self.count_string();
        }
        self.items.push(Item::Plain(i));
        self.use_flags(&i);
    }

    /// Reads what an instruction says of the flags, before somebody reads what it does not say: the
    /// translator makes its own of that where it has to keep or make flags itself.
    fn use_flags(&mut self, i: &Instruction) {
        use Mnemonic as M;
        match i.mnemonic() {
            // ADC R11, R9, or SETB R11B: the carry alone.
            M::Bt | M::Bts | M::Btr | M::Btc if self.maker.random.once_in(2) => {
                self.raw(&[0x4d, 0x11, 0xcb]);
            }
            M::Bt | M::Bts | M::Btr | M::Btc => {
                self.raw(&[0x41, 0x0f, 0x92, 0xc3]);
                self.define_flags();
            }
            // LAHF: all but OF.
            M::Rol | M::Ror | M::Rcl | M::Rcr if !by_one(i) => {
                self.raw(&[0x9f]);
                self.define_flags();
            }
            M::Div | M::Idiv => self.define_flags(),
            _ if *SAME_UNDEFINED => {}
            _ if i.rflags_undefined() & !RflagsBits::AF != 0 => self.define_flags(),
            _ => {}
        }
    }

    /// CMP R8, R9 says what every flag is.
    fn define_flags(&mut self) {
        self.raw(&[0x4d, 0x39, 0xc8]);
    }

    fn common(&mut self) {
        self.plain(&COMMON);
    }

    fn any(&mut self) {
        self.plain(&ALL);
    }

    /// A loop around a few instructions, with a count of its own.
    fn counted(&mut self) {
        let rounds = 1 + self.maker.random.below(12) as u8;
        // MOV R11D, count; or MOV ECX, count.
        let by_rcx = self.maker.random.once_in(3);
        self.raw(if by_rcx { &[0xb9, 1, 0, 0, 0] } else { &[0x41, 0xbb, 1, 0, 0, 0] });
        if let Some(Item::Plain(i)) = self.items.last_mut() {
            i.set_immediate32(rounds.into());
        }
        let head = self.items.len();
        for _ in 0..self.maker.random.below(8) {
            self.common();
        }
        if by_rcx {
            let kind = self.maker.random.pick(&[
                Code::Loop_rel8_64_RCX,
                Code::Loop_rel8_64_RCX,
                Code::Loope_rel8_64_RCX,
                Code::Loopne_rel8_64_RCX,
                Code::Loop_rel8_64_ECX,
            ]);
            self.branch((kind, None), head);
        } else {
            // DEC R11D.
            self.raw(&[0x41, 0xff, 0xcb]);
            self.branch((Code::Jne_rel8_64, Some(Code::Jne_rel32_64)), head);
        }
    }

    /// A call, and the function right behind it, jumped over.
    fn call(&mut self) {
        let body = self.maker.random.below(5) as usize;
        let call = self.items.len();
        match self.maker.random.below(4) {
            0 => {
                self.items.push(Item::Address(Register::RAX, 0, 0));
                self.raw(&[0xff, 0xd0]);
            }
            1 => {
                // Through memory: MOV [RBX], RAX; CALL [RBX].
                self.items.push(Item::Address(Register::RAX, 0, 0));
                self.raw(&[0x48, 0x89, 0x03]);
                self.raw(&[0xff, 0x13]);
            }
            _ => self.branch((Code::Call_rel32_64, Some(Code::Call_rel32_64)), 0),
        }
        for _ in 0..self.maker.random.below(3) {
            self.common();
        }
        let over = self.items.len();
        self.branch(JUMP, 0);
        let function = self.items.len();
        for _ in 0..body {
            self.common();
        }
        if self.maker.random.once_in(6) {
            // RET to where nobody called from, or with bytes of the stack.
            let bytes: &[u8] = if self.maker.wild { &[0x8f, 0x04, 0x24] } else { &[0xc2, 0, 0] };
            self.raw(bytes);
        }
        self.raw(&[0xc3]);
        let end = self.items.len();
        for (n, to) in [(call, function), (over, end)] {
            if let Item::Branch(_, _, target) | Item::Address(_, target, _) = &mut self.items[n] {
                *target = to;
            }
        }
    }

    /// A jump to somewhere behind, by a register, memory, or a return.
    fn indirect(&mut self) {
        self.forward.push(self.items.len());
        self.items.push(Item::Address(Register::RDX, 0, 0));
        match self.maker.random.below(4) {
            0 => self.raw(&[0xff, 0xe2]),
            1 => {
                // MOV [RBP], RDX; JMP [RBP].
                self.raw(&[0x48, 0x89, 0x55, 0]);
                self.raw(&[0xff, 0x65, 0]);
            }
            2 => {
                self.raw(&[0x52]);
                self.raw(&[0xc3]);
            }
            _ => {
                // To the other mapping: RDX plus a distance in R9.
                let distance = Instruction::with2(Code::Mov_r64_imm64, Register::R9, ALIAS - CODE);
                self.items.push(Item::Plain(distance.expect("MOV")));
                self.raw(&[0x4c, 0x01, 0xca]);
                self.raw(&[0xff, 0xe2]);
            }
        }
    }

    /// A division that mostly has a result.
    fn divide(&mut self) {
        let signed = self.maker.random.once_in(2);
        let wide = self.maker.random.once_in(2);
        if !self.maker.random.once_in(8) {
            // OR R10, 1; then RDX by RAX's sign or zero.
            self.raw(&[0x49, 0x83, 0xca, 1]);
            match (signed, wide) {
                (true, true) => self.raw(&[0x48, 0x99]),
                (true, false) => self.raw(&[0x99]),
                _ => self.raw(&[0x31, 0xd2]),
            }
        }
        self.raw(&[if wide { 0x49 } else { 0x41 }, 0xf7, if signed { 0xfa } else { 0xf2 }]);
        self.define_flags();
    }

    /// A small count in RCX, mostly.
    fn count_string(&mut self) {
        if self.maker.wild && self.maker.random.once_in(8) {
            return;
        }
        self.raw(&[0xb9, 1, 0, 0, 0]);
        let count = self.maker.random.below(self.maker.random.clone().pick(&[3, 40, 300]));
        if let Some(Item::Plain(i)) = self.items.last_mut() {
            i.set_immediate32(count as u32);
        }
    }

    /// A string instruction from and to a place of its own.
    fn string(&mut self) {
        for register in [Register::RSI, Register::RDI] {
            let to = self.maker.target();
            let i = Instruction::with2(Code::Mov_r64_imm64, register, to).expect("MOV");
            self.items.push(Item::Plain(i));
        }
        self.count_string();
        let bytes = self.maker.random.pick(&[
            &[0xf3, 0xa4][..],
            &[0xf3, 0x48, 0xa5],
            &[0xf3, 0xaa],
            &[0xf3, 0xab],
            &[0xf3, 0xa6],
            &[0xf2, 0xae],
            &[0xac],
            &[0xa5],
        ]);
        self.raw(bytes);
        if self.maker.random.once_in(8) {
            let direction = 0xfc + self.maker.random.below(2) as u8;
            self.raw(&[direction]);
        }
    }

    /// A store into the program.
    fn change(&mut self) {
        let near = self.items.len() as u64 + self.maker.random.below(6);
        let target =
            if self.maker.random.once_in(2) { near } else { self.maker.random.below(near + 1) };
        self.forward.push(self.items.len());
        let offset = self.maker.random.below(4) as i64;
        let other = self.maker.random.once_in(3) as i64 * (ALIAS - CODE) as i64;
        self.items.push(Item::Address(Register::R8, target as usize, offset + other));
        match self.maker.random.below(4) {
            // MOV [R8], AL; INC BYTE [R8]; MOV [R8], EAX; XOR BYTE [R8], 8.
            0 => self.raw(&[0x41, 0x88, 0x00]),
            1 => self.raw(&[0x41, 0xfe, 0x00]),
            2 => self.raw(&[0x41, 0x89, 0x00]),
            _ => self.raw(&[0x41, 0x80, 0x30, 0x08]),
        }
    }

    /// What systems and their libraries do.
    fn system(&mut self) {
        let user: [&[u8]; 18] = [
            // PUSHFQ and POP; PUSHFQ and POPFQ, which may change flags; LAHF; SAHF.
            &[0x9c],
            &[0x9d],
            &[0x9f],
            &[0x9e],
            &[0x0f, 0xa2],
            // LFENCE.
            &[0x0f, 0xae, 0xe8],
            &[0xf3, 0x90],
            &[0x0f, 0xae, 0xf0],
            // RDFSBASE RAX, RDGSBASE RCX, WRFSBASE RBX.
            &[0xf3, 0x48, 0x0f, 0xae, 0xc0],
            &[0xf3, 0x48, 0x0f, 0xae, 0xc9],
            &[0xf3, 0x48, 0x0f, 0xae, 0xd3],
            // STD, CLD.
            &[0xfd],
            &[0xfc],
            // MOV EAX, GS.
            &[0x8c, 0xe8],
            // FXSAVE64 and FXRSTOR64 at [RBX].
            &[0x48, 0x0f, 0xae, 0x03],
            &[0x48, 0x0f, 0xae, 0x0b],
            // INT3, INT 0x80: the end.
            &[0xcc],
            &[0xcd, 0x80],
        ];
        let kernel: [&[u8]; 6] = [
            // CLI, SWAPGS twice, INVLPG [RBX], MOV CR3, RAX of CR3, WBINVD, CLTS.
            &[0xfa],
            &[0x0f, 0x01, 0xf8],
            &[0x0f, 0x01, 0x3b],
            &[0x0f, 0x20, 0xd8],
            &[0x0f, 0x09],
            &[0x0f, 0x06],
        ];
        let bytes = if !self.user && self.maker.random.once_in(2) {
            self.maker.random.pick(&kernel)
        } else {
            let ends = if self.maker.wild { 18 } else { 14 };
            user[self.maker.random.below(ends) as usize]
        };
        if bytes == [0x9d] {
            // Of our own making: mostly the flags as they are, now and then others.
            self.raw(&[0x9c]);
            if self.maker.random.once_in(4) {
                // XOR DWORD [RSP], status flags, DF, and in wild programs TF or AC.
                let mut bits = self.maker.random.bits() & 0xcd5;
                if self.maker.wild && self.maker.random.once_in(4) {
                    bits |= self.maker.random.pick(&[rflags::TF, rflags::AC, rflags::NT]);
                }
                self.raw(&[0x81, 0x34, 0x24, 1, 0, 0, 0]);
                if let Some(Item::Plain(i)) = self.items.last_mut() {
                    i.set_immediate32(bits as u32);
                }
            }
        }
        self.raw(bytes);
        if bytes == [0x0f, 0x20, 0xd8] {
            self.raw(&[0x0f, 0x22, 0xd8]);
        }
    }

    /// The whole runs again a few times, and branches get their targets.
    fn finish(&mut self) {
        if !self.maker.random.once_in(4) {
            // DEC R15D.
            self.raw(&[0x41, 0xff, 0xcf]);
            self.branch((Code::Jg_rel8_64, Some(Code::Jg_rel32_64)), 0);
        }
        let end = self.items.len();
        for n in std::mem::take(&mut self.forward) {
            let far = self.maker.random.pick(&[2, 6, 20]);
            let ahead = 1 + self.maker.random.below(far) as usize;
            match &mut self.items[n] {
                Item::Branch(_, _, target) => *target = (n + ahead).min(end),
                Item::Address(Register::R8, target, _) => *target = (*target).min(end),
                Item::Address(_, target, _) => *target = (n + 2 + ahead).min(end),
                _ => {}
            }
        }
    }
}

/// Whether it shifts by a constant of one.
fn by_one(i: &Instruction) -> bool {
    i.op1_kind() == OpKind::Immediate8 && i.immediate8() == 1
}

fn start(random: &mut Random, wild: bool, user: bool, changing: bool) -> Start {
    let mut image = Image::new(changing);
    for page in DATA_AT.into_iter().chain(STACK_AT) {
        let mut bytes = [0; 0x1000];
        if random.once_in(2) {
            for cell in bytes.chunks_mut(8) {
                cell.copy_from_slice(&random.data().to_le_bytes());
            }
        } else {
            random.fill(&mut bytes);
        }
        image.put(page, &bytes);
    }
    let mut state = state(user, 0);
    for value in &mut state.gpr {
        *value = random.integer();
    }
    for value in &mut state.fpu.xmm {
        *value = random.vector();
    }
    for register in &mut state.fpu.registers {
        register.significand = random.data() | 1 << 63;
        register.sign_exponent = 0x3ff0 + random.below(32) as u16;
    }
    state.fpu.ftw = if random.once_in(2) { 0xff } else { random.bits() as u8 };
    state.fpu.fcw = 0x37f;
    state.fpu.mxcsr = 0x1f80 | (random.below(4) as u32) << 13;
    if wild && random.once_in(8) {
        state.fpu.mxcsr = random.bits() as u32 & 0xffff;
    }
    for register in POINTERS {
        state.gpr[register.number()] = Maker { random, wild }.target();
    }
    state.gpr[INDEX.number()] = random.below(32);
    state.gpr[ROUNDS.number()] = random.below(60);
    state.gpr[4] = crate::layout::STACK + 0x800 + random.below(0xe0) * 8;
    if wild && random.once_in(8) {
        state.gpr[4] = random.pick(&[DATA + 0x1003, crate::layout::STACK + 24, DATA + 0x2100]);
    }
    state.rflags |= random.bits() & rflags::STATUS;
    if random.once_in(8) {
        state.rflags |= rflags::DF;
    }
    if wild && random.once_in(8) {
        state.rflags |= rflags::AC;
        state.control.cr0 |= cr0::AM;
    }
    if wild && random.once_in(24) {
        state.control.cr0 |= cr0::TS;
    }
    if wild && random.once_in(24) {
        state.rflags |= rflags::TF;
    }
    if wild && random.once_in(24) {
        // A breakpoint on data: to write, or to read and write, of 1 to 8 bytes.
        let kind = random.pick(&[1, 3]) | random.below(4) << 2;
        state.debug.address[0] = state.gpr[3] & !7;
        state.debug.dr7 = 0x402 | kind << 16;
    }
    Start { state, memory: image.0 }
}
