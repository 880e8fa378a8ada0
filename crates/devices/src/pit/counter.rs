//! One counter of the 8254 (Intel 8254 datasheet, order 231164, "Mode definitions").
//!
//! Time is counted in ticks of the input clock. A count that is written is loaded at the next tick.

use serde::{Deserialize, Serialize};

/// Which bytes of a count are transferred (control word, bits 4 and 5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transfer {
    /// The low byte only.
    Low,
    /// The high byte only.
    High,
    /// The low byte, then the high byte.
    #[default]
    Both,
}

impl Transfer {
    /// `None` is the latch command.
    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => None,
            1 => Some(Self::Low),
            2 => Some(Self::High),
            _ => Some(Self::Both),
        }
    }

    fn into_bits(self) -> u8 {
        match self {
            Self::Low => 1,
            Self::High => 2,
            Self::Both => 3,
        }
    }
}

/// How a counter was programmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The mode, 0 to 7; 6 and 7 are 2 and 3.
    pub mode: u8,
    /// Counts are four decimal digits.
    pub bcd: bool,
    /// Bytes of a count.
    pub transfer: Transfer,
}

/// What a counter does (datasheet, figures 15 to 20).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// 0: the output rises at the end.
    InterruptOnCount,
    /// 1: the output is low for the count after a trigger.
    OneShot,
    /// 2: the output is low for one tick of each period.
    Rate,
    /// 3: the output is low for half of each period.
    Square,
    /// 4: the output is low for one tick at the end.
    SoftwareStrobe,
    /// 5: the same, started by a trigger.
    HardwareStrobe,
}

impl Control {
    fn mode(self) -> Mode {
        match self.mode & 7 {
            0 => Mode::InterruptOnCount,
            1 => Mode::OneShot,
            2 | 6 => Mode::Rate,
            3 | 7 => Mode::Square,
            4 => Mode::SoftwareStrobe,
            _ => Mode::HardwareStrobe,
        }
    }

    /// The ticks a count register stands for: 0 is the largest count.
    fn ticks(self, count: u16) -> u64 {
        let value = if self.bcd {
            (0..4).rev().fold(0, |value, digit| value * 10 + u64::from(count >> (4 * digit) & 0xf))
        } else {
            u64::from(count)
        };
        if value == 0 { self.modulus() } else { value }
    }

    /// The count register that shows `ticks`.
    fn shown(self, ticks: u64) -> u16 {
        let value = ticks % self.modulus();
        let shown = if self.bcd {
            (0..4).rev().fold(0, |shown, digit| (shown << 4) | (value / 10u64.pow(digit) % 10))
        } else {
            value
        };
        (shown & 0xffff) as u16
    }

    fn modulus(self) -> u64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }
}

/// Ticks between two rises that are told apart in modes 2 and 3: 20 microseconds.
const SHORTEST_PERIOD: u64 = 24;

/// The first of `start + stride`, `start + 2 * stride`, ... after `after`.
fn next_multiple(start: u64, stride: u64, after: u64) -> Option<u64> {
    let count = after.saturating_sub(start) / stride + 1;
    start.checked_add(count.checked_mul(stride)?)
}

/// A count that replaces the current one at the end of its period (modes 2 and 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// The count register.
    pub count: u16,
    /// The tick at which it is loaded.
    pub at: u64,
}

/// The state of one counter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterState {
    /// The control word; `None` before the first.
    pub control: Option<Control>,
    /// The count register.
    pub count: u16,
    /// The tick at which counting started; `None` while the counter waits for a count or a trigger.
    pub start: Option<u64>,
    /// The tick at which a low gate stopped it (modes 0, 2, 3 and 4).
    pub stopped: Option<u64>,
    /// A whole count was written since the control word; modes 1 and 5 wait for their trigger then.
    pub armed: bool,
    /// The next count.
    pub reload: Option<Reload>,
    /// The gate input.
    pub gate: bool,
    /// The low byte of a count, written first.
    pub low_written: Option<u8>,
    /// The low byte of a count was read, the high byte is next.
    pub low_read: bool,
    /// The count latched.
    pub latched_count: Option<u16>,
    /// The status latched.
    pub latched_status: Option<u8>,
}

impl CounterState {
    fn control(&self) -> Control {
        self.control.unwrap_or_default()
    }

    fn period(&self) -> u64 {
        self.control().ticks(self.count)
    }

    /// Ticks counted; `None` while nothing has been loaded.
    fn elapsed(&self, now: u64) -> Option<u64> {
        let start = self.start?;
        Some(self.stopped.unwrap_or(now).saturating_sub(start))
    }

    /// The output.
    pub(super) fn output(&self, now: u64) -> bool {
        let Some(control) = self.control else { return true };
        let mode = control.mode();
        let Some(elapsed) = self.elapsed(now) else { return mode != Mode::InterruptOnCount };
        let period = self.period();
        match mode {
            Mode::InterruptOnCount | Mode::OneShot => elapsed >= period,
            // A low gate raises the output at once.
            Mode::Rate => self.stopped.is_some() || elapsed % period != period - 1,
            Mode::Square => self.stopped.is_some() || elapsed % period < period.div_ceil(2),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => elapsed != period,
        }
    }

    /// The counting element, as the count register shows it.
    fn value(&self, now: u64) -> u16 {
        let control = self.control();
        let Some(elapsed) = self.elapsed(now) else { return self.count };
        let period = self.period();
        let ticks = match control.mode() {
            // These go on below zero.
            Mode::InterruptOnCount
            | Mode::OneShot
            | Mode::SoftwareStrobe
            | Mode::HardwareStrobe => {
                let modulus = control.modulus();
                period % modulus + modulus - elapsed % modulus
            }
            Mode::Rate => period - elapsed % period,
            Mode::Square => {
                // Counts down by two, twice; an odd count loses its lowest bit.
                let high = period.div_ceil(2);
                let phase = elapsed % period;
                let phase = if phase < high { phase } else { phase - high };
                (period & !1).saturating_sub(2 * phase)
            }
        };
        control.shown(ticks)
    }

