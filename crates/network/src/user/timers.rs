//! What is to be done when: one time at most for each token.

use std::collections::BTreeSet;
use std::time::Duration;

use super::outside::Token;

/// Who is to be woken when. Bounded by the tables, as each of their entries has at most one time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Duration, Token)>,
}

impl Timers {
    /// Sets when `token` is woken; `own` is where it keeps its time.
    pub(super) fn set(&mut self, token: Token, own: &mut Option<Duration>, at: Option<Duration>) {
        if *own == at {
            return;
        }
        if let Some(old) = own.take() {
            self.due.remove(&(old, token));
        }
        if let Some(new) = at {
            self.due.insert((new, token));
        }
        *own = at;
    }

    /// Makes sure that `token` is woken no later than `at`. Cheap when it already would be: whoever
    /// is woken too early sets its time again.
    pub(super) fn no_later(&mut self, token: Token, own: &mut Option<Duration>, at: Duration) {
        if own.is_none_or(|old| old > at) {
            self.set(token, own, Some(at));
        }
    }

    /// When somebody is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Who is due at `now`, and no longer has a time: its keeper forgets it.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Token> {
        let (at, token) = *self.due.first()?;
        (at <= now).then(|| {
            self.due.pop_first();
            token
        })
    }
}
