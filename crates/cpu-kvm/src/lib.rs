//! The engine `kvm`: a processor lent by the host's kernel.
//!
//! Not built yet. The floor stands, so that the choice between engines has its place: the traits
//! it will implement are [`riad_cpu::Engine`] and [`riad_cpu::Vcpu`].

/// Why this engine cannot be used.
#[must_use]
pub fn unavailable() -> riad_cpu::Error {
    riad_cpu::Error::Unavailable {
        engine: "kvm",
        reason: "it is not built yet in this release; use --engine soft (or auto)".to_owned(),
    }
}
