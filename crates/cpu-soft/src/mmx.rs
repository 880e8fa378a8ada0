//! Placeholder until its family lands.

use iced_x86::Instruction;

use crate::op::{Exec, Op};

/// None of these instructions yet.
pub fn select(_i: &Instruction, _op: &mut Op) -> Option<Exec> {
    None
}
