//! Processor state as both sides give it, and how it is compared.

use std::fmt::Write;

use crate::generate::Case;
use crate::undefined;

/// Pages of the memory window that instructions work on: two that can be written, one that cannot.
pub(crate) const WINDOW_PAGES: usize = 3;
/// Bytes of the window.
pub(crate) const WINDOW_LEN: usize = WINDOW_PAGES * 4096;
/// Its linear address, on both sides. The pages around it are not mapped.
pub(crate) const WINDOW: u64 = 0x2000_0000;
/// Linear address of the page that instructions lie in: no round distance from the window.
pub(crate) const CODE: u64 = 0x35a6_3000;
/// Base of GS, on both sides.
pub(crate) const GS_BASE: u64 = 0x1000_0000;
/// The status flags and DF.
pub(crate) const FLAGS: u64 = 0xcd5;

/// The legacy area of FXSAVE64 (SDM 1, 10.5.1).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
pub(crate) struct Fx(pub(crate) [u8; 512]);

impl Fx {
    /// Control, status and (abridged) tag word.
    pub(crate) fn control(&self) -> (u16, u16, u8) {
        (self.word(0), self.word(2), self.0[4])
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// MXCSR.
    pub(crate) fn mxcsr(&self) -> u32 {
        u32::from_le_bytes([self.0[24], self.0[25], self.0[26], self.0[27]])
    }

    /// Bytes of ST(i) or XMM register `i`; 16 of them.
    pub(crate) fn slot(&self, base: usize, i: usize) -> u128 {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[base + 16 * i..base + 16 * i + 16]);
        u128::from_le_bytes(bytes)
    }

    /// ST(i): sign and exponent, significand.
    pub(crate) fn st(&self, i: usize) -> (u16, u64) {
        let bits = self.slot(32, i);
        ((bits >> 64) as u16, bits as u64)
    }

    /// Sets ST(i).
    pub(crate) fn set_st(&mut self, i: usize, (sign_exponent, significand): (u16, u64)) {
        let bits = u128::from(sign_exponent) << 64 | u128::from(significand);
        self.0[32 + 16 * i..48 + 16 * i].copy_from_slice(&bits.to_le_bytes());
    }

    /// XMM register `i`.
    pub(crate) fn xmm(&self, i: usize) -> u128 {
        self.slot(160, i)
    }

    /// Sets XMM register `i`.
    pub(crate) fn set_xmm(&mut self, i: usize, value: u128) {
        self.0[160 + 16 * i..176 + 16 * i].copy_from_slice(&value.to_le_bytes());
    }

    /// Sets the control registers.
    pub(crate) fn set_control(&mut self, fcw: u16, fsw: u16, ftw: u8, mxcsr: u32) {
        self.0[0..2].copy_from_slice(&fcw.to_le_bytes());
        self.0[2..4].copy_from_slice(&fsw.to_le_bytes());
        self.0[4] = ftw;
        self.0[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    }
}

/// Registers before or after an instruction.
#[derive(Clone, Copy)]
pub(crate) struct Registers {
    /// RAX to R15 as encoded.
    pub(crate) gpr: [u64; 16],
    /// RFLAGS.
    pub(crate) rflags: u64,
    /// x87, MMX and SSE.
    pub(crate) fx: Fx,
}

/// An exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trap {
    /// Vector.
    pub(crate) vector: u8,
    /// Error code and address of a page fault.
    pub(crate) page: Option<(u16, u64)>,
}

/// What an instruction left behind.
pub(crate) struct Outcome {
    /// The exception it raised.
    pub(crate) fault: Option<Trap>,
    /// Where execution goes on.
    pub(crate) rip: u64,
    /// Registers.
    pub(crate) registers: Registers,
    /// The window.
    pub(crate) memory: Box<[u8; WINDOW_LEN]>,
}

/// Every difference between the processor's outcome and ours, a line each; empty when there is none.
pub(crate) fn difference(case: &Case, theirs: &Outcome, ours: &Outcome) -> String {
    let mut text = String::new();
    let mut differ = |what: &str, their: String, our: String| {
        let _ = writeln!(text, "  {what}: processor {their}, interpreter {our}");
    };
    if !undefined::same_fault(case, theirs.fault, ours.fault) {
        differ("fault", format!("{:x?}", theirs.fault), format!("{:x?}", ours.fault));
    }
    if theirs.rip != ours.rip {
        differ("rip", format!("{:#x}", theirs.rip), format!("{:#x}", ours.rip));
    }
    let (a, b) = (&theirs.registers, &ours.registers);
    for (n, name) in NAMES.iter().enumerate() {
        if a.gpr[n] != b.gpr[n] {
            differ(name, format!("{:#x}", a.gpr[n]), format!("{:#x}", b.gpr[n]));
        }
    }
    let flags = FLAGS & !undefined::flags(case);
    if (a.rflags ^ b.rflags) & flags != 0 {
        differ("flags", flag_names(a.rflags), flag_names(b.rflags));
    }
    for n in 0..16 {
        if a.fx.xmm(n) != b.fx.xmm(n) {
            differ(
                &format!("xmm{n}"),
                format!("{:#034x}", a.fx.xmm(n)),
                format!("{:#034x}", b.fx.xmm(n)),
            );
        }
    }
    if a.fx.mxcsr() != b.fx.mxcsr() {
        differ("mxcsr", format!("{:#x}", a.fx.mxcsr()), format!("{:#x}", b.fx.mxcsr()));
    }
    let status = !undefined::x87_status(case);
    let ((ac, asw, at), (bc, bsw, bt)) = (a.fx.control(), b.fx.control());
    let skip = undefined::x87_after_fault(case, theirs.fault);
    if !skip && (ac, asw & status, at) != (bc, bsw & status, bt) {
        differ(
            "fcw, fsw, ftw",
            format!("{:04x?}", (ac, asw, at)),
            format!("{:04x?}", (bc, bsw, bt)),
        );
    }
    for n in 0..8 {
        if skip {
            break;
        }
        if !undefined::same_x87(case, a.fx.st(n), b.fx.st(n)) {
            differ(&format!("st{n}"), format!("{:x?}", a.fx.st(n)), format!("{:x?}", b.fx.st(n)));
        }
    }
    if theirs.memory != ours.memory && !undefined::memory_after_fault(case, theirs.fault) {
        for (n, (a, b)) in theirs.memory.iter().zip(ours.memory.iter()).enumerate() {
            if a != b && !undefined::byte(case, n) {
                differ(
                    &format!("[{:#x}]", WINDOW + n as u64),
                    format!("{a:02x}"),
                    format!("{b:02x}"),
                );
            }
        }
    }
    if text.lines().count() > 24 {
        text = text.lines().take(24).fold(String::new(), |all, line| all + line + "\n");
    }
    text
}

/// The general registers' names.
pub(crate) const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// The flags that are set, by name.
pub(crate) fn flag_names(rflags: u64) -> String {
    const BITS: [(u32, &str); 7] =
        [(0, "CF"), (2, "PF"), (4, "AF"), (6, "ZF"), (7, "SF"), (10, "DF"), (11, "OF")];
    let set = BITS.iter().filter(|(bit, _)| rflags >> bit & 1 != 0).map(|(_, name)| *name);
    format!("[{}]", set.collect::<Vec<_>>().join(" "))
}
