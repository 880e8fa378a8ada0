//! What the oracle cannot see from user mode: #NM and #MF, the four environment layouts, pointers.

use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions};
use riad_clock::ManualClock;
use riad_cpu::x86::{Segment, cr0, cr4};
use riad_cpu::{Nowhere, VcpuConfig};
use riad_memory::{Gpa, GuestMemory};

use super::stack::Stack;
use crate::cpu::Mode;
use crate::fault::{Done, Fault};
use crate::lower::lower;
use crate::softfloat::F80;
use crate::{SoftEngine, SoftVcpu};

/// A processor without paging, and one page of memory to work on.
pub(crate) struct Bench {
    pub(crate) vcpu: SoftVcpu,
    pub(crate) memory: GuestMemory,
}

/// Where instructions are put.
const CODE: u64 = 0x8000;

impl Bench {
    /// In flat 32-bit protected mode, everything enabled.
    pub(crate) fn protected() -> Bench {
        let mut bench = Bench::real();
        let cpu = &mut bench.vcpu.cpu;
        cpu.control.cr0 = cr0::PE | cr0::ET | cr0::NE | cr0::MP;
        cpu.control.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
        let data = Segment { selector: 0x10, base: 0, limit: u32::MAX, rights: 0xc093 };
        cpu.segs = [data; 6];
        cpu.segs[1] = Segment { selector: 8, rights: 0xc09b, ..data };
        cpu.update_mode();
        assert_eq!(cpu.mode, Mode::Protected32);
        bench
    }

    /// In real mode.
    pub(crate) fn real() -> Bench {
        let memory = GuestMemory::new(&[(Gpa(0), 1 << 20)]).expect("1 MiB of memory");
        let clock = Arc::new(ManualClock::new(0));
        let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
        let mut vcpu = SoftEngine::new(memory.clone(), clock, config).vcpu(0, Arc::new(Nowhere));
        let cpu = &mut vcpu.cpu;
        cpu.segs = [Segment { selector: 0, base: 0, limit: 0xffff, rights: 0x93 }; 6];
        cpu.fpu = riad_cpu::x86::Fpu::default();
        cpu.control.cr0 = cr0::ET | cr0::NE;
        cpu.update_mode();
        assert_eq!(cpu.mode, Mode::Real);
        Bench { vcpu, memory }
    }

    /// Runs one instruction.
    pub(crate) fn run(&mut self, bytes: &[u8]) -> Done {
        self.memory.write(Gpa(CODE), bytes).expect("code");
        let cpu = &mut self.vcpu.cpu;
        let bitness = cpu.mode.bitness();
        let instruction = Decoder::with_ip(bitness, bytes, CODE, DecoderOptions::NONE).decode();
        assert_eq!(instruction.len(), bytes.len(), "one instruction");
        let op = lower(&instruction, cpu.mode);
        cpu.this_rip = CODE;
        cpu.set_rip(CODE + bytes.len() as u64);
        (op.exec)(cpu, &op)
    }

    /// Runs instructions that do not fault.
    pub(crate) fn all(&mut self, instructions: &[&[u8]]) {
        for bytes in instructions {
            assert_eq!(self.run(bytes), Ok(()), "{bytes:x?}");
        }
    }

    pub(crate) fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read(Gpa(at), &mut bytes).expect("memory");
        bytes
    }

    pub(crate) fn words<const N: usize>(&self, at: u64) -> [u32; N] {
        std::array::from_fn(|i| u32::from_le_bytes(self.bytes(at + 4 * i as u64)))
    }
}

const FLD1: &[u8] = &[0xd9, 0xe8];
const FLDZ: &[u8] = &[0xd9, 0xee];
const FDIVP: &[u8] = &[0xde, 0xf9];
const FNOP: &[u8] = &[0xd9, 0xd0];
const FNCLEX: &[u8] = &[0xdb, 0xe2];
const FNSTSW_AX: &[u8] = &[0xdf, 0xe0];
const WAIT: &[u8] = &[0x9b];
/// FLDCW [1000h], with a 32-bit address.
const FLDCW: &[u8] = &[0xd9, 0x2d, 0x00, 0x10, 0x00, 0x00];
/// PXOR mm0, mm0
const PXOR: &[u8] = &[0x0f, 0xef, 0xc0];

