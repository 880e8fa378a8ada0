//! The 8254 interval timer (Intel 8254 datasheet, order 231164), and system control port B, which
//! holds the gate of its third counter (82371AB PIIX4 datasheet, section 4.2.5, "NMISC").
//!
//! The counters are not stepped: each knows the tick at which it was loaded, and what it shows
//! follows from the clock. So a guest that calibrates its time stamp counter against counter 2 sees
//! exactly 1,193,182 ticks a second of guest time, however slowly it runs.
//!
//! Counter 0 is connected to interrupt request 0. A tick that the guest was too slow to see is
//! merged with the next, as in an edge-triggered interrupt controller. Counter 1 once refreshed
//! memory; counter 2 makes sound, which goes nowhere.

use bitfield_struct::bitfield;
use riad_clock::{Nanos, SharedClock};
use serde::{Deserialize, Serialize};

use crate::line::SharedLine;
use crate::port::{self, PortRange};
use crate::{PortDevice, TimedDevice};

mod counter;
pub use counter::{Control, CounterState, Reload, Transfer};

/// Ticks a second.
pub const FREQUENCY: u64 = 1_193_182;

/// Ticks until guest time `now`. Tick n is the moment at which this becomes n.
fn ticks_at(now: Nanos) -> u64 {
    let ticks = u128::from(now) * u128::from(FREQUENCY) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// The first nanosecond of a tick.
fn nanos_of(tick: u64) -> Nanos {
    let nanos = (u128::from(tick) * 1_000_000_000).div_ceil(u128::from(FREQUENCY));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// The control word register (8254, figure 7), and the read-back command (figure 10), whose
/// `transfer` bits mean "do not latch the status" and "do not latch the count".
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
struct Command {
    bcd: bool,
    #[bits(3)]
    mode: u8,
    #[bits(2)]
    transfer: u8,
    #[bits(2)]
    counter: u8,
}

/// System control port B, 0x61.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPortB {
    /// The gate of counter 2.
    pub gate2: bool,
    /// Whether the speaker hears counter 2.
    pub speaker: bool,
    /// Two error enables, which are kept.
    #[bits(2)]
    pub error_enables: u8,
    /// Toggles with each refresh of memory, every 18 ticks; read-only.
    pub refresh: bool,
    /// The output of counter 2; read-only.
    pub out2: bool,
    /// Two errors, which never happen; read-only.
    #[bits(2)]
    pub errors: u8,
}

/// The saved state of [`Pit`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PitState {
    /// The counters.
    pub counters: [CounterState; 3],
    /// System control port B, without its read-only bits.
    pub control_port: ControlPortB,
    /// The tick up to which rises of counter 0's output have been passed on.
    pub served: u64,
}

/// The timer.
pub struct Pit {
    state: PitState,
    clock: SharedClock,
    /// Interrupt request 0.
    line: SharedLine,
}

impl Pit {
    /// Where the device answers; offsets are port numbers.
    pub const PORTS: &'static [PortRange] = &[0x40..=0x43, 0x61..=0x61];

    /// Counters that have not been programmed.
    #[must_use]
    pub fn new(clock: SharedClock, line: SharedLine) -> Self {
        let mut state = PitState { served: ticks_at(clock.now()), ..PitState::default() };
        state.counters[0].gate = true;
        state.counters[1].gate = true;
        Self::restore(state, clock, line)
    }

    /// The timer of a saved state. `clock` goes on from the time of the save.
    #[must_use]
    pub fn restore(state: PitState, clock: SharedClock, line: SharedLine) -> Self {
        line.set(state.counters[0].output(state.served));
        Self { state, clock, line }
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> PitState {
        let Self { state, clock: _, line: _ } = self;
        state.clone()
    }

    fn now(&self) -> u64 {
        ticks_at(self.clock.now())
    }

    /// Brings the wire and the counters up to the present.
    fn sync(&mut self) {
        let now = self.now();
        let rose = self.state.counters[0].next_rise(self.state.served).is_some_and(|at| at <= now);
        for counter in &mut self.state.counters {
            counter.settle(now);
        }
        self.state.served = now;
        if rose {
            self.line.set(false);
            self.line.set(true);
        }
        self.line.set(self.state.counters[0].output(now));
    }

    fn read(&mut self, port: u16) -> u8 {
        let now = self.now();
        match port {
            0x40..=0x42 => self.state.counters[usize::from(port & 3)].read(now),
            0x61 => self
                .state
                .control_port
                .with_refresh(now / 18 % 2 == 1)
                .with_out2(self.state.counters[2].output(now))
                .into_bits(),
            // The control word cannot be read.
            _ => 0xff,
        }
    }

    fn write(&mut self, port: u16, value: u8) {
        let now = self.now();
        match port {
            0x40..=0x42 => self.state.counters[usize::from(port & 3)].write(value, now),
            0x43 => self.command(Command::from_bits(value), now),
            0x61 => {
                self.state.control_port = ControlPortB::from_bits(value & 0x0f);
                let gate = self.state.control_port.gate2();
                self.state.counters[2].set_gate(gate, now);
            }
            _ => {}
        }
    }

    fn command(&mut self, command: Command, now: u64) {
        if let Some(counter) = self.state.counters.get_mut(usize::from(command.counter())) {
            match Transfer::from_bits(command.transfer()) {
                None => counter.latch_count(now),
                Some(transfer) => {
                    counter.configure(Control {
                        mode: command.mode(),
                        bcd: command.bcd(),
                        transfer,
                    });
                }
            }
            return;
        }
        // Read-back: bits 1 to 3 choose counters.
        for (bit, counter) in self.state.counters.iter_mut().enumerate() {
            if command.mode() & (1 << bit) != 0 {
                if command.transfer() & 0b10 == 0 {
                    counter.latch_count(now);
                }
                if command.transfer() & 0b01 == 0 {
                    counter.latch_status(now);
                }
            }
        }
    }
}

impl PortDevice for Pit {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        self.sync();
        port::read_bytes(offset, data, |port| self.read(port));
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        self.sync();
        port::write_bytes(offset, data, |port, value| self.write(port, value));
        self.sync();
    }
}

impl TimedDevice for Pit {
    fn next_deadline(&self) -> Option<Nanos> {
        self.state.counters[0].next_rise(self.state.served).map(nanos_of)
    }

    fn expire(&mut self) {
        self.sync();
    }
}

#[cfg(test)]
#[path = "pit_test.rs"]
mod tests;
