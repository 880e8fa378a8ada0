//! Which clusters are in the delta.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

/// Words in a page, the unit in which changes are noted.
const PAGE_WORDS: usize = 512;
/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = PAGE_WORDS * 8;
/// Bits of a page.
pub(crate) const PAGE_BITS: u64 = PAGE_BYTES as u64 * 8;

/// One bit a cluster.
#[derive(Debug)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    len: u64,
    /// The pages with bits set since [`take_changed`](Self::take_changed), in order.
    changed: BTreeSet<usize>,
}

/// A page of the bitmap: its number, and its words as little-endian bytes.
pub(crate) type Page = (usize, Vec<u8>);

/// Clusters next to each other with the same bit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) clusters: Range<u64>,
    pub(crate) is_set: bool,
}

impl Run {
    /// The clusters, when their bits are set.
    pub(crate) fn set(self) -> Option<Range<u64>> {
        self.is_set.then_some(self.clusters)
    }
}

impl Bitmap {
    /// `len` bits that are clear.
    ///
    /// # Errors
    /// Out of memory: files may be longer than anything that is kept in them.
    pub(crate) fn new(len: u64) -> io::Result<Self> {
        let out_of_memory = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let size = usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX);
        let mut words = Vec::new();
        words.try_reserve_exact(size).map_err(out_of_memory)?;
        words.resize(size, 0);
        Ok(Self { words, len, changed: BTreeSet::new() })
    }

    /// Adds bits that are clear, up to `len`. Does nothing if there are more already.
    ///
    /// # Errors
    /// Out of memory; nothing has changed then.
    pub(crate) fn extend(&mut self, len: u64) -> io::Result<()> {
        let out_of_memory = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let size = usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX);
        let more = size.saturating_sub(self.words.len());
        self.words.try_reserve_exact(more).map_err(out_of_memory)?;
        self.words.resize(self.words.len() + more, 0);
        self.len = self.len.max(len);
        Ok(())
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many bits are set.
    pub(crate) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn word(&self, bit: u64) -> u64 {
        usize::try_from(bit / 64).ok().and_then(|index| self.words.get(index)).map_or(0, |&w| w)
    }

    fn get(&self, bit: u64) -> bool {
        self.word(bit) >> (bit % 64) & 1 != 0
    }

    /// The end of the run that `bit` is in, at most `end`.
    fn run_end(&self, bit: u64, end: u64) -> u64 {
        let is_set = self.get(bit);
        let mut at = bit;
        while at < end {
            // Bits that differ from the run's, from `at` on.
            let word = if is_set { !self.word(at) } else { self.word(at) } >> (at % 64);
            if word != 0 {
                return end.min(at + u64::from(word.trailing_zeros()));
            }
            at += 64 - at % 64;
        }
        end
    }

    /// Whether all bits of a range are set.
    pub(crate) fn all(&self, range: Range<u64>) -> bool {
        range.is_empty()
            || (self.get(range.start) && self.run_end(range.start, range.end) == range.end)
    }

    /// Sets the bits of a range; those past the end do not exist.
    pub(crate) fn set(&mut self, range: Range<u64>) {
        let mut at = range.start;
        let end = range.end.min(self.len);
        while at < end {
            let stop = end.min(at - at % 64 + 64);
            let mask = u64::MAX >> (64 - (stop - at)) << (at % 64);
            if let Some(word) = usize::try_from(at / 64).ok().and_then(|i| self.words.get_mut(i)) {
                let page = at / PAGE_BITS;
                if *word | mask != *word {
                    self.changed.extend(usize::try_from(page));
                }
                *word |= mask;
            }
            at = stop;
        }
    }

    /// The pages that were changed since they were last taken.
    pub(crate) fn take_changed(&mut self) -> Vec<Page> {
        let pages = std::mem::take(&mut self.changed);
        let page = |number: usize| {
            let words = self.words.iter().skip(number * PAGE_WORDS).take(PAGE_WORDS);
            (number, words.flat_map(|word| word.to_le_bytes()).collect())
        };
        pages.into_iter().map(page).collect()
    }

    /// Pages that were taken, and are still to be written.
    pub(crate) fn put_back(&mut self, pages: &[Page]) {
        self.changed.extend(pages.iter().map(|(number, _)| number));
    }

    /// Fills a page from bytes, as [`take_changed`](Self::take_changed) gives them. Bits past the
    /// end do not exist.
    pub(crate) fn load(&mut self, number: usize, bytes: &[u8]) {
        let words = self.words.iter_mut().skip(number * PAGE_WORDS).take(PAGE_WORDS);
        for (word, bytes) in words.zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        if let (Some(last), rest @ 1..) = (self.words.last_mut(), self.len % 64) {
            *last &= u64::MAX >> (64 - rest);
        }
    }

    /// The runs of a range, in order, without gaps.
    pub(crate) fn runs(&self, range: Range<u64>) -> impl Iterator<Item = Run> + '_ {
        let Range { mut start, end } = range;
        std::iter::from_fn(move || {
            if start >= end {
                return None;
            }
            let clusters = start..self.run_end(start, end);
            let is_set = self.get(start);
            start = clusters.end;
            Some(Run { clusters, is_set })
        })
    }
}

#[cfg(test)]
#[path = "bitmap_test.rs"]
mod tests;
