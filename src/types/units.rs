//! How people write and read quantities: durations, sizes, points in time.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest duration that is accepted: a year.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Seconds since 1970-01-01 UTC. In JSON it is RFC 3339 text, such as `2026-01-01T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The time since `earlier`; zero where the clock was set back in between.
    pub fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// So much later, in whole seconds.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_secs()))
    }

    /// So much earlier, in whole seconds; not before 1970.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time.as_secs()))
    }
}

impl From<SystemTime> for UnixTime {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        match Timestamp::from_second(seconds) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => Timestamp::MAX.fmt(f),
        }
    }
}

impl Serialize for UnixTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let timestamp: Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        u64::try_from(timestamp.as_second()).map(UnixTime).map_err(serde::de::Error::custom)
    }
}

/// Reads a duration such as `90s`, `1h` or `1h30m`: at least a second, at most a year.
///
/// # Errors
/// In words, without the name of what was read.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration such as \"90s\", \"30m\", \"1h\" or \"7d\"");
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        total = number.checked_mul(seconds).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    match Duration::from_secs(total) {
        _ if text.is_empty() => Err(wrong()),
        Duration::ZERO => Err(format!("\"{text}\" is no time at all: at least \"1s\"")),
        duration if duration > LONGEST => Err(format!("\"{text}\" is more than a year")),
        duration => Ok(duration),
    }
}

/// Reads a number of bytes such as `64GiB`, `500MB` or `1048576`, above zero.
///
/// # Errors
/// In words, without the name of what was read.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size such as \"64GiB\" or \"500MB\"");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit: u64 = match text[digits..].trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    match number.checked_mul(unit) {
        Some(0) => Err(format!("\"{text}\" is nothing: at least 1 byte")),
        Some(bytes) => Ok(bytes),
        None => Err(format!("\"{text}\" is more than 64 bits can count")),
    }
}

/// A duration in its two largest units: `42s`, `5m 3s`, `2h 10m`, `3d 4h`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |first: u64, unit: &str, second: u64, smaller: &str| match second {
        0 => format!("{first}{unit}"),
        _ => format!("{first}{unit} {second}{smaller}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => two(minutes, "m", seconds % 60, "s"),
        (0, _, _) => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// A number of bytes with three significant digits: `812 B`, `1.46 KiB`, `35.2 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[allow(clippy::cast_precision_loss)] // three digits are shown
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 would be printed as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A number with three significant digits, and the SI prefix of its unit: `812` and nothing, `1.46` and `k`.
pub fn si(value: f64) -> (String, &'static str) {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let (mut value, mut prefix) = (value, 0);
    // 999.5 would be printed as 1000.
    while value >= 999.5 && prefix + 1 < PREFIXES.len() {
        value /= 1000.0;
        prefix += 1;
    }
    let decimals = match value {
        _ if prefix == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    (format!("{value:.decimals$}"), PREFIXES[prefix])
}

/// `1 pair`, `2 pairs`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `a, b and 3 more`: the first `most` of them, and a count of the rest.
pub fn listed<T: fmt::Display>(all: impl IntoIterator<Item = T>, most: usize) -> String {
    let all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    match all.split_at_checked(most) {
        None | Some((_, [])) => all.join(", "),
        Some((first, rest)) => format!("{} and {} more", first.join(", "), rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in
            [("1s", 1), ("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("7d", 604_800)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "1", "h", "1x", "1.5h", "-1s", "0s", "0h0m", "367d", "99999999999999999999s", "1hö", "1h30"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("1", 1), ("64GiB", 64 << 30), ("5 MB", 5_000_000), ("1TiB", 1 << 40), ("7B", 7)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "1.5GiB", "-1", "0", "1 elephant", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_are_shown() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (303, "5m 3s"),
            (7800, "2h 10m"),
            (273_600, "3d 4h"),
            (86_400, "1d"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1500, "1.46 KiB"),
            (1024 * 1023, "1.00 MiB"),
            (37_795_807_232, "35.2 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn rates_have_prefixes() {
        for (value, number, prefix) in [
            (0.0, "0", ""),
            (0.6, "1", ""),
            (999.4, "999", ""),
            (999.5, "1.00", "k"),
            (12_345.0, "12.3", "k"),
            (999_499.0, "999", "k"),
            (999_500.0, "1.00", "M"),
            (2.5e10, "25.0", "G"),
            (1e22, "10000", "E"),
        ] {
            assert_eq!(si(value), (number.to_owned(), prefix), "{value}");
        }
    }

    #[test]
    fn many_are_counted() {
        assert_eq!(listed(["a"; 0], 2), "");
        assert_eq!(listed(["a", "b"], 2), "a, b");
        assert_eq!(listed(["a", "b"], 3), "a, b");
        assert_eq!(listed(1..=5, 2), "1, 2 and 3 more");
    }

    #[test]
    fn time_is_rfc_3339() {
        assert_eq!(UnixTime(1_767_225_600).to_string(), "2026-01-01T00:00:00Z");
        let json = serde_json::to_string(&UnixTime(1_767_225_600)).unwrap();
        assert_eq!(json, "\"2026-01-01T00:00:00Z\"");
        assert_eq!(serde_json::from_str::<UnixTime>(&json).unwrap(), UnixTime(1_767_225_600));
        assert!(serde_json::from_str::<UnixTime>("\"1960-01-01T00:00:00Z\"").is_err());
        assert!(!UnixTime(u64::MAX).to_string().is_empty());
        assert_eq!(UnixTime(5).since(UnixTime(9)), Duration::ZERO);
        let second = Duration::from_millis(1_999);
        assert_eq!((UnixTime(5).after(second), UnixTime(5).before(second)), (UnixTime(6), UnixTime(4)));
        assert_eq!(
            (UnixTime(u64::MAX).after(second), UnixTime(0).before(second)),
            (UnixTime(u64::MAX), UnixTime(0))
        );
    }
}
