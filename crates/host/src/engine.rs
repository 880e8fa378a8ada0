//! Which engine runs the programs of a machine.

use riad_vmm::{EngineKind, choose_engine};

use crate::Error;

/// The engine that a request leads to on this host, for a machine that programs are to run in.
///
/// # Errors
/// When it cannot run here, or its guests' programs cannot ([`Error::NoPrograms`]).
pub(crate) fn choose(kind: EngineKind) -> Result<EngineKind, Error> {
    let engine = choose_engine(kind).map_err(Error::Vm)?;
    if engine == EngineKind::Kvm {
        let kvm = EngineKind::kvm_capabilities().map_err(Error::Vm)?;
        check(kvm.runs_programs(), kvm.driver)?;
    }
    Ok(engine)
}

fn check(runs_programs: bool, driver: Option<String>) -> Result<(), Error> {
    if runs_programs { Ok(()) } else { Err(Error::NoPrograms(driver.unwrap_or_default())) }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_kvm_whose_programs_would_hang_is_refused_with_what_to_do() {
        assert!(check(true, Some("kvm_intel".to_owned())).is_ok());
        let said = check(false, Some("kvm_pvm".to_owned())).expect_err("a refusal").to_string();
        for words in ["kvm_pvm", "SYSCALL", "--engine soft", "riad boot"] {
            assert!(said.contains(words), "{said}");
        }
    }
}
