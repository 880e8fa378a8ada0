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

/// Bash on this computer, if there is one; the prelude writes where no test may, so it is told to
/// write elsewhere.
#[test]
fn bash_says_at_which_line_a_script_ended() {
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("not run: there is no bash here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [prelude, script, line] = ["prelude", "script", "line"].map(|name| dir.path().join(name));
    std::fs::write(&prelude, PRELUDE.replace("/run/riad/.line", line.to_str().unwrap())).unwrap();
    for (text, expected, status) in [
        ("set -e\necho one\nif true; then\n  false\nfi\n", "4 false\n", 1),
        ("false\necho \"go on\"\n\nexit 4\n", "4 exit 4\n", 4),
        ("set -eu\nf() {\n  return 3\n}\n\nf\n", "3 return 3\n", 3),
        ("set -e\nx=$(cat /nonexistent)\n", "2 x=$(cat /nonexistent)\n", 1),
        ("echo fine\nfalse\ntrue\n", "", 0),
    ] {
        let _ = std::fs::remove_file(&line);
        std::fs::write(&script, text).unwrap();
        let output = Command::new("bash").arg(&script).env("BASH_ENV", &prelude).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{text}");
        assert_eq!(std::fs::read_to_string(&line).unwrap_or_default(), expected, "{text}");
    }
}
