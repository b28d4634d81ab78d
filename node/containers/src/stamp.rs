//! The engine's times.

/// Milliseconds of Unix time, of a text such as `2026-11-27T19:13:18.849905699Z` or
/// `2026-11-27T20:13:18.8+01:00` (RFC 3339). None for the year 1, which engines write for never.
pub(crate) fn unix_millis(text: &str) -> Option<u64> {
    let (minutes, seconds) = read(text)?;
    minutes.checked_mul(60_000)?.checked_add((seconds * 1000.0) as u64)
}

/// The same in nanoseconds.
pub(crate) fn unix_nanos(text: &str) -> Option<u64> {
    let (minutes, seconds) = read(text)?;
    minutes.checked_mul(60_000_000_000)?.checked_add((seconds * 1e9).round() as u64)
}

/// Whole minutes, and seconds beside them.
fn read(text: &str) -> Option<(u64, f64)> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
