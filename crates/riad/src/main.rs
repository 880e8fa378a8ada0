//! The `riad` command.

fn main() {}
