use super::*;

#[test]
fn a_jump_is_noticed_once_and_drift_is_none() {
    let seconds = Duration::from_secs;
    let mut jumps = Jumps::new(seconds(1_700_000_000), seconds(50));
    assert!(!jumps.look(seconds(1_700_000_010), seconds(60)));
    // Half a second in ten, by slewing or by looking late.
    assert!(!jumps.look(seconds(1_700_000_020) + Duration::from_millis(500), seconds(70)));
    // Forward by an hour, as after a sleep.
    assert!(jumps.look(seconds(1_700_003_630), seconds(80)));
    assert!(!jumps.look(seconds(1_700_003_640), seconds(90)));
    // Back by a year, and to before the epoch.
    assert!(jumps.look(seconds(1_670_000_000), seconds(100)));
    assert!(jumps.look(Duration::ZERO, seconds(110)));
    assert!(!jumps.look(seconds(10), seconds(120)));
    // A monotonic clock that is none does no harm.
    assert!(!jumps.look(seconds(10), seconds(0)));
}
