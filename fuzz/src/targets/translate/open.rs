//! What the architecture leaves open, and how far a program goes before it looks.
//!
//! Some instructions leave status flags undefined (SDM 1, appendix A), some a destination. There the
//! interpreter has one answer and the host, which runs the instruction itself, may have another. A
//! program that looks at one may go different ways, and both are right. So when the tiers differ, the
//! program is followed instruction by instruction, with the flags that nobody defined: the tiers are
//! only held to each other up to the first instruction that looks at one.
//!
//! So it is with flags that a block is known to overwrite before anyone reads them (the page of
//! `riad_cpu_soft::translate`), when the block then changes its own code and somebody does read them:
//! that is a promise the translator does not make.
//!
//! Where there is doubt a flag is taken for undefined. Nothing is masked in programs that do not
//! differ, and every difference before that instruction is one.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register, RflagsBits};
use riad_memory::Gpa;

use super::layout::{Start, at};
use super::side::Side;

const STATUS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

/// Instructions of a trace.
const TRACED: usize = 100;

/// Instructions that a case runs, at most `most`, before one whose outcome is open. `side` is an
/// interpreter's, at the beginning of the case; `same_time` says that the other's clock is as its.
pub(super) fn settled(side: &mut Side, start: &Start, most: u64, same_time: bool) -> u64 {
    let mut undefined = 0;
    while side.retired() < most {
        let before = side.retired();
        let regs = side.vcpu.cpu.regs;
        let rip = side.vcpu.cpu.rip();
        let i = fetch(side, start, rip);
        if let Some(i) = &i
            && (i.rflags_read() & undefined != 0
                || always_open(i)
                || !same_time && matches!(i.mnemonic(), Mnemonic::Rdtsc | Mnemonic::Rdtscp))
        {
            return before;
        }
        let code = code_ahead(side, start, rip);
        let zero_flag = |side: &Side| side.vcpu.cpu.flags.zf();
        if !side.step() {
            break;
        }
        let Some(i) = i else {
            // A fault, and then a handler, which clears the flags.
            continue;
        };
        if side.vcpu.cpu.rip().wrapping_sub(at::HANDLERS) < 0x1000 {
            if i.mnemonic() == Mnemonic::Call {
                // A call to nowhere may have pushed, as a processor's may have.
                return before;
            }
            continue;
        }
        let effect = effect(&i, regs[1]);
        if is_scan(&i) && zero_flag(side) {
            // The destination: left alone, all of it or the lower half.
            return before;
        }
        undefined = undefined & !effect.defined | effect.undefined;
        if code != code_ahead(side, start, rip) {
            undefined = STATUS;
        }
    }
    most
}

/// What the interpreter runs in a case, for people: the last instructions of `most`.
pub(super) fn trace(side: &mut Side, start: &Start, most: u64) -> String {
    let mut lines: Vec<String> = Vec::new();
    while side.retired() < most {
        let (rip, flags) = (side.vcpu.cpu.rip(), side.vcpu.cpu.flags.rflags());
        let i = fetch(side, start, rip);
        let name = i.map_or_else(|| "?".to_owned(), |i| format!("{:?}", i.code()));
        let bytes = bytes(side, start, rip);
        let bytes = bytes[..i.map_or(0, |i| i.len()).min(bytes.len())].to_vec();
        lines.push(format!("{:4} {rip:#x} {flags:#5x} {bytes:02x?} {name}", side.retired()));
        if !side.step() {
            break;
        }
    }
    lines.drain(..lines.len().saturating_sub(TRACED));
    lines.join("\n")
}

/// What an instruction does to the status flags.
struct Effect {
    defined: u32,
    undefined: u32,
}

/// Whether the result itself is open, or other each time.
fn always_open(i: &Instruction) -> bool {
    use Mnemonic as M;
    match i.mnemonic() {
        M::Rdrand | M::Rdseed => true,
        M::Bswap => i.op0_register().size() == 2,
        // Counts above 16.
        M::Shld | M::Shrd => width(i) == 16,
        _ => false,
    }
}

