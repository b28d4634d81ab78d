//! Durations and moments as people write and read them.

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
}
