//! Riad: share.
