//! Riad: network.
