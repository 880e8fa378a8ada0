//! A directory of machines for one test, whose machines are off and gone when it is over.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{IMAGE, cache, riad, text};

/// A directory of machines.
pub(crate) struct Home {
    machines: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl Home {
    pub(crate) fn new() -> Self {
        // Beside the images, so that machines share their blocks.
        let dir = tempfile::tempdir_in(cache()).unwrap();
        Self { machines: dir.path().join("machines"), _dir: Some(dir) }
    }

    /// One in a directory that somebody else removes.
    pub(crate) fn within(directory: &Path) -> Self {
        Self { machines: directory.join("machines"), _dir: None }
    }

    /// A machine's folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.machines.join(name)
    }

    /// A riad that has these machines.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = riad();
        command.env("RIAD_MACHINES", &self.machines).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("riad runs")
    }

    /// Runs a riad that must end well, and gives what it wrote.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (status, stderr) = (output.status.code(), text(&output.stderr));
        assert_eq!(status, Some(0), "riad {}: {stderr}", arguments.join(" "));
        text(&output.stdout)
    }

    /// Runs a riad that must fail, and gives what it said.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(125), "riad {}", arguments.join(" "));
        text(&output.stderr)
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let words: Vec<_> = arguments.iter().copied().chain(["--format", "json"]).collect();
        serde_json::from_str(&self.ok(&words)).unwrap()
    }

    /// Makes a machine from the image of all tests.
    pub(crate) fn create(&self, name: &str, options: &[&str]) {
        let fixed = ["create", name, "--image", IMAGE, "--cpus", "1", "--memory", "512M"];
        self.ok(&fixed.iter().chain(options).copied().collect::<Vec<_>>());
    }

    /// Runs a shell script in a machine, and gives its output.
    pub(crate) fn shell(&self, name: &str, script: &str) -> String {
        self.ok(&["exec", name, "--", "sh", "-c", script])
    }

    pub(crate) fn state(&self, name: &str) -> String {
        self.json(&["info", name])["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until something is so, which must come soon.
    pub(crate) fn soon(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what} did not come");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let names = self.run(&["ls", "-q"]);
        for name in text(&names.stdout).lines() {
            if std::thread::panicking() {
                let why = self.run(&["why", name]);
                eprintln!("{}{}", text(&why.stdout), text(&why.stderr));
            }
            self.run(&["stop", "--force", name]);
        }
    }
}
