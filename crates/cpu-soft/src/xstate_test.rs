//! FXSAVE, XSAVE and their kind: layouts, partial saves, and what they refuse.

use riad_cpu::x86::{F80, Fpu, cr0, cr4};
use riad_memory::Gpa;

use crate::fault::Fault;
use crate::x87::x87_test::Bench;

/// The memory operand [2000h].
const AT: [u8; 4] = [0, 0x20, 0, 0];
const AREA: u64 = 0x2000;

fn encode(opcode: &[u8], extension: u8) -> Vec<u8> {
    [opcode, &[extension << 3 | 5], &AT].concat()
}

fn fxsave() -> Vec<u8> {
    encode(&[0x0f, 0xae], 0)
}

fn fxrstor() -> Vec<u8> {
    encode(&[0x0f, 0xae], 1)
}

fn xsave() -> Vec<u8> {
    encode(&[0x0f, 0xae], 4)
}

fn xrstor() -> Vec<u8> {
    encode(&[0x0f, 0xae], 5)
}

fn xsaveopt() -> Vec<u8> {
    encode(&[0x0f, 0xae], 6)
}

/// A processor whose x87 and SSE state is recognisable, all of it.
fn busy() -> Bench {
    let mut bench = Bench::protected();
    let cpu = &mut bench.vcpu.cpu;
    cpu.control.xcr0 = 3;
    cpu.fpu = Fpu {
        fcw: 0x27f,
        fsw: 0x2841,
        ftw: 0xe1,
        fop: 0x123,
        fip: 0x1111_2222,
        fdp: 0x3333_4444,
        mxcsr: 0x1fa0,
        registers: std::array::from_fn(|i| F80 {
            significand: 0x8000_0000_0000_0000 + i as u64,
            sign_exponent: 0x4000 + i as u16,
        }),
        xmm: std::array::from_fn(|i| if i < 8 { u128::MAX - i as u128 } else { 0 }),
        ..Fpu::default()
    };
    bench.memory.write(Gpa(AREA), &[0xaa; 576]).expect("memory");
    bench
}

/// An empty XSAVE header.
fn clear_header(bench: &Bench) {
    bench.memory.write(Gpa(AREA + 512), &[0; 64]).expect("memory");
}

fn ask(bench: &mut Bench, components: u64) {
    bench.vcpu.cpu.regs[0] = components;
    bench.vcpu.cpu.regs[2] = 0;
}

#[test]
fn fxsave_and_fxrstor_are_inverse() {
    let mut bench = busy();
    let before = bench.vcpu.cpu.fpu.clone();
    bench.all(&[&fxsave()]);
    assert_eq!(bench.words::<2>(AREA), [0x2841_027f, 0x0123_00e1]);
    assert_eq!(bench.words::<6>(AREA + 8), [0x1111_2222, 0, 0x3333_4444, 0, 0x1fa0, 0xffff]);
    // TOP is 5: ST0 is register 5.
    assert_eq!(bench.words::<4>(AREA + 32), [5, 0x8000_0000, 0x4005, 0]);
    assert_eq!(bench.bytes::<16>(AREA + 160), u128::MAX.to_le_bytes());
    // XMM8 and on are not reached outside 64-bit mode.
    assert_eq!(bench.bytes::<16>(AREA + 288), [0xaa; 16]);
    bench.vcpu.cpu.fpu = Fpu::default();
    bench.all(&[&fxrstor()]);
    assert_eq!(bench.vcpu.cpu.fpu, before);
}

#[test]
fn fxsave_without_osfxsr_leaves_sse_out() {
    let mut bench = busy();
    bench.vcpu.cpu.control.cr4 = 0;
    bench.all(&[&fxsave()]);
    assert_eq!(bench.words::<2>(AREA + 24), [0xaaaa_aaaa; 2]);
    assert_eq!(bench.bytes::<16>(AREA + 160), [0xaa; 16]);
}

#[test]
fn xsave_and_xrstor_are_inverse() {
    let mut bench = busy();
    clear_header(&bench);
    let before = bench.vcpu.cpu.fpu.clone();
    ask(&mut bench, 7);
    bench.all(&[&xsave()]);
    assert_eq!(bench.words::<4>(AREA + 512), [3, 0, 0, 0]);
    bench.vcpu.cpu.fpu = Fpu::default();
    bench.all(&[&xrstor()]);
    assert_eq!(bench.vcpu.cpu.fpu, before);
}

#[test]
fn xsave_writes_only_what_it_is_asked_for() {
    let mut bench = busy();
    clear_header(&bench);
    bench.memory.write(Gpa(AREA + 512), &[3]).expect("memory");
    ask(&mut bench, 2);
    bench.all(&[&xsave()]);
    assert_eq!(bench.bytes::<24>(AREA), [0xaa; 24]);
    assert_eq!(bench.words::<2>(AREA + 24), [0x1fa0, 0xffff]);
    assert_eq!(bench.bytes::<128>(AREA + 32), [0xaa; 128]);
    assert_eq!(bench.bytes::<16>(AREA + 160), u128::MAX.to_le_bytes());
    assert_eq!(bench.words::<1>(AREA + 512), [3], "the other bit stays");
}

