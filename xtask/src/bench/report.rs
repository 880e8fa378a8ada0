//! The lines of the yardstick: read from what a run says, gathered over rounds, and printed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Part of the yardstick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    /// The kernel's own start, from its first line to `/init`.
    Start,
    /// `kernels.c`.
    Kernels,
    /// `programs.sh`.
    Programs,
    /// A Debian's own init, from the command to the login prompt.
    Login,
    /// `disk.sh`.
    Disk,
    /// `network.sh`.
    Network,
}

/// The lines of `kernels.c`. The last is code that runs once.
const KERNELS: [&str; 21] = [
    "alu",
    "collatz",
    "sieve4M",
    "crc8M",
    "qsort300k",
    "fib30",
    "matmul192",
    "nbody40k",
    "sha20k",
    "interp10M",
    "sse2str",
    "memcpy256M",
    "repmovsb256M",
    "chase256K",
    "chase4M",
    "chase64M",
    "syscall300k",
    "pgfault128k",
    "pingpong20k",
    "fork500",
    FRESH,
];
const FRESH: &str = "fresh code";
/// The lines of `programs.sh`.
const PROGRAMS: [&str; 10] = [
    "gcc", "matmul", "syscalls", "forks", "python", "sha256", "gzip", "sevenzip", "sqlite", "shell",
];
/// The one line of the kernel's start.
const START: [&str; 1] = ["kernel to /init"];
/// The one line of a whole system's start.
const LOGIN: [&str; 1] = ["login prompt"];
/// The lines of `disk.sh`.
const DISK: [&str; 9] = [
    "seqwrite",
    "seqwrite-flush",
    "seqread",
    "randread4K",
    "randwrite4K",
    "randwrite4K-flush",
    "randread4K16",
    "randwrite4K16",
    "randwrite4K16-flush",
];
/// The lines of `network.sh`.
const NETWORK: [&str; 5] = ["send", "receive", "receive8", "roundtrips", "connections"];

impl Load {
    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Kernels => "kernels",
            Self::Programs => "programs",
            Self::Login => "login",
            Self::Disk => "disk",
            Self::Network => "network",
        }
    }

    fn lines(self) -> &'static [&'static str] {
        match self {
            Self::Start => &START,
            Self::Kernels => &KERNELS,
            Self::Programs => &PROGRAMS,
            Self::Login => &LOGIN,
            Self::Disk => &DISK,
            Self::Network => &NETWORK,
        }
    }
}

/// What one run gave.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Measured {
    /// Seconds for each line that was reached and went well.
    pub(super) seconds: BTreeMap<&'static str, f64>,
    /// Why lines are missing, or what is odd.
    pub(super) remarks: Vec<String>,
}

/// Reads the lines of one run.
pub(super) struct Reader {
    load: Load,
    measured: Measured,
    over: bool,
    began: Instant,
    /// The kernel's first line, once it came.
    first: Option<Instant>,
    /// The guest's uptime in seconds when it began, and the host's time then.
    uptime: Option<(f64, Instant)>,
    /// The last lines, for when it goes wrong.
    words: VecDeque<String>,
}

impl Reader {
    /// For a run that begins now.
    pub(super) fn new(load: Load) -> Self {
        Self {
            load,
            measured: Measured::default(),
            over: false,
            began: Instant::now(),
            first: None,
            uptime: None,
            words: VecDeque::new(),
        }
    }

    /// Whether the last line has come.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Takes a line that came `at` a time. Tells whether it was the last.
    pub(super) fn line(&mut self, line: &str, at: Instant) -> bool {
        if !line.is_empty() {
            self.words.push_back(line.to_owned());
            if self.words.len() > 4 {
                self.words.pop_front();
            }
        }
        match self.load {
            Load::Start => self.start_line(line, at),
            Load::Kernels => self.kernel_line(line),
            Load::Programs | Load::Disk | Load::Network => self.program_line(line, at),
            Load::Login => self.login_line(line, at),
        }
    }

    fn start_line(&mut self, line: &str, at: Instant) -> bool {
        if line.contains("Linux version") && self.first.is_none() {
            self.first = Some(at);
        }
        if let Some(first) = self.first
            && line.contains("YARDSTICK-INIT")
        {
            self.set(START[0], (at - first).as_secs_f64());
            self.over = true;
        }
        self.over
    }

    /// The prompt itself has no end of line; what getty(8) says before it has.
    fn login_line(&mut self, line: &str, at: Instant) -> bool {
        if line.starts_with("Debian GNU/Linux") && line.ends_with("ttyS0") {
            self.set(LOGIN[0], (at - self.began).as_secs_f64());
            self.over = true;
        }
        self.over
    }

    fn kernel_line(&mut self, line: &str) -> bool {
        // "fresh code: N insns, A ms / B ms => ..."
        if let Some(rest) = line.strip_prefix("fresh code:") {
            let first = rest.split(", ").nth(1).and_then(|rest| rest.split(' ').next());
            self.set_text(FRESH, first, 1e3);
        } else if let [name, milliseconds, "ms"] = words(line)[..] {
            self.set_text(name, Some(milliseconds), 1e3);
        }
        self.over |= line == "BENCH-END";
        self.over
    }

