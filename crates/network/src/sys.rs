//! What only Linux does.

pub(crate) mod tap;
