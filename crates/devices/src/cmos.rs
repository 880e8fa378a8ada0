//! The battery-backed clock and memory of a PC: a Motorola MC146818 (datasheet, 1984) with 128
//! bytes and the century at 0x32, as ACPI's FADT says.
//!
//! The clock shows the host's wall time ([`riad_clock::Clock::wall`]), plus what a guest that set
//! it made the difference. Nothing is stepped: flags that time sets (update ended, alarm, periodic)
//! are brought up to date when the guest looks or when an interrupt is due.

use riad_clock::{Nanos, SharedClock};
use serde::{Deserialize, Serialize};

use crate::line::SharedLine;
use crate::port::{self, PortRange};
use crate::{PortDevice, TimedDevice};

mod calendar;
mod registers;
pub use calendar::{Alarm, DateTime};
pub use registers::{Flags, RegisterA, RegisterB};

const SECOND: i128 = 1_000_000_000;
/// How long before an update the update-in-progress bit is set (datasheet, "UIP").
const UPDATE_WARNING: i128 = 244_000;
/// Where in a second the end of a divider reset is: the first update follows half a second later
/// (datasheet, "Divider control").
const NANOS_AFTER_DIVIDER_RESET: u32 = 500_000_000;
/// Ticks a second of the time base behind periodic interrupts.
const TIME_BASE: u128 = 32_768;

/// Numbers of the bytes that mean something.
mod index {
    pub(super) const A: u8 = 0x0a;
    pub(super) const B: u8 = 0x0b;
    pub(super) const C: u8 = 0x0c;
    pub(super) const D: u8 = 0x0d;
    pub(super) const EQUIPMENT: usize = 0x14;
    pub(super) const BASE_MEMORY: usize = 0x15;
    pub(super) const EXTENDED_MEMORY: [usize; 2] = [0x17, 0x30];
    pub(super) const CHECKSUM: usize = 0x2e;
    pub(super) const CENTURY: u8 = 0x32;
    pub(super) const MEMORY_ABOVE_16M: usize = 0x34;
    pub(super) const MEMORY_ABOVE_4G: usize = 0x5b;
}

/// The saved state of [`Cmos`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CmosState {
    /// The byte that the data port shows, 0 to 127.
    pub selected: u8,
    /// The 128 bytes. Those of the time are used only while it does not run; alarms always.
    pub bytes: Vec<u8>,
    /// Register A.
    pub a: RegisterA,
    /// Register B.
    pub b: RegisterB,
    /// Register C.
    pub flags: Flags,
    /// The guest's time less the host's: whole seconds, rounded down.
    pub offset_seconds: i64,
    /// The rest of that, in nanoseconds.
    pub offset_nanos: u32,
    /// The part of a second that had passed when the time was stopped, in nanoseconds.
    pub stopped_nanos: u32,
    /// The second up to which updates and alarms have set their flags.
    pub served_second: i64,
    /// The tick of the time base up to which periods have set their flag.
    pub served_tick: u64,
}

/// What the firmware would have counted, for guests that ask the CMOS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemorySize {
    /// Bytes of memory below 4 GiB.
    pub below_4g: u64,
    /// Bytes of memory from 4 GiB.
    pub above_4g: u64,
}

/// The clock and its memory.
pub struct Cmos {
    state: CmosState,
    clock: SharedClock,
    /// Interrupt request 8.
    line: SharedLine,
}

impl Cmos {
    /// Where the device answers; offsets are port numbers.
    pub const PORTS: &'static [PortRange] = &[0x70..=0x71];
    /// The byte of the century, for ACPI's FADT.
    pub const CENTURY: u8 = index::CENTURY;

    /// A clock that runs in BCD and 24 hours, as firmware leaves it.
    #[must_use]
    pub fn new(memory: MemorySize, clock: SharedClock, line: SharedLine) -> Self {
        let state = CmosState {
            selected: 0,
            bytes: initial_bytes(memory),
            a: RegisterA::new().with_rate(6).with_divider(RegisterA::RUNNING),
            b: RegisterB::new().with_hours_24(true),
            flags: Flags::new(),
            offset_seconds: 0,
            offset_nanos: 0,
            stopped_nanos: 0,
            served_second: 0,
            served_tick: 0,
        };
        let mut cmos = Self::restore(state, clock, line);
        cmos.state.served_second = cmos.seconds();
        cmos.state.served_tick = cmos.tick();
        cmos
    }

