//! From guest bytes to blocks of ops.

use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction};

use crate::cpu::Mode;
use crate::fault::Fault;
use crate::lower::lower;
use crate::op::Op;

/// Most ops in a block.
pub const MAX_OPS: usize = 32;

/// Most bytes in an instruction (SDM 2A, 2.3.11).
pub const MAX_LEN: usize = 15;

/// What decoding one instruction gives.
#[derive(Debug, Clone, Copy)]
pub enum One {
    /// An instruction, and whether it ends a block.
    Op(Op, bool),
    /// The bytes end before the instruction does.
    NeedMore,
}

fn decoder(bytes: &[u8], rip: u64, mode: Mode) -> Decoder<'_> {
    Decoder::with_ip(mode.bitness(), bytes, rip, DecoderOptions::NONE)
}

fn one(decoder: &mut Decoder<'_>, scratch: &mut Instruction, mode: Mode) -> One {
    if !next(decoder, scratch) {
        return One::NeedMore;
    }
    let ends = scratch.is_invalid() || scratch.flow_control() != FlowControl::Next;
    One::Op(op(scratch, mode), ends)
}

/// Decodes the next instruction; false when the bytes end before it does.
fn next(decoder: &mut Decoder<'_>, scratch: &mut Instruction) -> bool {
    decoder.decode_out(scratch);
    !scratch.is_invalid() || decoder.last_error() != DecoderError::NoMoreBytes
}

/// What the interpreter runs for an instruction.
pub(crate) fn op(i: &Instruction, mode: Mode) -> Op {
    let mut op = lower(i, mode);
    if i.is_invalid() && i.len() >= MAX_LEN {
        op.exec = |_, _| Err(Fault::GP0);
    }
    op
}

/// Decodes a run of instructions that lies in one page: up to a control transfer, [`MAX_OPS`], or
/// the end of `bytes`. Empty when already the first does not fit.
#[must_use]
pub fn block(bytes: &[u8], rip: u64, mode: Mode) -> Vec<Op> {
    let mut decoder = decoder(bytes, rip, mode);
    let mut scratch = Instruction::default();
    let mut ops = Vec::with_capacity(MAX_OPS);
    while ops.len() < MAX_OPS && decoder.can_decode() {
        match one(&mut decoder, &mut scratch, mode) {
            One::NeedMore => break,
            One::Op(op, ends) => {
                ops.push(op);
                if ends {
                    break;
                }
            }
        }
    }
    ops
}

/// Decodes instructions that lie in one page, one after the other, for as long as `each` says so. Gives
/// where the one begins that the bytes end in, when it comes to that.
pub(crate) fn each(
    bytes: &[u8],
    rip: u64,
    mut each: impl FnMut(&Instruction) -> bool,
) -> Option<u64> {
    let mut decoder = decoder(bytes, rip, Mode::Long);
    let mut scratch = Instruction::default();
    while decoder.can_decode() {
        let at = decoder.ip();
        if !next(&mut decoder, &mut scratch) {
            return Some(at);
        }
        if !each(&scratch) {
            return None;
        }
    }
    None
}

/// Decodes one instruction.
#[must_use]
pub fn single(bytes: &[u8], rip: u64, mode: Mode) -> One {
    one(&mut decoder(bytes, rip, mode), &mut Instruction::default(), mode)
}
