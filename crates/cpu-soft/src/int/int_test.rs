//! Known answers where the oracle in `tests/` cannot look: outside of 64-bit mode, and how repeated
//! string instructions stop and go on.

use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions};
use riad_clock::ManualClock;
use riad_cpu::x86::rflags::{AF, CF, DF, ONE, PF, SF, TF, ZF};
use riad_cpu::x86::{Segment, cr0};
use riad_cpu::{Nowhere, VcpuConfig};
use riad_memory::{Gpa, GuestMemory};

use crate::cpu::{Cpu, Mode};
use crate::fault::{Done, Fault};
use crate::flags::Flags;
use crate::lower::lower;
use crate::op::gpr::{RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};
use crate::{SoftEngine, SoftVcpu};

/// A processor without paging, with 64 KiB of RAM, in one of the legacy modes.
fn processor(mode: Mode) -> SoftVcpu {
    let memory = GuestMemory::new(&[(Gpa(0), 0x1_0000)]).unwrap();
    let clock = Arc::new(ManualClock::new(0));
    let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
    let mut vcpu = SoftEngine::new(memory, clock, config).vcpu(0, Arc::new(Nowhere));
    let cpu = &mut vcpu.cpu;
    if mode != Mode::Real {
        cpu.control.cr0 |= cr0::PE;
        let data = Segment { selector: 8, base: 0, limit: u32::MAX, rights: 0xc093 };
        cpu.segs = [data; 6];
        cpu.segs[1].rights = if mode == Mode::Protected32 { 0xc09b } else { 0x809b };
    } else {
        cpu.segs = [Segment::real(0); 6];
    }
    cpu.update_mode();
    assert_eq!(cpu.mode, mode);
    vcpu
}

/// Runs the instruction in `bytes` at 0x100.
fn run(cpu: &mut Cpu, bytes: &[u8]) -> Done {
    let mut decoder = Decoder::with_ip(cpu.mode.bitness(), bytes, 0x100, DecoderOptions::NONE);
    let op = lower(&decoder.decode(), cpu.mode);
    cpu.this_rip = 0x100;
    cpu.set_rip(0x100 + bytes.len() as u64);
    cpu.left = 1;
    (op.exec)(cpu, &op)
}

fn with_flags(cpu: &mut Cpu, flags: u64) {
    cpu.flags = Flags::from_rflags(flags | ONE);
}

#[test]
fn decimal_adjustments_follow_the_manual() {
    let mut vcpu = processor(Mode::Protected32);
    let cpu = &mut vcpu.cpu;
    // (opcode, AX, flags) -> (AX, flags); SDM 2A, examples of DAA, and worked by hand.
    let cases: [(&[u8], u64, u64, u64, u64); 12] = [
        (&[0x27], 0xae, PF | SF, 0x14, CF | PF | AF),
        (&[0x27], 0x2e, 0, 0x34, AF),
        (&[0x27], 0x00, CF, 0x60, CF | PF),
        (&[0x2f], 0xee, SF | CF | AF, 0x88, CF | AF | SF | PF),
        (&[0x2f], 0x03, AF, 0xfd, CF | AF | SF),
        (&[0x37], 0x000b, 0, 0x0101, AF | CF),
        (&[0x37], 0x0004, AF, 0x010a, AF | CF | PF),
        (&[0x3f], 0x020b, 0, 0x0105, AF | CF | PF),
        (&[0x3f], 0x0200, AF, 0x000a, AF | CF | PF),
        (&[0xd4, 10], 0xff4f, 0, 0x0709, PF),
        (&[0xd4, 16], 0x00f0, 0, 0x0f00, PF | ZF),
        (&[0xd5, 10], 0x0709, 0, 0x004f, AF),
    ];
    for (bytes, ax, flags, ax_after, flags_after) in cases {
        cpu.regs[RAX] = 0xdead_0000 | ax;
        with_flags(cpu, flags);
        run(cpu, bytes).unwrap();
        let wanted = 0xdead_0000 | ax_after;
        assert_eq!(cpu.regs[RAX], wanted, "{bytes:x?} of {ax:x}: {:x}", cpu.regs[RAX]);
        let mask =
            if bytes[0] == 0x37 || bytes[0] == 0x3f { AF | CF } else { AF | CF | PF | ZF | SF };
        let got = cpu.flags.rflags() & mask;
        let got = if bytes[0] & 0xfe == 0xd4 { got & (PF | ZF | SF) } else { got };
        let want =
            if bytes[0] & 0xfe == 0xd4 { flags_after & (PF | ZF | SF) } else { flags_after & mask };
        assert_eq!(got, want, "flags of {bytes:x?} of {ax:x}");
    }
    assert_eq!(run(cpu, &[0xd4, 0]), Err(Fault::DE));
}

