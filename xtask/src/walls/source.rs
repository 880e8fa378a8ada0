//! What may not be written where.

use super::Breach;

/// More lines than this are an error; more than half of it is a question.
const MOST_LINES: usize = 1000;

/// Something that only some files may hold.
struct Rule {
    /// Any of these in a line of code.
    words: &'static [&'static str],
    /// Whether it applies to a file.
    applies: fn(&str) -> bool,
    /// What is wrong.
    what: &'static str,
}

const RULES: [Rule; 5] = [
    Rule {
        words: &["target_arch"],
        applies: |file| !is_test(file) && !is_platform(file) && !file.ends_with("/build.rs"),
        what: "the host's architecture decides nothing outside of `sys` and `raw` modules (wall 1)",
    },
    Rule {
        words: &["println!", "print!(", "eprint!(", "process::exit", "process::abort"],
        applies: |file| is_library(file) && !is_test(file),
        what: "a library returns errors; it does not print or exit (wall 9)",
    },
    Rule {
        words: &["Instant::now", "SystemTime::now"],
        applies: |file| is_machine(file) && !is_test(file),
        what: "nothing in the machine reads the host's clock; take a riad_clock::Clock (wall 3)",
    },
    Rule {
        words: &["thread::spawn(", "thread::Builder"],
        applies: |file| runs_guests(file) && !is_test(file),
        what: "a machine's threads come from riad_confine::spawn, which confines them (wall 6)",
    },
    Rule {
        words: &["deny(unsafe_code)", "allow(unsafe_code"],
        applies: |_| true,
        what: "`unsafe` is opted into with #![expect(unsafe_code, reason = ...)], a module at a time",
    },
];

/// Checks one file.
pub(super) fn check(file: &str, text: &str) -> Vec<Breach> {
    // The rules themselves, and their tests, are full of what they forbid.
    if file.starts_with("xtask/") {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let rules = RULES.iter().filter(|rule| (rule.applies)(file));
        // `cfg(all(test, ...))` is a test too.
        let rules = rules.filter(|_| !code.contains("all(test,"));
        for rule in rules.filter(|rule| rule.words.iter().any(|word| code.contains(word))) {
            let place = format!("{file}:{}", number + 1);
            breaches.push(Breach { place, what: rule.what.to_owned() });
        }
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        let what = format!("{lines} lines are more than a reader takes in: one file a theme");
        breaches.push(Breach { place: file.to_owned(), what });
    }
    breaches
}

/// Tests, benches and examples.
fn is_test(file: &str) -> bool {
    file.ends_with("_test.rs")
        || ["_test/", "/tests/", "/benches/", "/examples/"].iter().any(|part| file.contains(part))
}

/// Where a crate keeps what depends on the host.
fn is_platform(file: &str) -> bool {
    ["/sys.rs", "/raw.rs", "/sys/", "/raw/"].iter().any(|part| file.contains(part))
}

/// Libraries: everything but the two programs.
fn is_library(file: &str) -> bool {
    let program = ["crates/riad/", "crates/agent/src/main.rs", "crates/agent/src/guest/"];
    file.starts_with("crates/")
        && !program.iter().any(|part| file.starts_with(part))
        && !file.ends_with("/build.rs")
}

/// What has threads that a guest may get hold of.
fn runs_guests(file: &str) -> bool {
    is_machine(file)
        || ["vmm", "disk", "network", "share", "host/src/process"]
            .iter()
            .any(|name| file.starts_with(&format!("crates/{name}/")))
}

/// What a guest's time must not leak into.
fn is_machine(file: &str) -> bool {
    ["cpu", "cpu-soft", "cpu-kvm", "devices", "machine", "memory"]
        .iter()
        .any(|name| file.starts_with(&format!("crates/{name}/")))
}
