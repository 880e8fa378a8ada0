//! The chores of the repository, one command each: `cargo xtask help` lists them.
//!
//! CI runs `cargo xtask test` and nothing else, so whatever it does can be done at any desk.

mod bench;
mod cargo;
mod chores;
mod test;
mod walls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What can go wrong with a chore; its message was made for people.
type Error = Box<dyn std::error::Error>;

const HELP: &str = "\
cargo xtask COMMAND

  test [--quick]                  everything CI needs, the fast checks first;
                                  --quick leaves out guests that run a whole distribution
  fmt [--check]                   rustfmt
  lint                            clippy, warnings are errors
  walls                           the walls of docs/architecture.md that a program can check
  doc                             the documentation, warnings are errors
  oracle [--cases N]              the processor in software against the host's own:
                                  N times the cases of an ordinary test run (default 50)
  fuzz [TARGET...] [OPTION...]    hostile input; without a target, all of them in turn
       --cases N | --seconds S    how much for each target (default: 60 seconds)
       --seed N, --jobs N         where to start, on how many threads
       --replay FILE              one case that failed
       --list                     the targets
  network                         real clients at full length: 1 GiB, 2,000 connections, ten machines
  faults [--rounds N]             machines that are killed under load, N times (default 200), on disks that
                                  are full, in folders that are read-only: what the long test is
  bench interp                    instructions a second of the interpreter
  bench cpu [OPTION...]           docs/benchmarks.md: the host, QEMU's TCG and riad in turn
       --only start|kernels|programs
       --rounds N                 medians of so many (default 3)
       --riad PROGRAM             (default: builds a release)
       --engine ENGINE            what runs riad's guest (default: soft)
       --qemu PROGRAM             (default: Debian's backports, unpacked into the target directory)
       --patience SECONDS         the longest that one run may take (default 3600)
       --skip-native, --skip-qemu, --skip-riad
  bench exits [OPTION...]         how often processors leave the guest, by kind, for a boot and for loads
       --riad PROGRAM, --engine ENGINE (default: auto), --image IMAGE (default: debian)
  bench machines [OPTION...]      docs/benchmarks.md: create, start, exec, ls, and disks, with their bars
       --rounds N, --riad PROGRAM, --qemu PROGRAM, --skip-qemu, --skip-disk
  bench network [OPTION...]       docs/benchmarks.md: riad's network, QEMU's own (slirp) and passt in turn
       --rounds N, --riad PROGRAM, --engine ENGINE (soft, or kvm for all), --qemu PROGRAM, --passt PROGRAM,
       --skip-qemu, --skip-passt
  deny                            licences and advisories of dependencies (needs cargo-deny)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Error> {
    match words {
        ["test"] => test::everything(false),
        ["test", "--quick"] => test::everything(true),
        ["fmt"] => chores::format(false),
        ["fmt", "--check"] => chores::format(true),
        ["lint"] => chores::lint(),
        ["walls"] => walls::check(&root()),
        ["doc"] => chores::doc(),
        ["oracle"] => chores::oracle(50),
        ["oracle", "--cases", cases] => chores::oracle(cases.parse()?),
        ["fuzz", rest @ ..] => chores::fuzz(rest),
        ["network"] => test::network(),
        ["faults"] => test::faults(200),
        ["faults", "--rounds", rounds] => test::faults(rounds.parse()?),
        ["bench", "interp"] => chores::bench_interpreter(),
        ["bench", "cpu", rest @ ..] => bench::cpu(rest),
        ["bench", "exits", rest @ ..] => bench::exits(rest),
        ["bench", "machines", rest @ ..] => bench::machines(rest),
        ["bench", "network", rest @ ..] => bench::network(rest),
        ["deny"] => chores::deny(),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("there is no such chore\n\n{HELP}").into()),
    }
}

/// The directory of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
