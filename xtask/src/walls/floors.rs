//! Each floor may use the floors below it, never one above or beside it.

use std::collections::BTreeMap;

use super::Breach;
use crate::Error;
use crate::cargo::{cargo, output};

/// Our crates and their floors, the lowest first. `docs/architecture.md` draws them.
const FLOORS: [(&str, u8); 19] = [
    ("riad-clock", 0),
    ("riad-confine", 0),
    ("riad-memory", 1),
    ("riad-disk", 1),
    ("riad-network", 1),
    ("riad-share", 1),
    ("riad-agent", 1),
    ("riad-agent-image", 1),
    ("riad-image", 1),
    ("riad-cpu", 2),
    ("riad-cpu-soft", 3),
    ("riad-cpu-kvm", 4),
    ("riad-devices", 3),
    ("riad-machine", 4),
    ("riad-vmm", 5),
    ("riad-host", 6),
    ("riad", 7),
    // Chores look at the house from outside.
    ("riad-fuzz", 8),
    ("xtask", 9),
];

/// Engines, and who may know which one runs.
const ENGINES: [&str; 2] = ["riad-cpu-soft", "riad-cpu-kvm"];
/// `cpu-kvm` has the software processor do what the kernel cannot.
const KNOWS_ENGINES: [&str; 3] = ["riad-vmm", "riad-fuzz", "riad-cpu-kvm"];

/// The crates of the workspace, and which of each other they need to be built (not to be tested).
pub(super) fn read() -> Result<BTreeMap<String, Vec<String>>, Error> {
    let text = output(cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(list(&metadata["packages"])
        .iter()
        .map(|package| {
            let needs = list(&package["dependencies"])
                .iter()
                .filter(|needed| !needed["path"].is_null() && needed["kind"] != "dev")
                .map(|needed| text(&needed["name"]))
                .collect();
            (text(&package["name"]), needs)
        })
        .collect())
}

/// Checks who uses whom.
pub(super) fn check(crates: &BTreeMap<String, Vec<String>>) -> Vec<Breach> {
    let floor = |name: &str| FLOORS.iter().find(|(known, _)| *known == name).map(|(_, at)| *at);
    let mut breaches = Vec::new();
    for (name, needs) in crates {
        let mut breach = |what: String| breaches.push(Breach { place: name.clone(), what });
        let Some(own) = floor(name) else {
            breach("this crate has no floor: give it one in xtask/src/walls/floors.rs".to_owned());
            continue;
        };
        for needed in needs {
            if floor(needed).is_none_or(|below| below >= own) {
                breach(format!("uses {needed}, which is not on a floor below it"));
            }
            if ENGINES.contains(&needed.as_str()) && !KNOWS_ENGINES.contains(&name.as_str()) {
                breach(format!(
                    "uses {needed}; only {} may know engines",
                    KNOWS_ENGINES.join(", ")
                ));
            }
        }
    }
    breaches
}
