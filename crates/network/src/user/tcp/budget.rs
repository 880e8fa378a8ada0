//! Memory for connections: bounded in sum, and shared fairly without knowing how many will come.
//!
//! Buffers are taken whole when a connection is made, but the kernel gives their pages only when they
//! are written to, and a connection whose other side reads writes to the first ones only. So the budget
//! is a bound on what a hostile guest can make the network keep, and not what it uses.

use super::super::config::LEAST_BUFFER;

/// The most that a connection keeps each way, bytes.
const MOST_BUFFER: usize = 1 << 20;
/// A connection gets this part of what is left, beyond the least that all others may still want.
const SHARE: usize = 32;

/// What is left.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    all: usize,
    /// Connections that may still come.
    to_come: usize,
}

impl Budget {
    /// `all` bytes, for at most so many connections.
    pub(super) fn new(all: usize, connections: usize) -> Self {
        Self { left: all, all, to_come: connections }
    }

    /// Bytes of the buffer of one way of a connection; it takes both. `None`: there is no room.
    pub(super) fn take(&mut self) -> Option<usize> {
        let to_come = self.to_come.checked_sub(1)?;
        let kept = to_come.saturating_mul(2 * LEAST_BUFFER);
        let share = (self.left.saturating_sub(kept) / SHARE).min(2 * MOST_BUFFER) / 2;
        // A power of two is what the window's scale makes of it.
        let size = share.checked_ilog2().map_or(0, |log| 1 << log).max(LEAST_BUFFER);
        self.left = self.left.checked_sub(2 * size)?;
        self.to_come = to_come;
        Some(size)
    }

    /// A connection that had buffers of that size is gone.
    pub(super) fn give_back(&mut self, size: usize) {
        self.left = (self.left + 2 * size).min(self.all);
        self.to_come += 1;
    }

    /// Bytes that are given out.
    pub(super) fn used(&self) -> usize {
        self.all - self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_get_much_and_the_last_get_some() {
        let all = 128 << 20;
        let mut budget = Budget::new(all, 4096);
        let mut sizes = Vec::new();
        while let Some(size) = budget.take() {
            sizes.push(size);
            assert!(budget.used() <= all);
        }
        assert_eq!((sizes[0], sizes[sizes.len() - 1]), (MOST_BUFFER, LEAST_BUFFER));
        assert_eq!(sizes.len(), 4096);
        sizes.drain(..).for_each(|size| budget.give_back(size));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_budget_too_small_for_all_is_kept_to() {
        let mut budget = Budget::new(10 * LEAST_BUFFER, 4096);
        let sizes: Vec<_> = std::iter::from_fn(|| budget.take()).collect();
        assert_eq!(sizes, [LEAST_BUFFER; 5]);
        assert_eq!(budget.used(), 10 * LEAST_BUFFER);
    }
}
