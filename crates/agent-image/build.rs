//! Builds `riad-agent` for every guest architecture, static, and writes `agents.rs` with its bytes.
//!
//! This runs cargo inside cargo: in a target directory of its own, since the outer one is locked,
//! and without the outer one's settings, since they are for another program.

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Guest architectures, by Linux's name, and the Rust target of the agent for each.
const GUESTS: [(&str, &str); 1] = [("x86_64", "x86_64-unknown-linux-gnu")];

/// Static, so that it needs nothing of the guest; at a fixed address, so that it starts without
/// relocating itself.
const FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    for source in ["crates/agent/src", "crates/agent/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut list = String::from("/// Architecture and program.\n");
    writeln!(list, "static AGENTS: [(&str, &[u8]); {}] = [", GUESTS.len())?;
    for (arch, target) in GUESTS {
        let given = format!("RIAD_AGENT_{}", arch.to_uppercase());
        println!("cargo::rerun-if-env-changed={given}");
        let program = match env::var_os(&given) {
            Some(path) => Path::new(&path)
                .canonicalize()
                .map_err(|error| format!("{given}={}: {error}", path.to_string_lossy()))?,
            None => build(arch, target, &workspace, &out)?,
        };
        println!("cargo::rerun-if-changed={}", program.display());
        writeln!(list, "    ({arch:?}, include_bytes!({:?})),", program.display().to_string())?;
    }
    list.push_str("];\n");
    fs::write(out.join("agents.rs"), list)?;
    Ok(())
}

/// Builds the agent for `target`. Gives the program's path, which only changes with its content.
fn build(arch: &str, target: &str, workspace: &Path, out: &Path) -> Result<PathBuf, String> {
    let target_dir = out.join("agent-target");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--locked", "--profile", "agent"])
        .args(["--package", "riad-agent", "--bin", "riad-agent", "--target", target])
        .arg("--target-dir")
        .arg(&target_dir);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_outer) {
            cargo.env_remove(&name);
        }
    }
    cargo.env("RUSTFLAGS", FLAGS);

    let output = cargo.output().map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "the guest agent for {arch} cannot be built ({target}):\n{words}\n{}",
            advice(arch, target, &words)
        ));
    }
    let built = target_dir.join(target).join("agent/riad-agent");
    let kept = out.join(format!("riad-agent-{arch}"));
    let failed = |error| format!("{} cannot be copied: {error}", built.display());
    let program = fs::read(&built).map_err(failed)?;
    if fs::read(&kept).ok().as_ref() != Some(&program) {
        fs::write(&kept, program).map_err(failed)?;
    }
    Ok(kept)
}

/// Whether a variable is the outer build's business. Where packages come from, and the shared job
/// server, stay as they are.
fn is_outer(name: &str) -> bool {
    let stays = ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR"]
        .iter()
        .chain(&["CARGO_SOURCE_", "CARGO_TERM_", "CARGO_TARGET_X86", "CARGO_TARGET_AARCH"])
        .any(|kept| name.starts_with(kept));
    let cargo = name.starts_with("CARGO") && !stays;
    // Flags of the outer program, and wrappers that would check instead of build (clippy).
    let flags = ["RUSTFLAGS", "RUSTDOCFLAGS", "RUSTC_WORKSPACE_WRAPPER"].contains(&name);
    cargo || flags || name.ends_with("_RUSTFLAGS")
}

/// What the person at the keyboard can do about a failed build.
fn advice(arch: &str, target: &str, words: &str) -> String {
    let given = format!("RIAD_AGENT_{}", arch.to_uppercase());
    let first = if ["-lc", "-lgcc_eh", "-lm", "libc.a"].iter().any(|lib| words.contains(lib)) {
        "The agent is linked statically and the static C library is missing: install it \
         (Debian, Ubuntu: libc6-dev; Fedora: glibc-static; Arch: part of glibc; Alpine: \
         build-base)."
            .to_owned()
    } else if words.contains("can't find crate for") || words.contains("may not be installed") {
        format!("The standard library for the agent is missing: rustup target add {target}.")
    } else {
        format!("The agent is a program for {target}; its compiler and linker must be there.")
    };
    format!("{first} Or build it elsewhere and set {given} to the path of the program.")
}