#[test]
fn salc_and_bound() {
    let mut vcpu = processor(Mode::Protected32);
    let cpu = &mut vcpu.cpu;
    with_flags(cpu, CF);
    run(cpu, &[0xd6]).unwrap();
    assert_eq!(cpu.regs[RAX] & 0xff, 0xff);
    cpu.memory.write(Gpa(0x200), &[0xf0, 0xff, 0xff, 0xff, 0x10, 0, 0, 0]).unwrap();
    // bound eax, [ebx]
    cpu.regs[RBX] = 0x200;
    for (index, fits) in [(0xffff_fff0u64, true), (0x10, true), (0x11, false), (0xffff_ffef, false)]
    {
        cpu.regs[RAX] = index;
        assert_eq!(run(cpu, &[0x62, 0x03]).is_ok(), fits, "{index:x}");
    }
    cpu.regs[RAX] = 0x11;
    assert_eq!(run(cpu, &[0x62, 0x03]), Err(Fault::BR));
}

#[test]
fn pusha_and_popa_keep_the_order_and_skip_sp() {
    let mut vcpu = processor(Mode::Real);
    let cpu = &mut vcpu.cpu;
    for reg in 0..8 {
        cpu.regs[reg] = 0x1111 * (reg as u64 + 1);
    }
    cpu.regs[RSP] = 0xdead_8000;
    run(cpu, &[0x60]).unwrap();
    assert_eq!(cpu.regs[RSP], 0xdead_7ff0);
    let word = |cpu: &Cpu, at: u64| {
        let mut bytes = [0; 2];
        cpu.memory.read(Gpa(at), &mut bytes).unwrap();
        u16::from_le_bytes(bytes)
    };
    assert_eq!(word(cpu, 0x7ffe), 0x1111, "AX is pushed first");
    assert_eq!(word(cpu, 0x7ff6), 0x8000, "SP as it was before");
    assert_eq!(word(cpu, 0x7ff0), 0x8888, "DI last");
    for reg in [RAX, RCX, RDX, RBX, RBP, RSI, RDI] {
        cpu.regs[reg] = 0;
    }
    run(cpu, &[0x61]).unwrap();
    assert_eq!((cpu.regs[RAX], cpu.regs[RDI], cpu.regs[RSP]), (0x1111, 0x8888, 0xdead_8000));
}

#[test]
fn sixteen_bit_branches_wrap_and_respect_the_limit() {
    let mut vcpu = processor(Mode::Real);
    let cpu = &mut vcpu.cpu;
    // jmp short -0x103 does not exist; jmp near to 0x103 - 0x200 wraps to 0xff03.
    run(cpu, &[0xe9, 0x00, 0xfe]).unwrap();
    assert_eq!(cpu.rip(), 0xff03);
    cpu.segs[1].limit = 0x1ff;
    assert_eq!(run(cpu, &[0xe9, 0x00, 0x01]), Err(Fault::GP0));
    assert_eq!(run(cpu, &[0xe9, 0xf0, 0x00]), Ok(()));
}

#[test]
fn a_repetition_stops_between_chunks_and_goes_on() {
    let mut vcpu = processor(Mode::Protected32);
    let cpu = &mut vcpu.cpu;
    cpu.regs[RAX] = 0x5a;
    cpu.regs[RCX] = 0x8000;
    cpu.regs[RDI] = 0x4321;
    let mut times = 0;
    loop {
        // rep stosb
        run(cpu, &[0xf3, 0xaa]).unwrap();
        times += 1;
        assert_eq!(cpu.regs[RCX] + cpu.regs[RDI], 0x8000 + 0x4321, "registers say what is left");
        if cpu.rip() != 0x100 {
            break;
        }
        assert_eq!(cpu.left, 0, "the processor looks at interrupts");
    }
    assert_eq!((times, cpu.regs[RCX], cpu.regs[RDI]), (2, 0, 0xc321));
    let bytes = cpu.memory.read_vec(Gpa(0x4320), 0x8002).unwrap();
    assert!(bytes[1..=0x8000].iter().all(|&byte| byte == 0x5a));
    assert_eq!((bytes[0], bytes[0x8001]), (0, 0));
}

