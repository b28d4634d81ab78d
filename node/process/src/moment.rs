//! Durations and moments as people write and read them.

use std::time::Duration;

use veil_protocol_spec::scheduling::UnixMillis;

/// A text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no duration: give a number and s, m, h or d, as in 90s, 10m, 2h or 1d")]
pub struct InvalidDuration(String);

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The seconds of a duration: a number and its unit.
///
/// # Errors
/// [`InvalidDuration`].
pub fn seconds(text: &str) -> Result<u64, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    let unit = text.chars().last().ok_or_else(invalid)?;
    let factor = match unit {
        's' => 1,
        'm' => MINUTE,
        'h' => HOUR,
        'd' => DAY,
        _ => return Err(invalid()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { number.parse::<u64>().ok() } else { None };
    number.and_then(|number| number.checked_mul(factor)).ok_or_else(invalid)
}

/// A moment of Unix time in UTC, by the second: `2026-11-27 18:00:00 UTC`.
#[must_use]
pub fn utc(at: UnixMillis) -> String {
    let seconds = at.0 / 1000;
    let (mut days, of_day) = (seconds / DAY, seconds % DAY);
    // Whoever writes u64::MAX means for ever.
    if days > 2_932_896 {
        return "for ever".to_owned();
    }
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    loop {
        let long = 365 + u64::from(is_leap(year));
        if days < long {
            break;
        }
        (days, year) = (days - long, year + 1);
    }
    let mut month = 1;
    for long in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < long {
            break;
        }
        (days, month) = (days - long, month + 1);
    }
    let (hour, minute, second) = (of_day / HOUR, of_day % HOUR / MINUTE, of_day % MINUTE);
    let day = days + 1;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Milliseconds of Unix time, of a text as container engines write it, such as `2026-11-27T19:13:18.849905699Z` or
/// `2026-11-27T20:13:18.8+01:00` (RFC 3339). None for the year 1, which they write for never.
#[must_use]
pub fn unix_millis(text: &str) -> Option<u64> {
    let (minutes, seconds) = read_rfc_3339(text)?;
    minutes.checked_mul(60_000)?.checked_add((seconds * 1000.0) as u64)
}

/// The same in nanoseconds.
#[must_use]
pub fn unix_nanos(text: &str) -> Option<u64> {
    let (minutes, seconds) = read_rfc_3339(text)?;
    minutes.checked_mul(60_000_000_000)?.checked_add((seconds * 1e9).round() as u64)
}

/// Whole minutes, and seconds beside them.
fn read_rfc_3339(text: &str) -> Option<(u64, f64)> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let mut next = || date.next()?.ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let zone = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone)?;
    let mut clock = clock.split(':');
    let hours: i64 = clock.next()?.parse().ok()?;
    let minutes: i64 = clock.next()?.parse().ok()?;
    let seconds: f64 = clock.next()?.parse().ok()?;
    let offset = match zone.strip_prefix(['+', '-']) {
        None => 0,
        Some(offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    // Days since 1970 in years that begin in March, so that the day that is added comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = 365 * year + leap + (153 * month + 2) / 5 + day - 1 - 719_468;
    let minutes = days * 1440 + hours * 60 + minutes - offset;
    Some((u64::try_from(minutes).ok()?, seconds))
}

/// How long a server asks to be left alone, if its words say so: as in
/// `Retry-After: 30`, in seconds, or `retry-after: 1m2.5s`, as Go programs write it.
#[must_use]
pub fn asked_to_wait(words: &str) -> Option<Duration> {
    let words = words.to_lowercase();
    let (_, after) = words.split_once("retry-after").or_else(|| words.split_once("retry after"))?;
    let mut rest = after.trim_start_matches([':', '=', ' ', '"']);
    let mut seconds = 0.0;
    let mut is_number = false;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at_checked(digits)?;
        let Ok(number) = number.trim_end_matches('.').parse::<f64>() else { break };
        is_number = true;
        let letters = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(letters)?;
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "ms" => 0.001,
            "us" | "\u{b5}s" | "ns" => 0.0,
            "s" => 1.0,
            _ => {
                seconds += number;
                break;
            }
        };
        seconds += number * factor;
        rest = behind;
    }
    is_number.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        let read = ["0s", "90s", "10m", "2h", "1d"].map(|text| seconds(text).unwrap());
        assert_eq!(read, [0, 90, 600, 7200, 86_400]);
        for wrong in ["", "s", "10", "-1s", "+1s", "1.5h", "10 m", "1w", "99999999999999999d", "ä"]
        {
            assert_eq!(seconds(wrong), Err(InvalidDuration(wrong.to_owned())), "{wrong}");
        }
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (1_795_802_400, "2026-11-27 18:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(UnixMillis(seconds * 1000 + 999)), text);
        }
        assert_eq!(utc(UnixMillis(u64::MAX)), "for ever");
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:01.5Z", Some(1_500)),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000)),
            ("2026-11-27T19:13:18.849905699Z", Some(1_795_806_798_849)),
            ("2026-11-27T20:13:18.849+01:00", Some(1_795_806_798_849)),
            ("2026-11-27T17:43:18.849-01:30", Some(1_795_806_798_849)),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
            ("yesterday", None),
        ] {
            assert_eq!(unix_millis(text), expected, "{text}");
        }
    }
}
