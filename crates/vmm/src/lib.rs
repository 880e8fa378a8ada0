//! Riad: vmm.