#[test]
fn a_repetition_is_stepped_one_iteration_at_a_time() {
    let mut vcpu = processor(Mode::Protected32);
    let cpu = &mut vcpu.cpu;
    with_flags(cpu, TF);
    (cpu.regs[RCX], cpu.regs[RSI], cpu.regs[RDI]) = (2, 0x1000, 0x2000);
    run(cpu, &[0xf3, 0xa4]).unwrap();
    assert_eq!((cpu.regs[RCX], cpu.rip()), (1, 0x100));
    run(cpu, &[0xf3, 0xa4]).unwrap();
    assert_eq!((cpu.regs[RCX], cpu.rip()), (0, 0x102));
}

#[test]
fn strings_wrap_at_their_address_size() {
    let mut vcpu = processor(Mode::Real);
    let cpu = &mut vcpu.cpu;
    cpu.memory.fill(Gpa(0), 0x1_0000, 0x11).unwrap();
    cpu.regs[RAX] = 0x2222;
    (cpu.regs[RCX], cpu.regs[RDI]) = (4, 0xabcd_fffc);
    run(cpu, &[0xf3, 0xab]).unwrap();
    assert_eq!(cpu.regs[RDI], 0xabcd_0004);
    let bytes = cpu.memory.read_vec(Gpa(0), 8).unwrap();
    assert_eq!(bytes, [0x22, 0x22, 0x22, 0x22, 0x11, 0x11, 0x11, 0x11]);
    // A word at 0xffff is beyond the limit.
    (cpu.regs[RCX], cpu.regs[RDI]) = (4, 0xfffd);
    assert_eq!(run(cpu, &[0xf3, 0xab]), Err(Fault::GP0));
    assert_eq!((cpu.regs[RCX], cpu.regs[RDI]), (3, 0xffff));
    // Downwards.
    with_flags(cpu, DF);
    (cpu.regs[RCX], cpu.regs[RDI]) = (3, 0x0002);
    run(cpu, &[0xf3, 0xab]).unwrap();
    assert_eq!(cpu.regs[RDI], 0xfffc);
}

#[test]
fn an_overlapping_move_repeats_its_pattern() {
    let mut vcpu = processor(Mode::Protected32);
    let cpu = &mut vcpu.cpu;
    cpu.memory.write(Gpa(0x1000), b"abc").unwrap();
    (cpu.regs[RCX], cpu.regs[RSI], cpu.regs[RDI]) = (7, 0x1000, 0x1003);
    run(cpu, &[0xf3, 0xa4]).unwrap();
    assert_eq!(cpu.memory.read_vec(Gpa(0x1000), 10).unwrap(), b"abcabcabca");
    (cpu.regs[RCX], cpu.regs[RSI], cpu.regs[RDI]) = (9, 0x1001, 0x1000);
    run(cpu, &[0xf3, 0xa4]).unwrap();
    assert_eq!(cpu.memory.read_vec(Gpa(0x1000), 10).unwrap(), b"bcabcabcaa");
}

#[test]
fn wide_division_of_the_extremes_faults_and_does_not_panic() {
    let mut vcpu = processor(Mode::Protected32);
    let cpu = &mut vcpu.cpu;
    (cpu.regs[RAX], cpu.regs[RDX], cpu.regs[RBX]) = (0, 0x8000_0000, 0xffff_ffff);
    assert_eq!(run(cpu, &[0xf7, 0xfb]), Err(Fault::DE));
    (cpu.regs[RAX], cpu.regs[RDX]) = (0x8000_0000, 0xffff_ffff);
    assert_eq!(run(cpu, &[0xf7, 0xfb]), Err(Fault::DE));
    (cpu.regs[RAX], cpu.regs[RDX], cpu.regs[RBX]) = (0x8000_0000, 0xffff_ffff, 1);
    assert_eq!(run(cpu, &[0xf7, 0xfb]), Ok(()));
    assert_eq!((cpu.regs[RAX], cpu.regs[RDX]), (0x8000_0000, 0));
}
