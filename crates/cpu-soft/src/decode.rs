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
    decoder.decode_out(scratch);
    if scratch.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes {
        return One::NeedMore;
    }
    let mut op = lower(scratch, mode);
    if scratch.is_invalid() && scratch.len() >= MAX_LEN {
        op.exec = |_, _| Err(Fault::GP0);
    }
    One::Op(op, scratch.is_invalid() || scratch.flow_control() != FlowControl::Next)
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
    mut each: impl FnMut(&Instruction, Op) -> bool,
) -> Option<u64> {
    let mut decoder = decoder(bytes, rip, Mode::Long);
    let mut scratch = Instruction::default();
    while decoder.can_decode() {
        let at = decoder.ip();
        match one(&mut decoder, &mut scratch, Mode::Long) {
            One::Op(op, _) if each(&scratch, op) => {}
            One::Op(..) => return None,
            One::NeedMore => return Some(at),
        }
    }
    None
}

/// Decodes one instruction.
#[must_use]
pub fn single(bytes: &[u8], rip: u64, mode: Mode) -> One {
    one(&mut decoder(bytes, rip, mode), &mut Instruction::default(), mode)
}
