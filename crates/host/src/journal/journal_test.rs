use std::fs;

use super::own::Own;
use super::time::text;
use super::*;
use crate::machines::Machines;

const DAY: u64 = 86_400_000;

fn said(reader: &mut Reader) -> Vec<String> {
    let entries = reader.read().unwrap();
    entries.iter().map(|entry| format!("{} {}", entry.machine, entry.event)).collect()
}

fn say(root: &Path, machine: &str, id: &str, event: &Event) {
    append(root, &Entry::new(machine, id, Some("riad test".to_owned()), event));
}

fn own(root: &Path, machine: &str, id: &str) -> Own {
    fs::create_dir_all(root.join(machine)).unwrap();
    Own::open(&root.join(machine), machine, id)
}

#[test]
fn times_are_what_the_calendar_says() {
    for (millis, expected) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (1_795_890_252_123, "2026-11-28T18:24:12.123Z"),
    ] {
        assert_eq!(text(millis), expected);
        assert_eq!(since(expected).unwrap(), millis / 1000 * 1000, "{expected}");
    }
    for day in (0..40_000).map(|day| day * DAY) {
        let shown = text(day);
        assert_eq!(since(shown.split('T').next().unwrap()).unwrap(), day, "{shown}");
    }
    let hour_ago = since("1h").unwrap();
    assert!((3_590_000..3_610_000).contains(&(super::time::now() - hour_ago)));
    for wrong in ["", "h", "yesterday", "5 minutes", "2026-13-01", "2026-11-28T25:00", "é", "-1s"]
    {
        assert!(since(wrong).unwrap_err().contains("10m"), "{wrong}");
    }
}

#[test]
fn an_entry_is_a_line_with_what_programs_and_people_read() {
    let event = Event::Failed { stage: "kernel".to_owned(), reason: "\u{1b}[2Jpanic".to_owned() };
    let entry = Entry::new("dev", "1", None, &event);
    let value = serde_json::to_value(&entry).unwrap();
    assert_eq!((&value["schema"], &value["event"]), (&1.into(), &"failed".into()));
    assert_eq!((&value["stage"], &value["reason"]), (&"kernel".into(), &"panic".into()));
    assert_eq!(value["message"], "failed in stage kernel: panic");
    assert_eq!(serde_json::from_value::<Entry>(value).unwrap(), entry);
    // What a later Riad writes is shown all the same.
    let line = r#"{"schema":1,"at":5,"time":"t","machine":"a","id":"1","event":"flew","message":"m","to":[1]}"#;
    assert_eq!(serde_json::from_str::<Entry>(line).unwrap().event, "flew");
}

/// Until a later time is written down: entries of several files are put in order by it.
fn tick() {
    let before = super::time::now();
    while super::time::now() == before {
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
}

#[test]
fn the_record_is_read_in_order_and_followed_wherever_its_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let (root, machines) = (dir.path(), Machines::in_directory(dir.path().to_owned()));
    let mut reader = Reader::new(machines.clone(), Wanted::default());
    assert_eq!(said(&mut reader), [""; 0], "there is none yet");
    say(root, "dev", "1", &Event::Created { image: "debian".to_owned() });
    tick();
    let dev = own(root, "dev", "1");
    dev.say(None, &Event::Starting { pid: 1, engine: "soft".to_owned() });
    assert_eq!(said(&mut reader), ["dev created", "dev starting"]);
    assert_eq!(said(&mut reader), [""; 0], "nothing is told twice");

    // A file that is put aside is read to its end, and the new one from its beginning.
    let path = root.join("dev").join(OWN);
    dev.say(None, &Event::Stage { stage: "kernel".to_owned() });
    fs::rename(&path, aside(&path)).unwrap();
    let dev = own(root, "dev", "1");
    dev.say(None, &Event::AgentReady { ms: 5 });
    assert_eq!(said(&mut reader), ["dev stage", "dev agent-ready"]);

    // So is that of a machine that is renamed, and one that is deleted.
    fs::rename(root.join("dev"), root.join("new")).unwrap();
    say(root, "new", "1", &Event::Renamed { from: "dev".to_owned() });
    assert_eq!(said(&mut reader), ["new renamed"]);
    own(root, "new", "1").say(None, &Event::Stopped { how: "forced".to_owned() });
    fs::remove_dir_all(root.join("new")).unwrap();
    tick();
    say(root, "new", "1", &Event::Deleted {});
    assert_eq!(said(&mut reader), ["new stopped", "new deleted"]);

    // Whoever comes later finds what is kept, by the name that the machine had.
    let wanted = Wanted { machine: Some("new".parse().unwrap()), since: 0 };
    assert_eq!(said(&mut Reader::new(machines.clone(), wanted)), ["new renamed", "new deleted"]);
    let wanted = Wanted { machine: None, since: super::time::now() + 1000 };
    assert_eq!(said(&mut Reader::new(machines, wanted)), [""; 0]);
}

#[test]
fn what_is_no_entry_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let long = "x".repeat(3 * MOST_ENTRY);
    fs::write(root.join(SHARED), format!("{long}\nnone\n{{}}\n\u{0}\n{{\"schema\":1,")).unwrap();
    say(root, "dev", "1", &Event::Deleted {});
    let machines = Machines::in_directory(root.to_owned());
    let mut reader = Reader::new(machines, Wanted::default());
    assert_eq!(said(&mut reader), ["dev deleted"]);
}

#[test]
fn commands_at_once_lose_nothing_and_the_files_stay_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    // Just before it is put aside.
    fs::write(root.join(SHARED), "\n".repeat((1 << 20) - 500)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for _ in 0..25 {
                    say(root, &format!("m{writer}"), "1", &Event::Deleted {});
                }
            });
        }
    });
    let machines = Machines::in_directory(root.to_owned());
    assert_eq!(said(&mut Reader::new(machines, Wanted::default())).len(), 100);
    assert!(fs::metadata(root.join(SHARED)).unwrap().len() < 100_000);
}
