//! Dates as release files write them: `Sat, 11 Jul 2026 10:16:37 UTC` (RFC 5322, always UTC).

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since the Unix epoch, or `None` for what is not such a date or before 1970.
#[must_use]
pub fn parse_date(text: &str) -> Option<u64> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = text.split_whitespace();
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(month))? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !matches!(words.next(), Some("UTC" | "GMT" | "+0000" | "Z")) {
        return None;
    }
    unix_seconds([year, month, day], [hour, minute, second])
}

/// Seconds since the Unix epoch at a date (year, month and day, from 1) and time (hours, minutes and
/// seconds) in UTC; `None` before 1970, from the year 10 000 on, and for what no clock shows.
#[must_use]
pub fn unix_seconds([year, month, day]: [u64; 3], time: [u64; 3]) -> Option<u64> {
    let [hour, minute, second] = time;
    let in_range = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let days = days_before(year, month)? + day - 1;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1 January 1970 to the first of a month.
fn days_before(year: u64, month: u64) -> Option<u64> {
    // Years are counted from March, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let since_year_0 = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5;
    // 1 March of year 0 is 719 468 days before 1 January 1970.
    since_year_0.checked_sub(719_468)
}
