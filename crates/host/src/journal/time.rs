//! Times as people write and read them: RFC 3339 in UTC, and how long ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use riad_image::release::unix_seconds;

/// Milliseconds since the Unix epoch.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Days from 1 March of the year 0 to 1 January 1970, in the Gregorian calendar.
const EPOCH: u64 = 719_468;
/// Days in 400 years.
const ERA: u64 = 146_097;

/// A time as RFC 3339 has it.
pub(super) fn text(millis: u64) -> String {
    let (seconds, part) = (millis / 1000, millis % 1000);
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // A year that begins in March has its leap day at its end; so months follow one rule.
    let day = days + EPOCH;
    let (era, day) = (day / ERA, day % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * era + year + next;
    let (hours, minutes, seconds) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{date:02}T{hours:02}:{minutes:02}:{seconds:02}.{part:03}Z")
}

/// The time that a person means, in milliseconds since the Unix epoch: `90s`, `10m`, `2h`, `3d` ago;
/// or a date, or a date and time, in UTC (`2026-11-28`, `2026-11-28T18:24:12Z`).
///
/// # Errors
/// A sentence with what to write.
pub fn since(word: &str) -> Result<u64, String> {
    let ago = || {
        let (number, unit) = word.split_at_checked(word.len().checked_sub(1)?)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
        Some(now().saturating_sub(millis(Duration::from_secs(seconds))))
    };
    ago().or_else(|| date(word)).ok_or_else(|| {
        "write how long ago, such as 90s, 10m, 2h or 3d, or a time in UTC, such as 2026-11-28 or \
         2026-11-28T18:24:12Z"
            .to_owned()
    })
}

fn date(word: &str) -> Option<u64> {
    let (date, time) = match word.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time.trim_end_matches('Z'))),
        None => (word, None),
    };
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let time = match time {
        None => [0; 3],
        Some(time) => {
            let whole = time.split_once('.').map_or(time, |(whole, _)| whole);
            let mut parts = whole.splitn(3, ':').map(|part| part.parse::<u64>().ok());
            let (hours, minutes) = (parts.next()??, parts.next()??);
            [hours, minutes, parts.next().unwrap_or(Some(0))?]
        }
    };
    Some(unix_seconds([year, month, day], time)? * 1000)
}
