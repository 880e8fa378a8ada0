//! Running riad on an image that all tests share.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// The image that all tests share.
pub(crate) const IMAGE: &str = "e2e";

/// Packages that tests need besides the usual ones.
pub(crate) const INCLUDE: &str =
    "gcc,libc6-dev,python3-minimal,curl,iperf3,bind9-dnsutils,openssh-server,rsync";

/// Whether to test at all.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os("RIAD_E2E").is_some_and(|value| value == "1")
}

/// Leaves a test that is not wanted.
macro_rules! end_to_end {
    () => {
        if !crate::harness::is_wanted() {
            eprintln!("not run: it takes minutes and a Debian mirror; RIAD_E2E=1 runs it");
            return;
        }
        crate::harness::image();
    };
}
pub(crate) use end_to_end;

/// The directory of images.
pub(crate) fn cache() -> PathBuf {
    match std::env::var_os("RIAD_E2E_CACHE") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("riad-e2e"),
    }
}

/// A riad that is yet to be given arguments. Tests run beside each other, so it is patient.
pub(crate) fn riad() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_riad"));
    command.env("RIAD_CACHE", cache()).env("RIAD_PATIENCE", "4").env_remove("RIAD_LOG");
    command
}

/// Builds the image, once. Two builds at once, on purpose: one of them builds, the other waits, and
/// both end with the same image.
pub(crate) fn image() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let build = || {
            let mut command = riad();
            command.args(["image", "build", "debian:bookworm"]);
            command.args(["--name", IMAGE, "--include", INCLUDE]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("riad runs")
        };
        for build in [build(), build()] {
            let output = build.wait_with_output().unwrap();
            let stderr = text(&output.stderr);
            assert!(output.status.success(), "building the image failed: {stderr}");
        }
        let listed = riad().args(["image", "ls", "--format", "json"]).output().unwrap();
        let images: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        let ids: Vec<_> = images
            .as_array()
            .unwrap()
            .iter()
            .filter(|image| image["names"].as_array().unwrap().contains(&IMAGE.into()))
            .map(|image| image["id"].as_str().unwrap().to_owned())
            .collect();
        let [id] = &ids[..] else { panic!("two builds made {ids:?}") };
        id.clone()
    })
}

/// `riad run` with these options and this command.
pub(crate) fn run_command(options: &[&str], command: &[&str]) -> Command {
    let mut riad = riad();
    riad.args(["run", "--memory", "512M"]);
    if !options.contains(&"--cpus") {
        riad.args(["--cpus", "1"]);
    }
    riad.args(options).arg(IMAGE).arg("--").args(command);
    riad.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    riad
}

/// Runs a command in a machine, to its end.
pub(crate) fn run(options: &[&str], command: &[&str]) -> Output {
    run_command(options, command).output().expect("riad runs")
}

/// Runs a shell script in a machine, and gives its output. It must end well, silently.
pub(crate) fn shell(options: &[&str], script: &str) -> String {
    let output = run(options, &["sh", "-c", script]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{script}");
    text(&output.stdout)
}

/// Runs a command in a machine with this input.
pub(crate) fn pipe(command: &[&str], input: Vec<u8>) -> Output {
    let mut child = run_command(&[], command).stdin(Stdio::piped()).spawn().expect("riad runs");
    let typist = feed(&mut child, input);
    let output = child.wait_with_output().unwrap();
    typist.join().unwrap();
    output
}

fn feed(child: &mut Child, input: Vec<u8>) -> std::thread::JoinHandle<()> {
    let mut stdin = child.stdin.take().unwrap();
    // The command may end before it has read everything.
    std::thread::spawn(move || drop(stdin.write_all(&input)))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
