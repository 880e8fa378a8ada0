//! What the agent says on the kernel's log, and so on the console.

use std::fs::{File, OpenOptions};
use std::io::Write;

use rustix::fs::OFlags;

/// The kernel's log, or standard error where there is none.
#[derive(Debug)]
pub(crate) struct Journal {
    kmsg: Option<File>,
    /// The kernel shows messages on the console whose level is below this.
    console_level: u8,
}

/// How grave a message is, as `syslog(2)` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error = 3,
    Info = 6,
}

impl Journal {
    /// Opens `/dev/kmsg`; `/proc` and `/dev` should be mounted.
    pub(crate) fn open() -> Self {
        let kmsg = OpenOptions::new().write(true).open("/dev/kmsg").ok();
        let printk = std::fs::read_to_string("/proc/sys/kernel/printk").unwrap_or_default();
        let level = printk.split_whitespace().next().and_then(|level| level.parse().ok());
        Self { kmsg, console_level: level.unwrap_or(7) }
    }

    /// Writes one line, `riad-agent: text`. It reaches the console exactly once: through the kernel,
    /// or directly where the kernel's log level keeps it from there.
    pub(crate) fn say(&self, level: Level, text: &str) {
        let written = self.kmsg.as_ref().is_some_and(|mut kmsg| {
            // 8 is the facility "user". One write is one record.
            kmsg.write_all(format!("<{}>riad-agent: {text}\n", level as u8 | 8).as_bytes()).is_ok()
        });
        if !written || level as u8 >= self.console_level {
            console_line(&format!("riad-agent: {text}"));
        }
    }
}

/// Writes a line to the console itself, and waits until it is out.
pub(crate) fn console_line(line: &str) {
    let line = format!("{line}\r\n");
    let console = rustix::fs::open(
        "/dev/console",
        OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    match console {
        Ok(console) => {
            let mut console = File::from(console);
            let _ = console.write_all(line.as_bytes());
            let _ = rustix::termios::tcdrain(&console);
        }
        Err(_) => {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}
