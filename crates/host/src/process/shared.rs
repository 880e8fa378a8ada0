//! What the threads of a machine's process share: what is true of the machine, and the ways to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use riad_disk::{Disk, Layer, RawDisk};
use riad_vmm::{Console, Devices, Keyboard, Meter, VsockHandle};

use super::provision::Provisioner;
use super::rooms::Rooms;
use super::tap::Tap;
use super::vitals::{Gauges, Vitals};
use crate::journal::{Event, Own};
use crate::machines::{Ended, Folder, How, MachineError, Phase, Provisioning, RunState, StageMark};
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
    gauges: Gauges,
    journal: Own,
    run: Mutex<Run>,
    changed: Condvar,
    ways: Mutex<Option<Ways>>,
    /// What the machine's network card is plugged into, as soon as it is.
    plug: OnceLock<Arc<Plug>>,
    /// Held while something is plugged in or out, and while a machine is built.
    plugging: Mutex<()>,
    /// Held while the file that says how scripts went is read and written again.
    provisioning: Mutex<()>,
    provisioner: OnceLock<Provisioner>,
    /// And the partition that the root file system is in.
    disk: OnceLock<(Arc<Layer>, Option<u32>)>,
    /// Those that are attached, in the order in which they were.
    attached: Mutex<Vec<Arc<RawDisk>>>,
    /// Where a want of room is told.
    rooms: OnceLock<Rooms>,
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
    /// Its network cards and disks.
    pub(super) devices: Devices,
    pub(super) keyboard: Keyboard,
    pub(super) console: Console,
    pub(super) teller: Teller,
    pub(super) meter: Meter,
    /// How long a connection to the agent may take.
    pub(super) patience: Duration,
}

