//! Riad: cpu-kvm.
