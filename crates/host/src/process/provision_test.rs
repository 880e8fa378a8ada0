use std::process::Command;

use super::*;

#[test]
fn a_failure_names_script_line_and_status() {
    let how = "with exit status 3";
    assert_eq!(
        failure("a.sh", how, "12 apt-get install foo", "oh"),
        "a.sh failed at line 12 (`apt-get install foo`) with exit status 3"
    );
    assert_eq!(failure("a.sh", how, "", "oh"), "a.sh failed with exit status 3; it said last: oh");
    // A guest may say anything.
    for line in ["0 x", "x", "-1 y", "99999999999999999999999 z"] {
        assert_eq!(failure("a.sh", how, line, ""), "a.sh failed with exit status 3");
    }
}

#[test]
fn what_a_script_says_is_kept_to_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let file = File::options().append(true).create(true).open(&path).unwrap();
    let mut log = Log { file, left: 100 };
    let said: String = (0..50).map(|number| format!("line {number}\n")).collect();
    assert_eq!(log.take(said.as_bytes()), "line 49");
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept.starts_with("line 0\n") && kept.ends_with("more than is kept\n"), "{kept}");
    assert!(kept.len() < 200, "{kept}");
}

/// The shells on this computer, if bash is among them. Scripts are put where no guest's would be.
#[test]
fn bash_says_at_which_line_a_script_ended() {
    use std::os::unix::fs::PermissionsExt;
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("not run: there is no bash here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let [prelude, run] = [PRELUDE, RUN].map(|text| text.replace("/run/riad", place));
    let (script, line) = (dir.path().join("script"), dir.path().join(".line"));
    let ran = |first: &str, text: &str| {
        let _ = std::fs::remove_file(&line);
        std::fs::write(&script, format!("{first}{text}")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", &run, "riad", "script", &prelude]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (std::fs::read_to_string(&line).unwrap_or_default(), output.status.code(), said)
    };
    for (text, expected, status) in [
        ("set -e\necho one\nif true; then\n  false\nfi\n", "5 false\n", 1),
        ("false\necho \"go on\"\n\nexit 4\n", "5 exit 4\n", 4),
        ("set -eu\nf() {\n  return 3\n}\n\nf\n", "4 return 3\n", 3),
        ("set -e\nx=$(cat /nonexistent)\n", "3 x=$(cat /nonexistent)\n", 1),
        ("echo fine\nfalse\ntrue\n", "", 0),
    ] {
        for first in ["#!/bin/bash\n", "#!/bin/sh\n", "#!/usr/bin/env sh\n", "# a comment\n"] {
            let (line, code, _) = ran(first, text);
            assert_eq!((line.as_str(), code), (expected, Some(status)), "{first}{text}");
        }
    }
    // Options of the first line count, and what is a shell's is as in Debian's sh.
    assert_eq!(ran("#!/bin/sh -e\n", "false\ntrue\n").0, "2 false\n");
    let (_, _, said) = ran("#!/bin/sh\n", "echo 'a\\tb'; echo \"$BASH_ENV$RIAD_POSIX\"\n");
    assert_eq!(said, "a\tb\n\n");
    let (_, _, said) = ran("#!/bin/bash\n", "echo 'a\\tb'\n");
    assert_eq!(said, "a\\tb\n");
}
