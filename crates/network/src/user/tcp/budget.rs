//! Memory for connections: bounded in sum, and shared fairly without knowing how many will come.
//!
//! Buffers are taken whole when a connection is made, but the kernel gives their pages only when they
//! are written to, and a connection whose other side reads writes to the first ones only. So the budget
//! is a bound on what a hostile guest can make the network keep, and not what it uses.

use super::super::config::LEAST_BUFFER;

/// The most that a connection keeps each way, bytes.
const MOST_BUFFER: usize = 1 << 20;
/// A connection gets this part of what is left.
const SHARE: usize = 64;

/// What is left.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    all: usize,
}

impl Budget {
    pub(super) fn new(all: usize) -> Self {
        Self { left: all, all }
    }

    /// Bytes of the buffer of one way of a connection; it takes both. `None`: there is no room.
    pub(super) fn take(&mut self) -> Option<usize> {
        let share = (self.left / SHARE).min(2 * MOST_BUFFER) / 2;
        // A power of two is what the window's scale makes of it.
        let size = share.checked_ilog2().map_or(0, |log| 1 << log).max(LEAST_BUFFER);
        self.left = self.left.checked_sub(2 * size)?;
        Some(size)
    }

    /// A connection that had buffers of that size is gone.
    pub(super) fn give_back(&mut self, size: usize) {
        self.left = (self.left + 2 * size).min(self.all);
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
        let mut budget = Budget::new(all);
        let mut sizes = Vec::new();
        while let Some(size) = budget.take() {
            sizes.push(size);
            assert!(budget.used() <= all);
        }
        assert_eq!((sizes[0], sizes[sizes.len() - 1]), (MOST_BUFFER, LEAST_BUFFER));
        assert!(sizes.len() >= 4096, "{}", sizes.len());
        sizes.drain(..).for_each(|size| budget.give_back(size));
        assert_eq!(budget.used(), 0);
    }
}
