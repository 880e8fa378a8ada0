//! One process that runs cases: what goes wrong in it, on whatever thread, is seen.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::Target;
use crate::cases::Cases;

/// How long a case may take. The slowest honest ones decompress half a gigabyte.
pub(crate) const CASE_LIMIT: Duration = Duration::from_secs(20);
/// How much address space the process may have: what a guest cannot make it exceed.
const MEMORY_LIMIT: u64 = 8 << 30;
/// Exit status of a process that found a case that hangs.
pub(crate) const HANGS: i32 = 3;
/// Exit status of a process that found a case that panics.
pub(crate) const PANICS: i32 = 4;

/// Which cases a process runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    /// The first.
    pub(crate) first: u64,
    /// How far it is to the next.
    pub(crate) step: u64,
    /// The first that is not run any more.
    pub(crate) end: u64,
    /// When to stop even so.
    pub(crate) time: Duration,
}

/// The words of panics since they were last asked for.
#[derive(Default)]
struct Panics(Mutex<Vec<String>>);

impl Panics {
    /// Hears of every panic from now on, of any thread: devices have their own.
    fn listen() -> Arc<Self> {
        let panics = Arc::new(Self::default());
        let heard = Arc::clone(&panics);
        panic::set_hook(Box::new(move |info| {
            // At once: one that cannot unwind ends the process.
            eprintln!("{info}");
            heard.lock().push(info.to_string());
        }));
        panics
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock())
    }
}

/// Runs one case; what it says when it panics.
fn run_case(target: &Target, bytes: &[u8], panics: &Panics) -> Result<u64, String> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let words = panics.take();
    match outcome {
        Ok(depth) if words.is_empty() => Ok(depth),
        _ => Err(words.join("\n")),
    }
}

/// How far a process is, as it keeps it for whoever looks, or finds it dead.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// The number of the case that runs.
    pub(crate) number: u64,
    /// Cases that ran, and how deep all of them got.
    pub(crate) cases: u64,
    pub(crate) depth: u64,
}

impl Progress {
    pub(crate) fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (eight, word) in bytes.chunks_exact_mut(8).zip([self.number, self.cases, self.depth]) {
            eight.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn read(path: &Path) -> std::io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let mut words = bytes
            .chunks_exact(8)
            .map(|eight| eight.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight)));
        let mut next = || words.next().unwrap_or(0);
        Ok(Self { number: next(), cases: next(), depth: next() })
    }
}

/// Runs a share of cases. How far it is stands in the file `progress`. Does not return when a case
/// fails.
pub(crate) fn work(target: &'static Target, seed: u64, share: Share, progress: &Path) {
    let limit = Rlimit { current: Some(MEMORY_LIMIT), maximum: Some(MEMORY_LIMIT) };
    if setrlimit(Resource::As, limit).is_err() {
        eprintln!("the memory of the fuzzing process cannot be limited");
    }
    let file = File::options().write(true).open(progress).ok();
    let cases = Cases::new(target, seed);
    let panics = Panics::listen();
    let start = Instant::now();
    let began = watch();
    let mut so_far = Progress { number: share.first, ..Progress::default() };
    let tell = |so_far: Progress| {
        if let Some(file) = &file {
            // Losing it costs a hint and nothing else.
            let _ = file.write_all_at(&so_far.bytes(), 0);
        }
    };
    while so_far.number < share.end && start.elapsed() < share.time {
        tell(so_far);
        began.store(nanos(start) | 1, Ordering::Relaxed);
        let outcome = run_case(target, &cases.case(so_far.number), &panics);
        began.store(0, Ordering::Relaxed);
        match outcome {
            Ok(depth) => so_far.depth = so_far.depth.saturating_add(depth),
            Err(_) => process::exit(PANICS),
        }
        so_far.cases += 1;
        so_far.number = so_far.number.saturating_add(share.step);
    }
    tell(so_far);
}

/// Runs the one case in `bytes`, with what it says on the terminal.
pub(crate) fn replay(target: &Target, bytes: &[u8]) -> Result<(), String> {
    let start = Instant::now();
    let began = watch();
    began.store(nanos(start) | 1, Ordering::Relaxed);
    let panics = Panics::listen();
    run_case(target, bytes, &panics).map(drop)
}

/// Ends the process when a case takes too long. What is returned says when the case began, in a way
/// of the caller's that is another for each; 0 is between cases.
///
/// Time is what this thread sees of it: a process that the host stopped, or does not run, hangs by no
/// case's fault.
fn watch() -> Arc<AtomicU64> {
    const LOOK: Duration = Duration::from_millis(200);
    let began = Arc::new(AtomicU64::new(0));
    let watched = Arc::clone(&began);
    std::thread::spawn(move || {
        let (mut last, mut seen) = (0, Duration::ZERO);
        loop {
            std::thread::sleep(LOOK);
            let began = watched.load(Ordering::Relaxed);
            seen = if began == last { seen + LOOK } else { Duration::ZERO };
            last = began;
            if began != 0 && seen > CASE_LIMIT {
                eprintln!("a case takes longer than {} s", CASE_LIMIT.as_secs());
                process::exit(HANGS);
            }
        }
    });
    began
}

/// Nanoseconds since `start`.
fn nanos(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
