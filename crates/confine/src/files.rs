//! Which files can be opened from now on (landlock(7)).

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// The newest rules that are asked for; an older kernel takes those that it knows. With version 4 TCP
/// is refused, or of it, listening; with 5 requests to devices, with 6 abstract sockets and signals to other processes.
const NEWEST: ABI = ABI::V6;

/// What may be done below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Files are read and listed.
    Read,
    /// Files are made, read, written, replaced and removed.
    Write,
    /// Directories too are made, moved and removed.
    Keep,
    /// A device is read, written and asked.
    Device,
}

impl Right {
    fn access(self) -> landlock::BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        match self {
            Self::Read => read,
            Self::Write => {
                read | AccessFs::WriteFile
                    | AccessFs::Truncate
                    | AccessFs::MakeReg
                    | AccessFs::RemoveFile
            }
            Self::Keep => {
                Self::Write.access() | AccessFs::MakeDir | AccessFs::RemoveDir | AccessFs::Refer
            }
            Self::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
        }
    }
}

/// Nothing but these can be opened by this thread and those that it starts. What is open stays so.
/// Gives whether the kernel knows any of it. Paths where there is nothing are passed over. `connects`
/// leaves it TCP connections to others.
pub(crate) fn only<'a>(
    paths: impl Iterator<Item = (&'a Path, Right)>,
    connects: bool,
) -> Result<bool, RulesetError> {
    let tcp = match connects {
        true => AccessNet::BindTcp.into(),
        false => AccessNet::from_all(NEWEST),
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(tcp)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for (path, right) in paths {
        if let Ok(fd) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(fd, right.access()))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}
