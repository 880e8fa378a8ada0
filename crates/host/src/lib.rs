//! Riad: host.
