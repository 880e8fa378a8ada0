//! Which instructions look up memory all the time.
//!
//! A memory operand is expected in the page that its base register was in last. Code that jumps about
//! in memory is elsewhere each time, and the host's processor guesses wrongly each time. One look-up in
//! [`SAMPLE`] is a sample. When they come fast, and many of them are of one
//! instruction, that is one that jumps about. One that goes through memory page by page makes few, and
//! in code that is merely everywhere none has many.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::cache::Spread;
use super::frame::SAMPLE;

/// When look-ups are no further apart than this on average, in nanoseconds, they come fast.
const FAST: u64 = 50;
/// Of so many samples in a row, so many must be of an instruction.
const WINDOW: u32 = 32;
const ENOUGH: u8 = 5;

/// The samples of one processor.
#[derive(Debug, Default)]
pub(super) struct Samples {
    last: Option<u64>,
    seen: u32,
    counts: HashMap<u64, u8, BuildHasherDefault<Spread>>,
}

impl Samples {
    /// Takes a sample of the instruction at a place in RAM; `now` is guest time in nanoseconds.
    /// Returns whether it jumps about.
    pub(super) fn is_scattered(&mut self, place: u64, now: u64) -> bool {
        let since = self.last.replace(now).map(|last| now.saturating_sub(last));
        self.count(place, since.is_some_and(|since| since < FAST * u64::from(SAMPLE)))
    }

    fn count(&mut self, place: u64, fast: bool) -> bool {
        self.seen += 1;
        if self.seen > WINDOW || !fast {
            self.counts.clear();
            self.seen = 1;
        }
        let count = self.counts.entry(place).or_default();
        *count += 1;
        *count == ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scattered(samples: &mut Samples, places: impl Iterator<Item = u64>) -> Vec<u64> {
        places.filter(|&place| samples.count(place, true)).collect()
    }

    #[test]
    fn an_instruction_is_scattered_when_many_samples_in_a_row_are_of_it() {
        let mut samples = Samples::default();
        assert_eq!(
            scattered(&mut samples, (0..32).map(|n| if n % 5 == 0 { 7 } else { 100 + n })),
            [7]
        );
        // Told once.
        assert_eq!(scattered(&mut samples, (0..32).map(|n| if n < 20 { 9 } else { 100 + n })), [9]);
    }

    #[test]
    fn code_that_is_everywhere_has_no_scattered_instruction() {
        let mut samples = Samples::default();
        assert_eq!(scattered(&mut samples, (0..1000).map(|n| n % 9)), []);
    }

    #[test]
    fn samples_that_come_slowly_do_not_count() {
        let mut samples = Samples::default();
        assert!((0..1000).all(|_| !samples.count(1, false)));
    }
}
