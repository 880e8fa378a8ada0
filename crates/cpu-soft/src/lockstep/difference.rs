//! What is said when the two tiers disagree.

use std::fmt;

use iced_x86::Code;

/// Where the two tiers differ, in words.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    /// Linear address of the block.
    pub(super) rip: u64,
    /// Instructions that translated code ran, and that the block has.
    pub(super) ran: u64,
    pub(super) count: usize,
    pub(super) reason: u32,
    pub(super) what: Vec<String>,
    pub(super) code: Vec<(Code, u8)>,
    pub(super) bytes: Vec<u8>,
    pub(super) start: [u64; 16],
    pub(super) flags: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the translator and the interpreter disagree on the block at {:#x}, after {} of {} \
             instructions (it came out for reason {}): {}; code:",
            self.rip,
            self.ran,
            self.count,
            self.reason,
            self.what.join(", ")
        )?;
        let mut bytes = self.bytes.as_slice();
        for &(code, len) in &self.code {
            let (these, rest) = bytes.split_at(usize::from(len).min(bytes.len()));
            write!(f, " {code:?} ")?;
            these.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            bytes = rest;
            f.write_str(";")?;
        }
        f.write_str(" registers before it:")?;
        for (value, name) in self.start.iter().zip(NAMES) {
            write!(f, " {name}={value:#x}")?;
        }
        write!(
            f,
            " rflags={:#x}; this is a fault of Riad's: please report this message, and use the \
             engine soft:interp meanwhile",
            self.flags
        )
    }
}

/// The registers, in the order of their numbers.
pub(super) const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