#[test]
fn xsaveopt_leaves_out_what_is_initial() {
    let mut bench = busy();
    clear_header(&bench);
    let mxcsr = 0x1f80;
    bench.vcpu.cpu.fpu = Fpu { mxcsr, ..Fpu::default() };
    ask(&mut bench, 3);
    bench.all(&[&xsaveopt()]);
    assert_eq!(bench.words::<2>(AREA + 512), [0, 0]);
    assert_eq!(bench.bytes::<24>(AREA), [0xaa; 24]);
    assert_eq!(bench.words::<1>(AREA + 24), [mxcsr]);
    assert_eq!(bench.bytes::<16>(AREA + 160), [0xaa; 16]);
}

#[test]
fn xrstor_initializes_what_is_not_there_but_takes_mxcsr() {
    let mut bench = busy();
    clear_header(&bench);
    bench.memory.write(Gpa(AREA + 24), &0x1fbfu32.to_le_bytes()).expect("memory");
    ask(&mut bench, 3);
    bench.all(&[&xrstor()]);
    assert_eq!(bench.vcpu.cpu.fpu, Fpu { mxcsr: 0x1fbf, ..Fpu::default() });
}

#[test]
fn xrstor_refuses_bad_headers_and_mxcsr() {
    for (at, value) in [(512, 4), (519, 0x80), (520, 1), (527, 0x80), (535, 1), (26, 1)] {
        let mut bench = busy();
        clear_header(&bench);
        bench.memory.write(Gpa(AREA + 24), &0x1f80u32.to_le_bytes()).expect("memory");
        bench.memory.write(Gpa(AREA + at), &[value]).expect("memory");
        let before = bench.vcpu.cpu.fpu.clone();
        ask(&mut bench, 3);
        assert_eq!(bench.run(&xrstor()), Err(Fault::GP0), "byte {at}");
        assert_eq!(bench.vcpu.cpu.fpu, before);
    }
}

#[test]
fn areas_must_be_aligned() {
    let mut bench = busy();
    ask(&mut bench, 3);
    for (mut bytes, off) in [(fxsave(), 8), (fxrstor(), 8), (xsave(), 16), (xrstor(), 32)] {
        bytes[3] = off;
        assert_eq!(bench.run(&bytes), Err(Fault::GP0));
    }
}

#[test]
fn enabling_bits_are_honoured() {
    let mut bench = busy();
    bench.vcpu.cpu.control.cr4 = cr4::OSFXSR;
    for bytes in [xsave(), xrstor(), xsaveopt(), vec![0x0f, 0x01, 0xd0], vec![0x0f, 0x01, 0xd1]] {
        assert_eq!(bench.run(&bytes), Err(Fault::UD), "{bytes:x?}");
    }
    bench.vcpu.cpu.control.cr4 |= cr4::OSXSAVE;
    bench.vcpu.cpu.control.cr0 |= cr0::TS;
    let stmxcsr = encode(&[0x0f, 0xae], 3);
    for bytes in [fxsave(), fxrstor(), xsave(), xrstor(), stmxcsr.clone()] {
        assert_eq!(bench.run(&bytes), Err(Fault::NM), "{bytes:x?}");
    }
    bench.vcpu.cpu.control.cr4 = 0;
    assert_eq!(bench.run(&stmxcsr), Err(Fault::UD));
}

#[test]
fn mxcsr_has_sixteen_bits() {
    let mut bench = busy();
    let ldmxcsr = encode(&[0x0f, 0xae], 2);
    bench.memory.write(Gpa(AREA), &0x1_1f80u32.to_le_bytes()).expect("memory");
    assert_eq!(bench.run(&ldmxcsr), Err(Fault::GP0));
    bench.memory.write(Gpa(AREA), &0xffffu32.to_le_bytes()).expect("memory");
    bench.all(&[&ldmxcsr]);
    assert_eq!(bench.vcpu.cpu.fpu.mxcsr, 0xffff);
}

#[test]
fn xcr0_takes_what_the_model_has() {
    let mut bench = busy();
    let (xgetbv, xsetbv) = ([0x0f, 0x01, 0xd0], [0x0f, 0x01, 0xd1]);
    bench.vcpu.cpu.regs[1] = 0;
    for (value, cpl, expected) in [
        (3, 0, Ok(())),
        (1, 0, Ok(())),
        (2, 0, Err(Fault::GP0)),
        (7, 0, Err(Fault::GP0)),
        (3, 3, Err(Fault::GP0)),
    ] {
        ask(&mut bench, value);
        bench.vcpu.cpu.cpl = cpl;
        assert_eq!(bench.run(&xsetbv), expected, "{value} at CPL {cpl}");
    }
    bench.vcpu.cpu.cpl = 0;
    bench.all(&[&xgetbv]);
    assert_eq!(bench.vcpu.cpu.edx_eax(), 1);
    bench.vcpu.cpu.regs[1] = 1;
    assert_eq!(bench.run(&xgetbv), Err(Fault::GP0));
}
