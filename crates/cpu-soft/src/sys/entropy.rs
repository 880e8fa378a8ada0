//! Random numbers for RDRAND and RDSEED.

use std::cell::RefCell;

/// Bytes asked of the host at a time.
const BATCH: usize = 256;

thread_local! {
    static POOL: RefCell<(usize, [u8; BATCH])> = const { RefCell::new((BATCH, [0; BATCH])) };
}

/// A random number; `None` when the host has none.
pub(crate) fn random() -> Option<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes).then(|| u64::from_le_bytes(bytes))
}

/// Fills `bytes` (at most [`BATCH`]) from the host's generator. Returns whether it could.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    POOL.with_borrow_mut(|(used, pool)| {
        if *used + bytes.len() > BATCH {
            if rustix::rand::getrandom(&mut pool[..], rustix::rand::GetRandomFlags::empty())
                != Ok(BATCH)
            {
                return false;
            }
            *used = 0;
        }
        bytes.copy_from_slice(&pool[*used..*used + bytes.len()]);
        pool[*used..*used + bytes.len()].fill(0);
        *used += bytes.len();
        true
    })
}
