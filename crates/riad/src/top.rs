//! `riad top`: running machines, watched.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use riad_host::machines::Machines;

use crate::args::{Format, SortBy, TopArgs};
use crate::report::{Failure, columns, show_as};
use crate::signals::Signals;
use crate::stats::{HEAD, Usage, all, samples};
use crate::terminal;

/// The first interval, so that something is shown soon.
const FIRST: Duration = Duration::from_millis(300);
/// Ctrl-C, as a raw terminal types it.
const INTERRUPT: u8 = 3;

pub(crate) fn top(args: TopArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let TopArgs { sort, once, interval } = args;
    let machines = Machines::open()?;
    let _signals = Signals::watch()?;
    let is_watched = std::io::stdout().is_terminal() && terminal::is_interactive();
    if once || !is_watched || format.is_some_and(|format| format != Format::Table) {
        let before = samples(&all(&machines)?);
        thread::sleep(FIRST);
        let mut usages = Usage::between(&before, &samples(&all(&machines)?));
        order(&mut usages, sort);
        show_as(&usages, format, || {
            lines(&usages, all_count(&machines), sort, false).join("\n") + "\n"
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    watch(&machines, sort, interval)?;
    Ok(ExitCode::SUCCESS)
}

fn watch(machines: &Machines, mut sort: SortBy, interval: Duration) -> Result<(), Failure> {
    let raw = terminal::raw_if(true)?;
    let screen = terminal::Screen::begin();
    let mut before = samples(&all(machines)?);
    let mut usages = Usage::between(&[], &before);
    let mut next = Instant::now() + FIRST.min(interval);
    loop {
        order(&mut usages, sort);
        screen.show(&lines(&usages, all_count(machines), sort, true));
        let left = next.saturating_duration_since(Instant::now());
        match terminal::key_within(left)? {
            Some(b'q' | b'Q' | INTERRUPT) => break,
            Some(key) => sort = sorted_by(key).unwrap_or(sort),
            None if Instant::now() < next => {}
            None => {
                let now = samples(&all(machines)?);
                usages = Usage::between(&before, &now);
                before = now;
                next = Instant::now() + interval;
            }
        }
    }
    drop(screen);
    drop(raw);
    Ok(())
}

/// What a key sorts by.
fn sorted_by(key: u8) -> Option<SortBy> {
    match key.to_ascii_lowercase() {
        b'c' | b'p' => Some(SortBy::Cpu),
        b'm' => Some(SortBy::Memory),
        b'd' => Some(SortBy::Disk),
        b't' => Some(SortBy::Network),
        b'n' => Some(SortBy::Name),
        _ => None,
    }
}

fn order(usages: &mut [Usage], sort: SortBy) {
    usages.sort_by(|a, b| {
        let disk = |usage: &Usage| {
            let (read, written) = usage.disk_rate();
            read + written
        };
        let network = |usage: &Usage| {
            let (received, sent) = usage.network_rate();
            received + sent
        };
        let by_key = match sort {
            SortBy::Cpu => b.cpu.percent.total_cmp(&a.cpu.percent),
            SortBy::Memory => b.memory.resident_bytes.cmp(&a.memory.resident_bytes),
            SortBy::Disk => disk(b).total_cmp(&disk(a)),
            SortBy::Network => network(b).total_cmp(&network(a)),
            SortBy::Name => std::cmp::Ordering::Equal,
        };
        by_key.then_with(|| a.name.cmp(&b.name))
    });
}

/// How many machines there are, as far as it can be told.
fn all_count(machines: &Machines) -> usize {
    machines.names().map_or(0, |names| names.len())
}

fn lines(usages: &[Usage], count: usize, sort: SortBy, keys: bool) -> Vec<String> {
    let cpu: f64 = usages.iter().map(|usage| usage.cpu.percent).sum();
    let memory: u64 = usages.iter().map(|u| u.memory.resident_bytes).fold(0, u64::saturating_add);
    let by = match sort {
        SortBy::Cpu => "processor time",
        SortBy::Memory => "memory",
        SortBy::Disk => "disk",
        SortBy::Network => "network",
        SortBy::Name => "name",
    };
    let mut head = format!(
        "riad: {} of {count} machines run; {cpu:.1} % of a processor, {}; by {by}",
        usages.len(),
        riad_host::Size(memory)
    );
    if keys {
        head.push_str("; c m d t n sort, q leaves");
    }
    let cells = usages.iter().map(Usage::line);
    let table = columns(&[HEAD.map(str::to_owned)].into_iter().chain(cells).collect::<Vec<_>>());
    [head, String::new()].into_iter().chain(table.lines().map(str::to_owned)).collect()
}

#[cfg(test)]
#[path = "top_test.rs"]
mod tests;
