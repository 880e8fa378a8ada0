//! The interpreter, in 64-bit user mode, with the window at the same linear address.

use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions};
use riad_clock::ManualClock;
use riad_cpu::x86::{F80, Fpu, Segment, cr0, cr4, efer};
use riad_cpu::{Nowhere, VcpuConfig};
use riad_cpu_soft::cpu::Mode;
use riad_cpu_soft::flags::Flags;
use riad_cpu_soft::lower::lower;
use riad_cpu_soft::{SoftEngine, SoftVcpu};
use riad_memory::{Gpa, GuestMemory};

use crate::generate::Case;
use crate::state::{Fx, GS_BASE, Outcome, Registers, Trap, WINDOW, WINDOW_LEN, WINDOW_PAGES};

/// Guest-physical addresses of the window's pages: neither adjacent nor in order.
const PAGES: [u64; WINDOW_PAGES] = [0x1_4000, 0x1_0000, 0x1_2000];

/// One software processor and its memory.
pub(crate) struct Guest {
    memory: GuestMemory,
    vcpu: SoftVcpu,
}

impl Guest {
    /// Page tables with the window, and a processor at CPL 3.
    pub(crate) fn new() -> Self {
        let memory = GuestMemory::new(&[(Gpa(0), 1 << 20)]).expect("1 MiB of memory");
        let table = |level: u64| 0x1000 * (level + 1);
        for level in 0..3u64 {
            let index = WINDOW >> (39 - 9 * level) & 0x1ff;
            memory.write_u64(Gpa(table(level) + index * 8), table(level + 1) | 7).expect("a table");
        }
        for (n, page) in PAGES.iter().enumerate() {
            let index = (WINDOW >> 12 & 0x1ff) + n as u64;
            let rights = if n == 2 { 5 } else { 7 };
            memory.write_u64(Gpa(table(3) + index * 8), page | rights).expect("an entry");
        }
        let clock = Arc::new(ManualClock::new(0));
        let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
        let mut vcpu = SoftEngine::new(memory.clone(), clock, config).vcpu(0, Arc::new(Nowhere));
        let cpu = &mut vcpu.cpu;
        cpu.control.cr0 = cr0::PE | cr0::PG | cr0::ET | cr0::NE | cr0::MP;
        cpu.control.cr3 = table(0);
        cpu.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT;
        cpu.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
        let data = Segment { selector: 0x2b, base: 0, limit: u32::MAX, rights: 0xc0f3 };
        cpu.segs = [data; 6];
        cpu.segs[1] = Segment { selector: 0x33, rights: 0xa0fb, ..data };
        cpu.segs[5].base = GS_BASE;
        cpu.cpl = 3;
        cpu.update_mode();
        assert_eq!(cpu.mode, Mode::Long);
        Self { memory, vcpu }
    }

    /// Runs a case.
    pub(crate) fn run(&mut self, case: &Case) -> Outcome {
        for (page, bytes) in PAGES.iter().zip(case.memory.chunks(4096)) {
            self.memory.write(Gpa(*page), bytes).expect("the window");
        }
        let mut decoder = Decoder::with_ip(64, &case.bytes, case.rip, DecoderOptions::NONE);
        let op = lower(&decoder.decode(), Mode::Long);
        let next = case.rip + case.bytes.len() as u64;
        let cpu = &mut self.vcpu.cpu;
        cpu.regs[..16].copy_from_slice(&case.registers.gpr);
        cpu.flags = Flags::from_rflags(case.registers.rflags);
        cpu.fpu = to_fpu(&case.registers.fx);
        if case.flush {
            cpu.tlb.flush_all();
        }
        let result = loop {
            cpu.this_rip = case.rip;
            cpu.set_rip(next);
            cpu.left = 1;
            let result = (op.exec)(cpu, &op);
            // A long repetition comes back in the middle, to be run again.
            if result.is_err() || cpu.rip() != case.rip {
                break result;
            }
        };
        let fault = result.err().map(|fault| Trap {
            vector: fault.vector(),
            page: (fault.vector() == 14).then(|| (fault.code().unwrap_or(0), cpu.fault_address)),
        });
        let mut gpr = [0; 16];
        gpr.copy_from_slice(&cpu.regs[..16]);
        let mut memory = Box::new([0; WINDOW_LEN]);
        for (page, bytes) in PAGES.iter().zip(memory.chunks_mut(4096)) {
            self.memory.read(Gpa(*page), bytes).expect("the window");
        }
        Outcome {
            rip: if fault.is_some() { case.rip } else { cpu.rip() },
            fault,
            registers: Registers { gpr, rflags: cpu.flags.rflags(), fx: from_fpu(&cpu.fpu) },
            memory,
        }
    }
}

fn to_fpu(fx: &Fx) -> Fpu {
    let (fcw, fsw, ftw) = fx.control();
    let top = usize::from(fsw >> 11 & 7);
    let mut fpu = Fpu { fcw, fsw, ftw, mxcsr: fx.mxcsr(), ..Fpu::default() };
    for n in 0..8 {
        let (sign_exponent, significand) = fx.st(n);
        fpu.registers[(top + n) & 7] = F80 { significand, sign_exponent };
    }
    for n in 0..16 {
        fpu.xmm[n] = fx.xmm(n);
    }
    fpu
}

fn from_fpu(fpu: &Fpu) -> Fx {
    let mut fx = Fx([0; 512]);
    fx.set_control(fpu.fcw, fpu.fsw, fpu.ftw, fpu.mxcsr);
    let top = usize::from(fpu.fsw >> 11 & 7);
    for n in 0..8 {
        let F80 { significand, sign_exponent } = fpu.registers[(top + n) & 7];
        fx.set_st(n, (sign_exponent, significand));
    }
    for n in 0..16 {
        fx.set_xmm(n, fpu.xmm[n]);
    }
    fx
}
