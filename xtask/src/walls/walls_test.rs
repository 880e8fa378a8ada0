use std::collections::BTreeMap;

use super::{dependencies, floors, hosts, promises, source};

fn crates(list: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    list.iter().map(|(name, needs)| ((*name).to_owned(), owned(needs))).collect()
}

#[test]
fn a_floor_uses_only_those_below() {
    assert!(floors::check(&crates(&[("riad-cpu", &["riad-memory", "riad-clock"])])).is_empty());
    assert_eq!(floors::check(&crates(&[("riad-memory", &["riad-cpu"])])).len(), 1);
    assert_eq!(floors::check(&crates(&[("riad-disk", &["riad-memory"])])).len(), 1);
    assert_eq!(floors::check(&crates(&[("riad-cellar", &[])])).len(), 1);
}

#[test]
fn only_the_monitor_knows_engines() {
    assert!(floors::check(&crates(&[("riad-vmm", &["riad-cpu-soft"])])).is_empty());
    assert_eq!(floors::check(&crates(&[("riad-machine", &["riad-cpu-soft"])])).len(), 1);
}

#[test]
fn the_workspace_itself_stands() {
    let read = floors::read().expect("cargo metadata");
    assert!(read.contains_key("riad"));
    assert_eq!(floors::check(&read), []);
}

#[test]
fn libraries_neither_print_nor_read_the_clock() {
    let print = "fn f() { println!(\"x\"); }\n";
    assert_eq!(source::check("crates/disk/src/raw.rs", print).len(), 1);
    assert!(source::check("crates/riad/src/main.rs", print).is_empty());
    assert!(source::check("crates/disk/src/raw_test.rs", print).is_empty());
    assert!(source::check("crates/disk/src/raw_test/files.rs", print).is_empty());
    assert!(source::check("crates/disk/src/raw.rs", "// println!()\n").is_empty());
    let now = "let t = Instant::now();\n";
    assert_eq!(source::check("crates/devices/src/pit.rs", now).len(), 1);
    assert!(source::check("crates/host/src/run.rs", now).is_empty());
}

#[test]
fn the_hosts_architecture_stays_in_its_module() {
    let cfg = "#[cfg(target_arch = \"x86_64\")]\n";
    assert_eq!(source::check("crates/cpu-soft/src/run.rs", cfg).len(), 1);
    assert!(source::check("crates/cpu-soft/src/raw.rs", cfg).is_empty());
}

#[test]
fn threads_of_machines_come_through_one_door() {
    let spawn = "let thread = std::thread::spawn(f);\n";
    assert_eq!(source::check("crates/devices/src/pit.rs", spawn).len(), 1);
    assert_eq!(source::check("crates/host/src/process/server.rs", spawn).len(), 1);
    assert!(source::check("crates/host/src/copy/mod.rs", spawn).is_empty());
    assert!(source::check("crates/confine/src/thread.rs", spawn).is_empty());
}

#[test]
fn a_file_is_not_a_book() {
    assert!(source::check("crates/disk/src/raw.rs", &"\n".repeat(1000)).is_empty());
    assert_eq!(source::check("crates/disk/src/raw.rs", &"\n".repeat(1001)).len(), 1);
}

#[test]
fn only_known_hosts_are_named() {
    for fine in [
        "https://wiki.debian.org/DebianRepository/Format",
        "deb http://mirror.test/debian trixie main",
        "it must start with http:// or https://",
        "format!(\"http://{}\", address)",
        "http://u@example.org:8/x",
    ] {
        assert_eq!(hosts::check("a.rs", fine), [], "{fine}");
    }
    for wrong in [
        "http://10.0.0.7:3142/debian",
        "https://crates.corp.internal",
        "http://a-mirror.debian.org/",
    ] {
        assert_eq!(hosts::check("a.rs", wrong).len(), 1, "{wrong}");
    }
}

#[test]
fn dependencies_and_their_page_agree() {
    let used = ["serde", "tar"].map(str::to_owned).into();
    let page = "| crate | for |\n|---|---|\n| `serde`, `tar` | with `words` |\n";
    assert_eq!(dependencies::check(&used, page), []);
    assert_eq!(dependencies::check(&used, "| `serde` | x |\n").len(), 1);
    assert_eq!(dependencies::check(&used, &format!("{page}| `old` | x |\n")).len(), 1);
}

#[test]
fn promises_name_what_holds_them() {
    let read = |file: &str| (file == "a.rs").then(|| "#[test]\nfn holds() {}\n".to_owned());
    let page = |holder: &str| {
        format!("| promise | value | held by |\n|---|---|---|\n| x | 1 | {holder} |\n")
    };
    assert_eq!(promises::check(&page("`a.rs::holds`"), &read), []);
    assert_eq!(promises::check(&page("`a.rs`, by looking"), &read), []);
    for wrong in ["`a.rs::breaks`", "`b.rs::holds`", "trust"] {
        assert_eq!(promises::check(&page(wrong), &read).len(), 1, "{wrong}");
    }
}
