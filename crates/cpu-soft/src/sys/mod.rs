//! What the processor asks of the host (wall 1).

pub(crate) mod barrier;
pub(crate) mod entropy;
pub(crate) mod mapping;
