//! Machine code that is mostly code: prefixes, opcodes and operands in the places where a processor
//! looks for them (Intel SDM 2A, chapter 2), and the sequences that reach system registers.

use crate::random::Random;

/// Legacy prefixes.
const PREFIXES: [u8; 11] = [0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65];

/// Opcodes that change more than a register, with their escape bytes.
const SYSTEM: [&[u8]; 46] = [
    &[0x0f, 0x00], // LLDT, LTR, SLDT, STR, VERR, VERW
    &[0x0f, 0x01], // LGDT, LIDT, SGDT, SIDT, LMSW, INVLPG, SWAPGS, XGETBV, ...
    &[0x0f, 0x02],
    &[0x0f, 0x03],
    &[0x0f, 0x05], // SYSCALL
    &[0x0f, 0x06],
    &[0x0f, 0x07], // SYSRET
    &[0x0f, 0x09],
    &[0x0f, 0x20], // MOV from and to control and debug registers
    &[0x0f, 0x21],
    &[0x0f, 0x22],
    &[0x0f, 0x23],
    &[0x0f, 0x30],
    &[0x0f, 0x31],
    &[0x0f, 0x32],
    &[0x0f, 0x33],
    &[0x0f, 0x34],
    &[0x0f, 0x35],
    &[0x0f, 0xa1],
    &[0x0f, 0xa2],
    &[0x0f, 0xae], // FXSAVE, XSAVE, LDMXCSR, fences, WRFSBASE
    &[0x0f, 0xb2],
    &[0x0f, 0xc7], // CMPXCHG8B, XRSTORS, RDRAND
    &[0x0f, 0x38, 0x82],
    &[0x07],
    &[0x17],
    &[0x1f],
    &[0x62],
    &[0x6c], // INS, OUTS
    &[0x6e],
    &[0x8e], // MOV to segment registers
    &[0x9a], // far CALL, JMP, RET
    &[0xc4],
    &[0xc8], // ENTER
    &[0xca],
    &[0xcb],
    &[0xcc],
    &[0xcd], // INT
    &[0xce],
    &[0xcf], // IRET
    &[0xe4], // IN, OUT
    &[0xee],
    &[0xea],
    &[0xf4],
    &[0xfb],
    &[0xff],
];

/// MSRs worth writing to: APIC, SYSENTER, PAT, MTRRs, EFER and its neighbours, TSC deadline.
const MSRS: [u32; 20] = [
    0x10,
    0x1b,
    0x3a,
    0x3b,
    0x8b,
    0x174,
    0x175,
    0x176,
    0x1a0,
    0x1d9,
    0x200,
    0x250,
    0x277,
    0x2ff,
    0x6e0,
    0x808,
    0xc000_0080,
    0xc000_0081,
    0xc000_0100,
    0xc000_0103,
];

/// A few instructions' worth of bytes.
pub fn instructions(random: &mut Random, count: usize) -> Vec<u8> {
    let mut code = Vec::new();
    for _ in 0..count {
        match random.below(24) {
            0 => write_msr(&mut code, random),
            1 => write_control(&mut code, random),
            2 => write_apic(&mut code, random),
            3 => load_segment(&mut code, random),
            _ => instruction(&mut code, random),
        }
    }
    code
}

/// One instruction of any kind.
fn instruction(code: &mut Vec<u8>, random: &mut Random) {
    while random.one_in(4) {
        code.extend(random.pick(&PREFIXES));
    }
    if random.one_in(3) {
        code.push(0x40 | random.byte() & 15);
    }
    match random.below(16) {
        0..=2 => code.extend(random.pick(&SYSTEM).copied().unwrap_or_default()),
        3..=8 => code.extend([0x0f, random.byte()]),
        9 => code.extend([0x0f, 0x38, random.byte()]),
        10 => code.extend([0x0f, 0x3a, random.byte()]),
        // x87.
        11 => code.push(0xd8 | random.byte() & 7),
        _ => code.push(random.byte()),
    }
    code.push(random.byte());
    if random.one_in(2) {
        code.push(random.byte());
    }
    match random.below(4) {
        0 => code.push(random.byte()),
        1 => code.extend((random.edge() as u32).to_le_bytes()),
        2 => code.extend((random.below(0x2_0000) as u32).to_le_bytes()),
        _ => {}
    }
}

/// `mov $value, %register`, 32 bits in all but 16-bit code.
fn mov(code: &mut Vec<u8>, register: u8, value: u32) {
    code.push(0xb8 | register);
    code.extend(value.to_le_bytes());
}

fn write_msr(code: &mut Vec<u8>, random: &mut Random) {
    let msr = match random.below(3) {
        0 => 0x800 + random.below(0x40) as u32,
        1 => random.edge() as u32,
        _ => random.pick(&MSRS).copied().unwrap_or_default(),
    };
    mov(code, 1, msr);
    mov(code, 0, random.edge() as u32);
    mov(code, 2, if random.one_in(2) { 0 } else { random.edge() as u32 });
    code.extend([0x0f, if random.one_in(4) { 0x32 } else { 0x30 }]);
}

fn write_control(code: &mut Vec<u8>, random: &mut Random) {
    let register = [0u8, 3, 4, 4, 8, 0][random.below(6)];
    // The bits that exist, and now and then one that does not.
    let mask = match register {
        0 => 0xe005_003f,
        4 => 0x0037_17ff,
        _ => u32::MAX,
    };
    let mut value = random.bits() as u32 & mask;
    if random.one_in(4) {
        value ^= 1 << random.below(32);
    }
    if register == 3 && random.one_in(2) {
        value = 0x5000;
    }
    mov(code, 0, value);
    if register == 8 {
        code.push(0x44);
    }
    code.extend([0x0f, if random.one_in(3) { 0x23 } else { 0x22 }, 0xc0 | (register & 7) << 3]);
}

/// `movl $value, 0xfee00000 + register`.
fn write_apic(code: &mut Vec<u8>, random: &mut Random) {
    mov(code, 3, 0xfee0_0000 | (random.byte() as u32) << 4);
    mov(code, 0, random.edge() as u32);
    code.extend(if random.one_in(3) { [0x8b, 0x03] } else { [0x89, 0x03] });
}

fn load_segment(code: &mut Vec<u8>, random: &mut Random) {
    let selector = (random.below(0x90) as u32) ^ if random.one_in(8) { 0xff00 } else { 0 };
    mov(code, 0, selector);
    match random.below(4) {
        0 => code.extend([0x0f, 0x00, 0xc0 | random.byte() & 0x3f]),
        1 => {
            // push $selector; push $target; far return
            code.extend([0x50, 0x68, 0x00, 0x00, 0x01, 0x00]);
            code.extend(if random.one_in(2) { &[0x48u8, 0xcb][..] } else { &[0xcb][..] });
        }
        _ => code.extend([0x8e, 0xc0 | random.byte() & 0x38]),
    }
}
