//! One 8259A (Intel 8259A datasheet, order 231468).

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// What the next write to the data port is (datasheet, figure 6, "Initialization sequence").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// The interrupt mask (OCW1).
    #[default]
    Mask,
    /// ICW2, the vector base.
    VectorBase,
    /// ICW3, how the controllers are connected.
    Cascade,
    /// ICW4, modes.
    Modes,
}

/// ICW1, the start of an initialization.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
struct Initialize {
    /// Whether ICW4 follows.
    modes_follow: bool,
    /// Whether there is only one controller (no ICW3).
    single: bool,
    #[bits(6)]
    __: u8,
}

/// OCW2, end of interrupt and rotation.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct OperationCommand2 {
    /// The level a specific command means.
    #[bits(3)]
    pub level: u8,
    #[bits(2)]
    __: u8,
    /// End of interrupt.
    pub end_of_interrupt: bool,
    /// The command names a level.
    pub specific: bool,
    /// Rotate priorities.
    pub rotate: bool,
}

/// OCW3, special mask, poll, and which register is read.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct OperationCommand3 {
    /// Read the in-service register rather than the request register.
    pub read_in_service: bool,
    /// Whether `read_in_service` is meant.
    pub read_register: bool,
    /// The next read is an acknowledge.
    pub poll: bool,
    #[bits(2)]
    __: u8,
    /// The special mask mode.
    pub special_mask: bool,
    /// Whether `special_mask` is meant.
    pub change_special_mask: bool,
    #[bits(1)]
    __: u8,
}

/// The state of one 8259A. Bit n of a set belongs to input n.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChipState {
    /// Levels of the inputs.
    pub inputs: u8,
    /// IRR: requests latched.
    pub requested: u8,
    /// ISR: requests being served.
    pub in_service: u8,
    /// IMR: inputs masked.
    pub mask: u8,
    /// ELCR: inputs that are level-triggered.
    pub level_triggered: u8,
    /// The vector of input 0; its lowest three bits are 0.
    pub vector_base: u8,
    /// The input of the highest priority, 0 to 7.
    pub highest: u8,
    /// Where in an initialization the chip is.
    pub expect: Expect,
    /// ICW1 said that ICW4 follows.
    pub modes_follow: bool,
    /// ICW1 said that there is no second controller.
    pub single: bool,
    /// Requests are not kept in service (ICW4).
    pub auto_end: bool,
    /// Automatic ends rotate priorities (OCW2).
    pub rotate_on_auto_end: bool,
    /// A second controller's request may interrupt another of its own (ICW4).
    pub special_fully_nested: bool,
    /// Masked inputs do not hold back others while in service (OCW3).
    pub special_mask: bool,
    /// The next read of the command port is an acknowledge (OCW3).
    pub poll: bool,
    /// The command port reads as ISR, not IRR (OCW3).
    pub read_in_service: bool,
}

impl ChipState {
    /// Sets the level of an input.
    pub(super) fn set_input(&mut self, input: u8, level: bool) {
        let bit = 1 << (input & 7);
        let was = self.inputs & bit != 0;
        if level {
            self.inputs |= bit;
        } else {
            self.inputs &= !bit;
        }
        if self.level_triggered & bit != 0 {
            if level {
                self.requested |= bit;
            } else {
                self.requested &= !bit;
            }
        } else if level && !was {
            // The latch stays when the level falls again: timers give short pulses.
            self.requested |= bit;
        }
    }

    /// Sets the request of an input that follows another controller's output.
    pub(super) fn follow(&mut self, input: u8, level: bool) {
        let bit = 1 << (input & 7);
        if level {
            self.inputs |= bit;
            self.requested |= bit;
        } else {
            self.inputs &= !bit;
            self.requested &= !bit;
        }
    }

    /// Sets which inputs are level-triggered. Their requests follow their levels from now on.
    pub(super) fn set_trigger_modes(&mut self, level_triggered: u8) {
        self.level_triggered = level_triggered;
        self.requested = (self.requested & !level_triggered) | (self.inputs & level_triggered);
    }

