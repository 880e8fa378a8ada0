//! What cannot be asked of the host: faults.

use super::*;

// Encodings: XMM0 with XMM1, or with memory at RDI.
const ADDPS: &[u8] = &[0x0f, 0x58, 0xc1];
const DIVPS: &[u8] = &[0x0f, 0x5e, 0xc1];
const ADDPS_MEMORY: &[u8] = &[0x0f, 0x58, 0x07];
const MOVUPS_MEMORY: &[u8] = &[0x0f, 0x10, 0x07];
const ADDSS_MEMORY: &[u8] = &[0xf3, 0x0f, 0x58, 0x07];
const MOVAPS_STORE: &[u8] = &[0x0f, 0x29, 0x07];
const MOVNTI: &[u8] = &[0x0f, 0xc3, 0x07];

fn run(cpu: &mut Cpu, bytes: &[u8]) -> Done {
    let op = decode(bytes);
    (op.exec)(cpu, &op)
}

fn vector(lanes: [f32; 4]) -> u128 {
    crate::sse::lanes::join(lanes.map(f32::to_bits))
}

#[test]
fn sse_must_be_on() {
    let mut cpu = processor().cpu;
    for (cr0, cr4, expected) in [
        (cr0::EM, cr4::OSFXSR, Some(Fault::UD)),
        (cr0::TS, cr4::OSFXSR, Some(Fault::NM)),
        (cr0::EM | cr0::TS, cr4::OSFXSR, Some(Fault::UD)),
        (0, 0, Some(Fault::UD)),
        (cr0::TS, 0, Some(Fault::UD)),
        (0, cr4::OSFXSR, None),
    ] {
        cpu.control.cr0 = cr0 | cr0::PE;
        cpu.control.cr4 = cr4;
        cpu.regs[gpr::RDI] = DATA;
        for bytes in [ADDPS, MOVUPS_MEMORY, MOVAPS_STORE] {
            assert_eq!(run(&mut cpu, bytes).err(), expected, "{cr0:x} {cr4:x}");
        }
        assert_eq!(run(&mut cpu, MOVNTI), Ok(()));
    }
}

#[test]
fn vectors_in_memory_must_be_aligned() {
    let mut cpu = processor().cpu;
    cpu.regs[gpr::RDI] = DATA + 8;
    assert_eq!(run(&mut cpu, ADDPS_MEMORY), Err(Fault::GP0));
    assert_eq!(run(&mut cpu, MOVAPS_STORE), Err(Fault::GP0));
    assert_eq!(run(&mut cpu, MOVUPS_MEMORY), Ok(()));
    assert_eq!(run(&mut cpu, ADDSS_MEMORY), Ok(()));
}

#[test]
fn unmasked_exceptions_leave_the_destination() {
    let mut cpu = processor().cpu;
    let a = vector([1.0, f32::MAX, 3.0, 1.0]);
    cpu.fpu.xmm[0] = a;
    cpu.fpu.xmm[1] = vector([1.0, f32::MAX, 5.0, 1e-20]);
    // All unmasked: the sum overflows and is inexact.
    cpu.fpu.mxcsr = 0;
    assert_eq!(run(&mut cpu, ADDPS), Err(Fault::XM));
    assert_eq!(cpu.fpu.xmm[0], a);
    assert_eq!(cpu.fpu.mxcsr & 0x0f, 0x08, "OE and nothing of before");
    cpu.control.cr4 &= !cr4::OSXMMEXCPT;
    assert_eq!(run(&mut cpu, ADDPS), Err(Fault::UD));
    // Masked: it goes through.
    cpu.fpu.mxcsr = 0x1f80;
    assert_eq!(run(&mut cpu, ADDPS), Ok(()));
    assert_eq!(cpu.fpu.mxcsr, 0x1fa8);
    assert_ne!(cpu.fpu.xmm[0], a);
}

#[test]
fn exceptions_before_computing_come_first() {
    let mut cpu = processor().cpu;
    // Lane 0 is inexact, lane 1 divides by zero.
    cpu.fpu.xmm[0] = vector([1.0, 1.0, 1.0, 1.0]);
    cpu.fpu.xmm[1] = vector([3.0, 0.0, 1.0, 1.0]);
    cpu.fpu.mxcsr = 0x1f80 & !0x200;
    assert_eq!(run(&mut cpu, DIVPS), Err(Fault::XM));
    assert_eq!(cpu.fpu.mxcsr & 0x3f, 0x04, "ZE alone");
    // With only PE unmasked, both are reported.
    cpu.fpu.mxcsr = 0x1f80 & !0x1000;
    assert_eq!(run(&mut cpu, DIVPS), Err(Fault::XM));
    assert_eq!(cpu.fpu.mxcsr & 0x3f, 0x24);
}

#[test]
fn a_masked_store_checks_all_pages_first() {
    let mut cpu = processor().cpu;
    // Bytes 0 and 15 across the end of a page; both are RAM here, so both are written.
    cpu.fpu.xmm[0] = u128::from_le_bytes([7; 16]);
    cpu.fpu.xmm[1] = 0x80 | 0x80 << 120;
    cpu.regs[gpr::RDI] = 0x2ff8;
    assert_eq!(run(&mut cpu, &[0x66, 0x0f, 0xf7, 0xc1]), Ok(()));
    let mut bytes = [0; 16];
    cpu.memory.read(Gpa(0x2ff8), &mut bytes).expect("in RAM");
    assert_eq!(bytes, [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
}

/// No XMM instruction of the processor's model is forgotten.
#[test]
fn all_are_there() {
    use iced_x86::{Code, CpuidFeature as F, EncodingKind, Instruction};
    let mut count = 0;
    for code in Code::values() {
        let name = format!("{code:?}");
        let features = code.cpuid_features();
        let ours = features.iter().all(|feature| {
            matches!(
                feature,
                F::SSE | F::SSE2 | F::SSE3 | F::SSSE3 | F::SSE4_1 | F::SSE4_2 | F::X64
            )
        });
        let mmx = name.contains("_mm_") || name.contains("mmm64") && !name.contains("xmmm64");
        let mmx = mmx || name.ends_with("_mm");
        if !name.contains("xmm") || mmx || !ours || code.encoding() != EncodingKind::Legacy {
            continue;
        }
        let mut instruction = Instruction::default();
        instruction.set_code(code);
        let mut op = decode(ADDPS);
        let register = crate::sse::select(&instruction, &mut op);
        op.prefix |= Op::MEM;
        let memory = crate::sse::select(&instruction, &mut op);
        assert!(register.is_some() || memory.is_some(), "{name}");
        assert!(register.is_some() || name.contains("_m64") || name.contains("_m128"), "{name}");
        count += 1;
    }
    assert!(count >= 270, "{count}");
}
