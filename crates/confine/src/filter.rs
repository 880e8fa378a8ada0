//! From lists of calls to programs that the kernel runs before each call (seccomp(2)).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use crate::calls::{Call, TRACE, When};
use crate::kind::Means;
use crate::{Kind, sys};

/// Why a filter was not put in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    /// It cannot be made.
    #[error("the list of system calls cannot be made a program: {0}")]
    Program(#[from] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("the kernel does not take the list of system calls: {0}")]
    Apply(#[from] seccompiler::Error),
}

/// The filters of a process. Each thread has two: the process's own, which it inherits, and its
/// kind's. A call is made if both have it.
#[derive(Debug)]
pub(crate) struct Filters {
    means: Means,
    /// Backtraces are told, with names.
    traces: bool,
    /// By kind; made when the first thread of the kind comes.
    kinds: [OnceLock<BpfProgram>; Kind::ALL.len()],
}

impl Filters {
    pub(crate) fn new(means: Means, traces: bool) -> Self {
        Self { means, traces, kinds: [const { OnceLock::new() }; Kind::ALL.len()] }
    }

    /// Whether backtraces are wanted.
    pub(crate) fn traces(&self) -> bool {
        self.traces
    }

    /// Confines the process, if this is its one thread: to what it itself needs as a thread of that
    /// kind, and what the threads of a machine need.
    pub(crate) fn confine(&self, own: Kind) -> Result<(), FilterError> {
        let others = Kind::MACHINE.into_iter().filter(|_| own.runs_a_guest());
        let kinds = others.chain([own]);
        let traces = if self.traces { TRACE } else { &[] };
        let calls = kinds.flat_map(|kind| kind.calls(self.means));
        let program = only(calls.chain(traces))?;
        apply_filter(&unknown()?)?;
        Ok(apply_filter(&program)?)
    }

    /// Confines this thread to its kind's calls.
    pub(crate) fn enter(&self, kind: Kind) -> Result<(), FilterError> {
        let Some(kept) = self.kinds.get(kind.index()) else { return Ok(()) };
        let program = match kept.get() {
            Some(program) => program,
            None => {
                let program = only(kind.calls(self.means))?;
                kept.get_or_init(|| program)
            }
        };
        Ok(apply_filter(program)?)
    }
}

/// A program that has all calls fail but these.
fn only<'a>(calls: impl Iterator<Item = &'a Call>) -> Result<BpfProgram, FilterError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    let mut always = Vec::new();
    for (call, when) in calls {
        let alternatives = rules.entry(*call).or_default();
        match conditions(*when)? {
            // No rule means no condition.
            None => always.push(*call),
            Some(conditions) => alternatives.push(SeccompRule::new(conditions)?),
        }
    }
    for call in always {
        rules.insert(call, Vec::new());
    }
    program(rules, SeccompAction::Errno(sys::EPERM), SeccompAction::Allow)
}

/// A program that has the kernel not know some calls. It stands beside the others, as a list has one
/// way to fail: of two that refuse a call, the one that was put in place last says how, so the
/// others allow these.
fn unknown() -> Result<BpfProgram, FilterError> {
    let rules = sys::UNKNOWN.iter().map(|call| (*call, Vec::new())).collect();
    program(rules, SeccompAction::Allow, SeccompAction::Errno(sys::ENOSYS))
}

fn program(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, listed, architecture)?.try_into()?)
}

/// What is so when it is allowed; nothing if always.
fn conditions(when: When) -> Result<Option<Vec<SeccompCondition>>, FilterError> {
    let all = match when {
        When::All(all) => all,
        _ => &[when],
    };
    all.iter().map(|when| condition(*when)).collect()
}

fn condition(when: When) -> Result<Option<SeccompCondition>, FilterError> {
    use SeccompCmpArgLen::{Dword, Qword};
    let (arg, len, operator, value) = match when {
        When::Always | When::All(_) => return Ok(None),
        When::Masked { arg, mask, is } => {
            (arg, Dword, SeccompCmpOp::MaskedEq(u64::from(mask)), u64::from(is))
        }
        When::Own { arg } => (arg, Dword, SeccompCmpOp::Eq, u64::from(std::process::id())),
        When::Null { arg } => (arg, Qword, SeccompCmpOp::Eq, 0),
    };
    Ok(Some(SeccompCondition::new(arg, len, operator, value)?))
}
