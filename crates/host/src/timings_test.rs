use std::time::{Duration, Instant};

use super::{Counts, StageTime, Stopwatch, Timings};
use crate::Stage;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_guests_clock_divides_what_the_hosts_measured() {
    let began = Instant::now().checked_sub(10 * SECOND).unwrap();
    let mut watch = Stopwatch::new(began);
    let later = [
        StageTime { stage: Stage::Userland, time: 2 * SECOND },
        StageTime { stage: Stage::Agent, time: SECOND },
    ];
    watch.ended_with(Stage::Kernel, &later);
    let timings = watch.finish(Counts { instructions: Some(20_000_000), ..Counts::default() });
    assert_eq!(
        timings.stages.iter().map(|s| s.stage).collect::<Vec<_>>(),
        [Stage::Kernel, Stage::Userland, Stage::Agent]
    );
    assert_eq!(timings.of(Stage::Userland), 2 * SECOND);
    assert_eq!(timings.of(Stage::Agent), SECOND);
    let kernel = timings.of(Stage::Kernel);
    assert!(kernel >= 7 * SECOND && kernel < 8 * SECOND, "{kernel:?}");
    let mips = timings.mips().unwrap();
    assert!((1.9..=2.0).contains(&mips), "{mips}");
}

#[test]
fn a_guest_that_lies_about_its_clock_takes_no_more_than_there_was() {
    let mut watch = Stopwatch::new(Instant::now());
    let huge = Duration::from_nanos(u64::MAX);
    let later = [
        StageTime { stage: Stage::Userland, time: huge },
        StageTime { stage: Stage::Agent, time: huge },
    ];
    watch.ended_with(Stage::Kernel, &later);
    let timings = watch.finish(Counts::default());
    assert!(timings.stages.iter().map(|s| s.time).sum::<Duration>() <= timings.total);
}

#[test]
fn json_has_stable_keys() {
    let timings = Timings {
        stages: vec![StageTime { stage: Stage::Kernel, time: Duration::from_micros(1_500_250) }],
        total: 2 * SECOND,
        instructions: Some(150_025_000),
        exits: Vec::new(),
    };
    assert_eq!(
        serde_json::to_string(&timings).unwrap(),
        r#"{"stages":[{"stage":"kernel","ms":1500.25}],"total_ms":2000.0,"instructions":150025000,"mips":100.0}"#
    );
}

#[test]
fn without_instructions_there_is_no_speed() {
    let timings =
        Timings { stages: Vec::new(), total: SECOND, instructions: None, exits: Vec::new() };
    assert_eq!(timings.mips(), None);
    assert_eq!(
        serde_json::to_string(&timings).unwrap(),
        r#"{"stages":[],"total_ms":1000.0,"instructions":null,"mips":null}"#
    );
    let timings = Timings { instructions: Some(5), ..timings };
    assert_eq!(timings.mips(), None, "nothing ran");
}