    /// The input of `set` with the highest priority, and its rank (0 is the highest).
    fn first_of(&self, set: u8) -> Option<(u8, u8)> {
        let rotated = set.rotate_right(u32::from(self.highest & 7));
        let rank = u8::try_from(rotated.trailing_zeros()).unwrap_or(8);
        (rank < 8).then(|| ((rank + self.highest) & 7, rank))
    }

    /// The input that asks for an interrupt now. `cascading` says whether another controller is
    /// connected to input 2.
    pub(super) fn request(&self, cascading: bool) -> Option<u8> {
        let (input, rank) = self.first_of(self.requested & !self.mask)?;
        let mut holding = self.in_service;
        if self.special_mask {
            holding &= !self.mask;
        }
        if self.special_fully_nested && cascading {
            holding &= !(1 << super::CASCADE);
        }
        let free = self.first_of(holding).is_none_or(|(_, holder)| rank < holder);
        (free && self.expect == Expect::Mask).then_some(input)
    }

    /// Takes the request of the highest priority into service.
    pub(super) fn acknowledge(&mut self, cascading: bool) -> Option<u8> {
        let input = self.request(cascading)?;
        let bit = 1 << input;
        if self.level_triggered & bit == 0 {
            self.requested &= !bit;
        }
        if !self.auto_end {
            self.in_service |= bit;
        } else if self.rotate_on_auto_end {
            self.highest = (input + 1) & 7;
        }
        Some(input)
    }

    /// The vector of an input.
    pub(super) fn vector(&self, input: u8) -> u8 {
        (self.vector_base & 0xf8) | (input & 7)
    }

    /// Reads the command port (A0 = 0).
    pub(super) fn read_command(&mut self, cascading: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return self.acknowledge(cascading).map_or(0, |input| 0x80 | input);
        }
        if self.read_in_service { self.in_service } else { self.requested }
    }

    /// Writes the command port (A0 = 0).
    pub(super) fn write_command(&mut self, value: u8) {
        match value & 0x18 {
            0x00 => self.operate(OperationCommand2::from_bits(value)),
            0x08 => {
                let command = OperationCommand3::from_bits(value);
                self.poll = command.poll();
                if command.read_register() {
                    self.read_in_service = command.read_in_service();
                }
                if command.change_special_mask() {
                    self.special_mask = command.special_mask();
                }
            }
            _ => self.initialize(Initialize::from_bits(value)),
        }
    }

    /// Writes the data port (A0 = 1).
    pub(super) fn write_data(&mut self, value: u8) {
        let after_cascade = if self.modes_follow { Expect::Modes } else { Expect::Mask };
        self.expect = match self.expect {
            Expect::Mask => {
                self.mask = value;
                Expect::Mask
            }
            Expect::VectorBase => {
                self.vector_base = value & 0xf8;
                if self.single { after_cascade } else { Expect::Cascade }
            }
            // A PC's controllers are connected as they are.
            Expect::Cascade => after_cascade,
            Expect::Modes => {
                self.auto_end = value & 0x02 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                Expect::Mask
            }
        };
    }

    /// ICW1. The trigger mode bit in it has no effect on a PC with an ELCR.
    fn initialize(&mut self, command: Initialize) {
        *self = Self {
            inputs: self.inputs,
            // The edge sense circuit is reset: a raised input has to fall before it counts.
            requested: self.inputs & self.level_triggered,
            level_triggered: self.level_triggered,
            vector_base: self.vector_base,
            expect: Expect::VectorBase,
            modes_follow: command.modes_follow(),
            single: command.single(),
            ..Self::default()
        };
    }

    /// OCW2.
    fn operate(&mut self, command: OperationCommand2) {
        let level = command.level();
        let ended = match (command.end_of_interrupt(), command.specific()) {
            (true, true) => Some(level),
            (true, false) => {
                let holding =
                    if self.special_mask { self.in_service & !self.mask } else { self.in_service };
                self.first_of(holding).map(|(input, _)| input)
            }
            (false, true) => {
                // Set priority; without `rotate` this is "no operation".
                if command.rotate() {
                    self.highest = (level + 1) & 7;
                }
                return;
            }
            (false, false) => {
                self.rotate_on_auto_end = command.rotate();
                return;
            }
        };
        if let Some(input) = ended {
            self.in_service &= !(1 << input);
            if command.rotate() {
                self.highest = (input + 1) & 7;
            }
        }
    }
}
