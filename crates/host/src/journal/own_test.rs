use std::fs;

use super::{Flood, MOST, Own};
use crate::journal::{Event, OWN, aside};

fn lines(own: &Own) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(&own.path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const BURST: u32 = Flood::Starts.burst();

#[test]
fn a_guest_causes_so_many_entries_and_what_is_left_out_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let own = Own::open(dir.path(), "dev", "1");
    for reboots in 0..BURST + 50 {
        own.say(None, &Event::Restarted { reboots });
    }
    assert!(lines(&own).len() <= BURST as usize + 1, "nothing more than the burst");
    // The end of a machine is always written.
    own.say(None, &Event::Stopped { how: "forced".to_owned() });
    let lines = lines(&own);
    let [.., left_out, last] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&left_out["event"], &last["event"]), (&"left-out".into(), &"stopped".into()));
    assert!(left_out["count"].as_u64().unwrap() >= 49, "{left_out}");
}

#[test]
fn refusals_do_not_crowd_out_restarts_nor_are_they_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let own = Own::open(dir.path(), "dev", "1");
    let refused = Event::Refused {
        to: "192.0.2.1:25".to_owned(),
        protocol: "tcp".to_owned(),
        reason: "its rules say so".to_owned(),
    };
    assert!(!refused.lasts());
    for _ in 0..Flood::Network.burst() * 4 {
        own.say(None, &refused);
    }
    assert!(lines(&own).len() <= Flood::Network.burst() as usize + 1);
    own.say(None, &Event::Restarted { reboots: 1 });
    let lines = lines(&own);
    let [.., left_out, last] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&left_out["event"], &last["event"]), (&"left-out".into(), &"restarted".into()));
    assert_eq!(lines[0]["to"], "192.0.2.1:25");
    assert!(
        lines[0]["message"].as_str().unwrap().contains("not let through to 192.0.2.1:25 (tcp)")
    );
}

#[test]
fn the_files_are_bounded_and_what_was_torn_stays_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(OWN);
    fs::write(&path, "{\"schema\":1,\"at\":5").unwrap();
    let own = Own::open(dir.path(), "dev", "1");
    let reason = "r".repeat(500);
    let event = Event::Failed { stage: "kernel".to_owned(), reason };
    own.say(None, &event);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    for _ in 0..2000 {
        own.say(None, &event);
    }
    for path in [aside(&path), path] {
        assert!(fs::metadata(&path).unwrap().len() < MOST + 2000, "{}", path.display());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