    /// The first tick after `after` at which the output rises by itself.
    pub(super) fn next_rise(&self, after: u64) -> Option<u64> {
        let start = self.start?;
        if self.stopped.is_some() {
            return None;
        }
        let period = self.period();
        let once = |at: u64| (at > after).then_some(at);
        match self.control?.mode() {
            Mode::InterruptOnCount | Mode::OneShot => once(start.saturating_add(period)),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                once(start.saturating_add(period).saturating_add(1))
            }
            Mode::Rate | Mode::Square => {
                // Merges the rises of periods too short to be meant, which would keep a host busy.
                let stride = period * (SHORTEST_PERIOD / period).max(1);
                next_multiple(start, stride, after)
            }
        }
    }

    /// The first tick after `after` at which a period ends.
    fn next_period(&self, after: u64) -> Option<u64> {
        next_multiple(self.start?, self.period(), after)
    }

    /// Loads the next count when its time has come.
    pub(super) fn settle(&mut self, now: u64) {
        if let Some(Reload { count, at }) = self.reload
            && at <= now
            && self.stopped.is_none()
        {
            self.count = count;
            self.start = Some(at);
            self.reload = None;
        }
    }

    /// A control word.
    pub(super) fn configure(&mut self, control: Control) {
        *self = Self { control: Some(control), gate: self.gate, ..Self::default() };
    }

    /// Latches the count; a second latch before it is read does nothing.
    pub(super) fn latch_count(&mut self, now: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.value(now));
        }
    }

    /// Latches the status byte (datasheet, figure 11).
    pub(super) fn latch_status(&mut self, now: u64) {
        if self.latched_status.is_some() {
            return;
        }
        let control = self.control();
        let null_count = self.reload.is_some() || self.start.is_none_or(|start| now < start);
        self.latched_status = Some(
            u8::from(self.output(now)) << 7
                | u8::from(null_count) << 6
                | control.transfer.into_bits() << 4
                | (control.mode & 7) << 1
                | u8::from(control.bcd),
        );
    }

    /// Reads the counter's port: status, latched count or live count.
    pub(super) fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.value(now)).to_le_bytes();
        let (byte, last) = match self.control().transfer {
            Transfer::Low => (low, true),
            Transfer::High => (high, true),
            Transfer::Both if self.low_read => (high, true),
            Transfer::Both => (low, false),
        };
        self.low_read = !last;
        if last {
            self.latched_count = None;
        }
        byte
    }

    /// Writes the counter's port.
    pub(super) fn write(&mut self, value: u8, now: u64) {
        let Some(control) = self.control else { return };
        let count = match control.transfer {
            Transfer::Low => u16::from(value),
            Transfer::High => u16::from(value) << 8,
            Transfer::Both => match self.low_written.take() {
                Some(low) => u16::from_le_bytes([low, value]),
                None => {
                    self.low_written = Some(value);
                    // The first byte stops mode 0 and lowers its output.
                    if control.mode() == Mode::InterruptOnCount {
                        self.start = None;
                        self.stopped = None;
                    }
                    return;
                }
            },
        };
        self.load(control.mode(), count, now);
    }

    /// A whole count was written at tick `now`.
    fn load(&mut self, mode: Mode, count: u16, now: u64) {
        let next = now.saturating_add(1);
        self.armed = true;
        match mode {
            Mode::InterruptOnCount | Mode::SoftwareStrobe => {
                self.count = count;
                self.start = Some(next);
                self.stopped = (!self.gate).then_some(next);
            }
            // The trigger loads it.
            Mode::OneShot | Mode::HardwareStrobe => {
                if self.start.is_none() {
                    self.count = count;
                } else {
                    self.reload = Some(Reload { count, at: u64::MAX });
                }
            }
            Mode::Rate | Mode::Square => match self.next_period(now) {
                // (Hardware looks at the end of a half period in mode 3.)
                Some(at) if self.stopped.is_none() => self.reload = Some(Reload { count, at }),
                _ => {
                    self.count = count;
                    self.start = Some(next);
                    self.stopped = (!self.gate).then_some(next);
                }
            },
        }
    }

    /// Sets the gate input (datasheet, figure 21, "Gate pin operations summary").
    pub(super) fn set_gate(&mut self, gate: bool, now: u64) {
        if std::mem::replace(&mut self.gate, gate) == gate {
            return;
        }
        let Some(control) = self.control else { return };
        let next = now.saturating_add(1);
        match (control.mode(), gate) {
            (Mode::OneShot | Mode::HardwareStrobe, true) if self.armed => {
                if let Some(Reload { count, at: _ }) = self.reload.take() {
                    self.count = count;
                }
                self.start = Some(next);
            }
            (Mode::OneShot | Mode::HardwareStrobe, _) => {}
            (_, false) => self.stopped = self.start.map(|start| now.max(start)),
            (Mode::Rate | Mode::Square, true) => {
                if let Some(Reload { count, at: _ }) = self.reload.take() {
                    self.count = count;
                }
                self.start = self.start.map(|_| next);
                self.stopped = None;
            }
            (Mode::InterruptOnCount | Mode::SoftwareStrobe, true) => {
                // Time that passed while stopped does not count.
                if let (Some(start), Some(stopped)) = (self.start, self.stopped) {
                    self.start = Some(start.saturating_add(now.saturating_sub(stopped)));
                }
                self.stopped = None;
            }
        }
    }
}
