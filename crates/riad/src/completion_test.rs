use clap::CommandFactory;

use super::{Names, candidates, words};
use crate::args::Cli;

fn after(line: &str) -> Vec<String> {
    let mut cli = Cli::command();
    cli.build();
    candidates(&cli, &words(line), &mut |names| match names {
        Names::Machines => ["dev", "db", "web"].map(str::to_owned).to_vec(),
        Names::Images => ["debian", "mine"].map(str::to_owned).to_vec(),
        Names::Disks => vec!["data".to_owned()],
        Names::Networks => vec!["lab".to_owned()],
    })
}

#[test]
fn words_are_those_of_a_shell() {
    for (line, expected) in [
        ("riad ", &["riad", ""][..]),
        ("riad sta", &["riad", "sta"]),
        ("riad  exec 'a b' \"c\"d \\ e", &["riad", "exec", "a b", "cd", " e"]),
        ("riad \"\" x", &["riad", "", "x"]),
    ] {
        assert_eq!(words(line), expected, "{line}");
    }
}

#[test]
fn verbs_names_and_values_are_completed() {
    for (line, expected) in [
        ("riad sto", &["stop"][..]),
        ("riad start ", &["db", "dev", "web"]),
        ("riad start d", &["db", "dev"]),
        ("riad start dev w", &["web"]),
        ("riad --verbose stop --timeout 5 w", &["web"]),
        ("riad cp d", &["db:", "dev:"]),
        ("riad create --image m", &["mine"]),
        ("riad create --image=m", &["--image=mine"]),
        ("riad create ", &[]),
        ("riad rename dev ", &[]),
        ("riad run d", &["debian"]),
        ("riad disk att", &["attach"]),
        ("riad disk attach d", &["data"]),
        ("riad disk attach data w", &["web"]),
        ("riad disk create d", &[]),
        ("riad net attach l", &["lab"]),
        ("riad net attach lab w", &["web"]),
        ("riad net create l", &[]),
        ("riad create --network l", &["lab"]),
        ("riad image rm m", &["mine"]),
        ("riad --format y", &["yaml"]),
        ("riad run --engine soft:", &["soft:interp"]),
        ("riad stop --fo", &["--force", "--format"]),
        ("riad exec dev -- st", &[]),
        ("riad exec dev --wor", &["--workdir"]),
        ("riad completion f", &["fish"]),
        ("riad net pol", &["policy"]),
        ("riad net policy d", &["db", "dev"]),
        ("riad net policy dev d", &["default", "deny"]),
        ("riad net policy dev rm ", &[]),
        ("riad net capture w", &["web"]),
        ("riad net fault dev --c", &["--clear", "--cut"]),
        ("riad create dev --net-d", &["--net-default"]),
        ("riad v", &[]),
        ("riad nosuch --x ", &[]),
    ] {
        assert_eq!(after(line), expected, "{line}");
    }
    let verbs = after("riad ");
    assert!(verbs.iter().any(|verb| verb == "create") && !verbs.iter().any(|verb| verb == "vm"));
}

/// Shells that are on this computer read what they are given.
#[test]
fn shells_take_their_lines() {
    use std::process::{Command, Stdio};
    for (shell, options, lines) in [
        ("bash", &["-n"][..], super::BASH),
        ("zsh", &["-f", "-n"], super::ZSH),
        ("fish", &["--no-config", "--no-execute"], super::FISH),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        let mut command = Command::new(shell);
        let output = command.args(options).arg(file.path()).stdin(Stdio::null()).output();
        match output {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success() && said.is_empty(), "{shell}: {said}");
            }
            Err(_) => eprintln!("not tried: there is no {shell} here"),
        }
    }
}
