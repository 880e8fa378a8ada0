//! What MMX does to the x87: tags, TOP, exponents, and when it is forbidden.

use riad_cpu::x86::{F80, Fpu};

use crate::x87::x87_test::Bench;

/// FLD1
const FLD1: &[u8] = &[0xd9, 0xe8];

/// Two numbers on the stack.
fn bench() -> Bench {
    let mut bench = Bench::protected();
    bench.all(&[FLD1, FLD1]);
    assert_eq!((bench.vcpu.cpu.fpu.fsw, bench.vcpu.cpu.fpu.ftw), (0x3000, 0xc0));
    bench
}

fn tags(fpu: &Fpu) -> (u16, u8) {
    (fpu.fsw, fpu.ftw)
}

#[test]
fn a_write_makes_all_registers_valid_and_its_own_a_nan() {
    let mut bench = bench();
    bench.vcpu.cpu.regs[0] = 0x8765_4321;
    // MOVD mm6, eax
    bench.all(&[&[0x0f, 0x6e, 0xf0]]);
    let fpu = &bench.vcpu.cpu.fpu;
    assert_eq!(tags(fpu), (0, 0xff));
    assert_eq!(fpu.registers[6], F80 { significand: 0x8765_4321, sign_exponent: 0xffff });
    assert_eq!(fpu.registers[7].sign_exponent, 0x3fff, "others keep theirs");
}

#[test]
fn a_read_makes_all_registers_valid() {
    let mut bench = bench();
    // MOVD [2000h], mm7
    bench.all(&[&[0x0f, 0x7e, 0x3d, 0, 0x20, 0, 0]]);
    assert_eq!(tags(&bench.vcpu.cpu.fpu), (0, 0xff));
    assert_eq!(bench.vcpu.cpu.fpu.registers[7].sign_exponent, 0x3fff);
}

#[test]
fn emms_empties_all_registers() {
    let mut bench = bench();
    bench.all(&[&[0x0f, 0x77]]);
    assert_eq!(tags(&bench.vcpu.cpu.fpu), (0, 0));
}

#[test]
fn a_conversion_from_memory_leaves_the_x87_alone() {
    let mut bench = bench();
    // CVTPI2PD xmm0, [2000h]; CVTPI2PS xmm0, [2000h]
    let address = [0x05, 0, 0x20, 0, 0];
    bench.all(&[
        &[&[0x66, 0x0f, 0x2a][..], &address].concat(),
        &[&[0x0f, 0x2a][..], &address].concat(),
    ]);
    assert_eq!(tags(&bench.vcpu.cpu.fpu), (0x3000, 0xc0));
    // CVTPI2PS xmm0, mm0
    bench.all(&[&[0x0f, 0x2a, 0xc0]]);
    assert_eq!(tags(&bench.vcpu.cpu.fpu), (0, 0xff));
}

#[test]
fn a_masked_store_writes_only_the_bytes_asked_for() {
    let mut bench = bench();
    bench.memory.write(riad_memory::Gpa(0x2000), &[0x11; 8]).expect("memory");
    let fpu = &mut bench.vcpu.cpu.fpu;
    fpu.registers[0].significand = 0xa7a6_a5a4_a3a2_a1a0;
    fpu.registers[1].significand = 0x8000_7fff_0080_00ff;
    bench.vcpu.cpu.regs[7] = 0x2000;
    // MASKMOVQ mm0, mm1
    bench.all(&[&[0x0f, 0xf7, 0xc1]]);
    assert_eq!(bench.bytes(0x2000), [0xa0, 0x11, 0xa2, 0x11, 0xa4, 0x11, 0x11, 0xa7]);
}