/// What is a scan on processors without BMI.
fn is_scan(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(i.mnemonic(), M::Bsf | M::Bsr | M::Tzcnt | M::Lzcnt)
}

fn width(i: &Instruction) -> u64 {
    let bytes = match i.op0_kind() {
        OpKind::Memory => i.memory_size().size(),
        _ => i.op0_register().size(),
    };
    bytes as u64 * 8
}

/// Whether it shifts or rotates.
fn is_shift(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    )
}

fn effect(i: &Instruction, rcx: u64) -> Effect {
    use Mnemonic as M;
    let modified = i.rflags_modified() & STATUS;
    let mut undefined = i.rflags_undefined() & STATUS;
    if is_scan(i) {
        undefined = STATUS & !RflagsBits::ZF;
    }
    if matches!(i.mnemonic(), M::Div | M::Idiv) {
        undefined = STATUS;
    }
    if !is_shift(i.mnemonic()) {
        // Without a round, a repeated instruction leaves them alone.
        let repeats = i.has_rep_prefix() || i.has_repne_prefix();
        let defined = if repeats { 0 } else { modified & !undefined };
        return Effect { defined, undefined };
    }
    let last = i.op_count() - 1;
    let count = match i.op_kind(last) {
        OpKind::Register if i.op_register(last) == Register::CL => rcx,
        OpKind::Register => 0,
        _ => i.immediate(last),
    };
    let count = count & if width(i) == 64 { 63 } else { 31 };
    match i.mnemonic() {
        _ if count == 0 => return Effect { defined: 0, undefined: 0 },
        // Turned by their own width they may leave CF alone.
        M::Rcl | M::Rcr if count > width(i) => undefined = RflagsBits::OF | RflagsBits::CF,
        M::Rol | M::Ror | M::Rcl | M::Rcr if count > 1 => undefined = RflagsBits::OF,
        M::Rol | M::Ror | M::Rcl | M::Rcr => undefined = 0,
        _ => {
            undefined |= RflagsBits::AF;
            if count > 1 {
                undefined |= RflagsBits::OF;
            }
            if count >= width(i) {
                undefined |= RflagsBits::CF;
            }
        }
    }
    Effect { defined: modified & !undefined, undefined }
}

/// The rest of the code's page, and the next one: more than a block has.
fn code_ahead(side: &Side, start: &Start, rip: u64) -> [Option<Vec<u8>>; 2] {
    [rip, rip.wrapping_add(0x1000)].map(|linear| {
        let at = physical(start, linear & !0xfff)?;
        side.memory.read_vec(at, 0x1000).ok()
    })
}

/// The bytes of an instruction, as many as there are.
fn bytes(side: &Side, start: &Start, rip: u64) -> Vec<u8> {
    (0..15)
        .map_while(|n| {
            let mut byte = 0;
            let at = physical(start, rip.wrapping_add(n))?;
            side.memory.read(at, std::slice::from_mut(&mut byte)).ok()?;
            Some(byte)
        })
        .collect()
}

/// The instruction at a linear address.
fn fetch(side: &Side, start: &Start, rip: u64) -> Option<Instruction> {
    let bytes = bytes(side, start, rip);
    let i = Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE).decode();
    (!i.is_invalid()).then_some(i)
}

/// Where a linear address lies, by the case's own page tables.
fn physical(start: &Start, linear: u64) -> Option<Gpa> {
    let mut table = at::TABLES;
    for level in (0..4).rev() {
        let index = linear >> (12 + 9 * level) & 0x1ff;
        let entry = start.base.get((table + index * 8) as usize..)?.first_chunk()?;
        let entry = u64::from_le_bytes(*entry);
        let frame = entry & 0xf_ffff_ffff_f000;
        match level {
            _ if entry & 1 == 0 => return None,
            1 if entry & 0x80 != 0 => return Some(Gpa(frame + (linear & 0x1f_ffff))),
            0 => return Some(Gpa(frame + (linear & 0xfff))),
            _ => table = frame,
        }
    }
    None
}
