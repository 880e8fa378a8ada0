//! One look at machines: what their processes have counted, and what their guests say.

use std::thread;
use std::time::Duration;

use riad_host::Measures;
use riad_host::machines::{Folder, Name, State};
use riad_host::process::{Connection, Vitals};

/// How long a guest may take to answer. One that is busy is shown without what it would say.
const PATIENCE: Duration = Duration::from_millis(500);

/// One look at one machine.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: Name,
    pub(crate) state: State,
    /// The process's number.
    pub(crate) pid: u32,
    /// Memory that the guest was started with, bytes.
    pub(crate) memory: u64,
    pub(crate) vitals: Vitals,
    pub(crate) guest: Option<Measures>,
}

/// Looks at all of these machines at once. Those that do not run are left out.
pub(crate) fn samples(folders: &[Folder]) -> Vec<Sample> {
    thread::scope(|scope| {
        let looks: Vec<_> =
            folders.iter().map(|folder| scope.spawn(move || sample(folder))).collect();
        looks.into_iter().filter_map(|look| look.join().ok().flatten()).collect()
    })
}

fn sample(folder: &Folder) -> Option<Sample> {
    let connection = Connection::open(folder).ok()?;
    let vitals = connection.vitals();
    let vitals = vitals.inspect_err(|error| tracing::info!(%error, "no vitals")).ok()?;
    let (state, run) = (folder.state().ok()?, folder.run_state().ok()??);
    let answers = matches!(state, State::Running | State::Stopping);
    Some(Sample {
        name: folder.name().clone(),
        state,
        pid: run.pid,
        memory: run.memory,
        vitals,
        guest: answers.then(|| folder.measures(PATIENCE)).flatten(),
    })
}
