//! Instructions a second of the interpreter, on a few loops in 64-bit mode: `cargo xtask bench
//! interp`. Each loop stands for one thing that guests spend their time on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use riad_clock::ManualClock;
use riad_cpu::x86::{Segment, VcpuState, cr0, cr4, efer};
use riad_cpu::{Exit, Limit, Nowhere, Vcpu, VcpuConfig};
use riad_cpu_soft::{SoftEngine, SoftVcpu};
use riad_memory::{Gpa, GuestMemory};

/// What a loop exercises, and its code. It runs for ever; RSI and RDI point to 64 KiB of data each.
const LOOPS: [(&str, &[u8]); 6] = [
    (
        "integer",
        // 0: add %rcx,%rax; xor %rax,%rdx; lea (%rax,%rcx,2),%rbx; shl $3,%rbx; inc %rcx; jnz 0b
        &[
            0x48, 0x01, 0xc8, 0x48, 0x31, 0xc2, 0x48, 0x8d, 0x1c, 0x48, 0x48, 0xc1, 0xe3, 0x03,
            0x48, 0xff, 0xc1, 0x75, 0xed,
        ],
    ),
    (
        "memory",
        // 0: mov (%rsi,%rcx,8),%rax; mov %rax,(%rdi,%rcx,8); inc %rcx; and $0x1fff,%ecx; jmp 0b
        &[
            0x48, 0x8b, 0x04, 0xce, 0x48, 0x89, 0x04, 0xcf, 0x48, 0xff, 0xc1, 0x81, 0xe1, 0xff,
            0x1f, 0x00, 0x00, 0xeb, 0xed,
        ],
    ),
    (
        "branches",
        // 0: imul $0x41c64e6d,%eax,%eax; add $0x3039,%eax; test $0x10000,%eax; jz 1f; inc %rbx
        // 1: test $0x40000,%eax; jnz 0b; dec %rbx; jmp 0b
        &[
            0x69, 0xc0, 0x6d, 0x4e, 0xc6, 0x41, 0x05, 0x39, 0x30, 0x00, 0x00, 0xa9, 0x00, 0x00,
            0x01, 0x00, 0x74, 0x03, 0x48, 0xff, 0xc3, 0xa9, 0x00, 0x00, 0x04, 0x00, 0x75, 0xe4,
            0x48, 0xff, 0xcb, 0xeb, 0xdf,
        ],
    ),
    (
        "calls",
        // 0: call 1f; jmp 0b; 1: push %rbx; mov %rsp,%rbx; pop %rbx; ret
        &[0xe8, 0x02, 0x00, 0x00, 0x00, 0xeb, 0xf9, 0x53, 0x48, 0x89, 0xe3, 0x5b, 0xc3],
    ),
    (
        "sse2",
        // 0: movapd (%rsi),%xmm0; addpd %xmm0,%xmm1; mulpd %xmm1,%xmm2; paddd %xmm1,%xmm3;
        //    pshufd $0x1b,%xmm3,%xmm4; movdqa %xmm4,(%rdi); jmp 0b
        &[
            0x66, 0x0f, 0x28, 0x06, 0x66, 0x0f, 0x58, 0xc8, 0x66, 0x0f, 0x59, 0xd1, 0x66, 0x0f,
            0xfe, 0xd9, 0x66, 0x0f, 0x70, 0xe3, 0x1b, 0x66, 0x0f, 0x7f, 0x27, 0xeb, 0xe5,
        ],
    ),
    (
        "atomics",
        // 0: lock xadd %rax,(%rdi); lock cmpxchg %rcx,(%rsi); pause; jmp 0b
        &[0xf0, 0x48, 0x0f, 0xc1, 0x07, 0xf0, 0x48, 0x0f, 0xb1, 0x0e, 0xf3, 0x90, 0xeb, 0xf2],
    ),
];

const CODE: u64 = 0x1_0000;
const STACK: u64 = 0x2_0000;
const SOURCE: u64 = 0x10_0000;
const DESTINATION: u64 = 0x12_0000;
const TABLES: u64 = 0x1000;

/// Instructions between two looks at the time.
const TURN: u64 = 5_000_000;
/// How long each loop runs.
const TIME: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{:12} {:>12}", "loop", "instr/s");
    let mut logarithms = 0.0;
    for (name, code) in LOOPS {
        let mut vcpu = guest(code)?;
        vcpu.run(Limit::Instructions(TURN))?;
        let (start, before) = (Instant::now(), vcpu.cpu.retired);
        while start.elapsed() < TIME {
            if vcpu.run(Limit::Instructions(TURN))? != Exit::Limit {
                return Err(format!("{name}: the loop ended at {:#x}", vcpu.cpu.rip()).into());
            }
        }
        let rate = (vcpu.cpu.retired - before) as f64 / start.elapsed().as_secs_f64();
        logarithms += rate.ln();
        println!("{name:12} {:>10.1} M", rate / 1e6);
    }
    println!("{:12} {:>10.1} M", "(geo. mean)", (logarithms / LOOPS.len() as f64).exp() / 1e6);
    Ok(())
}

/// A processor in 64-bit mode, privilege 0, about to run `code`; memory is mapped one to one.
fn guest(code: &[u8]) -> Result<SoftVcpu, Box<dyn std::error::Error>> {
    let memory = GuestMemory::new(&[(Gpa(0), 2 << 20)])?;
    memory.write_u64(Gpa(TABLES), TABLES + 0x1003)?;
    memory.write_u64(Gpa(TABLES + 0x1000), TABLES + 0x2003)?;
    memory.write_u64(Gpa(TABLES + 0x2000), 0x83)?;
    memory.write(Gpa(CODE), code)?;
    for word in 0..8192 {
        memory.write_u64(Gpa(SOURCE + 8 * word), 0x3ff0_0000_0000_0000 + word)?;
    }
    let mut state = VcpuState::flat_protected(0, 0);
    state.control.cr0 = cr0::PE | cr0::PG | cr0::ET | cr0::NE | cr0::MP;
    state.control.cr3 = TABLES;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT;
    state.control.efer = efer::LME | efer::LMA | efer::NXE;
    state.segments.cs = Segment { rights: 0xa09b, ..state.segments.cs };
    state.rip = CODE;
    (state.gpr[4], state.gpr[6], state.gpr[7]) = (STACK, SOURCE, DESTINATION);
    let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
    let engine = SoftEngine::new(memory, Arc::new(ManualClock::new(0)), config);
    let mut vcpu = engine.vcpu(0, Arc::new(Nowhere));
    vcpu.set_state(&state)?;
    Ok(vcpu)
}
