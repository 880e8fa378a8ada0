//! What is known of each page of RAM: written to, decoded from.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, Weak};

use crate::gather::Stretches;

/// Page state bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageState;

impl PageState {
    /// The page was written since the dirty map was last taken.
    pub const DIRTY: u8 = 1;
    /// A software processor holds code decoded from this page.
    pub const CODE: u8 = 2;
}

/// Somebody who keeps what was made from a page's code where no generation is compared.
pub trait CodeWatch: Send + Sync + std::fmt::Debug {
    /// Bytes of `page` were written, some of which may be code. Called on the writer's thread, before
    /// the writer goes on.
    fn code_written(&self, page: usize);
}

/// The states of all pages of RAM, indexed by page number within the memory file.
#[derive(Debug)]
pub struct PageTable {
    state: Box<[AtomicU8]>,
    /// Changes each time code may have been overwritten.
    generation: Box<[AtomicU32]>,
    watches: RwLock<Vec<Weak<dyn CodeWatch>>>,
    stretches: Stretches,
}

impl PageTable {
    /// States for `pages` clean pages.
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            state: std::iter::repeat_with(|| AtomicU8::new(0)).take(pages).collect(),
            generation: std::iter::repeat_with(|| AtomicU32::new(0)).take(pages).collect(),
            watches: RwLock::default(),
            stretches: Stretches::new(pages),
        }
    }

    /// Tells `watch` of overwritten code from now on, for as long as it lives.
    pub fn add_watch(&self, watch: Weak<dyn CodeWatch>) {
        let mut watches = self.watches.write().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(watch);
    }

    pub(crate) fn stretches(&self) -> &Stretches {
        &self.stretches
    }

    /// Number of pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether there is no page at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    /// The state of a page, for a writer that wants to test it cheaply before
    /// [`note_write`](Self::note_write): nothing needs to be told when it is exactly
    /// [`PageState::DIRTY`].
    #[must_use]
    pub fn state(&self, page: usize) -> &AtomicU8 {
        &self.state[page]
    }

    /// Tells that bytes of `page` were written. Returns whether decoded code may have been
    /// overwritten. Call it after the bytes are in memory.
    pub fn note_write(&self, page: usize) -> bool {
        let state = &self.state[page];
        let was = state.load(Ordering::SeqCst);
        if was == PageState::DIRTY {
            return false;
        }
        state.fetch_or(PageState::DIRTY, Ordering::SeqCst);
        if was & PageState::DIRTY == 0 {
            self.stretches.count(page);
        }
        if was & PageState::CODE == 0 {
            return false;
        }
        // In this order: who marks the page again in between knows an older generation.
        state.fetch_and(!PageState::CODE, Ordering::SeqCst);
        self.generation[page].fetch_add(1, Ordering::SeqCst);
        let watches = self.watches.read().unwrap_or_else(PoisonError::into_inner);
        for watch in watches.iter().filter_map(Weak::upgrade) {
            watch.code_written(page);
        }
        true
    }

    /// Marks a page as holding decoded code and returns its generation, to be compared with
    /// [`generation`](Self::generation) before the decoding is used. Call it before the bytes are
    /// read.
    ///
    /// A writer stores, then looks for the mark, with no fence between: its store may still be on
    /// the way when it finds no mark. `drain` makes such stores visible; it is called when the page
    /// was not marked.
    pub fn mark_code(&self, page: usize, drain: impl FnOnce()) -> u32 {
        let generation = self.generation[page].load(Ordering::SeqCst);
        let was = self.state[page].fetch_or(PageState::CODE, Ordering::SeqCst);
        if was & PageState::CODE != 0 {
            return generation;
        }
        drain();
        // What others decoded since the mark may lack those stores. When the generation moved
        // meanwhile, the mark may be gone: then this decoding is stale from the start.
        let next = generation.wrapping_add(1);
        match self.generation[page].compare_exchange(
            generation,
            next,
            Ordering::SeqCst,
            Ordering::SeqCst,
        ) {
            Ok(_) => next,
            Err(_) => generation,
        }
    }

    /// The generation of a page's code: a decoding made at another generation is stale.
    #[inline]
    #[must_use]
    pub fn generation(&self, page: usize) -> u32 {
        self.generation[page].load(Ordering::Acquire)
    }

    /// Takes the dirty map: the pages written since the last call, which become clean.
    pub fn take_dirty(&self) -> Vec<usize> {
        (0..self.state.len())
            .filter(|&page| {
                let dirty = self.state[page].load(Ordering::Relaxed) & PageState::DIRTY != 0;
                dirty
                    && self.state[page].fetch_and(!PageState::DIRTY, Ordering::SeqCst)
                        & PageState::DIRTY
                        != 0
            })
            .collect()
    }
}
