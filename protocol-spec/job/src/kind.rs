//! What kind of work a job is, and when a periodic one runs.

use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::text::texts;

/// What kind of work a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JobType {
    /// Runs until it is stopped.
    #[default]
    Service,
    /// Runs until it has ended with exit code 0, and never again after that.
    Batch {
        /// Runs of one replica, the first included, after which it has failed: 1 to 100.
        max_attempts: u16,
    },
    /// Is run as a batch of one attempt at certain times.
    Periodic {
        /// The times.
        cron: Cron,
        /// In which the times are meant.
        time_zone: TimeZone,
        /// What happens at a time at which the last run has not ended.
        overlap: Overlap,
    },
    /// Runs once on every worker that may run it.
    System,
}

impl JobType {
    /// Runs of one replica after which it has ended for good; `None` if it never does.
    #[must_use]
    pub const fn attempts(&self) -> Option<u16> {
        match self {
            Self::Batch { max_attempts } => Some(*max_attempts),
            Self::Periodic { .. } => Some(1),
            Self::Service | Self::System => None,
        }
    }

    /// Whether its replicas end by themselves.
    #[must_use]
    pub const fn ends(&self) -> bool {
        self.attempts().is_some()
    }
}

/// What happens when a periodic job's last run has not ended at the next one's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The next run is left out.
    #[default]
    Skip,
    /// Both run. No job may say so: [`unsupported`](crate::unsupported).
    Allow,
    /// The last run is stopped.
    Replace,
}

/// Why a text says no times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// There are not five fields.
    #[error(
        "five fields are expected, one space between them: minute, hour, day of the month, month, \
         day of the week, such as \"30 4 * * 1-5\""
    )]
    Fields,
    /// A field is none.
    #[error(
        "the {field} must be *, a number from {min} to {max}, a range such as {min}-{max}, any of these with \
         a step such as */5, or several with commas between them"
    )]
    Field {
        /// Which.
        field: &'static str,
        /// The smallest number.
        min: u8,
        /// The largest number.
        max: u8,
    },
}

/// Times, as cron writes them: minute, hour, day of the month, month, day of the week (0 is Sunday).
/// Names of months and days are not known. If both kinds of day are restricted, a day is meant that
/// is one of either.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron(String);

impl Cron {
    /// Longest text.
    pub const MAX_BYTES: usize = 256;

    const FIELDS: [(&str, RangeInclusive<u8>); 5] = [
        ("minute", 0..=59),
        ("hour", 0..=23),
        ("day of the month", 1..=31),
        ("month", 1..=12),
        ("day of the week", 0..=6),
    ];

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A number without a second spelling.
fn number(text: &str) -> Option<u8> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

fn is_item(item: &str, range: &RangeInclusive<u8>) -> bool {
    let (base, step) = item.split_once('/').map_or((item, None), |(base, step)| (base, Some(step)));
    let inside = |text: &str| number(text).filter(|n| range.contains(n));
    let is_range = match base.split_once('-') {
        Some((first, last)) => {
            matches!((inside(first), inside(last)), (Some(a), Some(b)) if a <= b)
        }
        // Every n-th of one number would be that number.
        None => base == "*" || step.is_none() && inside(base).is_some(),
    };
    is_range
        && step.is_none_or(|step| number(step).is_some_and(|n| (1..=*range.end()).contains(&n)))
}

impl TryFrom<String> for Cron {
    type Error = CronError;

    fn try_from(text: String) -> Result<Self, CronError> {
        let fields: Vec<_> = text.split(' ').collect();
        let whole = fields.len() == Self::FIELDS.len() && !fields.contains(&"");
        if !whole || text.len() > Self::MAX_BYTES {
            return Err(CronError::Fields);
        }
        for (text, (field, range)) in fields.iter().zip(&Self::FIELDS) {
            if !text.split(',').all(|item| is_item(item, range)) {
                return Err(CronError::Field { field, min: *range.start(), max: *range.end() });
            }
        }
        Ok(Self(text))
    }
}

/// A text names no time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time zone has a name of the IANA database, such as \"UTC\" or \"Europe/Berlin\"")]
pub struct InvalidTimeZone;

/// The name of a time zone, of the form that the IANA database has; whether it is in there is known only
/// where times are computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeZone(String);

impl TimeZone {
    /// Longest name.
    pub const MAX_BYTES: usize = 64;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TimeZone {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

impl TryFrom<String> for TimeZone {
    type Error = InvalidTimeZone;

    fn try_from(text: String) -> Result<Self, InvalidTimeZone> {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-+".contains(&b))
        };
        let valid = text.len() <= Self::MAX_BYTES && text.split('/').all(part);
        if valid { Ok(Self(text)) } else { Err(InvalidTimeZone) }
    }
}

texts! {
    Cron: CronError;
    TimeZone: InvalidTimeZone;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_cron_knows() {
        for text in
            ["* * * * *", "*/5 0-23/2 1,15 12 1-5", "0 4 * * 0", "59 23 31 12 6", "1-1/59 * * * *"]
        {
            assert_eq!(text.parse::<Cron>().map(|c| c.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn the_wrong_field_is_named() {
        for text in ["", "* * * *", "* * * * * *", "*  * * *", "@daily", " * * * * *"] {
            assert_eq!(text.parse::<Cron>(), Err(CronError::Fields), "{text:?}");
        }
        for (text, field) in [
            ("60 * * * *", "minute"),
            ("00 * * * *", "minute"),
            ("+1 * * * *", "minute"),
            ("5/2 * * * *", "minute"),
            ("*/0 * * * *", "minute"),
            ("*/60 * * * *", "minute"),
            ("1, * * * *", "minute"),
            ("5-1 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of the month"),
            ("* * * JAN *", "month"),
            ("* * * * 7", "day of the week"),
        ] {
            let refused = text.parse::<Cron>();
            assert!(
                matches!(refused, Err(CronError::Field { field: f, .. }) if f == field),
                "{text}"
            );
        }
    }

    #[test]
    fn time_zones_have_the_form_of_the_database() {
        for text in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+8"] {
            assert!(text.parse::<TimeZone>().is_ok(), "{text}");
        }
        for text in ["", "/", "Europe/", "+02:00", "a b", "../etc", &"a".repeat(65)] {
            assert_eq!(text.parse::<TimeZone>(), Err(InvalidTimeZone), "{text}");
        }
    }
}
