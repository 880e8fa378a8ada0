//! What the threads of a machine's process share: what is true of the machine, and the ways to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use riad_vmm::{Console, Keyboard, NetHandle, VsockHandle};

use super::tap::Tap;
use crate::machines::{Ended, Folder, How, Phase, RunState, StageMark};
use crate::network::Plug;
use crate::watch::{News, Teller};
use crate::{Stage, StageTime};

/// What the threads share. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: Folder,
    tap: Tap,
    run: Mutex<Run>,
    changed: Condvar,
    ways: Mutex<Option<Ways>>,
    /// What the machine's network card is plugged into, as soon as it is.
    plug: OnceLock<Arc<Plug>>,
    /// Each is told once.
    stop_told: AtomicBool,
    unplug_told: AtomicBool,
}

#[derive(Debug)]
struct Run {
    state: RunState,
    /// Counts changes.
    version: u64,
}

/// The ways to the machine that runs now.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    pub(super) vsock: VsockHandle,
    pub(super) net: Option<NetHandle>,
    pub(super) keyboard: Keyboard,
    pub(super) console: Console,
    pub(super) teller: Teller,
    /// How long a connection to the agent may take.
    pub(super) patience: Duration,
}

impl Shared {
    pub(super) fn new(folder: Folder, tap: Tap, state: RunState) -> Self {
        let shared = Self(Arc::new(Inner {
            folder,
            tap,
            run: Mutex::new(Run { state, version: 0 }),
            changed: Condvar::new(),
            ways: Mutex::new(None),
            plug: OnceLock::new(),
            stop_told: AtomicBool::new(false),
            unplug_told: AtomicBool::new(false),
        }));
        shared.change(|_| {});
        shared
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.0.folder
    }

    pub(super) fn tap(&self) -> &Tap {
        &self.0.tap
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.0.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is true now.
    pub(super) fn state(&self) -> RunState {
        self.run().state.clone()
    }

    /// Changes what is true, in the folder too. A disk that is full must not stop the machine: the
    /// folder says what it said, and whoever asks the process is told the truth.
    fn change(&self, change: impl FnOnce(&mut RunState)) {
        let mut run = self.run();
        change(&mut run.state);
        run.version += 1;
        if let Err(error) = self.0.folder.write_run_state(&run.state) {
            tracing::warn!(%error, "the machine's state cannot be written down");
        }
        drop(run);
        self.0.changed.notify_all();
    }

    /// A stage begins.
    pub(super) fn stage(&self, stage: Stage) {
        self.change(|state| state.stage = stage.name().to_owned());
    }

    /// The machine runs: its stages took this long.
    pub(super) fn running(&self, stages: &[StageTime]) {
        let mark = |time: &StageTime| StageMark {
            stage: time.stage.name().to_owned(),
            ms: (time.time.as_secs_f64() * 1e6).round() / 1e3,
        };
        self.change(|state| {
            // One that was told to stop early is stopping already.
            if state.phase == Phase::Starting {
                state.phase = Phase::Running;
            }
            state.stage = Stage::Running.name().to_owned();
            state.stages = stages.iter().map(mark).collect();
        });
    }

    pub(super) fn stopping(&self) {
        self.change(|state| state.phase = Phase::Stopping);
    }

    /// The guest restarts itself.
    pub(super) fn restarts(&self) {
        *self.ways() = None;
        self.change(|state| {
            state.phase = Phase::Starting;
            state.reboots += 1;
            state.stages.clear();
            state.system = None;
        });
    }

    /// The init system has said its word, after this long.
    pub(super) fn system(&self, word: &str, time: Duration) {
        self.change(|state| {
            state.system = Some(word.to_owned());
            let ms = (time.as_secs_f64() * 1e6).round() / 1e3;
            state.stages.push(StageMark { stage: "system".to_owned(), ms });
        });
    }

    pub(super) fn ended(&self, how: How, message: String, console: Vec<String>) {
        *self.ways() = None;
        self.change(|state| {
            state.phase = Phase::Ended;
            state.ended = Some(Ended { at: unix_ms(), how, message, console });
        });
    }

    pub(super) fn set_plug(&self, plug: Arc<Plug>) {
        // Set once: the process has one network for all of its machine's restarts.
        let _ = self.0.plug.set(plug);
    }

    /// What the machine's network card is plugged into.
    pub(super) fn plug(&self) -> Option<&Plug> {
        self.0.plug.get().map(|plug| &**plug)
    }

    fn ways(&self) -> MutexGuard<'_, Option<Ways>> {
        self.0.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ways to the machine, while there is one.
    pub(super) fn get_ways(&self) -> Option<Ways> {
        self.ways().clone()
    }

    pub(super) fn set_ways(&self, ways: Ways) {
        // What came too early to be told is told now.
        for (told, news) in [(&self.0.stop_told, News::Stop), (&self.0.unplug_told, News::Unplug)] {
            if told.load(Ordering::Relaxed) {
                ways.teller.tell(news);
            }
        }
        *self.ways() = Some(ways);
    }

    /// Has the machine stopped.
    pub(super) fn stop(&self, force: bool) {
        let (told, news) = match force {
            false => (&self.0.stop_told, News::Stop),
            true => (&self.0.unplug_told, News::Unplug),
        };
        let ways = self.ways();
        if !told.swap(true, Ordering::Relaxed)
            && let Some(ways) = &*ways
        {
            ways.teller.tell(news);
        }
    }

    /// Whether the plug is to be pulled, at a time when there is no machine to be told.
    pub(super) fn is_unplugged(&self) -> bool {
        self.0.unplug_told.load(Ordering::Relaxed)
    }

    /// Waits for a change after the one of that number, and gives what is true then, and its
    /// number. Ask with 0 first.
    pub(super) fn next(&self, seen: u64) -> (RunState, u64) {
        let run = self.run();
        let waited = self.0.changed.wait_while(run, |run| run.version == seen);
        let run = waited.unwrap_or_else(PoisonError::into_inner);
        (run.state.clone(), run.version)
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
