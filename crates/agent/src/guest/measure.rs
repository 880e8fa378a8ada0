//! How much of this machine is in use: what its kernel says in `/proc` (proc(5)), and of the file
//! systems on its block devices (statvfs(3)). Those are local, so that asking never waits for a
//! network.

use std::fs;

use riad_agent::protocol::{FileSystem, MOST_FILE_SYSTEMS, Measures};

/// Measures. What the kernel does not tell is zero.
pub(crate) fn measure() -> Measures {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let (load, tasks) = loads(&read("/proc/loadavg"));
    let file_systems = mount_points(&read("/proc/self/mounts"))
        .into_iter()
        .filter_map(file_system)
        .take(MOST_FILE_SYSTEMS)
        .collect();
    Measures {
        uptime: super::boot_nanos(),
        memory_total: bytes(&memory, "MemTotal:"),
        memory_available: bytes(&memory, "MemAvailable:"),
        swap_total: bytes(&memory, "SwapTotal:"),
        swap_free: bytes(&memory, "SwapFree:"),
        load,
        tasks,
        file_systems,
    }
}

/// A field of meminfo, which counts KiB.
fn bytes(meminfo: &str, field: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Hundredths of the three averages, and how many tasks there are: `0.20 0.18 0.12 1/80 11206`.
fn loads(loadavg: &str) -> ([u32; 3], u32) {
    let mut words = loadavg.split_whitespace();
    let mut average = || {
        let (whole, part) = words.next()?.split_once('.')?;
        let (whole, part): (u32, u32) = (whole.parse().ok()?, part.parse().ok()?);
        Some(whole.saturating_mul(100).saturating_add(part))
    };
    let load = std::array::from_fn(|_| average().unwrap_or(0));
    let tasks = words.next().and_then(|word| word.split_once('/')?.1.parse().ok());
    (load, tasks.unwrap_or(0))
}

/// Where block devices are mounted, the root first, each device once.
fn mount_points(mounts: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let mut points = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(point)) = (words.next(), words.next()) else { continue };
        if device.starts_with("/dev/") && !seen.contains(&device) {
            seen.push(device);
            points.push(unescaped(point));
        }
    }
    points.sort_by_key(|point| point != "/");
    points
}

/// A path as it is, where the kernel writes spaces and backslashes in octal (fstab(5)).
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (code, character)| path.replace(code, character))
}

fn file_system(mounted_on: String) -> Option<FileSystem> {
    let is = rustix::fs::statvfs(&mounted_on).ok()?;
    let blocks = |count: u64| count.saturating_mul(is.f_frsize);
    Some(FileSystem {
        mounted_on,
        size: blocks(is.f_blocks),
        used: blocks(is.f_blocks.saturating_sub(is.f_bfree)),
        available: blocks(is.f_bavail),
    })
}

#[cfg(test)]
#[path = "measure_test.rs"]
mod tests;
