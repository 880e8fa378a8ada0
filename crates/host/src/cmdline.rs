//! The kernel command line of machines with an agent.

use riad_image::Image;

use crate::machines::{Boot, MachineConfig, Name};

/// Words for every machine with an agent, and why each is there (Linux,
/// `Documentation/admin-guide/kernel-parameters.txt`).
const WORDS: &[(&str, &str)] = &[
    ("console=ttyS0", "the only console there is"),
    (
        "panic=-1",
        "a kernel that panics resets the machine at once, instead of waiting for a person",
    ),
    (
        "nokaslr",
        "addresses in a panic mean something, and nothing is gained in a throw-away machine",
    ),
    ("mitigations=off", "the guest runs what the user gave it: it has nothing to keep from itself"),
    ("randomize_kstack_offset=off", "the same, for every system call"),
    ("init_on_alloc=0", "pages are not cleared twice: a processor in software feels it"),
    ("tsc=reliable", "CPUID tells its frequency; measuring it again takes most of a second"),
    ("no_timer_check", "the timer interrupt works, and checking it busy-waits"),
    ("nowatchdog", "a host that stops the machine for a while is no lock-up of the guest"),
    ("cryptomgr.notests", "testing ciphers at every boot takes longer than the rest of the boot"),
    ("audit=0", "nobody reads the records"),
    ("random.trust_cpu=on", "RDRAND gives the host's own random numbers"),
    ("8250.nr_uarts=1", "ports that are not there are not looked for"),
    ("rw", "the root file system is an overlay, to be written to"),
];

/// What keeps a boot's messages off the console. The last lines of a console that panics are there
/// all the same.
const QUIET: &[&str] = &["quiet", "loglevel=3"];

/// The command line of a machine with an agent, whose root file system is on the device `root`. `time_scale` is how much slower than a processor of
/// today everything may be. What is in `append` comes last, and so counts.
pub(crate) fn agent_machine(
    time_scale: u32,
    quiet: bool,
    root: &str,
    append: Option<&str>,
) -> String {
    let mut words: Vec<&str> = WORDS.iter().map(|(word, _why)| *word).collect();
    if quiet {
        words.extend(QUIET);
    }
    let scale = format!("riad.timescale={time_scale}");
    let root = format!("riad.root={root}");
    words.extend([root.as_str(), &scale]);
    words.extend(append.map(str::trim).filter(|words| !words.is_empty()));
    words.join(" ")
}

/// The device that an image's root file system is on.
pub(crate) fn root_device(image: &Image) -> String {
    match image.meta().root_partition {
        None => "/dev/vda".to_owned(),
        Some(number) => format!("/dev/vda{number}"),
    }
}

/// Words that make a machine a named one: its name, an identity of its own, and its own init.
/// systemd would take name and identity from files of the image otherwise (kernel-command-line(7)).
/// `network` has those that set its network card up.
pub(crate) fn named_machine(name: &Name, config: &MachineConfig, network: &str) -> String {
    let id = &config.id;
    let mut words = format!("riad.hostname={name} systemd.hostname={name} systemd.machine_id={id}");
    match config.boot {
        Boot::Auto => words.push_str(" riad.init=auto"),
        Boot::Agent => {}
    }
    if !network.is_empty() {
        words.push(' ');
        words.push_str(network);
    }
    words
}

#[cfg(test)]
#[path = "cmdline_test.rs"]
mod tests;
