//! What the kernel's command line asks of the agent as `init`: the words that begin with `riad.`.

use std::time::Duration;

use super::network::NetworkOptions;

/// How long the root device may take to appear, on a processor of the usual speed.
const DEVICE_LIMIT: Duration = Duration::from_secs(30);

/// What becomes process 1 in the agent's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Init {
    /// `auto`: the image's own, if it has one.
    Own,
    /// This program.
    Program(String),
}

/// What the kernel's command line asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootOptions {
    /// `riad.root=`: the device that holds the root file system.
    pub(crate) root: String,
    /// `riad.rootfstype=`.
    pub(crate) root_type: String,
    /// `riad.rootflags=`: options of that file system.
    pub(crate) root_flags: String,
    /// `riad.ro`: mount it read-only.
    pub(crate) read_only: bool,
    /// `riad.init=`: the program that becomes process 1, while the agent goes on beside it.
    pub(crate) init: Option<Init>,
    /// `riad.hostname=`; the image's own `/etc/hostname` otherwise.
    pub(crate) hostname: Option<String>,
    /// `riad.address=`, `riad.gateway=`, `riad.dns=`, `riad.search=` and `riad.card=`.
    pub(crate) network: NetworkOptions,
    /// `riad.timescale=`: how many times slower than usual this processor may be.
    pub(crate) time_scale: u32,
}

impl BootOptions {
    /// Reads a command line. Words that are not for the agent, or that it does not know, are left
    /// to others; of a word that is there twice, the last counts.
    pub(crate) fn parse(command_line: &str) -> Self {
        let mut options = Self {
            root: "/dev/vda".to_owned(),
            root_type: "ext4".to_owned(),
            root_flags: String::new(),
            read_only: false,
            init: None,
            hostname: None,
            network: NetworkOptions::default(),
            time_scale: 1,
        };
        for word in words(command_line) {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (word.as_str(), String::new()),
            };
            match name {
                "riad.root" => options.root = value,
                "riad.rootfstype" => options.root_type = value,
                "riad.rootflags" => options.root_flags = value,
                "riad.ro" => options.read_only = true,
                "riad.init" => {
                    options.init = match value.as_str() {
                        "" => None,
                        "auto" => Some(Init::Own),
                        _ => Some(Init::Program(value)),
                    }
                }
                "riad.hostname" => options.hostname = Some(value).filter(|name| !name.is_empty()),
                "riad.timescale" => {
                    options.time_scale = value.parse().unwrap_or(1).clamp(1, 1000);
                }
                _ => options.network.read(name, &value),
            }
        }
        options
    }

    /// How long the root device may take to appear.
    pub(crate) fn device_limit(&self) -> Duration {
        DEVICE_LIMIT.saturating_mul(self.time_scale)
    }
}

/// The words of a command line; double quotes keep spaces together, as the kernel has it.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match (character, words.last_mut()) {
            ('"', _) => quoted = !quoted,
            (space, _) if space.is_whitespace() && !quoted => words.push(String::new()),
            (_, Some(word)) => word.push(character),
            (_, None) => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
#[path = "boot_options_test.rs"]
mod tests;
