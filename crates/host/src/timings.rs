//! Where the time went.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Stage;

/// A stage and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageTime {
    /// The stage.
    pub stage: Stage,
    /// How long it took.
    pub time: Duration,
}

/// Where the time of one `riad run` went. As JSON: `{"stages": [{"stage": "kernel", "ms": 1.5},
/// ...], "total_ms": ..., "instructions": ..., "mips": ..., "exits": {"mmio-read": 5, ...}}`;
/// what is not known is null, and keys are
/// only ever added.
#[derive(Debug, Clone, PartialEq)]
pub struct Timings {
    /// The stages, in order.
    pub stages: Vec<StageTime>,
    /// From the process's start to its end.
    pub total: Duration,
    /// Instructions that the guest's processors retired, where the engine counts them: translated
    /// code that runs freely is not counted.
    pub instructions: Option<u64>,
    /// How often processors left the guest, by kind, where the engine counts that.
    pub exits: Vec<(&'static str, u64)>,
}

impl Timings {
    /// How long a stage took; zero if it was not reached.
    #[must_use]
    pub fn of(&self, stage: Stage) -> Duration {
        self.stages.iter().filter(|s| s.stage == stage).map(|s| s.time).sum()
    }

    /// Millions of instructions a second, over the stages in which the guest ran.
    #[must_use]
    pub fn mips(&self) -> Option<f64> {
        let guest = [Stage::Kernel, Stage::Userland, Stage::Agent, Stage::Command];
        let seconds: f64 = guest.into_iter().map(|stage| self.of(stage).as_secs_f64()).sum();
        let instructions = self.instructions? as f64;
        (seconds > 0.0).then(|| instructions / seconds / 1e6)
    }
}

#[derive(Serialize, Deserialize)]
struct StageJson {
    stage: Stage,
    ms: f64,
}

#[derive(Serialize)]
struct TimingsJson {
    stages: Vec<StageJson>,
    total_ms: f64,
    instructions: Option<u64>,
    mips: Option<f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exits: BTreeMap<&'static str, u64>,
}

impl Serialize for Timings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let stages =
            self.stages.iter().map(|s| StageJson { stage: s.stage, ms: ms(s.time) }).collect();
        TimingsJson {
            stages,
            total_ms: ms(self.total),
            instructions: self.instructions,
            mips: self.mips().map(|mips| (mips * 10.0).round() / 10.0),
            exits: self.exits.iter().copied().collect(),
        }
        .serialize(serializer)
    }
}

/// What an engine counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Instructions that were retired.
    pub(crate) instructions: Option<u64>,
    /// How often processors left the guest, by kind.
    pub(crate) exits: Vec<(&'static str, u64)>,
}

/// Measures stages as they go by.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    began: Instant,
    lap: Instant,
    stages: Vec<StageTime>,
}

impl Stopwatch {
    /// A watch that has run since `began`, in the stage before the first.
    pub(crate) fn new(began: Instant) -> Self {
        Self { began, lap: began, stages: Vec::new() }
    }

    /// The time since the last stage ended was this stage's.
    pub(crate) fn ended(&mut self, stage: Stage) {
        let now = Instant::now();
        let time = now.saturating_duration_since(self.lap);
        self.stages.push(StageTime { stage, time });
        self.lap = now;
    }

    /// The time since the last stage ended was these stages': the guest's clock tells how much of
    /// it was the later ones', and the first one had the rest.
    pub(crate) fn ended_with(&mut self, first: Stage, later: &[StageTime]) {
        let now = Instant::now();
        let mut left = now.saturating_duration_since(self.lap);
        let mut stages = Vec::new();
        // The guest may claim what it likes: there is no more than there was.
        for &StageTime { stage, time } in later.iter().rev() {
            let time = time.min(left);
            left -= time;
            stages.push(StageTime { stage, time });
        }
        stages.push(StageTime { stage: first, time: left });
        self.stages.extend(stages.into_iter().rev());
        self.lap = now;
    }

    /// The result.
    pub(crate) fn finish(self, counts: Counts) -> Timings {
        let Counts { instructions, exits } = counts;
        Timings { stages: self.stages, total: self.began.elapsed(), instructions, exits }
    }
}

#[cfg(test)]
#[path = "timings_test.rs"]
mod tests;