/// Zero-divide unmasked, and one divided by zero.
fn divided() -> Bench {
    let mut bench = Bench::protected();
    bench.memory.write(Gpa(0x1000), &0x37bu16.to_le_bytes()).expect("memory");
    bench.all(&[FLDCW, FLD1, FLDZ, FDIVP]);
    bench
}

#[test]
fn an_unmasked_exception_is_raised_by_the_next_waiting_instruction() {
    for waiting in [FNOP, WAIT, FLD1, PXOR, FLDCW] {
        let mut bench = divided();
        let before = bench.vcpu.cpu.fpu.clone();
        assert_eq!(before.fsw & 0x8084, 0x8084, "ZE, ES and B");
        assert_eq!(bench.run(waiting), Err(Fault::MF), "{waiting:x?}");
        assert_eq!(bench.vcpu.cpu.fpu, before);
        bench.all(&[FNSTSW_AX, FNCLEX, waiting]);
    }
}

#[test]
fn a_faulting_division_leaves_its_operands_and_its_address() {
    let bench = divided();
    let fpu = &bench.vcpu.cpu.fpu;
    assert_eq!(fpu.st(0), Some(F80::default()), "not popped");
    assert_eq!(fpu.st(1), Some(F80::ONE));
    assert_eq!((fpu.fip, fpu.fop), (CODE, 0x6f9));
}

#[test]
fn loading_the_control_word_lets_the_summary_follow() {
    let mut bench = Bench::protected();
    bench.all(&[FLD1, FLDZ, FDIVP]);
    assert_eq!(bench.vcpu.cpu.fpu.fsw & 0x8084, 0x0004, "masked: nothing pending");
    bench.memory.write(Gpa(0x1000), &0xffc0u16.to_le_bytes()).expect("memory");
    bench.all(&[FLDCW]);
    assert_eq!(bench.vcpu.cpu.fpu.fcw, 0x1f40);
    assert_eq!(bench.vcpu.cpu.fpu.fsw & 0x8084, 0x8084);
    assert_eq!(bench.run(WAIT), Err(Fault::MF));
}

#[test]
fn task_switched_and_emulation_forbid_the_x87() {
    for (cr0, x87, wait, mmx) in [
        (cr0::TS, Err(Fault::NM), Ok(()), Err(Fault::NM)),
        (cr0::TS | cr0::MP, Err(Fault::NM), Err(Fault::NM), Err(Fault::NM)),
        (cr0::EM, Err(Fault::NM), Ok(()), Err(Fault::UD)),
        (cr0::MP, Ok(()), Ok(()), Ok(())),
    ] {
        let mut bench = Bench::protected();
        bench.vcpu.cpu.control.cr0 = cr0::PE | cr0::ET | cr0::NE | cr0;
        for non_waiting in [FNCLEX, FNSTSW_AX, FLD1, FNOP] {
            assert_eq!(bench.run(non_waiting), x87, "{cr0:#x} {non_waiting:x?}");
        }
        assert_eq!(bench.run(WAIT), wait, "{cr0:#x}");
        assert_eq!(bench.run(PXOR), mmx, "{cr0:#x}");
    }
}

#[test]
fn stack_faults_tell_their_direction() {
    let mut bench = Bench::protected();
    bench.all(&[FDIVP]);
    assert_eq!(bench.vcpu.cpu.fpu.fsw & 0x0241, 0x0041, "underflow: C1 clear");
    let mut bench = Bench::protected();
    bench.all(&[FLD1; 9]);
    assert_eq!(bench.vcpu.cpu.fpu.fsw & 0x0241, 0x0241, "overflow: C1 set");
    assert_eq!(bench.vcpu.cpu.fpu.top(), 7, "pushed all the same");
}

/// FNSTENV [2000h] and FLDENV [2000h], as this mode encodes 32-bit and 16-bit forms.
fn environment(real: bool, wide: bool) -> ([u8; 7], [u8; 7], usize) {
    let prefixes: [u8; 2] = match (real, wide) {
        // Operand and address size, in either order; a segment prefix that changes nothing.
        (true, true) => [0x66, 0x67],
        (true, false) => [0x67, 0x3e],
        (false, true) => [0x3e, 0x3e],
        (false, false) => [0x66, 0x3e],
    };
    let form = |modrm| {
        let mut bytes = [0; 7 + 1];
        bytes[..2].copy_from_slice(&prefixes);
        bytes[2..4].copy_from_slice(&[0xd9, modrm]);
        bytes[4..].copy_from_slice(&[0, 0x20, 0, 0]);
        bytes
    };
    let cut = |bytes: [u8; 8]| -> [u8; 7] { std::array::from_fn(|i| bytes[i]) };
    (cut(form(0x35)), cut(form(0x25)), if wide { 28 } else { 14 })
}

