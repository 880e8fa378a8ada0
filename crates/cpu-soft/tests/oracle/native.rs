//! The host's processor: one instruction at a time, from any state, faults included.
//!
//! A trampoline loads the state, jumps to the instruction, and saves the state when it comes back
//! through the jump that follows the instruction. Everything else that can happen (a fault, a
//! branch into the INT3s that fill the page) arrives as a signal, whose handler notes what it was
//! and lets the interrupted code go on at the trampoline's second half.
#![expect(unsafe_code, reason = "maps pages, handles signals, and runs generated code")]

use std::io;

use crate::generate::Case;
use crate::state::{CODE, Fx, GS_BASE, Outcome, Registers, Trap, WINDOW, WINDOW_LEN};

/// Where the trampoline's data lies: below 2 GiB, so that it needs no register to reach it.
const CONTEXT: u64 = 0x36b7_5000;

/// The trampoline's data.
#[repr(C)]
struct Context {
    gpr_in: [u64; 16],      // 0x000
    rflags_in: u64,         // 0x080
    host_rsp: u64,          // 0x088
    entry: u64,             // 0x090
    exit: u64,              // 0x098
    running: u64,           // 0x0a0
    vector: u64,            // 0x0a8
    error: u64,             // 0x0b0
    address: u64,           // 0x0b8
    rip: u64,               // 0x0c0
    padding: [u64; 7],      // 0x0c8
    gpr_out: [u64; 16],     // 0x100
    rflags_out: u64,        // 0x180
    padding_out: [u64; 15], // 0x188
    fx_in: Fx,              // 0x200
    fx_out: Fx,             // 0x400
    fx_host: Fx,            // 0x600
}

/// Where user addresses end.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;
const NO_TRAP: u64 = u64::MAX;

