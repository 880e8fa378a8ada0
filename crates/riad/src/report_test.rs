use std::time::Duration;

use riad_host::{Stage, StageTime, Timings};

use super::table;

#[test]
fn timings_say_what_is_known_and_no_more() {
    let second = Duration::from_secs(1);
    let mut timings = Timings {
        stages: vec![StageTime { stage: Stage::Kernel, time: second }],
        total: 2 * second,
        instructions: Some(30_000_000),
        exits: Vec::new(),
    };
    let stages = "stage       seconds\nkernel        1.000\ntotal         2.000\n";
    assert_eq!(
        table(&timings),
        format!("{stages}30.0 million instructions, 30.0 million a second\n")
    );
    timings.instructions = None;
    assert_eq!(table(&timings), stages);
    timings.exits = vec![("mmio-read", 0), ("eoi", 3), ("kick", 2)];
    assert_eq!(table(&timings), format!("{stages}exits: eoi 3, kick 2\n"));
    timings.instructions = Some(0);
    timings.stages.clear();
    timings.exits.clear();
    assert!(table(&timings).ends_with("2.000\n0.0 million instructions\n"));
}
