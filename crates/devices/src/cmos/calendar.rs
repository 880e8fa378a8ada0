//! Dates, times and alarms in the formats of the MC146818 (datasheet, table 3).
//!
//! The calendar is the proleptic Gregorian one, without leap seconds.

use super::index::CENTURY;
use super::registers::RegisterB;

/// The bytes of the time: second, minute, hour, weekday, day, month, year, century.
pub(super) const TIME_BYTES: [u8; 8] = [0, 2, 4, 6, 7, 8, 9, CENTURY];

const DAY: i64 = 86_400;

/// Whether a byte is one of the time.
pub(super) fn is_time(index: u8) -> bool {
    TIME_BYTES.contains(&index)
}

/// A date and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// Year.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Day of the week, 1 (Sunday) to 7.
    pub weekday: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute.
    pub minute: u8,
    /// Second.
    pub second: u8,
}

/// Whether a year has a 29th of February.
fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: u8) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the first of January of year 1 to that of `year`.
fn days_before_year(year: i64) -> i64 {
    let years = year - 1;
    years * 365 + years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400)
}

/// Days from the first of January of year 1 to that of 1970.
const EPOCH: i64 = 719_162;

/// A number of one byte as the guest sees it.
fn encode(value: u8, b: RegisterB) -> u8 {
    if b.binary() { value } else { ((value / 10 % 10) << 4) | (value % 10) }
}

fn decode(value: u8, b: RegisterB) -> u8 {
    if b.binary() { value } else { (value >> 4).wrapping_mul(10).wrapping_add(value & 0xf) }
}

fn encode_hour(hour: u8, b: RegisterB) -> u8 {
    if b.hours_24() {
        return encode(hour, b);
    }
    let twelve = match hour % 12 {
        0 => 12,
        hour => hour,
    };
    encode(twelve, b) | if hour >= 12 { 0x80 } else { 0 }
}

fn decode_hour(value: u8, b: RegisterB) -> u8 {
    if b.hours_24() {
        return decode(value, b);
    }
    let afternoon = if value & 0x80 != 0 { 12 } else { 0 };
    decode(value & 0x7f, b) % 12 + afternoon
}

fn byte(value: i64) -> u8 {
    u8::try_from(value).unwrap_or(0)
}

impl DateTime {
    /// The date and time of a number of seconds since the Unix epoch, within years 0 to 9999.
    #[must_use]
    pub fn from_unix(seconds: i64) -> Self {
        let seconds = seconds.clamp(-EPOCH * DAY, 253_402_300_799);
        let (days, second) = (seconds.div_euclid(DAY) + EPOCH, seconds.rem_euclid(DAY));
        // A first guess that is never too late, and at most one year too early.
        let mut year = days * 400 / 146_097;
        while days_before_year(year + 1) <= days {
            year += 1;
        }
        let mut day = days - days_before_year(year);
        let mut month = 1;
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: byte(day + 1),
            // Day 0, the first of January of year 1, was a Monday.
            weekday: byte((days + 1).rem_euclid(7) + 1),
            hour: byte(second / 3600),
            minute: byte(second / 60 % 60),
            second: byte(second % 60),
        }
    }

    /// The number of seconds since the Unix epoch. The weekday does not matter.
    #[must_use]
    pub fn to_unix(self) -> i64 {
        let months: i64 = (1..self.month).map(|month| days_in_month(self.year, month)).sum();
        let days = days_before_year(self.year) - EPOCH + months + i64::from(self.day) - 1;
        let [hour, minute, second] = [self.hour, self.minute, self.second].map(i64::from);
        days * DAY + hour * 3600 + minute * 60 + second
    }

    /// One byte of the time.
    pub(super) fn to_byte(self, index: u8, b: RegisterB) -> u8 {
        match index {
            0 => encode(self.second, b),
            2 => encode(self.minute, b),
            4 => encode_hour(self.hour, b),
            6 => encode(self.weekday, b),
            7 => encode(self.day, b),
            8 => encode(self.month, b),
            9 => encode(byte(self.year % 100), b),
            _ => encode(byte(self.year / 100), b),
        }
    }

    /// The time of the bytes. What is out of range is brought into it.
    pub(super) fn from_bytes(bytes: impl Fn(u8) -> u8, b: RegisterB) -> Self {
        let number = |index| decode(bytes(index), b);
        let year = i64::from(number(CENTURY).min(99)) * 100 + i64::from(number(9).min(99));
        let month = number(8).clamp(1, 12);
        Self {
            year,
            month,
            day: number(7).clamp(1, byte(days_in_month(year, month))),
            weekday: number(6),
            hour: decode_hour(bytes(4), b).min(23),
            minute: number(2).min(59),
            second: number(0).min(59),
        }
    }
}

/// When the alarm rings; `None` is "any" (the two highest bits of the byte are set).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alarm {
    /// Hour.
    pub hour: Option<u8>,
    /// Minute.
    pub minute: Option<u8>,
    /// Second.
    pub second: Option<u8>,
}

impl Alarm {
    /// The alarm of its bytes: second, minute, hour.
    pub(super) fn from_bytes([second, minute, hour]: [u8; 3], b: RegisterB) -> Self {
        let unless_any = |byte: u8, value: u8| (byte < 0xc0).then_some(value);
        Self {
            hour: unless_any(hour, decode_hour(hour, b)),
            minute: unless_any(minute, decode(minute, b)),
            second: unless_any(second, decode(second, b)),
        }
    }

    /// The first second after `after` at which the alarm rings. `None` when its time does not
    /// exist.
    pub(super) fn next_after(self, after: i64) -> Option<i64> {
        let mismatch = |want: Option<u8>, is: i64| want.is_some_and(|want| i64::from(want) != is);
        let first = after.checked_add(1)?;
        let end = first.checked_add(DAY)?;
        let mut at = first;
        while at < end {
            let time = at.rem_euclid(DAY);
            // Skips to the next hour, minute or second that may match.
            if mismatch(self.hour, time / 3600) {
                at += 3600 - time % 3600;
            } else if mismatch(self.minute, time / 60 % 60) {
                at += 60 - time % 60;
            } else if mismatch(self.second, time % 60) {
                at += 1;
            } else {
                return Some(at);
            }
        }
        None
    }
}