    fn program_line(&mut self, line: &str, at: Instant) -> bool {
        match words(line)[..] {
            ["BENCH-FAILED", name, ..] => {
                self.measured.remarks.push(line.to_owned());
                // The time follows, of something that did not happen.
                if let Some(known) = self.known(name) {
                    self.measured.seconds.insert(known, f64::NAN);
                }
            }
            ["BENCH", "uptime", seconds] => {
                self.uptime = seconds.parse().ok().map(|seconds| (seconds, at));
            }
            ["BENCH", "end", seconds] => {
                self.check_clock(seconds, at);
                self.over = true;
            }
            ["BENCH", name, seconds] if !self.measured.seconds.contains_key(name) => {
                self.set_text(name, Some(seconds), 1.0);
            }
            _ => {}
        }
        self.over
    }

    /// A guest whose clock is slow looks fast.
    fn check_clock(&mut self, seconds: &str, at: Instant) {
        let (Some((before, then)), Ok(seconds)) = (self.uptime, seconds.parse::<f64>()) else {
            return;
        };
        let (guest, host) = (seconds - before, (at - then).as_secs_f64());
        if (guest / host - 1.0).abs() > 0.03 {
            let remark = format!("its clock counted {guest:.1} s of the host's {host:.1} s");
            self.measured.remarks.push(remark);
        }
    }

    fn known(&self, name: &str) -> Option<&'static str> {
        self.load.lines().iter().copied().find(|known| *known == name)
    }

    /// Notes a number of which `per_second` make a second.
    fn set_text(&mut self, name: &str, number: Option<&str>, per_second: f64) {
        if let (Some(known), Some(Ok(number))) = (self.known(name), number.map(str::parse::<f64>)) {
            self.set(known, number / per_second);
        }
    }

    fn set(&mut self, name: &'static str, seconds: f64) {
        self.measured.seconds.insert(name, seconds);
    }

    /// What came of the run; `why` it is over, for when it should not be.
    pub(super) fn finish(mut self, why: &str) -> Measured {
        self.measured.seconds.retain(|_, seconds| !seconds.is_nan());
        if !self.over {
            let words: Vec<String> = self.words.into();
            self.measured.remarks.push(format!("{why}; its last words: {}", words.join(" | ")));
        }
        self.measured
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The numbers of all rounds: by load, line and engine.
#[derive(Debug, Default)]
pub(super) struct Report {
    seconds: BTreeMap<(Load, &'static str, &'static str), Vec<f64>>,
}

impl Report {
    /// Adds what a run gave.
    pub(super) fn add(&mut self, engine: &'static str, load: Load, measured: &Measured) {
        for (line, seconds) in &measured.seconds {
            self.seconds.entry((load, line, engine)).or_default().push(*seconds);
        }
    }

    /// The median of all rounds, seconds.
    pub(super) fn median(
        &self,
        load: Load,
        line: &'static str,
        engine: &'static str,
    ) -> Option<f64> {
        self.seconds.get(&(load, line, engine)).and_then(|all| median(all))
    }

    /// The table of a load. One of the engines `present` that has no number has failed; others were
    /// not asked.
    pub(super) fn table(&self, load: Load, present: &[&'static str]) -> String {
        let mut text = format!(
            "{:16}{:>12}{:>12}{:>12}{:>13}{:>12}\n",
            load.name(),
            "native",
            "tcg",
            "riad",
            "riad/native",
            "tcg/riad"
        );
        let (mut slower, mut better) = (Vec::new(), Vec::new());
        for line in load.lines() {
            let of = |engine| self.median(load, line, engine);
            let time = |engine: &'static str| match of(engine) {
                Some(seconds) if load == Load::Kernels => format!("{:.3} ms", seconds * 1e3),
                Some(seconds) => format!("{seconds:.3} s"),
                None if present.contains(&engine) => "failed".to_owned(),
                None => "-".to_owned(),
            };
            let ratio = |above, below| Some(of(above)? / of(below)?);
            let shown =
                |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"));
            let (slow, good) = (ratio("riad", "native"), ratio("tcg", "riad"));
            text.push_str(&format!(
                "{line:16}{:>12}{:>12}{:>12}{:>13}{:>12}\n",
                time("native"),
                time("tcg"),
                time("riad"),
                shown(slow),
                shown(good)
            ));
            slower.extend(slow);
            better.extend(good);
        }
        let count = load.lines().len();
        let of = |ratios: &[f64]| {
            let mean = geomean(ratios).map_or("-".to_owned(), |mean| format!("{mean:.2}x"));
            // A mean over fewer lines is another yardstick: it says so.
            let missing = !ratios.is_empty() && ratios.len() < count;
            if missing { format!("{mean} of {}", ratios.len()) } else { mean }
        };
        if count > 1 {
            text.push_str(&format!("{:52}{:>13}{:>12}\n", "geomean", of(&slower), of(&better)));
        }
        text
    }

    /// How many times slower than the host `engine` is, over all lines that both have.
    pub(super) fn slowdown(&self, load: Load, engine: &'static str) -> Option<f64> {
        let ratio =
            |line| Some(self.median(load, line, engine)? / self.median(load, line, "native")?);
        geomean(&load.lines().iter().filter_map(|line| ratio(line)).collect::<Vec<_>>())
    }
}

pub(super) fn median(all: &[f64]) -> Option<f64> {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    let upper = *all.get(middle)?;
    let is_odd = all.len() % 2 == 1;
    Some(if is_odd { upper } else { (all[middle - 1] + upper) / 2.0 })
}

fn geomean(ratios: &[f64]) -> Option<f64> {
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