std::arch::global_asm!(
    ".global riad_oracle_enter",
    ".global riad_oracle_exit",
    "riad_oracle_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov qword ptr [0x36b75088], rsp",
    "fxsave64 [0x36b75600]",
    "fxrstor64 [0x36b75200]",
    "push qword ptr [0x36b75080]",
    "popfq",
    "mov rax, qword ptr [0x36b75000]",
    "mov rcx, qword ptr [0x36b75008]",
    "mov rdx, qword ptr [0x36b75010]",
    "mov rbx, qword ptr [0x36b75018]",
    "mov rsp, qword ptr [0x36b75020]",
    "mov rbp, qword ptr [0x36b75028]",
    "mov rsi, qword ptr [0x36b75030]",
    "mov rdi, qword ptr [0x36b75038]",
    "mov r8,  qword ptr [0x36b75040]",
    "mov r9,  qword ptr [0x36b75048]",
    "mov r10, qword ptr [0x36b75050]",
    "mov r11, qword ptr [0x36b75058]",
    "mov r12, qword ptr [0x36b75060]",
    "mov r13, qword ptr [0x36b75068]",
    "mov r14, qword ptr [0x36b75070]",
    "mov r15, qword ptr [0x36b75078]",
    "jmp qword ptr [0x36b75090]",
    "riad_oracle_exit:",
    "mov qword ptr [0x36b75100], rax",
    "mov qword ptr [0x36b75108], rcx",
    "mov qword ptr [0x36b75110], rdx",
    "mov qword ptr [0x36b75118], rbx",
    "mov qword ptr [0x36b75120], rsp",
    "mov qword ptr [0x36b75128], rbp",
    "mov qword ptr [0x36b75130], rsi",
    "mov qword ptr [0x36b75138], rdi",
    "mov qword ptr [0x36b75140], r8",
    "mov qword ptr [0x36b75148], r9",
    "mov qword ptr [0x36b75150], r10",
    "mov qword ptr [0x36b75158], r11",
    "mov qword ptr [0x36b75160], r12",
    "mov qword ptr [0x36b75168], r13",
    "mov qword ptr [0x36b75170], r14",
    "mov qword ptr [0x36b75178], r15",
    "mov rsp, qword ptr [0x36b75088]",
    "pushfq",
    "pop qword ptr [0x36b75180]",
    "cld",
    "fxsave64 [0x36b75400]",
    "fxrstor64 [0x36b75600]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);

unsafe extern "C" {
    fn riad_oracle_enter();
    fn riad_oracle_exit();
}

/// Notes what happened and goes on at the trampoline's exit.
extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a `ucontext_t` to SA_SIGINFO handlers; CONTEXT was mapped before
    // the handler was installed, and this thread is the only one to use it.
    unsafe {
        let place = &mut *std::ptr::with_exposed_provenance_mut::<Context>(CONTEXT as usize);
        if place.running == 0 {
            // Not ours: a bug of the test itself. Die of it.
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        place.vector = registers[libc::REG_TRAPNO as usize] as u64;
        place.error = registers[libc::REG_ERR as usize] as u64;
        place.address = registers[libc::REG_CR2 as usize] as u64;
        place.rip = registers[libc::REG_RIP as usize] as u64;
        registers[libc::REG_RIP as usize] = place.exit as i64;
    }
}

fn map(address: u64, len: usize, protection: i32) -> io::Result<()> {
    let at = std::ptr::with_exposed_provenance_mut(address as usize);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: NOREPLACE: nothing that is in use is touched.
    let got = unsafe { libc::mmap(at, len, protection, flags, -1, 0) };
    if got == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    if got != at {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    Ok(())
}

fn protect(address: u64, len: usize, protection: i32) {
    // SAFETY: the range is one that `map` made.
    let done = unsafe {
        libc::mprotect(std::ptr::with_exposed_provenance_mut(address as usize), len, protection)
    };
    assert_eq!(done, 0, "mprotect: {}", io::Error::last_os_error());
}

/// The host's processor, prepared.
pub(crate) struct Native {
    context: &'static mut Context,
    window: &'static mut [u8; WINDOW_LEN],
    code: &'static mut [u8; 4096],
    read_only: [u8; 4096],
}

impl Native {
    /// Maps pages at their fixed addresses and installs signal handlers, on this thread.
    pub(crate) fn new() -> io::Result<Self> {
        let write = libc::PROT_READ | libc::PROT_WRITE;
        map(CONTEXT, 4096, write)?;
        map(WINDOW, WINDOW_LEN, write)?;
        map(CODE, 4096, write | libc::PROT_EXEC)?;
        let stack = vec![0u8; 256 << 10].leak();
        // SAFETY: zero is a valid value of these plain C structures; the stack is leaked, so lives
        // as long as the thread; the handler has the signature SA_SIGINFO asks for; GS is not used
        // by user code on this system.
        unsafe {
            let alternate = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: stack.len(),
            };
            libc::sigaltstack(&alternate, std::ptr::null_mut());
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
                libc::sigaction(signal, &action, std::ptr::null_mut());
            }
            const ARCH_SET_GS: libc::c_long = 0x1001;
            if libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: just mapped, zeroed, large enough, and referred to from here alone.
        let (context, window, code) = unsafe {
            (
                &mut *std::ptr::with_exposed_provenance_mut::<Context>(CONTEXT as usize),
                &mut *std::ptr::with_exposed_provenance_mut::<[u8; WINDOW_LEN]>(WINDOW as usize),
                &mut *std::ptr::with_exposed_provenance_mut::<[u8; 4096]>(CODE as usize),
            )
        };
        assert_eq!(size_of::<Context>(), 0x800);
        context.exit = riad_oracle_exit as *const () as u64;
        code.fill(0xcc);
        protect(WINDOW + 8192, 4096, libc::PROT_READ);
        Ok(Self { context, window, code, read_only: [0; 4096] })
    }

    /// Runs a case.
    pub(crate) fn run(&mut self, case: &Case) -> Outcome {
        self.window[..8192].copy_from_slice(&case.memory[..8192]);
        if self.read_only[..] != case.memory[8192..] {
            protect(WINDOW + 8192, 4096, libc::PROT_READ | libc::PROT_WRITE);
            self.window[8192..].copy_from_slice(&case.memory[8192..]);
            protect(WINDOW + 8192, 4096, libc::PROT_READ);
            self.read_only.copy_from_slice(&case.memory[8192..]);
        }
        let at = (case.rip - CODE) as usize;
        let next = at + case.bytes.len();
        self.code[at..next].copy_from_slice(&case.bytes);
        // jmp qword ptr [exit]
        let back = (CONTEXT as u32 + std::mem::offset_of!(Context, exit) as u32).to_le_bytes();
        self.code[next..next + 3].copy_from_slice(&[0xff, 0x24, 0x25]);
        self.code[next + 3..next + 7].copy_from_slice(&back);

        let c = &mut *self.context;
        c.gpr_in = case.registers.gpr;
        c.rflags_in = case.registers.rflags;
        c.fx_in = case.registers.fx;
        c.entry = case.rip;
        c.vector = NO_TRAP;
        c.running = 1;
        // SAFETY: the trampoline keeps to the C ABI: it restores callee-saved and FP registers,
        // whatever the instruction did. What the instruction reaches is in the oracle's own pages,
        // or not mapped, but for chance in a 47-bit space.
        unsafe { riad_oracle_enter() };
        c.running = 0;
        self.code[at..next + 7].fill(0xcc);

        let mut rip = CODE + next as u64;
        let mut fault = None;
        if c.vector != NO_TRAP {
            let fetch = c.vector == 14 && c.rip == c.address && c.rip != case.rip;
            if c.vector == 3 {
                rip = c.rip - 1;
            } else if fetch {
                rip = c.rip;
            } else {
                rip = c.rip;
                // Linux hides whether its own addresses are mapped by always saying so.
                let hidden = u64::from(c.address >= TASK_SIZE);
                let page = (c.vector == 14).then_some(((c.error & !hidden) as u16, c.address));
                fault = Some(Trap { vector: c.vector as u8, page });
            }
        }
        let registers = Registers { gpr: c.gpr_out, rflags: c.rflags_out, fx: c.fx_out };
        Outcome { fault, rip, registers, memory: Box::new(*self.window) }
    }
}
