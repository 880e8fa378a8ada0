use std::time::{Duration, Instant};

use super::{Load, Measured, Reader, Report};

fn read(load: Load, lines: &[&str]) -> Measured {
    let start = Instant::now();
    let mut reader = Reader::new(load);
    for (second, line) in (0..).zip(lines) {
        reader.line(line, start + Duration::from_secs(second));
    }
    reader.finish("it ended")
}

#[test]
fn kernels_are_read() {
    let measured = read(
        Load::Kernels,
        &[
            "BENCH-START",
            "alu              44.125 ms",
            "chase4M          2.000 ms",
            "fresh code: 680000 insns, 4.500 ms / 1.000 ms => 6.6 ns per guest insn (1st), 1.5 (2nd)",
            "strange           1.000 ms",
            "BENCH-END",
        ],
    );
    let seconds: Vec<_> = measured.seconds.into_iter().collect();
    assert_eq!(seconds, [("alu", 0.044125), ("chase4M", 0.002), ("fresh code", 0.0045)]);
    assert!(measured.remarks.is_empty());
}

#[test]
fn a_login_prompt_is_known_by_what_stands_before_it() {
    let lines = ["Debian GNU/Linux 12 booting", "", "Debian GNU/Linux 12 debian ttyS0"];
    let measured = read(Load::Login, &lines);
    assert!(measured.seconds["login prompt"] > 1.9, "{measured:?}");
    assert!(read(Load::Login, &["Debian GNU/Linux 12"]).seconds.is_empty());
}

#[test]
fn programs_that_failed_have_no_time() {
    let measured = read(
        Load::Programs,
        &[
            "BENCH uptime 5.0",
            "BENCH-FAILED gcc exit 1",
            "BENCH gcc 0.010",
            "BENCH forks 2.5",
            "BENCH end 9.0",
        ],
    );
    assert_eq!(measured.seconds.into_iter().collect::<Vec<_>>(), [("forks", 2.5)]);
    assert_eq!(measured.remarks, ["BENCH-FAILED gcc exit 1"]);
}

#[test]
fn a_slow_clock_is_told() {
    let measured = read(Load::Programs, &["BENCH uptime 5.0", "BENCH end 5.5"]);
    assert_eq!(measured.remarks, ["its clock counted 0.5 s of the host's 1.0 s"]);
}

#[test]
fn the_kernels_start_is_from_its_first_line_to_init() {
    let lines = ["", "[    0.000000] Linux version 6.1.0", "[    0.1] more", "YARDSTICK-INIT"];
    assert_eq!(read(Load::Start, &lines).seconds.get("kernel to /init"), Some(&2.0));
}

#[test]
fn what_ended_early_says_its_last_words() {
    let measured = read(Load::Kernels, &["alu 1.0 ms", "Kernel panic"]);
    assert_eq!(measured.remarks, ["it ended; its last words: alu 1.0 ms | Kernel panic"]);
}

#[test]
fn every_line_is_in_the_table() {
    let mut report = Report::default();
    for (engine, milliseconds) in [("native", [1.0, 9.0, 2.0]), ("riad", [8.0, 8.0, 8.0])] {
        for milliseconds in milliseconds {
            let mut measured = Measured::default();
            measured.seconds.insert("alu", milliseconds / 1e3);
            report.add(engine, Load::Kernels, &measured);
        }
    }
    let table = report.table(Load::Kernels, &["native", "riad"]);
    let line = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("alu"), "alu 2.000 ms - 8.000 ms 4.00x -");
    assert_eq!(line("fork500"), "fork500 failed - failed - -");
    assert_eq!(line("geomean"), "geomean 4.00x of 1 -");
}
