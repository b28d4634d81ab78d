//! What nobody had when it was asked for: how often it was, and when it is again.
//!
//! "Asked again [...] with growing pauses": anybody who may name something can make all others look for what does not
//! exist.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use veil_protocol_spec::Blake3Digest;

/// Between two attempts to get what no peer had; doubled each time.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// Up to 8.5 minutes.
const MAX_DOUBLINGS: u32 = 8;

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub struct Sought(BTreeMap<Blake3Digest, (u32, Instant)>);

impl Sought {
    /// Forgets what is not missing any more.
    pub fn keep(&mut self, missing: &[Blake3Digest]) {
        self.0.retain(|digest, _| missing.contains(digest));
    }

    /// Whether it is time to ask for it.
    #[must_use]
    pub fn is_due(&self, digest: &Blake3Digest, now: Instant) -> bool {
        self.0.get(digest).is_none_or(|(_, due)| *due <= now)
    }

    /// Nobody had it. Whether that was the first time.
    pub fn failed(&mut self, digest: Blake3Digest, now: Instant) -> bool {
        let (times, due) = self.0.entry(digest).or_insert((0, now));
        *due = now + RETRY_DELAY.saturating_mul(1 << (*times).min(MAX_DOUBLINGS));
        *times += 1;
        *times == 1
    }

    /// How long it is until one is due.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Duration> {
        self.0.values().map(|(_, due)| due.saturating_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding C13: every node asked every peer every two seconds, for ever, for a body that nobody has.
    #[test]
    fn what_nobody_has_is_asked_for_less_and_less_often() {
        let (mut sought, job, start) = (Sought::default(), Blake3Digest([1; 32]), Instant::now());
        let (mut now, mut asked) = (start, 0);
        while now < start + Duration::from_secs(3_600) {
            assert!(sought.is_due(&job, now));
            assert_eq!(sought.failed(job, now), asked == 0, "it is told once");
            asked += 1;
            let wait = sought.next(now).unwrap();
            assert!(!sought.is_due(&job, now + wait - Duration::from_millis(1)));
            now += wait;
        }
        assert!((9..=16).contains(&asked), "{asked} times in an hour");
        assert!(sought.is_due(&Blake3Digest([2; 32]), start), "another one is asked for at once");
        sought.keep(&[]);
        assert_eq!(sought.next(start), None);
        assert!(sought.is_due(&job, start), "submitted again");
    }
}
