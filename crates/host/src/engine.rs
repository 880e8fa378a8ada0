//! Which engine runs the programs of a machine.

use riad_vmm::{EngineKind, choose_engine};

use crate::Error;

/// The engine that a request leads to on this host, for a machine that programs are to run in.
///
/// # Errors
/// When it cannot run here, or its guests' programs cannot ([`Error::NoPrograms`]).
pub(crate) fn choose(kind: EngineKind) -> Result<EngineKind, Error> {
    let engine = choose_engine(kind).map_err(Error::Vm)?;
    if engine != EngineKind::Kvm {
        return Ok(engine);
    }
    let kvm = EngineKind::kvm_capabilities().map_err(Error::Vm)?;
    match check(kind, kvm.runs_programs(), kvm.driver)? {
        EngineKind::Kvm => Ok(engine),
        other => choose_engine(other).map_err(Error::Vm),
    }
}

/// What to take where a request leads to KVM.
fn check(
    asked: EngineKind,
    runs_programs: bool,
    driver: Option<String>,
) -> Result<EngineKind, Error> {
    match (runs_programs, asked) {
        (true, _) => Ok(EngineKind::Kvm),
        (false, EngineKind::Auto) => Ok(EngineKind::Soft),
        (false, _) => Err(Error::NoPrograms(driver.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use riad_vmm::EngineKind::{Auto, Kvm, Soft};

    use super::check;

    #[test]
    fn a_kvm_whose_programs_would_hang_is_refused_with_what_to_do() {
        assert_eq!(check(Kvm, true, Some("kvm_intel".to_owned())).ok(), Some(Kvm));
        let said =
            check(Kvm, false, Some("kvm_pvm".to_owned())).expect_err("a refusal").to_string();
        for words in ["kvm_pvm", "SYSCALL", "--engine soft", "riad boot"] {
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn nobody_who_left_the_choice_to_riad_gets_such_a_kvm() {
        assert_eq!(check(Auto, true, None).ok(), Some(Kvm));
        assert_eq!(check(Auto, false, Some("kvm_pvm".to_owned())).ok(), Some(Soft));
    }
}
