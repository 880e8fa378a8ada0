//! Making stores of other threads visible without a fence of theirs (membarrier(2)).
//!
//! A processor that stores to memory and then finds no mark of decoded code on the page has no
//! fence in between: one would cost every store. The processor that sets the mark, which is rare,
//! has the host fence all threads of this process instead.

use std::sync::Once;

use rustix::thread::{MembarrierCommand, membarrier};

/// Tells the host that [`drain_stores`] will be used.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = membarrier(MembarrierCommand::RegisterPrivateExpedited) {
            tracing::warn!(
                %error,
                "the host has no membarrier: code that one processor changes may stay old on another"
            );
        }
    });
}

/// Every store that another thread of this process has begun is visible when this returns.
pub(crate) fn drain_stores() {
    let _ = membarrier(MembarrierCommand::PrivateExpedited);
}