#[test]
fn the_environment_has_four_layouts() {
    for real in [false, true] {
        for wide in [false, true] {
            let mut bench = if real { Bench::real() } else { Bench::protected() };
            let (store, load, len) = environment(real, wide);
            let (store, load) = ([&store[..], &[0]].concat(), [&load[..], &[0]].concat());
            bench.all(&[FLD1, FLDZ]);
            let fpu = &mut bench.vcpu.cpu.fpu;
            (fpu.fip, fpu.fdp, fpu.fop) = (0x9_8765, 0x4_3210, 0x5a5);
            let before = fpu.clone();
            bench.memory.write(Gpa(0x2000), &[0xaa; 32]).expect("memory");
            bench.all(&[&store]);
            let image: [u8; 32] = bench.bytes(0x2000);
            let half = |n: usize| u16::from_le_bytes([image[n], image[n + 1]]);
            let word = |n: usize| u32::from(half(n)) | u32::from(half(n + 2)) << 16;
            assert_eq!(image[len..], [0xaa; 32][len..], "nothing beyond");
            if wide {
                let expected = match real {
                    false => [0x9_8765, 0x05a5_0000, 0x4_3210, 0xffff_0000],
                    true => [0xffff_8765, 0x95a5, 0xffff_3210, 0x4000],
                };
                let words: [u32; 7] = std::array::from_fn(|n| word(4 * n));
                assert_eq!(words[..3], [0xffff_037f, 0xffff_3000, 0xffff_1fff], "{real}");
                assert_eq!(words[3..], expected, "{real}");
            } else {
                let expected = match real {
                    false => [0x8765, 0, 0x3210, 0],
                    true => [0x8765, 0x95a5, 0x3210, 0x4000],
                };
                let words: [u16; 7] = std::array::from_fn(|n| half(2 * n));
                assert_eq!(words[..3], [0x037f, 0x3000, 0x1fff], "{real}");
                assert_eq!(words[3..], expected, "{real}");
            }

            bench.all(&[&[0xdb, 0xe3], &load]);
            let after = &bench.vcpu.cpu.fpu;
            assert_eq!((after.fcw, after.fsw, after.ftw), (before.fcw, before.fsw, before.ftw));
            assert_eq!(after.registers, before.registers);
            if wide || real {
                assert_eq!((after.fip, after.fdp), (before.fip, before.fdp));
                assert_eq!(after.fop, if wide || real { before.fop } else { 0 });
            }
        }
    }
}

#[test]
fn storing_the_environment_masks_and_saving_initializes() {
    let mut bench = divided();
    // FNSTENV [2000h]
    bench.all(&[&[0xd9, 0x35, 0, 0x20, 0, 0]]);
    assert_eq!(bench.vcpu.cpu.fpu.fcw, 0x37f);
    assert_eq!(bench.vcpu.cpu.fpu.fsw & 0x8084, 0x0004, "masked now, so not pending");
    assert_eq!(bench.words::<2>(0x2000)[1] & 0x8084, 0x8084, "as it was");

    let mut bench = divided();
    let before = bench.vcpu.cpu.fpu.clone();
    // FNSAVE [2000h], FRSTOR [2000h]
    bench.all(&[&[0xdd, 0x35, 0, 0x20, 0, 0]]);
    assert_eq!((bench.vcpu.cpu.fpu.fcw, bench.vcpu.cpu.fpu.ftw), (0x37f, 0));
    bench.all(&[&[0xdd, 0x25, 0, 0x20, 0, 0]]);
    assert_eq!(bench.vcpu.cpu.fpu, before);
    assert_eq!(bench.run(WAIT), Err(Fault::MF));
}

#[test]
fn a_memory_operand_is_remembered() {
    let mut bench = Bench::protected();
    // FLD m64 [1238h]
    bench.all(&[&[0xdd, 0x05, 0x38, 0x12, 0, 0]]);
    let fpu = &bench.vcpu.cpu.fpu;
    assert_eq!((fpu.fip, fpu.fdp, fpu.fop), (CODE, 0x1238, 0));
}
