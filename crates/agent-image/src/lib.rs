//! The agent's program for each guest architecture, built by this crate's build script and carried
//! inside whatever links it: `riad` stays one file.
//!
//! The architecture is the guest's, never this host's (wall 1). A packager who builds the agents
//! apart gives them in `RIAD_AGENT_<ARCH>` (for example `RIAD_AGENT_X86_64=/path/to/riad-agent`).

include!(concat!(env!("OUT_DIR"), "/agents.rs"));

/// The agent for guests of architecture `arch`, by Linux's name (`x86_64`, `aarch64`): a static
/// ELF executable to be put into the guest as `/init` of its initramfs. `None` if this build has
/// none for it.
pub fn agent(arch: &str) -> Option<&'static [u8]> {
    AGENTS.iter().find(|(name, _)| *name == arch).map(|(_, program)| *program)
}

/// The architectures that this build has an agent for.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    AGENTS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
