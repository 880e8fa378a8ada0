//! Sizes as people write them: `512M`, `2G`, `2GiB`, `1073741824`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It does not have the form of one.
    #[error("'{0}' is not a size: write a number and a unit, such as 512M, 2G or 2GiB")]
    Malformed(String),
    /// It is more than can be counted.
    #[error("'{0}' is more bytes than there can be")]
    TooLarge(String),
}

impl FromStr for Size {
    type Err = SizeError;

    /// Units are powers of 1024, with or without `B` or `iB`, in either case: nobody means 512
    /// million bytes of memory. A number without a unit is bytes.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let malformed = || SizeError::Malformed(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(malformed()),
        };
        if number.is_empty() {
            return Err(malformed());
        }
        let too_large = || SizeError::TooLarge(text.to_owned());
        // Nothing but digits is left, so the only failure is overflow.
        let number: u64 = number.parse().map_err(|_| too_large())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(too_large)
    }
}

impl fmt::Display for Size {
    /// With one digit after the point, where there is a whole unit of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 >> shift > 0) {
            Some((shift, unit)) if self.0.trailing_zeros() >= shift => {
                f.pad(&format!("{} {unit}", self.0 >> shift))
            }
            Some((shift, unit)) => {
                f.pad(&format!("{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64))
            }
            None => f.pad(&format!("{} B", self.0)),
        }
    }
}

#[cfg(test)]
#[path = "size_test.rs"]
mod tests;