impl Shared {
    pub(super) fn new(
        folder: Folder,
        tap: Tap,
        gauges: Gauges,
        journal: Own,
        state: RunState,
        attached: Vec<Arc<RawDisk>>,
    ) -> Self {
        let (pid, engine) = (state.pid, state.engine.clone());
        journal.say(None, &Event::Starting { pid, engine });
        let shared = Self(Arc::new(Inner {
            folder,
            tap,
            gauges,
            journal,
            run: Mutex::new(Run { state, version: 0 }),
            changed: Condvar::new(),
            ways: Mutex::new(None),
            plug: OnceLock::new(),
            plugging: Mutex::new(()),
            provisioning: Mutex::new(()),
            provisioner: OnceLock::new(),
            disk: OnceLock::new(),
            attached: Mutex::new(attached),
            rooms: OnceLock::new(),
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
        self.say(&Event::Stage { stage: stage.name().to_owned() });
        self.change(|state| state.stage = stage.name().to_owned());
    }

    /// Something did not go as it should; the machine runs all the same.
    pub(super) fn warn(&self, warning: String) {
        self.change(|state| state.warnings.push(warning));
    }

    /// The machine runs: its stages took this long. Returns whether it still is the start that it was,
    /// by how many times the guest had restarted itself.
    pub(super) fn running(&self, start: u32, stages: &[StageTime]) -> bool {
        let is_it = |state: &RunState| state.phase != Phase::Ended && state.reboots == start;
        if !is_it(&self.state()) {
            return false;
        }
        let mark = |time: &StageTime| StageMark {
            stage: time.stage.name().to_owned(),
            ms: (time.time.as_secs_f64() * 1e6).round() / 1e3,
        };
        self.change(|state| {
            if !is_it(state) {
                return;
            }
            // One that was told to stop early is stopping already.
            if state.phase == Phase::Starting {
                state.phase = Phase::Running;
            }
            state.stage = Stage::Running.name().to_owned();
            state.stages = stages.iter().map(mark).collect();
        });
        let ms = stages.iter().map(|stage| stage.time.as_millis()).sum::<u128>();
        self.say(&Event::AgentReady { ms: u64::try_from(ms).unwrap_or(u64::MAX) });
        true
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
            state.warnings.clear();
            state.system = None;
        });
        self.say(&Event::Restarted { reboots: self.state().reboots });
    }

    /// The init system has said its word, after this long.
    pub(super) fn system(&self, word: &str, time: Duration) {
        self.change(|state| {
            state.system = Some(word.to_owned());
            let ms = (time.as_secs_f64() * 1e6).round() / 1e3;
            state.stages.push(StageMark { stage: "system".to_owned(), ms });
        });
        self.say(&Event::SystemReady { word: word.to_owned() });
    }

    /// What the guest waits for, if it does.
    pub(super) fn waits(&self, waits: Option<String>) {
        self.change(|state| state.waits = waits);
    }

    pub(super) fn ended(&self, how: How, message: String, console: Vec<String>) {
        *self.ways() = None;
        let event = match how {
            How::PoweredOff => Event::Stopped { how: "powered-off".to_owned() },
            How::Forced => Event::Stopped { how: "forced".to_owned() },
            How::Failed => Event::Failed { stage: self.state().stage, reason: message.clone() },
        };
        // A guest that nobody told to stop did so by itself.
        let is_guests = how == How::PoweredOff && !self.0.stop_told.load(Ordering::Relaxed);
        self.0.journal.say(is_guests.then(|| "the guest".to_owned()), &event);
        self.change(|state| {
            state.phase = Phase::Ended;
            state.waits = None;
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

    /// While this is kept, nothing is plugged in or out, and no machine is built: so a guest that restarts
    /// has what was plugged in whole, and what was not, not at all.
    pub(super) fn plugging(&self) -> MutexGuard<'_, ()> {
        self.0.plugging.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// What the machine uses.
    pub(super) fn vitals(&self) -> Vitals {
        let meter = self.get_ways().map(|ways| ways.meter);
        self.0.gauges.read(meter.as_ref())
    }

    /// Changes what is known of scripts, in the folder.
    pub(super) fn change_provisioning<T>(
        &self,
        change: impl FnOnce(&mut Provisioning) -> T,
    ) -> Result<T, MachineError> {
        let _one = self.0.provisioning.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.folder().recorded_provisioning()?;
        let before = state.clone();
        let result = change(&mut state);
        if state != before {
            self.folder().write_provisioning(&state)?;
        }
        Ok(result)
    }

    /// Who runs scripts. There is one.
    pub(super) fn set_provisioner(&self, provisioner: Provisioner) {
        let _ = self.0.provisioner.set(provisioner);
    }

    /// The machine's disk. There is one.
    pub(super) fn set_disk(&self, disk: &Arc<Layer>, root_partition: Option<u32>) {
        let _ = self.0.disk.set((Arc::clone(disk), root_partition));
    }

    /// The machine's disk, once it has been opened.
    pub(super) fn disk(&self) -> Option<&Arc<Layer>> {
        self.0.disk.get().map(|(disk, _)| disk)
    }

    /// The partition of it that the root file system is in; `None` when that fills it.
    pub(super) fn root_partition(&self) -> Option<u32> {
        self.0.disk.get().and_then(|(_, partition)| *partition)
    }

    pub(super) fn set_rooms(&self, rooms: Rooms) {
        let _ = self.0.rooms.set(rooms);
    }

    fn attached(&self) -> MutexGuard<'_, Vec<Arc<RawDisk>>> {
        self.0.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk of that name, if it is attached.
    pub(super) fn attached_disk(&self, name: &str) -> Option<Arc<RawDisk>> {
        self.attached().iter().find(|disk| disk.label() == Some(name)).cloned()
    }

    /// The disks that are attached, in order, as the machine gets them: a want of room is told.
    pub(super) fn watched(&self) -> Vec<Arc<dyn Disk>> {
        self.attached().iter().map(|disk| self.watch(disk)).collect()
    }

    /// A disk as the machine gets it.
    pub(super) fn watch(&self, disk: &Arc<RawDisk>) -> Arc<dyn Disk> {
        let disk: Arc<dyn Disk> = Arc::<RawDisk>::clone(disk);
        match self.0.rooms.get() {
            Some(rooms) => rooms.watch(disk),
            None => disk,
        }
    }

    /// A disk has been plugged in: the machine has it from now on, also when its guest restarts.
    pub(super) fn has_disk(&self, disk: Arc<RawDisk>) {
        let name = disk.label().map(str::to_owned);
        self.attached().push(disk);
        self.change(|state| state.disks.extend(name));
    }

    /// A disk has been unplugged: nobody has it any more.
    pub(super) fn has_no_disk(&self, name: &str) {
        if let (Some(disk), Some(rooms)) = (self.attached_disk(name), self.0.rooms.get()) {
            rooms.forget(disk.name());
        }
        self.attached().retain(|disk| disk.label() != Some(name));
        self.change(|state| state.disks.retain(|disk| disk != name));
    }

    /// Has scripts run that are to be.
    pub(super) fn provision(&self) {
        if let Some(provisioner) = self.0.provisioner.get() {
            // Full: it is told already.
            let _ = provisioner.try_send(());
        }
    }

    /// Writes down what happened.
    pub(super) fn say(&self, event: &Event) {
        self.0.journal.say(None, event);
    }

    /// Has the machine stopped, because somebody wants it.
    pub(super) fn stop(&self, force: bool, by: Option<String>) {
        let (told, news) = match force {
            false => (&self.0.stop_told, News::Stop),
            true => (&self.0.unplug_told, News::Unplug),
        };
        let ways = self.ways();
        if told.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(ways) = &*ways {
            ways.teller.tell(news);
        }
        drop(ways);
        self.0.journal.say(by, &Event::Stopping { force });
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
