//! When something that failed is tried again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// After the first failure.
const SHORTEST: Duration = Duration::from_secs(10);
/// However often it has failed. With the shortest and their doubling, a pull that always fails is tried at
/// most six times in five minutes.
const LONGEST: Duration = Duration::from_secs(300);
/// However long a registry asks to be left alone: what it says comes from outside.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(3600);

/// A failure, and the time before which it is not tried again.
#[derive(Debug)]
pub(crate) struct Pause {
    delays: ExponentialBackoff,
    until: Instant,
    failures: u32,
}

impl Pause {
    /// Has not failed yet.
    pub(crate) fn new(now: Instant) -> Self {
        let delays = ExponentialBuilder::default()
            .with_min_delay(SHORTEST)
            .with_max_delay(LONGEST)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter()
            .build();
        Self { delays, until: now, failures: 0 }
    }

    /// It failed (again); somebody may have `asked` for a longer pause.
    pub(crate) fn fail(&mut self, now: Instant, asked: Option<Duration>) {
        let delay = self.delays.next().unwrap_or(LONGEST);
        let asked = asked.unwrap_or_default().min(LONGEST_ASKED_FOR);
        self.until = now + delay.max(asked);
        self.failures += 1;
    }

    /// Time left, if there is.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        Some(self.until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// How often it failed in a row.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_a_bound_and_no_shorter_than_asked_for() {
        let mut pause = Pause::new(Instant::now());
        assert_eq!(pause.left(Instant::now()), None);
        let mut least = SHORTEST;
        for failures in 1..10 {
            pause.fail(Instant::now(), None);
            let left = pause.left(Instant::now()).unwrap();
            assert!(left >= least && left <= 2 * LONGEST, "{failures}: {left:?}");
            assert_eq!(pause.failures(), failures);
            tokio::time::advance(left).await;
            assert_eq!(pause.left(Instant::now()), None);
            least = LONGEST.min(least * 2);
        }
        let day = Duration::from_secs(86_400);
        for (asked, expected) in [(Duration::from_secs(1_000), 1_000), (day, 3_600)] {
            pause.fail(Instant::now(), Some(asked));
            assert_eq!(pause.left(Instant::now()), Some(Duration::from_secs(expected)));
        }
    }
}
