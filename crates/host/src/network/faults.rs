//! What a machine's cable does to frames, for those who test what runs in it.

use std::fmt;
use std::time::Duration;

use riad_network::faults::Faults;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::journal::Event;
use crate::machines::Folder;
use crate::process::Connection;

/// The longest that a frame can be made to take, microseconds.
const MOST_TIME: u64 = 60_000_000;
/// The slowest and the fastest cable, bits a second.
const RATES: std::ops::RangeInclusive<u64> = 1000..=100_000_000_000;

/// What a machine's cable does to frames, each way. Keys are only ever added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CableFaults {
    /// How long a frame takes, microseconds.
    pub delay_us: u64,
    /// How much longer some take, at most, microseconds.
    pub jitter_us: u64,
    /// Of a million frames, so many are lost.
    pub loss_ppm: u32,
    /// Bits a second; 0 does not limit.
    pub rate_bits: u64,
    /// Nothing goes through.
    pub cut: bool,
}

impl From<CableFaults> for Faults {
    fn from(faults: CableFaults) -> Self {
        let CableFaults { delay_us, jitter_us, loss_ppm, rate_bits, cut } = faults;
        Self {
            delay: Duration::from_micros(delay_us.min(MOST_TIME)),
            jitter: Duration::from_micros(jitter_us.min(MOST_TIME)),
            loss: loss_ppm,
            // One that is slower than a byte a second is none that is not limited.
            rate: rate_bits.div_ceil(8),
            cut,
        }
    }
}

impl fmt::Display for CableFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delay_us, jitter_us, loss_ppm, rate_bits, cut } = *self;
        let mut parts = Vec::new();
        for (name, time) in [("delay", delay_us), ("jitter", jitter_us)] {
            if time > 0 {
                parts.push(format!("{name} {}", in_units(time, &TIMES)));
            }
        }
        if loss_ppm > 0 {
            parts.push(format!("loss {}%", f64::from(loss_ppm) / 1e4));
        }
        if rate_bits > 0 {
            parts.push(format!("rate {}", in_units(rate_bits, &RATE_UNITS)));
        }
        if cut {
            parts.push("cut".to_owned());
        }
        match parts.is_empty() {
            true => f.pad("none"),
            false => f.pad(&parts.join(", ")),
        }
    }
}

/// Units, the smallest first, and how many of the first they are.
type Units<const N: usize> = [(&'static str, u64); N];

const TIMES: Units<3> = [("us", 1), ("ms", 1000), ("s", 1_000_000)];
const RATE_UNITS: Units<4> =
    [("bit", 1), ("kbit", 1000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];

/// A number in the largest unit of which it is a whole number.
fn in_units<const N: usize>(number: u64, units: &Units<N>) -> String {
    let unit = units.iter().rev().find(|(_, size)| number.is_multiple_of(*size));
    unit.map_or(number.to_string(), |(unit, size)| format!("{}{unit}", number / size))
}

/// Reads a number with a unit, in the smallest unit. `None` when it is none.
fn read<const N: usize>(text: &str, units: &Units<N>) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at_checked(end)?;
    let (_, size) = units.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    Some(number.parse::<f64>().ok()? * *size as f64)
}

/// Reads how long a frame takes, as in `50ms`: microseconds.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_time(text: &str) -> Result<u64, String> {
    let time = read(text, &TIMES).ok_or_else(|| {
        format!("'{text}' is no time: write a number and us, ms or s, as in 50ms")
    })?;
    match time <= MOST_TIME as f64 {
        true => Ok(time.round() as u64),
        false => Err(format!("a frame takes {} at most", in_units(MOST_TIME, &TIMES))),
    }
}

/// Reads how many frames are lost, as in `2%`: of a million.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_loss(text: &str) -> Result<u32, String> {
    let share = read(text, &[("%", 1)]).filter(|share| *share <= 100.0);
    let share = share.ok_or_else(|| {
        format!("'{text}' is no share: write a percentage up to 100%, as in 2% or 0.5%")
    })?;
    Ok((share * 1e4).round() as u32)
}

/// Reads how fast a cable is, as in `10mbit`: bits a second.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = read(text, &RATE_UNITS).ok_or_else(|| {
        format!(
            "'{text}' is no rate: write a number and kbit, mbit or gbit, a second, as in 10mbit"
        )
    })?;
    let (least, most) = RATES.into_inner();
    match (least as f64..=most as f64).contains(&rate) {
        true => Ok(rate.round() as u64),
        false => Err(format!(
            "a cable carries {} to {} a second",
            in_units(least, &RATE_UNITS),
            in_units(most, &RATE_UNITS)
        )),
    }
}

impl Folder {
    /// What the machine's cable does to frames. It must run.
    ///
    /// # Errors
    /// The machine's process cannot be asked, or has no network card.
    pub fn faults(&self) -> Result<CableFaults, Error> {
        Ok(Connection::open(self)?.fault(None)?)
    }

    /// Has the machine's cable do this to frames, and nothing else, until it is off.
    ///
    /// # Errors
    /// The machine's process cannot be asked, or has no network card.
    pub fn set_faults(&self, faults: &CableFaults) -> Result<(), Error> {
        let _lock = self.lock()?;
        let before = Connection::open(self)?.fault(None)?;
        Connection::open(self)?.fault(Some(*faults))?;
        let (what, when) = ("faults".to_owned(), "now".to_owned());
        let (from, to) = (before.to_string(), faults.to_string());
        self.record(&Event::Set { what, from, to, when });
        Ok(())
    }
}

#[cfg(test)]
#[path = "faults_test.rs"]
mod tests;
