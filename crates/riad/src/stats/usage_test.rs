use riad_host::machines::State;
use riad_host::process::{DiskVitals, NetCounters, Vitals};
use riad_host::{FileSystem, Measures};

use super::{HEAD, Usage, duration};
use crate::stats::Sample;

const SECOND: u64 = 1_000_000_000;

fn sample(at: u64, cpu: u64, read: u64) -> Sample {
    let disk = DiskVitals { reads: read / 512, read_bytes: read, ..DiskVitals::default() };
    Sample {
        name: "dev".parse().unwrap(),
        state: State::Running,
        pid: 7,
        memory: 1 << 30,
        vitals: Vitals {
            at_ns: at,
            guest_uptime_ns: at,
            cpu_ns: cpu,
            vcpu_ns: vec![cpu / 2, 0],
            resident_bytes: 100 << 20,
            resident_most_bytes: 200 << 20,
            disks: vec![disk],
            network: Some(NetCounters { sent_bytes: 3 * read, ..NetCounters::default() }),
        },
        guest: None,
    }
}

#[test]
fn rates_are_those_of_the_interval() {
    let (before, now) = (sample(SECOND, SECOND, 0), sample(3 * SECOND, 4 * SECOND, 4096));
    let usage = &Usage::between(&[before], &[now])[0];
    assert_eq!((usage.interval_seconds, usage.cpu.percent, usage.cpu.seconds), (2.0, 150.0, 4.0));
    let percents: Vec<_> = usage.cpu.vcpus.iter().map(|vcpu| vcpu.percent).collect();
    assert_eq!(percents, [75.0, 0.0]);
    assert_eq!(usage.disk_rate(), (2048.0, 0.0));
    let line = usage.line();
    assert_eq!(line.len(), HEAD.len());
    assert_eq!(line[..4], ["dev", "150.0", "75 0", "100 MiB"]);
    assert_eq!(line[4..7], ["-", "2 KiB/s", "0 B/s"]);
    assert_eq!(line[7..], ["0 B/s", "6 KiB/s", "-", "-", "3s"]);
    assert_eq!(usage.network_rate(), (0.0, 6144.0));
    let text = serde_json::to_string(usage).unwrap();
    assert!(text.contains("\"sent_bytes\":12288"), "{text}");
}

#[test]
fn a_guest_that_restarted_or_is_new_has_no_negative_rates() {
    let (before, now) = (sample(SECOND, SECOND, 1 << 30), sample(3 * SECOND, SECOND, 512));
    let (befores, nows) = ([before], [now]);
    assert_eq!(Usage::between(&befores, &nows)[0].disk_rate(), (0.0, 0.0));
    // Another process: all that it did is new.
    let another = nows.map(|now| Sample { pid: 8, ..now });
    let usage = &Usage::between(&befores, &another)[0];
    assert_eq!((usage.interval_seconds, usage.cpu.percent), (3.0, 33.33));
}

#[test]
fn what_a_guest_says_overflows_nothing_and_drives_no_terminal() {
    let evil = FileSystem {
        mounted_on: "/\u{1b}[2Jevil".to_owned(),
        size: u64::MAX,
        used: u64::MAX,
        available: u64::MAX,
    };
    let measures = Measures {
        memory_total: 1,
        memory_available: u64::MAX,
        swap_total: 0,
        swap_free: u64::MAX,
        load: [u32::MAX; 3],
        file_systems: vec![evil],
        ..Measures::default()
    };
    let now = Sample { guest: Some(measures), ..sample(SECOND, 0, 0) };
    let usage = &Usage::between(&[], &[now])[0];
    let text = serde_json::to_string(usage).unwrap();
    assert!(!text.contains("u001b") && text.contains("\"memory_used_bytes\":0"), "{text}");
    assert!(usage.line().iter().all(|cell| !cell.chars().any(char::is_control)));
}

#[test]
fn times_are_said_as_people_do() {
    for (seconds, said) in
        [(0.4, "0s"), (59.0, "59s"), (187.0, "3m07s"), (18_120.0, "5h02m"), (1e6, "11d13h")]
    {
        assert_eq!(duration(seconds), said);
    }
}