    /// The clock of a saved state. It shows the host's time of now, plus the guest's difference.
    #[must_use]
    pub fn restore(mut state: CmosState, clock: SharedClock, line: SharedLine) -> Self {
        state.bytes.resize(128, 0);
        line.set(state.flags.request());
        Self { state, clock, line }
    }

    /// The saved state.
    #[must_use]
    pub fn save(&self) -> CmosState {
        let Self { state, clock: _, line: _ } = self;
        state.clone()
    }

    /// The guest's time, in nanoseconds since the Unix epoch.
    fn time(&self) -> i128 {
        let CmosState { offset_seconds, offset_nanos, .. } = self.state;
        i128::from(self.clock.wall())
            + i128::from(offset_seconds) * SECOND
            + i128::from(offset_nanos)
    }

    /// The part of the current second that has passed, in nanoseconds.
    fn fraction(&self) -> u32 {
        u32::try_from(self.time().rem_euclid(SECOND)).unwrap_or(0)
    }

    /// The guest's time in whole seconds.
    fn seconds(&self) -> i64 {
        i64::try_from(self.time().div_euclid(SECOND)).unwrap_or(0)
    }

    /// Ticks of the time base since the machine was powered on.
    fn tick(&self) -> u64 {
        let ticks = u128::from(self.clock.now()) * TIME_BASE / 1_000_000_000;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Whether the time stands still, to be set.
    fn stopped(&self) -> bool {
        self.state.b.set() || self.state.a.divider_reset()
    }

    /// The alarm of the alarm bytes.
    fn alarm(&self) -> Alarm {
        let [_, second, _, minute, _, hour, ..] = self.state.bytes[..] else {
            return Alarm::default();
        };
        Alarm::from_bytes([second, minute, hour], self.state.b)
    }

    /// Sets the flags for what has happened since the last call, and the wire.
    fn sync(&mut self) {
        if !self.stopped() {
            let now = self.seconds();
            let served = std::mem::replace(&mut self.state.served_second, now);
            if now != served {
                self.state.flags.set_update(true);
            }
            // A clock that was set back, or far ahead, has passed nothing.
            if now > served && self.alarm().next_after(served).is_some_and(|at| at <= now) {
                self.state.flags.set_alarm(true);
            }
        }
        let tick = self.tick();
        let served = std::mem::replace(&mut self.state.served_tick, tick);
        if let Some(period) = self.state.a.period()
            && tick / period != served / period
        {
            self.state.flags.set_periodic(true);
        }
        self.update_line();
    }

    fn update_line(&mut self) {
        let CmosState { b, flags, .. } = &mut self.state;
        let request = (flags.update() && b.update_interrupt())
            || (flags.alarm() && b.alarm_interrupt())
            || (flags.periodic() && b.periodic_interrupt());
        flags.set_request(request);
        self.line.set(request);
    }

    fn read(&mut self) -> u8 {
        let selected = self.state.selected;
        match selected {
            index::A => {
                let until_update = SECOND - self.time().rem_euclid(SECOND);
                let updating = !self.stopped() && until_update <= UPDATE_WARNING;
                self.state.a.with_updating(updating).into_bits()
            }
            index::B => self.state.b.into_bits(),
            index::C => {
                let flags = std::mem::take(&mut self.state.flags);
                self.line.set(false);
                flags.into_bits()
            }
            // The battery is good.
            index::D => 0x80,
            _ if calendar::is_time(selected) && !self.stopped() => {
                DateTime::from_unix(self.seconds()).to_byte(selected, self.state.b)
            }
            _ => self.byte(selected),
        }
    }

    fn byte(&self, index: u8) -> u8 {
        self.state.bytes.get(usize::from(index)).copied().unwrap_or(0xff)
    }

    fn set_byte(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.state.bytes.get_mut(usize::from(index)) {
            *byte = value;
        }
    }

    fn write(&mut self, value: u8) {
        match self.state.selected {
            index::A => {
                self.change_mode(RegisterA::from_bits(value).with_updating(false), self.state.b);
            }
            index::B => {
                let b = RegisterB::from_bits(value);
                // The set bit clears the update-ended interrupt enable (datasheet, "SET").
                let b = if b.set() { b.with_update_interrupt(false) } else { b };
                self.change_mode(self.state.a, b);
            }
            index::C | index::D => {}
            selected if calendar::is_time(selected) && !self.stopped() => {
                self.show_time();
                self.set_byte(selected, value);
                self.set_time(self.fraction());
            }
            selected => self.set_byte(selected, value),
        }
        self.update_line();
    }

    /// Changes registers A and B, which may stop the time or let it go on.
    fn change_mode(&mut self, a: RegisterA, b: RegisterB) {
        let was_stopped = self.stopped();
        let divider_released = self.state.a.divider_reset() && !a.divider_reset();
        if !was_stopped {
            // In the format of the old register B: a stopped clock's bytes are not converted.
            self.show_time();
            self.state.stopped_nanos = self.fraction();
        }
        (self.state.a, self.state.b) = (a, b);
        if divider_released {
            self.state.stopped_nanos = NANOS_AFTER_DIVIDER_RESET;
        }
        if was_stopped && !self.stopped() {
            self.set_time(self.state.stopped_nanos);
        }
    }

    /// Puts the running time into the bytes.
    fn show_time(&mut self) {
        let time = DateTime::from_unix(self.seconds());
        for index in calendar::TIME_BYTES {
            self.set_byte(index, time.to_byte(index, self.state.b));
        }
    }

    /// Makes the bytes, and `fraction` nanoseconds, the running time.
    fn set_time(&mut self, fraction: u32) {
        let time = DateTime::from_bytes(|index| self.byte(index), self.state.b);
        let target = i128::from(time.to_unix()) * SECOND + i128::from(fraction);
        let offset = target - i128::from(self.clock.wall());
        self.state.offset_seconds = i64::try_from(offset.div_euclid(SECOND)).unwrap_or(0);
        self.state.offset_nanos = u32::try_from(offset.rem_euclid(SECOND)).unwrap_or(0);
        self.state.served_second = self.seconds();
    }

    /// The guest time at which the guest's clock shows `second`.
    fn deadline_of(&self, second: i64) -> Nanos {
        let wait = (i128::from(second) * SECOND).saturating_sub(self.time()).max(0);
        self.clock.now().saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

impl PortDevice for Cmos {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        self.sync();
        port::read_bytes(offset, data, |port| match port {
            0x71 => self.read(),
            // The index cannot be read.
            _ => 0xff,
        });
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        self.sync();
        port::write_bytes(offset, data, |port, value| match port {
            // The highest bit masks non-maskable interrupts, which do not exist here.
            0x70 => self.state.selected = value & 0x7f,
            0x71 => self.write(value),
            _ => {}
        });
    }
}

impl TimedDevice for Cmos {
    fn next_deadline(&self) -> Option<Nanos> {
        let CmosState { b, flags, served_second, served_tick, .. } = &self.state;
        let running = !self.stopped();
        let update = (running && b.update_interrupt() && !flags.update())
            .then(|| self.deadline_of(served_second.saturating_add(1)));
        let alarm = (running && b.alarm_interrupt() && !flags.alarm())
            .then(|| self.alarm().next_after(*served_second))
            .flatten()
            .map(|second| self.deadline_of(second));
        let periodic =
            self.state.a.period().filter(|_| b.periodic_interrupt() && !flags.periodic());
        let periodic = periodic.and_then(|period| {
            let tick = (served_tick / period + 1).checked_mul(period)?;
            u64::try_from((u128::from(tick) * 1_000_000_000).div_ceil(TIME_BASE)).ok()
        });
        [update, alarm, periodic].into_iter().flatten().min()
    }

    fn expire(&mut self) {
        self.sync();
    }
}

/// The memory as firmware fills it.
fn initial_bytes(memory: MemorySize) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    let mut put = |index: usize, value: u64, size: usize| {
        bytes[index..index + size].copy_from_slice(&value.to_le_bytes()[..size]);
    };
    // A coprocessor.
    put(index::EQUIPMENT, 0x02, 1);
    put(index::BASE_MEMORY, 640, 2);
    let extended = (memory.below_4g.saturating_sub(1 << 20) >> 10).min(0xffff);
    for index in index::EXTENDED_MEMORY {
        put(index, extended, 2);
    }
    let above_16m = (memory.below_4g.saturating_sub(16 << 20) >> 16).min(0xffff);
    put(index::MEMORY_ABOVE_16M, above_16m, 2);
    put(index::MEMORY_ABOVE_4G, (memory.above_4g >> 16).min(0xff_ffff), 3);
    let sum: u16 = bytes[0x10..index::CHECKSUM].iter().map(|&byte| u16::from(byte)).sum();
    bytes[index::CHECKSUM..index::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[cfg(test)]
#[path = "cmos_test.rs"]
mod tests;
