//! Placeholder until its family lands.

use iced_x86::Instruction;

use crate::op::{Exec, Op};
use crate::cpu::Mode;

/// None of these instructions yet.
pub fn select(_i: &Instruction, _op: &mut Op, _mode: Mode) -> Option<Exec> {
    None
}
